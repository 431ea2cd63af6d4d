//! The script by which the newest owner takes the lease.

use std::sync::LazyLock;

use redis::Script;

use super::lua::CLOCK;

/// KEYS: the lease, its queue. ARGV: the value of our lease, its life in ms, the least life of the queue in ms.
/// Answers the time in ms.
const CODE: &str = r"
local time = redis.call('TIME')
-- DEL first: a script whose first write is SET is refused when Redis is out of memory.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
-- The queue outlives its owner's lease, as in the script that renews.
local life = redis.call('PTTL', KEYS[2])
if life >= 0 and life < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
return time[1] * 1000 + math.floor(time[2] / 1000)
";

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(&format!("{CLOCK}{CODE}")));
