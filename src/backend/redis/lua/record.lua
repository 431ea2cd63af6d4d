-- Records the outcome of a message that has already left its queue.
--
-- KEYS[1]  dead letters
-- KEYS[2]  receipt, where one is wanted
-- ARGV[1]  most dead letters
-- ARGV[2]  life of a dead letter, in ms
-- ARGV[3]  most bytes of dead letters
-- ARGV[4]  life of a receipt, in ms
-- ARGV[5]  reason of the discard, or "" for a delivered message
-- ARGV[6]  the message
-- Reply    reason for which the letter could not be kept, or ""

-- include clock
-- include receipts
-- include letters

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local trouble, reason = '', ARGV[5]
if reason ~= '' then
  trouble = keep(KEYS[1], {letter(now, reason, ARGV[6])}, now, ARGV[1], ARGV[2], ARGV[3])
end
if KEYS[2] then
  local what = reason == '' and 'delivered %.0f' or 'discarded %.0f '
  set_receipt(KEYS[2], string.format(what, now) .. reason, ARGV[4])
end
return trouble
