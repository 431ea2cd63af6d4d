-- enqueue: appends the server's time to messages, and queues them within the bounds. Extends the life of the queue and
-- never shortens it: a short-lived message must not cut the life of a long-lived one.
--
-- The queue is KEYS[1], the bounds and lives are ARGV[1] to ARGV[4] as `push` says, and the messages are ARGV[first]
-- to ARGV[last]. Where `lease_life` is more than 0, the queue outlives a lease with so many ms to live. Its owner then
-- discards and counts each expired message.
--
-- `at` is the time of `server_time`. Returns the number of queued messages, the length of the queue, and the bound that
-- stopped the rest, which is "" where all were queued.
--
-- receipt_of: writes the receipt of a message that was queued at a time. The arguments of the receipt begin at ARGV[i]:
-- number of its message, time to live in µs, life of the receipt in ms.
local function enqueue(first, last, lease_life, at)
  local call, queue = redis.call, KEYS[1]
  local count, stopped, life, enough = last - first + 1, '', ARGV[3], ARGV[4]

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
    if count == 0 then return 0, length, stopped end
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
  return count, length, stopped
end

local function receipt_of(receipt, i, at)
  set_receipt(receipt, string.format('queued %.0f', at + ARGV[i + 1]), ARGV[i + 2])
end
