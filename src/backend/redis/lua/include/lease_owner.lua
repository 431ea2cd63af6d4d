-- lease_owner: reads a lease, and cuts its life to the life that its owner gave it. A longer life shows that Redis's
-- clock was set back. A dead owner would then hold the session for that much longer.
local function lease_owner(lease)
  local owner = redis.call('GET', lease)
  local given = owner and tonumber(string.match(owner, ' (%d+)$'))
  if given and redis.call('PTTL', lease) > given then redis.call('PEXPIRE', lease, given) end
  return owner
end
