//! The script that writes a failed attempt in the place of the oldest message, guarded like every script that touches
//! the tail.

use std::sync::LazyLock;

use redis::{Script, Value};

use super::lua::CLOCK;
use super::reply::{self, BadReply};
use crate::backend::Replaced;

/// KEYS: the queue, its lease. ARGV: the value of our lease; the length and the last bytes of the oldest; the message to put there;
/// the life in ms that the queue gets where it has none.
const CODE: &str = r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 'not ours' end
local oldest = redis.call('LINDEX', KEYS[1], -1)
if not oldest or #oldest ~= tonumber(ARGV[2]) or string.sub(oldest, -256) ~= ARGV[3] then return 'changed' end
-- PEXPIRE first: a script whose first write is LSET is refused when Redis is out of memory.
local life = redis.call('PTTL', KEYS[1])
redis.call('PEXPIRE', KEYS[1], life > 0 and life or ARGV[5])
redis.call('LSET', KEYS[1], -1, ARGV[4])
return 'done'
";

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(&format!("{CLOCK}{CODE}")));

pub(super) fn answer(value: Value) -> Result<Replaced, BadReply> {
    Ok(match reply::bytes(value)?.as_slice() {
        b"done" => Replaced::Done,
        b"changed" => Replaced::Changed,
        _ => Replaced::NotOurs,
    })
}
