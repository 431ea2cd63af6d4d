//! The script that remembers what a session began with, unless it has ended.

use std::sync::LazyLock;

use redis::Script;

/// KEYS: the session. ARGV: what it began with, for how many ms. Answers 1 where it is remembered.
const CODE: &str = r"
if redis.call('GET', KEYS[1]) == '' then return 0 end
-- The first write is SET, so the script is refused when Redis is out of memory: clients choose how much is stored here.
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
";

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CODE));
