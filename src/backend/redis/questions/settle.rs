//! The script that gives an answer: the first one, to this very question, while its worker waits.

use std::sync::LazyLock;

use redis::{Script, Value};

use crate::backend::Settled;
use crate::backend::redis::lua::CLOCK;
use crate::backend::redis::reply::{self, BadReply};

/// KEYS: request, response, status. ARGV: the id, the answer, the life in ms of an answer whose question has none.
const CODE: &str = r"
if redis.call('GET', KEYS[3]) ~= 'waiting' then return 'not waiting' end
local request = redis.call('GET', KEYS[1])
if not request then return 'not waiting' end
local ok, asked = pcall(cjson.decode, request)
if not ok or asked.request_id ~= ARGV[1] then return 'other question' end
local life = redis.call('PTTL', KEYS[3])
if life <= 0 then life = ARGV[3] end
redis.call('DEL', KEYS[2])
redis.call('LPUSH', KEYS[2], ARGV[2])
redis.call('PEXPIRE', KEYS[2], life)
redis.call('SET', KEYS[3], 'responded', 'PX', life)
return 'done'
";

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(&format!("{CLOCK}{CODE}")));

pub(super) fn answer(value: Value) -> Result<Settled, BadReply> {
    Ok(match reply::bytes(value)?.as_slice() {
        b"done" => Settled::Done,
        b"other question" => Settled::OtherQuestion,
        _ => Settled::NotWaiting,
    })
}
