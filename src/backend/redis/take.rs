//! The script that acknowledges and fetches: one round trip, guarded by the lease and by what stands at the tail.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Script, Value};

use super::fates::lua::{FUNCTIONS, reason, settings};
use super::lua::{CLOCK, lease_value};
use super::reply::{self, BadReply};
use crate::backend::{Delivered, LeaseState, LineLimit, OwnerToken};
use crate::config::Config;
use crate::envelope::Timestamp;

/// KEYS: the queue, its lease, its open questions, its dead letters, the receipts that are to be settled. ARGV: the value of our lease; how
/// many were delivered, the length and the last bytes of the last of them; most messages, most bytes; whether to take an absent
/// lease, and for how many ms; the life in ms that the queue needs at least, and the one that it gets where it has none; the
/// life in ms of the open questions, how many arguments they take, and for each that was delivered its id and itself. Where
/// there are fates to be written down, the [`settings`] of that, and for each its place from 1 for the oldest, why it was
/// discarded or nothing, and 1 where a receipt is to be settled.
///
/// Answers the state of the lease, whether the tail had changed, the time in µs, the messages, oldest first, and why letters
/// could not be kept, or "".
const BODY: &str = r"
local queue, lease = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local owner = redis.call('GET', lease)
local state = 'held'

-- What was delivered is told of in any case: it was. A discarded message is only settled where it is removed.
local fates, trouble = 12 + ARGV[12], ''
local function settle_receipts(removed)
  local next_receipt = 5
  for i = fates + 5, #ARGV, 3 do
    if ARGV[i + 2] == '1' then
      if ARGV[i + 1] == '' then
        tell(KEYS[next_receipt], string.format('delivered %.0f', now), ARGV[fates + 4])
      elseif removed then
        tell(KEYS[next_receipt], string.format('discarded %.0f ', now) .. ARGV[i + 1], ARGV[fates + 4])
      end
      next_receipt = next_receipt + 1
    end
  end
end
if owner and owner ~= ARGV[1] then
  settle_receipts(false)
  return {'lost', 0, now, {}, ''}
end
if not owner then
  if ARGV[7] ~= '1' then return {'absent', 0, now, {}, ''} end
  -- DEL first: a script whose first write is SET is refused when Redis is out of memory.
  redis.call('DEL', lease)
  redis.call('SET', lease, ARGV[1], 'PX', ARGV[8])
  state = 'reclaimed'
end

-- Read before anything is removed: where another type lies there, nothing is done at all.
if fates > 12 then redis.call('HLEN', KEYS[3]) end

local delivered, changed = tonumber(ARGV[2]), 0
if delivered > 0 then
  local last = redis.call('LINDEX', queue, -delivered)
  if last and #last == tonumber(ARGV[3]) and string.sub(last, -256) == ARGV[4] then
    local letters = {}
    for i = fates + 5, #ARGV, 3 do
      if ARGV[i + 1] ~= '' and ARGV[fates + 1] ~= '0' then
        letters[#letters + 1] = letter(now, ARGV[i + 1], redis.call('LINDEX', queue, -ARGV[i]))
      end
    end
    redis.call('LTRIM', queue, 0, -delivered - 1)
    trouble = keep(KEYS[4], letters, now, ARGV[fates + 1], ARGV[fates + 2], ARGV[fates + 3])
  else
    changed = 1
  end
  settle_receipts(changed == 0)
end
if fates > 12 then
  redis.call('HSET', KEYS[3], unpack(ARGV, 13, fates))
  if redis.call('PTTL', KEYS[3]) < tonumber(ARGV[11]) then redis.call('PEXPIRE', KEYS[3], ARGV[11]) end
end

-- FastMCP sets 300 s whatever else waits, and its retry can leave none at all.
local life = redis.call('PTTL', queue)
if life == -1 then
  redis.call('PEXPIRE', queue, math.max(tonumber(ARGV[9]), tonumber(ARGV[10])))
elseif life >= 0 and life < tonumber(ARGV[9]) then
  redis.call('PEXPIRE', queue, ARGV[9])
end

-- In pieces, so that large messages beyond the bound are not read: a hundred of 1 MiB would block Redis for 0.7 s.
local most, most_bytes, piece = tonumber(ARGV[5]), tonumber(ARGV[6]), 10
local items, bytes = {}, 0
while #items < most do
  local got = redis.call('LRANGE', queue, -#items - math.min(piece, most - #items), -#items - 1)
  for i = #got, 1, -1 do
    bytes = bytes + #got[i]
    if bytes > most_bytes and #items > 0 then return {state, changed, now, items, trouble} end
    items[#items + 1] = got[i]
  end
  if #got < piece then break end
end
return {state, changed, now, items, trouble}
";

pub(super) static CODE: LazyLock<String> = LazyLock::new(|| format!("{CLOCK}{FUNCTIONS}{BODY}"));

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(&CODE));

/// Who asks, and what of.
pub(super) struct Question<'a> {
    pub(super) owner: OwnerToken,
    pub(super) delivered: Option<&'a Delivered>,
    /// Whether an absent lease is taken. Not by what follows a wait: it may run after its owner has gone.
    pub(super) reclaim: bool,
    pub(super) limit: LineLimit,
    /// How long the queue must live at least, for what was seen in it.
    pub(super) life: Duration,
    /// How long the open questions must.
    pub(super) questions_life: Duration,
}

pub(super) fn arguments(config: &Config, question: &Question<'_>) -> Vec<Vec<u8>> {
    let Question { owner, delivered, reclaim, limit, life, questions_life } = question;
    let text = |n: u128| n.to_string().into_bytes();
    let (count, length, last) = match delivered {
        Some(d) => (d.count, d.last.length, d.last.last.clone()),
        None => (0, 0, Vec::new()),
    };
    let mut arguments = vec![
        lease_value(*owner, config).into_bytes(),
        text(count as u128),
        text(length as u128),
        last,
        text(limit.messages() as u128),
        text(limit.bytes() as u128),
        text(u128::from(*reclaim)),
        text(config.lease().as_millis()),
        text(life.as_millis()),
        text((config.time_to_live() + config.expiry_grace()).as_millis()),
        text(questions_life.as_millis()),
        text(2 * delivered.map_or(0, |delivered| delivered.questions.len()) as u128),
    ];
    let Some(delivered) = delivered else { return arguments };
    for question in &delivered.questions {
        arguments.push(question.request_id.clone().into_bytes());
        arguments.push(question.to_open().into_bytes());
    }
    if !delivered.fates.is_empty() {
        arguments.extend(settings(config));
    }
    for fate in &delivered.fates {
        arguments.push(text(fate.position as u128 + 1));
        arguments.push(reason(fate));
        arguments.push(text(u128::from(fate.receipt.is_some())));
    }
    arguments
}

/// What the script answered, the messages not yet decoded.
pub(super) struct Answer {
    pub(super) lease: LeaseState,
    pub(super) changed: bool,
    pub(super) now: Timestamp,
    pub(super) messages: Vec<Vec<u8>>,
    /// Why discarded ones could not be kept, or nothing.
    pub(super) trouble: Vec<u8>,
}

pub(super) fn answer(value: Value) -> Result<Answer, BadReply> {
    let [lease, changed, now, messages, trouble] = reply::array(value)?;
    Ok(Answer {
        lease: lease_state(lease)?,
        changed: reply::number::<i64>(changed)? == 1,
        now: Timestamp(reply::number(now)?),
        messages: reply::list(messages)?.into_iter().map(reply::bytes).collect::<Result<_, _>>()?,
        trouble: reply::bytes(trouble)?,
    })
}

/// The states of a lease as our scripts spell them.
pub(super) fn lease_state(value: Value) -> Result<LeaseState, BadReply> {
    Ok(match reply::bytes(value)?.as_slice() {
        b"held" => LeaseState::Held,
        b"reclaimed" => LeaseState::Reclaimed,
        b"absent" => LeaseState::Absent,
        _ => LeaseState::Lost,
    })
}
