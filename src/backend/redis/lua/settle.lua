-- Gives an answer. Only the first answer to this very question counts, and only while its worker waits.
--
-- KEYS[1]  request
-- KEYS[2]  response
-- KEYS[3]  status
-- ARGV[1]  request id
-- ARGV[2]  answer
-- ARGV[3]  life of an answer whose question has none, in ms
-- Reply    done, not waiting, other question

-- include clock
-- include question

if redis.call('GET', KEYS[3]) ~= 'waiting' then return 'not waiting' end
local question = question_at(KEYS[1], ARGV[1])
if question == 'none' then return 'not waiting' end
if question == 'other' then return 'other question' end
local life = redis.call('PTTL', KEYS[3])
if life <= 0 then life = ARGV[3] end
redis.call('DEL', KEYS[2])
redis.call('LPUSH', KEYS[2], ARGV[2])
redis.call('PEXPIRE', KEYS[2], life)
redis.call('SET', KEYS[3], 'responded', 'PX', life)
return 'done'
