-- Extends the caller's lease, or takes an absent one.
--
-- KEYS[1]  lease
-- KEYS[2]  queue
-- KEYS[3]  messages that a push may replace, deleted where the lease is taken
-- ARGV[1]  value of the caller's lease
-- ARGV[2]  life of the lease, in ms
-- ARGV[3]  least life of the queue, in ms
-- ARGV[4]  1 to take an absent lease
-- Reply    state of the lease (held, reclaimed, absent, lost); time in ms

-- include clock
-- include lease_owner

local call, lease, queue = redis.call, KEYS[1], KEYS[2]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state = 'held'
if call('GET', lease) == ARGV[1] then
  call('PEXPIRE', lease, ARGV[2])
elseif lease_owner(lease) then
  return {'lost', now}
elseif ARGV[4] ~= '1' then
  return {'absent', now}
else
  call('DEL', lease, KEYS[3])
  call('SET', lease, ARGV[1], 'PX', ARGV[2])
  state = 'reclaimed'
end
-- The queue must outlive its owner's lease: the owner discards and counts each expired message. An expired key would
-- lose them uncounted.
local life = call('PTTL', queue)
if life >= 0 and life < tonumber(ARGV[3]) then call('PEXPIRE', queue, ARGV[3]) end
-- Read last, so that Redis announces the next change of the lease on a connection that tracks keys.
call('GET', lease)
return {state, now}
