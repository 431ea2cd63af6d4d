-- lease_life_of: returns the rest of a lease's life in ms as PTTL does, and the same where it is longer than the
-- longest usual rest, else 0.
local function lease_life_of(lease, usual)
  local life = redis.call('PTTL', lease)
  if life <= tonumber(usual) then return life, 0 end
  -- A clock that was set back may keep a dead owner's lease alive. A push does not care about another type under the
  -- lease.
  pcall(lease_owner, lease)
  life = redis.call('PTTL', lease)
  return life, life
end
