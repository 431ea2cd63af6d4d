-- Reads a lease, and cuts its life to what its owner gave it.
-- A lease has longer to live where Redis's clock was set back: a dead owner would keep the session for that much longer.
local function lease_owner(lease)
  local owner = redis.call('GET', lease)
  local given = owner and tonumber(string.match(owner, ' (%d+)$'))
  if given and redis.call('PTTL', lease) > given then redis.call('PEXPIRE', lease, given) end
  return owner
end
