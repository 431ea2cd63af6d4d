-- Ends a session for all servers, and publishes the end.
--
-- KEYS[1]  session
-- ARGV[1]  time for which the end is remembered, in ms
-- ARGV[2]  channel
-- ARGV[3]  news to publish
-- ARGV[4]  1 where the caller knows the session
-- Reply    0 where nobody knows the session; 1 where it has ended

-- Anyone may ask to end a session that never existed. Such a request must leave no key behind.
if ARGV[4] == '0' and redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
-- DEL first: a script whose first write is SET is refused when Redis is out of memory. An end must be stored even then.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1
