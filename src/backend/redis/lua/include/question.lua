-- question_at: compares the question under a request key with a request id. Returns 'none' where there is no question,
-- 'same' where the question has this id, and 'other' in every other case. Text that is no question, and another type,
-- count as 'other'.
local function question_at(key, request_id)
  local request = redis.pcall('GET', key)
  if not request then return 'none' end
  if type(request) == 'table' then
    if string.find(request.err, 'WRONGTYPE', 1, true) then return 'other' end
    -- Any other error, as a refused permission, is raised again by this call.
    redis.call('GET', key)
  end
  local ok, asked = pcall(cjson.decode, request)
  local same = ok and type(asked) == 'table' and asked.request_id == request_id
  return same and 'same' or 'other'
end
