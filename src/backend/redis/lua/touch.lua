-- Keeps the asker of a question alive, and returns whether there is an answer to read.
--
-- The answers are read last, so that Redis announces their next change on the connection that asked. An asker may have
-- been silent for longer than it counts as alive, as while Redis was down. Such an asker gets its place back where no
-- other asker took it.
--
-- KEYS[1]  asker
-- KEYS[2]  response
-- KEYS[3]  request
-- ARGV[1]  request id
-- ARGV[2]  life of the asker, in ms
-- Reply    number of answers; 1 where the task asks another question by now

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
