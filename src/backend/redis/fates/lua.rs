//! What the scripts that settle a notification's fate have in common.

use crate::backend::Fate;
use crate::config::Config;

/// Functions to stand before a script.
///
/// `tell` settles a receipt, or has it say that its notification is queued. That it was delivered stands for good.
///
/// `keep` puts letters, the oldest first, before those that there are, and keeps all within their bounds, which are the
/// [`settings`]. It answers what went wrong, or "": whoever calls it goes on, as an acknowledgement must not be stuck for ever
/// because something else lies under the key, or one letter is larger than all may be. `trim` removes those whose time is over.
pub(in crate::backend::redis) const FUNCTIONS: &str = r#"
local function tell(receipt, what, life)
  local before = redis.pcall('GET', receipt)
  if type(before) == 'string' and string.sub(before, 1, 9) == 'delivered' then return end
  -- DEL first: a script whose first write is SET is refused when Redis is out of memory.
  redis.call('DEL', receipt)
  redis.call('SET', receipt, what, 'PX', life)
end

local function letter(now, reason, message)
  return string.format('{"at":%.0f,"reason":', now) .. reason .. '}\n' .. message
end

local function trim(dead, now, life)
  while true do
    local oldest = redis.call('LINDEX', dead, -1)
    local at = oldest and string.match(oldest, '^{"at":(%d+)')
    if not at or tonumber(at) > now - life * 1000 then break end
    redis.call('RPOP', dead)
  end
end

local function keep(dead, letters, now, most, life, most_bytes)
  if #letters == 0 or tonumber(most) == 0 then return '' end
  -- First of all: where something else lies there, or bytes may not be counted, nothing is half done.
  for _, answer in ipairs({redis.pcall('LLEN', dead), redis.pcall('MEMORY', 'USAGE', dead, 'SAMPLES', 1) or 0}) do
    if type(answer) == 'table' then return answer.err end
  end
  local trouble = ''
  -- Before LPUSH, which is refused when Redis is out of memory unless the script has written before.
  redis.call('PEXPIRE', dead, life)
  for _, one in ipairs(letters) do
    if #one > tonumber(most_bytes) then
      trouble = string.format('one of %d bytes is larger than all may be together', #one)
    else
      redis.call('LPUSH', dead, one)
    end
  end
  redis.call('PEXPIRE', dead, life)
  redis.call('LTRIM', dead, 0, most - 1)
  trim(dead, now, life)
  -- It walks the list's nodes: 4 KiB of small letters, or one large letter each.
  local bytes = redis.call('MEMORY', 'USAGE', dead, 'SAMPLES', 0) or 0
  while bytes > tonumber(most_bytes) and redis.call('LLEN', dead) > 1 do
    bytes = bytes - #redis.call('RPOP', dead)
  end
  return trouble
end
"#;

/// How many [`settings`] there are.
pub(in crate::backend::redis) const SETTINGS: usize = 4;

/// What `keep` and `tell` take: how many letters, their life in ms, their bytes; the life of a receipt in ms.
pub(in crate::backend::redis) fn settings(config: &Config) -> [Vec<u8>; SETTINGS] {
    let text = |n: u128| n.to_string().into_bytes();
    [
        text(config.dead_letters() as u128),
        text(config.dead_letter_life().as_millis()),
        text(config.queue_max_bytes() as u128),
        text(config.receipt_life().as_millis()),
    ]
}

/// Why it was discarded, as it is written down; nothing where it was delivered.
pub(in crate::backend::redis) fn reason(fate: &Fate) -> Vec<u8> {
    fate.discarded.as_ref().map(|reason| reason.to_wire().into_bytes()).unwrap_or_default()
}
