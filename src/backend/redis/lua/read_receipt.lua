-- Reads a receipt, and whether there is still an owner to settle it. The life of a dead owner's lease is cut first, so
-- nobody waits longer for that owner than its lease allows.
--
-- KEYS[1]  receipt
-- KEYS[2]  lease
-- KEYS[3]  queue
-- Reply    time in µs; the receipt, or nil; 1 where the queue has an owner and a message

-- include clock
-- include lease_owner

local time = redis.call('TIME')
pcall(lease_owner, KEYS[2])
local is_owned = redis.call('EXISTS', KEYS[2]) * redis.call('EXISTS', KEYS[3])
return {time[1] * 1000000 + time[2], redis.call('GET', KEYS[1]), is_owned}
