-- Deduplication keys are kept in two hashes, the key sets, under the hashes of the keys. Each field has the id of the
-- notification that was queued, and the time of its push in µs. The field "begun" has the time at which its key set
-- began. A full key set, and one that began before the window, is followed by a new one in the place of the older.
--
-- first_of: returns the id of the notification that was queued under a key within the window, or nil.
--
-- remember: notes that a notification was queued under a key.
local function first_of(key_sets, key, now, window)
  for _, key_set in ipairs(key_sets) do
    local id, at = string.match(redis.call('HGET', key_set, key) or '', '^(%S+) (%d+)$')
    -- The time may lie ahead where Redis's clock was set back.
    if id and math.abs(now - at) < window then return id end
  end
end

local function remember(key_sets, key, id, at, window, most)
  local begun = {}
  for i, key_set in ipairs(key_sets) do begun[i] = tonumber(redis.call('HGET', key_set, 'begun') or 0) end
  local newest = begun[2] > begun[1] and 2 or 1
  if begun[newest] - at >= window then
    -- Redis's clock was set back by more than the window: nothing that is kept counts any more.
    redis.call('DEL', unpack(key_sets))
    begun[newest] = 0
  end
  if at - begun[newest] >= window or redis.call('HLEN', key_sets[newest]) > most then
    local begins = math.max(at, begun[newest] + 1)
    newest = 3 - newest
    redis.call('DEL', key_sets[newest])
    redis.call('HSET', key_sets[newest], 'begun', string.format('%.0f', begins))
  end
  redis.call('HSET', key_sets[newest], key, id .. ' ' .. at)
  redis.call('PEXPIRE', key_sets[newest], math.ceil(window / 1000))
end
