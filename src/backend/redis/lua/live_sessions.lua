-- Reads the live sessions.
--
-- A member ends with the life in ms that its owner's announcements give. A score beyond that was written before Redis's
-- clock was set back, and is cut: a living owner announces itself anew within its heartbeat. Out of memory nothing is cut.
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
