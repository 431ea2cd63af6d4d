//! The script by which the newest owner takes the lease.

use std::sync::LazyLock;

use redis::Script;

/// KEYS: the lease. ARGV: our token, the lease in ms. Answers the time in ms.
const CODE: &str = r"
redis.replicate_commands()
local time = redis.call('TIME')
-- DEL first: a script whose first write is SET is refused when Redis is out of memory.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return time[1] * 1000 + math.floor(time[2] / 1000)
";

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CODE));
