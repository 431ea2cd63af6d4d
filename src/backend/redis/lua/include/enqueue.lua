-- enqueue: appends the server's time to messages, and queues them within the bounds. Extends the life of the queue and
-- never shortens it: a short-lived message must not cut the life of a long-lived one.
--
-- The keys and arguments are those of `push`, with the messages up to ARGV[last]. Where `lease_life` is more than 0,
-- the queue outlives a lease with so many ms to live. Its owner then discards and counts each expired message.
--
-- Layout of ARGV, with r = #KEYS - 2 wanted receipts:
--   1..4         bounds and lives, as `push` says
--   5..4+3r      three for each receipt; those of KEYS[i] are 3i-4 (number of its message), 3i-3 (time to live in µs)
--                and 3i-2 (life of the receipt in ms), as KEYS[3] has 5, 6 and 7
--   5+3r..last   the messages; so the first is at 5 + 3 * (#KEYS - 2) = 3 * #KEYS - 1
--   last+1..     arguments of the including script
--
-- Returns the number of queued messages, the length of the queue, the bound that stopped the rest, and the time in µs
-- as text. The bound is "" where all were queued.
local function enqueue(last, lease_life)
  local call, queue, first = redis.call, KEYS[1], 3 * #KEYS - 1
  local count, stopped, life, enough = last - first + 1, '', ARGV[3], ARGV[4]
  local time = call('TIME')
  local micros = time[2]
  local at = time[1] .. (#micros == 6 and '' or string.rep('0', 6 - #micros)) .. micros

  local length = call('LLEN', queue)
  if length + count > tonumber(ARGV[1]) then
    local most, most_bytes, small = string.match(ARGV[2], '^(%d+) (%d+) (%d+)')
    local wanted = length + count
    if wanted > tonumber(most) then count, stopped = math.max(0, most - length), 'messages' end
    -- Counting bytes walks the list, so bytes are counted only where that bound may be near.
    if wanted > tonumber(small) then
      local bytes = call('MEMORY', 'USAGE', queue, 'SAMPLES', 0) or 0
      for i = first, first + count - 1 do
        bytes = bytes + #ARGV[i] + #at + 1
        if bytes > tonumber(most_bytes) then count, stopped = i - first, 'bytes' break end
      end
    end
    if count == 0 then return 0, length, stopped, at end
    last = first + count - 1
  end
  if stopped ~= '' or lease_life > 0 then
    local grace = string.match(ARGV[2], '%d+$')
    life = lease_life + grace
    for i = first, last do
      life = math.max(life, math.ceil(string.match(ARGV[i], '^{"ttl":(%d+)') / 1000) + grace)
    end
    enough = life
  end

  for i = first, last do ARGV[i] = ARGV[i] .. at .. '}' end
  length = call('LPUSH', queue, unpack(ARGV, first, last))
  -- A new queue has no life yet, and needs PEXPIRE. Most other queues live nearly long enough, which saves a call per
  -- push.
  if length == count or call('PTTL', queue) < tonumber(enough) then call('PEXPIRE', queue, life) end
  for i = 3, #KEYS do
    if tonumber(ARGV[3 * i - 4]) <= count then
      set_receipt(KEYS[i], string.format('queued %.0f', at + ARGV[3 * i - 3]), ARGV[3 * i - 2])
    end
  end
  return count, length, stopped, at
end
