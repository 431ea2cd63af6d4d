-- set_receipt: writes a receipt. A receipt that says "delivered" is never overwritten.
local function set_receipt(receipt, what, life)
  local before = redis.pcall('GET', receipt)
  if type(before) == 'string' and string.sub(before, 1, 9) == 'delivered' then return end
  -- DEL first: a script whose first write is SET is refused when Redis is out of memory.
  redis.call('DEL', receipt)
  redis.call('SET', receipt, what, 'PX', life)
end
