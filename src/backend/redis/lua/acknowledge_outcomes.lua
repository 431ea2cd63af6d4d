-- Acknowledges as `acknowledge` does, where messages were discarded, opened questions, or have receipts.
--
-- KEYS[1]    queue
-- KEYS[2]    lease
-- KEYS[3]    open questions
-- KEYS[4]    dead letters
-- KEYS[5]    messages that a push may replace, deleted where the lease is taken
-- KEYS[6..]  receipts to be settled
-- ARGV[1]    value of the caller's lease
-- ARGV[2]    life of the lease in ms where an absent lease is to be taken, or ""
-- ARGV[3]    least life of the queue, in ms
-- ARGV[4]    life of a queue that has none, in ms
-- ARGV[5]    position of the newest delivered message, from the tail: -1 is the oldest
-- ARGV[6]    position of the message before it
-- ARGV[7]    length of the newest delivered message, in bytes
-- ARGV[8]    last bytes of the newest delivered message, at most 256
-- ARGV[9]    time until which the open questions must live at least, in ms by Redis's clock
-- ARGV[10]   number of arguments that describe open questions
-- ARGV[11..] for each open question: its request id, its text;
--            then, where there are outcomes: most dead letters, life of a dead letter in ms, most bytes of dead letters, life
--            of a receipt in ms;
--            then for each outcome: the message's place (1 is the oldest), the reason of its discard or "", and 1 where a
--            receipt must be settled
--            Layout, with o = 10 + ARGV[10] (`outcomes` below):
--              11..o      open questions, two each
--              o+1..o+4   most dead letters, their life, their most bytes, life of a receipt
--              o+5..      outcomes, three each; with the first at i: i place, i+1 reason, i+2 receipt
-- Reply      the reply of `acknowledge`; time in µs; reason for which dead letters could not be kept, or ""

-- include clock
-- include receipts
-- include letters

local call, queue, lease = redis.call, KEYS[1], KEYS[2]
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local owner = call('GET', lease)
local state = 'held'

-- A delivery is recorded in any case, also by an owner that lost its lease: the delivery did happen. A discarded
-- message is recorded only where this call removes it. Otherwise the new owner may still deliver it.
local outcomes, trouble = 10 + ARGV[10], ''
local function settle_receipts(removed)
  local next_receipt = 6
  for i = outcomes + 5, #ARGV, 3 do
    if ARGV[i + 2] == '1' then
      if ARGV[i + 1] == '' then
        set_receipt(KEYS[next_receipt], string.format('delivered %.0f', now), ARGV[outcomes + 4])
      elseif removed then
        set_receipt(KEYS[next_receipt], string.format('discarded %.0f ', now) .. ARGV[i + 1], ARGV[outcomes + 4])
      end
      next_receipt = next_receipt + 1
    end
  end
end
if owner and owner ~= ARGV[1] then
  settle_receipts(false)
  return {'lost', now, ''}
end
if not owner then
  if ARGV[2] == '' then return {'absent', now, ''} end
  -- DEL first: a script whose first write is SET is refused when Redis is out of memory.
  call('DEL', lease, KEYS[5])
  call('SET', lease, ARGV[1], 'PX', ARGV[2])
  state = 'reclaimed'
end

-- Read before anything is removed: where another type lies under this key, the script fails here, and has done nothing
-- yet.
if outcomes > 10 then call('HLEN', KEYS[3]) end

local last = call('LINDEX', queue, ARGV[5])
local is_there = last and #last == tonumber(ARGV[7]) and string.sub(last, -256) == ARGV[8]
if is_there then
  local letters = {}
  for i = outcomes + 5, #ARGV, 3 do
    if ARGV[i + 1] ~= '' and ARGV[outcomes + 1] ~= '0' then
      letters[#letters + 1] = letter(now, ARGV[i + 1], call('LINDEX', queue, -ARGV[i]))
    end
  end
  call('LTRIM', queue, '0', ARGV[6])
  trouble = keep(KEYS[4], letters, now, ARGV[outcomes + 1], ARGV[outcomes + 2], ARGV[outcomes + 3])
else
  state = state .. ' changed'
end
settle_receipts(is_there)
if outcomes > 10 then
  call('HSET', KEYS[3], unpack(ARGV, 11, outcomes))
  -- A question may have any deadline, but its key is kept for at most 366 days, which are 31,622,400 s. At least 1 ms,
  -- as PEXPIRE with 0 would delete the other questions.
  local rest = math.max(1, math.min(ARGV[9] - math.floor(now / 1000), 31622400000))
  if call('PTTL', KEYS[3]) < rest then call('PEXPIRE', KEYS[3], rest) end
end

-- include queue_life

return {state, now, trouble}
