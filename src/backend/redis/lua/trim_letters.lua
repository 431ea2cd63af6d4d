-- Removes the expired dead letters.
--
-- KEYS[1]  dead letters
-- ARGV[1]  life of a dead letter, in ms
-- Reply    time in µs

-- include clock
-- include letters

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
trim(KEYS[1], now, ARGV[1])
return now
