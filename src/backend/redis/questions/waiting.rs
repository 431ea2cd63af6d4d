//! The script that says whether a worker waits for the answer to this very question.

use std::sync::LazyLock;

use redis::Script;

/// KEYS: request, status. ARGV: the id.
const CODE: &str = r"
if redis.call('GET', KEYS[2]) ~= 'waiting' then return 0 end
local request = redis.call('GET', KEYS[1])
if not request then return 0 end
local ok, asked = pcall(cjson.decode, request)
return ok and asked.request_id == ARGV[1] and 1 or 0
";

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CODE));
