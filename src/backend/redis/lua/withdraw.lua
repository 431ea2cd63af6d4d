-- Ends a question without an answer, if it is still the question of its task.
--
-- KEYS[1]  request
-- KEYS[2]  response
-- KEYS[3]  status
-- KEYS[4]  asker
-- ARGV[1]  request id
-- Reply    number of removed keys

-- include question

if question_at(KEYS[1], ARGV[1]) ~= 'same' then return 0 end
return redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
