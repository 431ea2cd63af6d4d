-- Queues notifications of one session: bounds, server time and expiry in one atomic step.
--
-- KEYS[1]    queue
-- KEYS[2..]  receipts that are wanted; behind them, last, the lease
-- ARGV[1]    most messages in the queue
-- ARGV[2]    most bytes in the queue
-- ARGV[3]    most bytes of a message
-- ARGV[4]    grace of the queue's expiry, in ms
-- ARGV[5]    life of a receipt, in ms
-- ARGV[6..]  for each receipt the number of its message; then for each message the text before the server's time, the text
--            after it, and the message's time to live in µs
-- Reply      number of queued messages; length of the queue; the bound that stopped the rest ("messages", "bytes"), or "";
--            1 where there is a lease; server's time in µs

-- include clock
-- include lease_owner
-- include receipts
-- include enqueue

-- Another type under the lease is no concern of a push.
pcall(lease_owner, KEYS[#KEYS])
local lease_life = redis.call('PTTL', KEYS[#KEYS])
local count, length, stopped, now = enqueue(#ARGV, lease_life)
return {count, length, stopped, lease_life == -2 and 0 or 1, now}
