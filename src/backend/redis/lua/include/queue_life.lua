-- Extends the life of the queue to ARGV[3] ms, or to ARGV[4] ms where the queue has no end. FastMCP sets a life of 300
-- s whatever else waits, and its retry can leave no life at all.
local life = call('PTTL', queue)
if life == -1 then
  call('PEXPIRE', queue, ARGV[4])
elseif life >= 0 and life < tonumber(ARGV[3]) then
  call('PEXPIRE', queue, ARGV[3])
end
