-- Takes the lease for the newest owner, also from another owner.
--
-- KEYS[1]  lease
-- KEYS[2]  queue
-- KEYS[3]  messages that a push may replace, deleted because the owner may read them from here on
-- ARGV[1]  value of the caller's lease
-- ARGV[2]  life of the lease, in ms
-- ARGV[3]  least life of the queue, in ms
-- Reply    1 where another owner held the lease, else 0; time in ms

-- include clock

local time = redis.call('TIME')
local before = redis.call('GET', KEYS[1])
-- DEL first: a script whose first write is SET is refused when Redis is out of memory.
redis.call('DEL', KEYS[1], KEYS[3])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
-- The queue must outlive its owner's lease, as in `renew`.
local life = redis.call('PTTL', KEYS[2])
if life >= 0 and life < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
-- Read last, so that Redis announces the next change of the lease on a connection that tracks keys.
redis.call('GET', KEYS[1])
return {(before and before ~= ARGV[1]) and 1 or 0, time[1] * 1000 + math.floor(time[2] / 1000)}
