-- Ends a question without an answer, if it is still the one under way.
--
-- KEYS[1]  request
-- KEYS[2]  response
-- KEYS[3]  status
-- KEYS[4]  asker
-- ARGV[1]  request id
-- Reply    number of removed keys

local request = redis.call('GET', KEYS[1])
if not request then return 0 end
local ok, asked = pcall(cjson.decode, request)
if not ok or asked.request_id ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
