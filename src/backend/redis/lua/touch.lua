-- Keeps an asker alive, and tells whether there is an answer to look at.
--
-- The answers are read last, so that the next change to them is announced on the connection that asked. An asker that was
-- away for longer than it is believed to live, as when Redis was, has its place back where nobody took it.
--
-- KEYS[1]  asker
-- KEYS[2]  response
-- KEYS[3]  request
-- ARGV[1]  request id
-- ARGV[2]  life of the asker, in ms
-- Reply    number of answers; 1 where another question is under way by now

-- include question

local question = question_at(KEYS[3], ARGV[1])
if question == 'other' then return 1 end
local asker = redis.call('GET', KEYS[1])
if asker == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
elseif question == 'same' and not asker then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return redis.call('LLEN', KEYS[2])
