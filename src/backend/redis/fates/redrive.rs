//! The script that queues a dead letter anew and removes it: the one that pushes, guarded by content.

use std::sync::LazyLock;

use redis::{Script, Value};

use crate::backend::redis::push;
use crate::backend::redis::reply::{self, BadReply};
use crate::backend::{QueueLimit, Redrove};
use crate::config::Config;

/// KEYS: as the script that pushes, with the dead letters in place of the lease. ARGV: as that one, and how many letters are older, the length and
/// the last bytes of this one.
///
/// Answers as that one, or -1 where it is not this letter that stands there.
const BEFORE: &str = r"
local last_key, last_argument, owned, lease_life = #KEYS - 1, #ARGV - 3, 0, -2
local dead, place = KEYS[#KEYS], -1 - ARGV[#ARGV - 2]
local letter = redis.call('LINDEX', dead, place)
if not letter or #letter ~= tonumber(ARGV[#ARGV - 1]) or string.sub(letter, -256) ~= ARGV[#ARGV] then
  return {-1, 0, '', owned}
end
";

/// A letter begins with a brace, so none is taken for the one that is marked to go.
const AFTER: &str = r"
if count == 1 then
  redis.call('LSET', dead, place, 'gone')
  redis.call('LREM', dead, -1, 'gone')
end
";

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(&push::code(BEFORE, AFTER)));

pub(super) fn answer(config: &Config, value: Value) -> Result<Redrove, BadReply> {
    let [count, _, stopped, _] = reply::array(value)?;
    Ok(match (reply::number::<i64>(count)?, push::limit(config, stopped)?) {
        (1, _) => Redrove::Done,
        (0, stopped) => Redrove::Full(stopped.unwrap_or(QueueLimit::Messages(config.queue_max_messages()))),
        _ => Redrove::Changed,
    })
}
