-- Deletes the dead letters of a session.
--
-- KEYS[1]  dead letters
-- Reply    number of deleted letters

local count = redis.call('LLEN', KEYS[1])
redis.call('DEL', KEYS[1])
return count
