-- Queues notifications of one session as `push` does, where some have a deduplication key. A notification whose key is
-- remembered is not queued.
--
-- KEYS[1]    queue
-- KEYS[2]    lease
-- KEYS[3]    one set of deduplication keys
-- KEYS[4]    the other set
-- KEYS[5..]  wanted receipts
-- ARGV[1]    length up to which no bound can be near
-- ARGV[2]    four numbers as for `push`, read only where a bound may be near or a life is unusual
-- ARGV[3]    life of the queue that the longest-lived message needs, in ms
-- ARGV[4]    rest of a life that needs no extension, in ms
-- ARGV[5..]  for each receipt: number of its message, the message's time to live in µs, life of the receipt in ms;
--            then each message up to the server's time, with its time to live first, so with r receipts from 5 + 3r on;
--            then for each message: its id, the hash of its deduplication key or "";
--            last, number of messages; window in µs; most keys of a key set; longest usual rest of a lease's life, in ms
-- Reply      1 where there is a lease; server's time in µs, as text; the bound that stopped the rest ("messages", "bytes"),
--            or ""; and for each message before it: length of the queue, and "" or the id of the notification that was
--            queued under its key before

-- include clock
-- include server_time
-- include lease_owner
-- include lease_life
-- include receipts
-- include enqueue
-- include deduplication

local key_sets, first = {KEYS[3], KEYS[4]}, 3 * #KEYS - 7
local count, window, most = tonumber(ARGV[#ARGV - 3]), tonumber(ARGV[#ARGV - 2]), tonumber(ARGV[#ARGV - 1])
local lease_life, unusual = lease_life_of(KEYS[2], ARGV[#ARGV])
local now, stopped, next_receipt = server_time(), '', 5
local answer = {lease_life == -2 and 0 or 1, now, ''}
if count > 1 then
  -- Another type under a key must stop the script before anything is queued. The lives of several messages differ, so
  -- each extends the life of the queue by its own.
  for _, key_set in ipairs(key_sets) do redis.call('HLEN', key_set) end
  unusual = math.max(1, unusual)
end
for n = 1, count do
  local id, key = ARGV[first + count + 2 * n - 2], ARGV[first + count + 2 * n - 1]
  local receipt, of_receipt = KEYS[next_receipt], 3 * next_receipt - 10
  local has_receipt = receipt and tonumber(ARGV[of_receipt]) == n
  if has_receipt then next_receipt = next_receipt + 1 end
  local earlier = key ~= '' and first_of(key_sets, key, now, window)
  local length
  if earlier then
    length = redis.call('LLEN', KEYS[1])
  else
    local queued, at
    queued, length, stopped, at = enqueue(first + n - 1, first + n - 1, unusual)
    if queued == 0 then break end
    if has_receipt then receipt_of(receipt, of_receipt, at) end
    if key ~= '' then remember(key_sets, key, id, at, window, most) end
  end
  answer[#answer + 1] = length
  answer[#answer + 1] = earlier or ''
end
answer[3] = stopped
return answer
