-- Writes a failed attempt in the place of the oldest message. Does nothing without the lease, or where another message
-- stands there.
--
-- KEYS[1]  queue
-- KEYS[2]  lease
-- ARGV[1]  value of the caller's lease
-- ARGV[2]  length of the oldest message, in bytes
-- ARGV[3]  last bytes of the oldest message, at most 256
-- ARGV[4]  message to put there
-- ARGV[5]  life of a queue that has none, in ms
-- Reply    done, changed, not ours

-- include clock

if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 'not ours' end
local oldest = redis.call('LINDEX', KEYS[1], -1)
if not oldest or #oldest ~= tonumber(ARGV[2]) or string.sub(oldest, -256) ~= ARGV[3] then return 'changed' end
-- PEXPIRE first: a script whose first write is LSET is refused when Redis is out of memory.
local life = redis.call('PTTL', KEYS[1])
redis.call('PEXPIRE', KEYS[1], life > 0 and life or ARGV[5])
redis.call('LSET', KEYS[1], -1, ARGV[4])
return 'done'
