-- Reads the live sessions.
--
-- Each member ends with the life in ms that its owner's announcements give. The score is the time until which the
-- session is live. A score beyond now and that life was written before Redis's clock was set back. Such a score is cut:
-- a living owner announces itself again within its heartbeat. Nothing is cut when Redis is out of memory.
--
-- KEYS[1]  sorted set of live sessions
-- Reply    members that are live by Redis's clock

-- include clock

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local live = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf', 'WITHSCORES')
local members = {}
for i = 1, #live, 2 do
  local given = tonumber(string.match(live[i], ' (%d+)$'))
  if given and tonumber(live[i + 1]) > now + given then
    redis.pcall('ZADD', KEYS[1], 'XX', string.format('%.0f', now + given), live[i])
  end
  members[#members + 1] = live[i]
end
return members
