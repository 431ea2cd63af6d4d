-- letter: makes a dead letter in the form in which it is kept.
--
-- trim: removes the expired letters.
--
-- keep: adds letters, the oldest first, and keeps all letters of the session within the bounds: most letters, life in
-- ms, most bytes. Returns the reason of a failure, or "". A failure does not stop the caller. Otherwise one oversized
-- letter, or another type under the key, would block every acknowledgement.
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
  -- Checked first: another type under the key, or a refused count of bytes, must not stop this function half-way.
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
  -- Counting walks the nodes of the list. A node holds 4 KiB of small letters, or one large letter.
  local bytes = redis.call('MEMORY', 'USAGE', dead, 'SAMPLES', 0) or 0
  while bytes > tonumber(most_bytes) and redis.call('LLEN', dead) > 1 do
    bytes = bytes - #redis.call('RPOP', dead)
  end
  return trouble
end
