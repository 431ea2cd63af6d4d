-- Queues a dead letter anew and removes it, guarded by its content.
--
-- KEYS[1]    queue
-- KEYS[2..]  the receipt, where one is wanted; behind it, last, the dead letters
-- ARGV[1..]  as for `push`, with one message; then the number of older letters, the letter's length in bytes, and its last
--            bytes, at most 256
-- Reply      as of `push`, with -1 as the number where another letter stands there

-- include clock
-- include receipts

local last_key, last_argument, owned, lease_life = #KEYS - 1, #ARGV - 3, 0, -2
local dead, place = KEYS[#KEYS], -1 - ARGV[#ARGV - 2]
local letter = redis.call('LINDEX', dead, place)
if not letter or #letter ~= tonumber(ARGV[#ARGV - 1]) or string.sub(letter, -256) ~= ARGV[#ARGV] then
  return {-1, 0, '', owned}
end
-- include enqueue
-- A letter begins with a brace, so none is taken for the one that is marked to go.
if count == 1 then
  redis.call('LSET', dead, place, 'gone')
  redis.call('LREM', dead, -1, 'gone')
end
return {count, length, stopped, owned}
