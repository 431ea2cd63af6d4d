-- enqueue: adds the server's time to messages, and queues them within the bounds. Extends the life of the queue and never
-- shortens it: a short-lived message must not cut a long-lived one.
--
-- The keys and arguments are those of `push`, up to ARGV[last]. `lease_life` is what the lease has to live, in ms: the queue
-- outlives it, so that its owner discards and counts what expires.
-- Returns the number of queued messages, the length of the queue, and the bound that stopped the rest, or "",
-- and the time in µs.
local function enqueue(last, lease_life)
  local queue, most_messages, most_bytes, grace = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
  local first = #KEYS + 4
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local at = string.format('%.0f', now)
  local length = redis.call('LLEN', queue)

  -- Counting bytes walks the list, so it is done only where the bound can be near.
  local bytes
  if (length + (last - first + 1) / 3) * tonumber(ARGV[3]) > most_bytes then
    bytes = redis.call('MEMORY', 'USAGE', queue, 'SAMPLES', 0) or 0
  end

  local messages, stopped, longest = {}, '', lease_life + grace
  for i = first, last, 3 do
    local message = ARGV[i] .. at .. ARGV[i + 1]
    if length + #messages >= most_messages then stopped = 'messages' break end
    if bytes then
      bytes = bytes + #message
      if bytes > most_bytes then stopped = 'bytes' break end
    end
    messages[#messages + 1] = message
    longest = math.max(longest, math.ceil(ARGV[i + 2] / 1000) + grace)
  end
  if #messages == 0 then return 0, length, stopped, now end

  length = redis.call('LPUSH', queue, unpack(messages))
  if redis.call('PTTL', queue) < longest then redis.call('PEXPIRE', queue, longest) end
  for i = 2, #KEYS - 1 do
    local number = tonumber(ARGV[4 + i])
    if number <= #messages then
      local live = ARGV[first + 3 * number - 1]
      tell(KEYS[i], string.format('queued %.0f', now + live), math.ceil(live / 1000) + grace + ARGV[5])
    end
  end
  return #messages, length, stopped, now
end
