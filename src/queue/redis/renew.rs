//! The script by which an owner keeps its lease, and takes one that nobody has.

use std::sync::LazyLock;

use redis::{Script, Value};

use super::reply::{self, BadReply};
use super::take::lease_state;
use crate::queue::LeaseState;

/// KEYS: the lease. ARGV: our token, the lease in ms. Answers the state of the lease and the time in ms.
pub(super) const CODE: &str = r"
redis.replicate_commands()
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local owner = redis.call('GET', KEYS[1])
if owner == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {'held', now}
end
if owner then return {'lost', now} end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {'reclaimed', now}
";

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CODE));

pub(super) fn answer(value: Value) -> Result<(LeaseState, i64), BadReply> {
    let [state, now] = reply::array(value)?;
    Ok((lease_state(state)?, reply::number(now)?))
}
