//! The script that writes down the fate of a message that is in its queue no more, and the one that removes old letters.

use std::sync::LazyLock;

use redis::Script;

use super::lua::FUNCTIONS;
use crate::backend::redis::lua::CLOCK;

/// KEYS: the dead letters, and the receipt where one is wanted. ARGV: the settings; why it was discarded, or nothing; the
/// message.
///
/// Answers why the letter could not be kept, or "".
const CODE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local trouble, reason = '', ARGV[5]
if reason ~= '' then
  trouble = keep(KEYS[1], {letter(now, reason, ARGV[6])}, now, ARGV[1], ARGV[2], ARGV[3])
end
if KEYS[2] then
  local what = reason == '' and 'delivered %.0f' or 'discarded %.0f '
  tell(KEYS[2], string.format(what, now) .. reason, ARGV[4])
end
return trouble
";

/// KEYS: the dead letters. ARGV: their life in ms. Removes those whose time is over, and answers the time in µs.
const TRIM_CODE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
trim(KEYS[1], now, ARGV[1])
return now
";

pub(super) static TRIM: LazyLock<Script> = LazyLock::new(|| Script::new(&format!("{CLOCK}{FUNCTIONS}{TRIM_CODE}")));

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(&format!("{CLOCK}{FUNCTIONS}{CODE}")));
