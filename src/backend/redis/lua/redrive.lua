-- Queues a dead letter anew and removes it, guarded by its content.
--
-- KEYS[1]    queue
-- KEYS[2..]  the receipt, where one is wanted; behind it, last, the dead letters
-- ARGV[1]    most messages in the queue
-- ARGV[2]    most bytes in the queue
-- ARGV[3]    most bytes of a message
-- ARGV[4]    grace of the queue's expiry, in ms
-- ARGV[5]    life of a receipt, in ms
-- ARGV[6..]  as for `push`, with one message; then the number of older letters, the letter's length in bytes, and its last
--            bytes, at most 256
-- Reply      1 where the letter is queued, 0 where a bound stopped it, -1 where another letter stands there; the bound, or ""

-- include clock
-- include receipts
-- include enqueue

local dead, place = KEYS[#KEYS], -1 - ARGV[#ARGV - 2]
local found = redis.call('LINDEX', dead, place)
if not found or #found ~= tonumber(ARGV[#ARGV - 1]) or string.sub(found, -256) ~= ARGV[#ARGV] then return {-1, ''} end
local count, _, stopped = enqueue(#ARGV - 3, -2)
if count == 1 then
  -- A letter begins with a brace, so none is taken for the one that is marked to go.
  redis.call('LSET', dead, place, 'gone')
  redis.call('LREM', dead, -1, 'gone')
end
return {count, stopped}
