-- Tells whether a worker waits for the answer to this very question.
--
-- KEYS[1]  request
-- KEYS[2]  status
-- ARGV[1]  request id
-- Reply    1 where a worker waits

if redis.call('GET', KEYS[2]) ~= 'waiting' then return 0 end
local request = redis.call('GET', KEYS[1])
if not request then return 0 end
local ok, asked = pcall(cjson.decode, request)
return ok and asked.request_id == ARGV[1] and 1 or 0
