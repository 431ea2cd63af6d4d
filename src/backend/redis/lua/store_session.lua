-- Remembers the state with which a session began, unless the session has ended. An ended session has an empty value.
--
-- KEYS[1]  session
-- ARGV[1]  state with which the session began
-- ARGV[2]  life of the session, in ms
-- Reply    1 where the session is remembered

if redis.call('GET', KEYS[1]) == '' then return 0 end
-- The first write is SET, without DEL before it: Redis refuses the script when it is out of memory. That is wanted
-- here, because clients choose how much is stored.
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
