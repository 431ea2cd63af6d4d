-- collapse: removes the message with the same collapse key that a queued message replaces, and notes that the queued one
-- may be replaced. Called only where no lease exists. Returns 1 where a message was removed, else 0.
--
-- KEYS[1] is the queue, `collapsible` the hash of the messages that may be replaced, and `receipts` the beginning of the
-- keys of receipts. Each acquisition of the lease deletes the hash, so no message in it was ever there for an owner.
--
-- A message with an older id may be a push whose answer was late: its repetition may have been delivered, and the owner
-- would skip it. A message that expires earlier would take the longer-lived one with it.
local function collapse(collapsible, receipts, key, id, message, at, receipt_life, most, most_bytes)
  local call, older = redis.call, redis.call('HGET', collapsible, key)
  local removed = 0
  if older then
    local older_id = string.match(older, '"id":"([%x-]+)","at":%d+}$')
    if not older_id or older_id >= id then return 0 end
    local life, older_life = string.match(message, '^{"ttl":(%d+)'), string.match(older, '^{"ttl":(%d+)')
    if tonumber(life) >= tonumber(older_life) then removed = call('LREM', KEYS[1], 1, older) end
    if removed == 1 and string.find(older, '"receipt":true,"id":"[%x-]+","at":%d+}$') then
      -- The receipt's key is none of KEYS, and may be refused while its slot moves.
      pcall(set_receipt, receipts .. older_id, 'discarded ' .. at .. ' "collapsed"', receipt_life)
    end
  end
  if #message > most_bytes then
    call('HDEL', collapsible, key)
  elseif older or call('HLEN', collapsible) < most then
    call('HSET', collapsible, key, message)
    call('PEXPIRE', collapsible, math.max(1, call('PTTL', KEYS[1])))
  end
  return removed
end
