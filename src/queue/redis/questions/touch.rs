//! The script by which an asker says that it lives, and by which it is told of its answer.

use std::sync::LazyLock;

use redis::Script;

/// KEYS: asker, response. ARGV: the id, the asker's life in ms. Answers how many answers lie there. That is read last: the
/// next change to it is then told of, on the connection that asked.
pub(in crate::queue::redis) const CODE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('LLEN', KEYS[2])
";

pub(in crate::queue::redis) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CODE));
