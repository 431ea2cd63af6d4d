-- Returns the answer to a worker's question, and ends the question.
--
-- FastMCP's answers name no question. FastMCP writes the answer before it sets `status=responded`. Consuming the answer
-- in between would let that late write mark the next question of the task as answered. The answer to that next question
-- would then be refused.
--
-- KEYS[1]  request
-- KEYS[2]  response
-- KEYS[3]  status
-- KEYS[4]  asker
-- ARGV[1]  request id
-- ARGV[2]  `wait` to leave an answer whose status FastMCP has not written yet, `take` to take it nevertheless
-- Reply    the answer, or nil; 1 where the task asks another question by now; 2 to try again, as FastMCP has not written
--          the status yet

-- include question

if question_at(KEYS[1], ARGV[1]) == 'other' then return 1 end
while true do
  local answer = redis.call('LINDEX', KEYS[2], -1)
  if not answer then return false end
  local ok, read = pcall(cjson.decode, answer)
  if ok and type(read) == 'table' and (not read.request_id or read.request_id == ARGV[1]) then
    if not read.request_id and ARGV[2] == 'wait' and redis.call('GET', KEYS[3]) == 'waiting' then return 2 end
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
    return answer
  end
  redis.call('RPOP', KEYS[2])
end
