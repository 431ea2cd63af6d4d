//! The script that queues notifications of one session: bounds, times and expiry in one atomic step.

use std::sync::LazyLock;

use redis::{Script, Value};

use super::fates::lua::FUNCTIONS;
use super::lua::{CLOCK, LEASE_OWNER};
use super::reply::{self, BadReply};
use crate::backend::QueueLimit;
use crate::config::Config;
use crate::envelope::Draft;

/// KEYS: the queue, the receipts that are wanted, and the lease. ARGV: most messages, most bytes, most bytes of a message, grace in ms,
/// what stands between the two times, the life of a receipt in ms; for each receipt the number of its message; then for each
/// message what stands before and after, and its time to live in µs.
///
/// Answers how many were queued, how long the queue is, the bound that stopped the rest, or "", and whether there is a lease.
const CODE: &str = r"
local function rfc3339(micros)
  local seconds = math.floor(micros / 1000000)
  local days = math.floor(seconds / 86400)
  -- The civil calendar from a count of days, in eras of 400 years that begin in March.
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  local rest = seconds - days * 86400
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06d+00:00', year, month, day,
    math.floor(rest / 3600), math.floor(rest / 60) % 60, rest % 60, micros % 1000000)
end

local queue, most_messages, most_bytes = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local grace, between = tonumber(ARGV[4]), ARGV[5]
local first = 6 + last_key
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local length = redis.call('LLEN', queue)
local life = redis.call('PTTL', queue)
local count, longest, stopped = 0, 0, ''

local receipts = {}
for i = 2, last_key do receipts[tonumber(ARGV[5 + i])] = KEYS[i] end

-- Counting bytes walks the list, so it is done only where the bound can be near.
local bytes
if (length + (last_argument - first + 1) / 3) * tonumber(ARGV[3]) > most_bytes then
  bytes = redis.call('MEMORY', 'USAGE', queue, 'SAMPLES', 0) or 0
end

for i = first, last_argument, 3 do
  local live = tonumber(ARGV[i + 2])
  local message = ARGV[i] .. rfc3339(now) .. between .. rfc3339(now + live) .. ARGV[i + 1]
  if length >= most_messages then stopped = 'messages' break end
  if bytes then
    bytes = bytes + #message
    if bytes > most_bytes then stopped = 'bytes' break end
  end
  length = redis.call('LPUSH', queue, message)
  count = count + 1
  longest = math.max(longest, math.ceil(live / 1000) + grace)
  if receipts[count] then
    tell(receipts[count], string.format('queued %.0f', now + live), math.ceil(live / 1000) + grace + ARGV[6])
  end
end

-- The queue outlives the lease of its owner, who discards and counts what expires. And never shorter than it is: a short-lived
-- message must not cut a long-lived one.
longest = math.max(longest, lease_life + grace)
if count > 0 and life < longest then redis.call('PEXPIRE', queue, longest) end
";

/// The script, with what another does before and after it. Which keys and arguments are this one's is said before.
pub(super) fn code(before: &str, after: &str) -> String {
    format!("{CLOCK}{LEASE_OWNER}{FUNCTIONS}{before}{CODE}{after}\nreturn {{count, length, stopped, owned}}")
}

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(&code(BEFORE, "")));

const BEFORE: &str = r"
local last_key, last_argument = #KEYS - 1, #ARGV
-- Another type under the lease is no concern of a push.
pcall(lease_owner, KEYS[#KEYS])
local lease_life = redis.call('PTTL', KEYS[#KEYS])
local owned = lease_life == -2 and 0 or 1
";

/// What the script answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) queued: usize,
    pub(super) length: usize,
    pub(super) stopped: Option<QueueLimit>,
    pub(super) owned: bool,
}

/// The arguments after the keys.
pub(super) fn arguments<'a>(config: &Config, drafts: impl Iterator<Item = &'a Draft> + Clone) -> Vec<String> {
    let mut arguments = vec![
        config.queue_max_messages().to_string(),
        config.queue_max_bytes().to_string(),
        config.message_max_bytes().to_string(),
        config.expiry_grace().as_millis().to_string(),
        Draft::BETWEEN.to_owned(),
        config.receipt_life().as_millis().to_string(),
    ];
    let wanted = drafts.clone().zip(1..).filter(|(draft, _)| draft.receipt.is_some());
    arguments.extend(wanted.map(|(_, number): (_, usize)| number.to_string()));
    for draft in drafts {
        arguments.push(draft.head.clone());
        arguments.push(draft.tail.clone());
        arguments.push(draft.time_to_live.as_micros().to_string());
    }
    arguments
}

pub(super) fn answer(config: &Config, value: Value) -> Result<Answer, BadReply> {
    let [queued, length, stopped, owned] = reply::array(value)?;
    Ok(Answer {
        queued: reply::number(queued)?,
        length: reply::number(length)?,
        stopped: limit(config, stopped)?,
        owned: reply::number::<i64>(owned)? != 0,
    })
}

/// The bound that stopped it, if one did.
pub(super) fn limit(config: &Config, stopped: Value) -> Result<Option<QueueLimit>, BadReply> {
    Ok(match reply::bytes(stopped)?.as_slice() {
        b"messages" => Some(QueueLimit::Messages(config.queue_max_messages())),
        b"bytes" => Some(QueueLimit::Bytes(config.queue_max_bytes())),
        _ => None,
    })
}
