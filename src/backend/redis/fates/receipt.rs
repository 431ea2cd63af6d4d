//! The script that reads a receipt, and whether there is still someone to settle it.

use std::sync::LazyLock;

use redis::{Script, Value};

use crate::backend::redis::lua::{CLOCK, LEASE_OWNER};
use crate::backend::redis::reply::{self, BadReply};
use crate::envelope::Timestamp;
use crate::fate::Receipt;

/// KEYS: the receipt, the lease, the queue. Answers the time in µs, the receipt or nothing, and 1 where someone owns the queue
/// and something is in it. Nobody waits for a dead owner longer than its lease gave: see [`LEASE_OWNER`].
const CODE: &str = r"
local time = redis.call('TIME')
pcall(lease_owner, KEYS[2])
local is_owned = redis.call('EXISTS', KEYS[2]) * redis.call('EXISTS', KEYS[3])
return {time[1] * 1000000 + time[2], redis.call('GET', KEYS[1]), is_owned}
";

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(&format!("{CLOCK}{LEASE_OWNER}{CODE}")));

pub(super) fn answer(value: Value) -> Result<(Receipt, Timestamp), BadReply> {
    let [now, told, is_owned] = reply::array(value)?;
    let (now, is_owned) = (Timestamp(reply::number(now)?), reply::number::<i64>(is_owned)? == 1);
    let receipt = match told {
        Value::Nil => None,
        told => Receipt::from_wire(&reply::bytes(told)?),
    };
    Ok((receipt.map_or(Receipt::Unknown, |receipt| receipt.at(now, is_owned)), now))
}
