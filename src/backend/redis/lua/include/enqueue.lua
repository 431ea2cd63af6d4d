-- Queues messages: bounds, times and expiry. The script says before it which keys and arguments are of this:
-- `last_key`, `last_argument`, and `lease_life`, the rest of the lease's life in ms. It leaves `count`, `length` and `stopped`.
local function rfc3339(micros)
  local seconds = math.floor(micros / 1000000)
  local days = math.floor(seconds / 86400)
  -- The civil calendar from a count of days, in eras of 400 years that begin in March.
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  local rest = seconds - days * 86400
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06d+00:00', year, month, day,
    math.floor(rest / 3600), math.floor(rest / 60) % 60, rest % 60, micros % 1000000)
end

local queue, most_messages, most_bytes = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local grace, between = tonumber(ARGV[4]), ARGV[5]
local first = 6 + last_key
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local length = redis.call('LLEN', queue)
local life = redis.call('PTTL', queue)
local count, longest, stopped = 0, 0, ''

local receipts = {}
for i = 2, last_key do receipts[tonumber(ARGV[5 + i])] = KEYS[i] end

-- Counting bytes walks the list, so it is done only where the bound can be near.
local bytes
if (length + (last_argument - first + 1) / 3) * tonumber(ARGV[3]) > most_bytes then
  bytes = redis.call('MEMORY', 'USAGE', queue, 'SAMPLES', 0) or 0
end

for i = first, last_argument, 3 do
  local live = tonumber(ARGV[i + 2])
  local message = ARGV[i] .. rfc3339(now) .. between .. rfc3339(now + live) .. ARGV[i + 1]
  if length >= most_messages then stopped = 'messages' break end
  if bytes then
    bytes = bytes + #message
    if bytes > most_bytes then stopped = 'bytes' break end
  end
  length = redis.call('LPUSH', queue, message)
  count = count + 1
  longest = math.max(longest, math.ceil(live / 1000) + grace)
  if receipts[count] then
    tell(receipts[count], string.format('queued %.0f', now + live), math.ceil(live / 1000) + grace + ARGV[6])
  end
end

-- The queue outlives the lease of its owner, who discards and counts what expires. And never shorter than it is: a short-lived
-- message must not cut a long-lived one.
longest = math.max(longest, lease_life + grace)
if count > 0 and life < longest then redis.call('PEXPIRE', queue, longest) end
