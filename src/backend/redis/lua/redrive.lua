-- Queues a dead letter anew and removes it, guarded by its content.
--
-- KEYS[1]    queue
-- KEYS[2]    dead letters
-- KEYS[3..]  the receipt, where one is wanted
-- ARGV[1]    length up to which the queue is near no bound
-- ARGV[2]    most messages in the queue, most bytes in it, the number of messages that have no more bytes however large each is, and
--            the grace in the life of the queue, in ms; read where a bound is near
-- ARGV[3]    life of the queue that the message needs, in ms
-- ARGV[4]    rest of a life that is left as it is, in ms
-- ARGV[5..]  as for `push`, with one message; then the number of older letters, the letter's length in bytes, and its last
--            bytes, at most 256
-- Reply      1 where the letter is queued, 0 where a bound stopped it, -1 where another letter stands there; the bound, or ""

-- include clock
-- include receipts
-- include enqueue

local dead, place = KEYS[2], -1 - ARGV[#ARGV - 2]
local found = redis.call('LINDEX', dead, place)
if not found or #found ~= tonumber(ARGV[#ARGV - 1]) or string.sub(found, -256) ~= ARGV[#ARGV] then return {-1, ''} end
local count, _, stopped = enqueue(#ARGV - 3, -2)
if count == 1 then
  -- A letter begins with a brace, so none is taken for the one that is marked to go.
  redis.call('LSET', dead, place, 'gone')
  redis.call('LREM', dead, -1, 'gone')
end
return {count, stopped}
