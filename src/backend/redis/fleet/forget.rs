//! The script that ends a session for all, and tells them.

use std::sync::LazyLock;

use redis::Script;

/// KEYS: the session. ARGV: for how many ms it is known that it has ended, the channel, the news, whether the caller knows
/// the session. Answers 0 where nobody knows the session, and 1 where it has ended.
const CODE: &str = r"
-- Anybody may ask to end a session that never was: that must leave no key behind.
if ARGV[4] == '0' and redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
-- DEL first: a script whose first write is SET is refused when Redis is out of memory, and an end must be stored even then.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1
";

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CODE));
