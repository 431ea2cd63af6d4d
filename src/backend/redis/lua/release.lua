-- Gives up the caller's lease.
--
-- KEYS[1]  lease
-- ARGV[1]  value of the caller's lease
-- Reply    1 where the lease was the caller's

if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
