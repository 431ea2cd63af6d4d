//! The script that ends a question without an answer, if it is still the one under way.

use std::sync::LazyLock;

use redis::Script;

/// KEYS: request, response, status, asker. ARGV: the id.
const CODE: &str = r"
local request = redis.call('GET', KEYS[1])
if not request then return 0 end
local ok, asked = pcall(cjson.decode, request)
if not ok or asked.request_id ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
";

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CODE));
