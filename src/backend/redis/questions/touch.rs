//! The script by which an asker says that it lives, and by which it is told of its answer.

use std::sync::LazyLock;

use redis::Script;

/// KEYS: asker, response, request. ARGV: the id, the asker's life in ms. Answers whether there is something to look at: how
/// many answers lie there, or 1 where the question under way is another one by now. The answers are read last: the next
/// change to them is then told of, on the connection that asked.
///
/// An asker that was away for longer than it is believed to live, as when Redis was, has its place back where nobody took it.
pub(in crate::backend::redis) const CODE: &str = r"
local request = redis.call('GET', KEYS[3])
if request then
  local ok, asked = pcall(cjson.decode, request)
  if not ok or type(asked) ~= 'table' or asked.request_id ~= ARGV[1] then return 1 end
end
local asker = redis.call('GET', KEYS[1])
if asker == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
elseif request and not asker then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return redis.call('LLEN', KEYS[2])
";

pub(in crate::backend::redis) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CODE));
