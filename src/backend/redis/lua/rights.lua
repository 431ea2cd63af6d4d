-- Asks Redis which of some commands the calling user may not call. Calls none of them.
--
-- ARGV[1..]  for each command: number of its words; its words, with a key of the courier where the command takes one
-- Reply      numbers of the commands that the user may not call, the first is 1; nil before Redis 7.0, which cannot be asked

if not redis.acl_check_cmd then return false end
local denied, number, i = {}, 0, 1
while ARGV[i] do
  local words = tonumber(ARGV[i])
  number = number + 1
  -- An error says that the server does not know the command.
  local ok, allowed = pcall(redis.acl_check_cmd, unpack(ARGV, i + 1, i + words))
  if not (ok and allowed) then denied[#denied + 1] = number end
  i = i + words + 1
end
return denied
