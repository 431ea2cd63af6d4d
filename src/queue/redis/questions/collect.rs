//! The script by which a worker gets its answer, and ends its question with it.

use std::sync::LazyLock;

use redis::{Script, Value};

use crate::question::Answer;
use crate::queue::redis::reply::{self, BadReply};

/// KEYS: request, response, status, asker. ARGV: the id. Answers the answer, or nothing; or 1 where the question under way is
/// another one by now. FastMCP's answers do not say to which question they are.
const CODE: &str = r"
local request = redis.call('GET', KEYS[1])
if request then
  local ok, asked = pcall(cjson.decode, request)
  if not ok or asked.request_id ~= ARGV[1] then return 1 end
end
while true do
  local answer = redis.call('RPOP', KEYS[2])
  if not answer then return false end
  local ok, read = pcall(cjson.decode, answer)
  if ok and type(read) == 'table' and (not read.request_id or read.request_id == ARGV[1]) then
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
    return answer
  end
end
";

pub(in crate::queue::redis) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CODE));

/// The answer to the question with this id, if there is one.
pub(in crate::queue::redis) fn answer(value: Value, request_id: &str) -> Result<Option<Answer>, BadReply> {
    match value {
        Value::Nil => Ok(None),
        Value::Int(_) => Ok(Some(Answer::cancelled("another question of the same task took its place"))),
        other => Ok(Answer::from_wire(&reply::bytes(other)?, request_id)),
    }
}
