//! The script that puts a question under way.

use std::sync::LazyLock;

use redis::Script;

use crate::backend::redis::lua::CLOCK;

/// KEYS: request, response, status, asker. ARGV: the id, the request, its life in ms, the asker's in ms.
///
/// Answers the time in µs, or 0 where another question is under way and its asker lives. One whose asker has died, or
/// FastMCP's, is cleared: a task asks one question at a time, so an earlier one is over.
const CODE: &str = r"
local asker = redis.call('GET', KEYS[4])
if asker and asker ~= ARGV[1] and redis.call('EXISTS', KEYS[1]) == 1 then
  -- Longer than any asker gives it: Redis's clock was set back, and a dead asker would keep the task for that long.
  if redis.call('PTTL', KEYS[4]) > tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[4], ARGV[4]) end
  return 0
end
local time = redis.call('TIME')
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('SET', KEYS[3], 'waiting', 'PX', ARGV[3])
redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[4])
return time[1] * 1000000 + time[2]
";

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(&format!("{CLOCK}{CODE}")));
