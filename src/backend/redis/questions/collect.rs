//! The script by which a worker gets its answer, and ends its question with it.

use std::sync::LazyLock;

use redis::{Script, Value};

use crate::backend::redis::reply::{self, BadReply};
use crate::question::Answer;

/// KEYS: request, response, status, asker. ARGV: the id, and `wait` or `take`. Answers the answer, or nothing; or 1 where the
/// question under way is another one by now. FastMCP's answers do not say to which question they are.
///
/// Or 2: FastMCP gives an answer, and only then says `responded`. Taken in between, the next question of the task would have
/// that said of it, and its own answer would be refused. With `take` it is taken all the same.
const CODE: &str = r"
local request = redis.call('GET', KEYS[1])
if request then
  local ok, asked = pcall(cjson.decode, request)
  if not ok or type(asked) ~= 'table' or asked.request_id ~= ARGV[1] then return 1 end
end
while true do
  local answer = redis.call('LINDEX', KEYS[2], -1)
  if not answer then return false end
  local ok, read = pcall(cjson.decode, answer)
  if ok and type(read) == 'table' and (not read.request_id or read.request_id == ARGV[1]) then
    if not read.request_id and ARGV[2] == 'wait' and redis.call('GET', KEYS[3]) == 'waiting' then return 2 end
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
    return answer
  end
  redis.call('RPOP', KEYS[2])
end
";

pub(in crate::backend::redis) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CODE));

/// What the script answers where FastMCP is still giving an answer.
pub(in crate::backend::redis) const BEING_GIVEN: Value = Value::Int(2);

/// The answer to the question with this id, if there is one.
pub(in crate::backend::redis) fn answer(value: Value, request_id: &str) -> Result<Option<Answer>, BadReply> {
    match value {
        Value::Nil => Ok(None),
        Value::Int(_) => Ok(Some(Answer::cancelled("another question of the same task took its place"))),
        other => Ok(Answer::from_wire(&reply::bytes(other)?, request_id)),
    }
}
