-- Extends the caller's lease, or takes one that nobody has.
--
-- KEYS[1]  lease
-- KEYS[2]  queue
-- ARGV[1]  value of the caller's lease
-- ARGV[2]  life of the lease, in ms
-- ARGV[3]  least life of the queue, in ms
-- ARGV[4]  1 to take an absent lease
-- Reply    state of the lease (held, reclaimed, absent, lost); time in ms

-- include clock
-- include lease_owner

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local owner, state = lease_owner(KEYS[1]), 'held'
if owner == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
elseif owner then
  return {'lost', now}
elseif ARGV[4] ~= '1' then
  return {'absent', now}
else
  redis.call('DEL', KEYS[1])
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  state = 'reclaimed'
end
-- The queue outlives its owner's lease: what expires in it is discarded and counted by the owner, and not with the key.
local life = redis.call('PTTL', KEYS[2])
if life >= 0 and life < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
-- Last, so that a connection that tracks keys hears of the next change to the lease.
redis.call('GET', KEYS[1])
return {state, now}
