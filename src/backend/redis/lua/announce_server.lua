-- Writes the record of a server process, and lists the process. Removes processes from the list whose time is over.
--
-- KEYS[1]  sorted set of server processes
-- KEYS[2]  record of this process
-- ARGV[1]  number of this process
-- ARGV[2]  record
-- ARGV[3]  life of the record, in ms
-- Reply    1

-- include clock

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- DEL first: a script whose first write is SET is refused when Redis is out of memory. Operators want the record then.
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[3]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
-- Processes with a longer heartbeat keep their time.
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
