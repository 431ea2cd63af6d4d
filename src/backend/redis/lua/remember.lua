-- Remembers what a session began with, unless the session has ended.
--
-- KEYS[1]  session
-- ARGV[1]  what the session began with
-- ARGV[2]  life of the session, in ms
-- Reply    1 where the session is remembered

if redis.call('GET', KEYS[1]) == '' then return 0 end
-- The first write is SET, so the script is refused when Redis is out of memory: clients choose how much is stored here.
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
