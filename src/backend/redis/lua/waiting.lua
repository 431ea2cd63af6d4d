-- Returns whether a worker waits for the answer to this very question.
--
-- KEYS[1]  request
-- KEYS[2]  status
-- ARGV[1]  request id
-- Reply    1 where a worker waits

-- include question

if redis.call('GET', KEYS[2]) ~= 'waiting' then return 0 end
return question_at(KEYS[1], ARGV[1]) == 'same' and 1 or 0
