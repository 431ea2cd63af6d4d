-- Queues notifications of one session, checks the bounds, adds the server's time, and extends the life of the queue:
-- all in one atomic step.
--
-- KEYS[1]    queue
-- KEYS[2]    lease
-- KEYS[3..]  wanted receipts
-- ARGV[1]    length up to which no bound can be near
-- ARGV[2]    four numbers, read only where a bound may be near or a life is unusual: most messages in the queue; most bytes
--            in it; number of messages that stay within these bytes, however large each is; grace in the life of the queue,
--            in ms
-- ARGV[3]    life of the queue that the longest-lived message needs, in ms
-- ARGV[4]    rest of a life that needs no extension, in ms
-- ARGV[5..]  for each receipt: number of its message, the message's time to live in µs, life of the receipt in ms;
--            then each message up to the server's time, with its time to live first, so with r receipts from 5 + 3r on;
--            last, the longest usual rest of a lease's life, in ms
-- Reply      length of the queue; 1 where there is a lease; server's time in µs, as text;
--            and where a bound stopped some: number of queued messages, and the bound ("messages", "bytes")

-- include clock
-- include server_time
-- include lease_owner
-- include lease_life
-- include receipts
-- include enqueue

local lease_life, unusual = lease_life_of(KEYS[2], ARGV[#ARGV])
local now = server_time()
local count, length, stopped = enqueue(3 * #KEYS - 1, #ARGV - 1, unusual, now)
for i = 3, #KEYS do
  if tonumber(ARGV[3 * i - 4]) <= count then receipt_of(KEYS[i], 3 * i - 4, now) end
end
local owned = lease_life == -2 and 0 or 1
if stopped == '' then return {length, owned, now} end
return {length, owned, now, count, stopped}
