-- server_time: returns Redis's clock in µs, as a text of all digits.
local function server_time()
  local time = redis.call('TIME')
  local micros = time[2]
  return time[1] .. (#micros == 6 and '' or string.rep('0', 6 - #micros)) .. micros
end
