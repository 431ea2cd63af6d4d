-- letter: one dead letter, as it is kept.
-- trim: removes the letters whose time is over.
-- keep: puts letters, the oldest first, before those that there are, and keeps all within their bounds: most letters,
-- their life in ms, most bytes. It returns what went wrong, or "": the caller goes on, as an acknowledgement must not be
-- stuck for ever because something else lies under the key, or one letter is larger than all may be.
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
