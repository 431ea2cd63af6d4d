-- Queues notifications of one session: bounds, server time and expiry in one atomic step.
--
-- KEYS[1]    queue
-- KEYS[2]    lease
-- KEYS[3..]  receipts that are wanted
-- ARGV[1]    length up to which the queue is near no bound
-- ARGV[2]    most messages in the queue, most bytes in it, the number of messages that have no more bytes however large each is, and
--            the grace in the life of the queue, in ms; read where a bound is near, or a life is unusual
-- ARGV[3]    life of the queue that the longest-lived message needs, in ms
-- ARGV[4]    rest of a life that is left as it is, in ms
-- ARGV[5..]  for each receipt the number of its message, the message's time to live in µs, and the life of the receipt in ms;
--            then each message up to the server's time, its time to live first; last, the rest of a lease's life that is
--            nothing unusual, in ms
-- Reply      length of the queue; 1 where there is a lease; server's time in µs, as text; and where a bound stopped some: number of
--            queued messages, and the bound ("messages", "bytes")

-- include clock
-- include lease_owner
-- include receipts
-- include enqueue

local lease_life, unusual = redis.call('PTTL', KEYS[2]), 0
if lease_life > tonumber(ARGV[#ARGV]) then
  -- Perhaps a dead owner's, whom a clock that was set back keeps alive. Another type under the lease is no concern of a push.
  pcall(lease_owner, KEYS[2])
  lease_life = redis.call('PTTL', KEYS[2])
  unusual = lease_life
end
local count, length, stopped, now = enqueue(#ARGV - 1, unusual)
local owned = lease_life == -2 and 0 or 1
if stopped == '' then return {length, owned, now} end
return {length, owned, now, count, stopped}
