-- Queues a dead letter again and removes it, in one step. Does nothing where another letter stands at that place.
--
-- KEYS[1]    queue
-- KEYS[2]    dead letters
-- KEYS[3..]  receipt, where one is wanted
-- ARGV[1]    length up to which no bound can be near
-- ARGV[2]    four numbers as for `push`, read only where a bound may be near
-- ARGV[3]    life of the queue that the message needs, in ms
-- ARGV[4]    rest of a life that needs no extension, in ms
-- ARGV[5..]  as for `push`, with one message; then number of older letters, the letter's length in bytes, its last bytes, at
--            most 256
-- Reply      1 where the letter is queued, 0 where a bound stopped it, -1 where another letter stands there; the bound, or ""

-- include clock
-- include server_time
-- include receipts
-- include enqueue

local dead, place = KEYS[2], -1 - ARGV[#ARGV - 2]
local found = redis.call('LINDEX', dead, place)
if not found or #found ~= tonumber(ARGV[#ARGV - 1]) or string.sub(found, -256) ~= ARGV[#ARGV] then return {-1, ''} end
local message, now = #ARGV - 3, server_time()
local count, _, stopped = enqueue(message, message, -2, now)
if count == 1 then
  if KEYS[3] then receipt_of(KEYS[3], 5, now) end
  -- The letter is marked and then removed by its mark. Each letter begins with a brace, so the mark matches no other
  -- letter.
  redis.call('LSET', dead, place, 'gone')
  redis.call('LREM', dead, -1, 'gone')
end
return {count, stopped}
