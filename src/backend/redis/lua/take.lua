-- Acknowledges what was delivered, and reads the oldest messages: one round trip, guarded by the lease and by what stands
-- at the tail.
--
-- KEYS[1]    queue
-- KEYS[2]    lease
-- KEYS[3]    open questions
-- KEYS[4]    dead letters
-- KEYS[5..]  receipts to be settled
-- ARGV[1]    value of the caller's lease
-- ARGV[2]    number of delivered messages
-- ARGV[3]    length of the last of them, in bytes
-- ARGV[4]    its last bytes, at most 256
-- ARGV[5]    most messages to read
-- ARGV[6]    most bytes to read
-- ARGV[7]    1 to take an absent lease
-- ARGV[8]    life of the lease, in ms
-- ARGV[9]    least life of the queue, in ms
-- ARGV[10]   life of a queue that has none, in ms
-- ARGV[11]   least time until which the open questions live, in ms
-- ARGV[12]   number of arguments that are open questions
-- ARGV[13..] for each open question its request id and its text; then, where there are outcomes, most dead letters, their
--            life in ms, their bytes, life of a receipt in ms; and for each outcome the message's place (1 is the oldest),
--            why it was discarded or "", and 1 where a receipt is to be settled
-- Reply      state of the lease (held, reclaimed, absent, lost); 1 where the tail had changed; time in µs; messages, oldest
--            first; why dead letters could not be kept, or ""

-- include clock
-- include receipts
-- include letters

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
  -- Whatever deadline a question has, its key is not kept for more than 31,622,400 s, which are 366 days. And 0 would delete
  -- the other questions.
  local rest = math.max(1, math.min(ARGV[11] - math.floor(now / 1000), 31622400000))
  if redis.call('PTTL', KEYS[3]) < rest then redis.call('PEXPIRE', KEYS[3], rest) end
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
