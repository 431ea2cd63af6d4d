//! The script that gives up a lease, if it is still ours.

use std::sync::LazyLock;

use redis::Script;

/// KEYS: the lease. ARGV: the value of our lease. Answers 1 where it was ours.
const CODE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CODE));
