-- question_at: compares the question under a request key with a request id. Returns 'none' where no question lies there,
-- 'same' where it has this id, and 'other' where it has not; also for what is no question, and for another type.
local function question_at(key, request_id)
  local request = redis.pcall('GET', key)
  if not request then return 'none' end
  if type(request) == 'table' then
    if string.find(request.err, 'WRONGTYPE', 1, true) then return 'other' end
    -- Forbidden, say: this raises that error.
    redis.call('GET', key)
  end
  local ok, asked = pcall(cjson.decode, request)
  local same = ok and type(asked) == 'table' and asked.request_id == request_id
  return same and 'same' or 'other'
end
