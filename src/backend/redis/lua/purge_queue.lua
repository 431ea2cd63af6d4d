-- Removes the oldest messages of a queue for an operator, and settles their receipts. Does nothing where another
-- message stands at the place of the newest of them.
--
-- KEYS[1]    queue
-- KEYS[2..]  receipts to be settled
-- ARGV[1]    position of the newest message to remove, from the tail: -1 is the oldest
-- ARGV[2]    position of the message before it
-- ARGV[3]    length of the newest message to remove, in bytes
-- ARGV[4]    last bytes of the newest message to remove, at most 256
-- ARGV[5]    reason, as receipts have it
-- ARGV[6]    life of a receipt, in ms
-- Reply      1 where the messages were removed, else 0

-- include clock
-- include receipts

local last = redis.call('LINDEX', KEYS[1], ARGV[1])
if not last or #last ~= tonumber(ARGV[3]) or string.sub(last, -256) ~= ARGV[4] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('LTRIM', KEYS[1], '0', ARGV[2])
for i = 2, #KEYS do
  set_receipt(KEYS[i], string.format('discarded %.0f ', now) .. ARGV[5], ARGV[6])
end
return 1
