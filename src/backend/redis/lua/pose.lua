-- Poses a question, unless the task has another one whose asker lives.
--
-- A task asks one question at a time. A question whose asker has died is cleared, and so is one of FastMCP's, which has
-- no asker key.
--
-- KEYS[1]  request
-- KEYS[2]  response
-- KEYS[3]  status
-- KEYS[4]  asker
-- ARGV[1]  request id
-- ARGV[2]  request
-- ARGV[3]  life of the question, in ms
-- ARGV[4]  life of the asker, in ms
-- Reply    time in µs; 0 where the task has another question and its asker lives

-- include clock

local asker = redis.call('GET', KEYS[4])
if asker and asker ~= ARGV[1] and redis.call('EXISTS', KEYS[1]) == 1 then
  -- Longer than any asker sets it, so Redis's clock was set back. Cut, as a dead asker would block the task for that
  -- long.
  if redis.call('PTTL', KEYS[4]) > tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[4], ARGV[4]) end
  return 0
end
local time = redis.call('TIME')
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('SET', KEYS[3], 'waiting', 'PX', ARGV[3])
redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[4])
return time[1] * 1000000 + time[2]
