//! The script that ends a session for all, and tells them.

use std::sync::LazyLock;

use redis::Script;

/// KEYS: the session. ARGV: for how many ms it is known that it has ended, the channel, the news.
const CODE: &str = r"
-- DEL first: a script whose first write is SET is refused when Redis is out of memory.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1
";

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CODE));
