-- Queues notifications of one session as `push` does, where some have a deduplication key or a collapse key. A
-- notification whose deduplication key is remembered is not queued. While no lease exists, a notification replaces the
-- waiting one with its collapse key.
--
-- KEYS[1]    queue
-- KEYS[2]    lease
-- KEYS[3]    one set of deduplication keys
-- KEYS[4]    the other set
-- KEYS[5]    messages that a push may replace, by their collapse keys
-- KEYS[6]    beginning of the keys of receipts
-- KEYS[7..]  wanted receipts
-- ARGV[1]    length up to which no bound can be near
-- ARGV[2]    four numbers as for `push`, read only where a bound may be near or a life is unusual
-- ARGV[3]    life of the queue that the longest-lived message needs, in ms
-- ARGV[4]    rest of a life that needs no extension, in ms
-- ARGV[5..]  for each receipt: number of its message, the message's time to live in µs, life of the receipt in ms;
--            then each message up to the server's time, with its time to live first, so with r receipts from 5 + 3r on;
--            then for each message: its id, the hash of its deduplication key or "", the hash of its collapse key or "";
--            last, number of messages; window in µs; most keys of a key set; life of a settled receipt in ms; most collapse
--            keys; most bytes of a message that may be replaced; longest usual rest of a lease's life, in ms
-- Reply      1 where there is a lease; server's time in µs, as text; the bound that stopped the rest ("messages", "bytes"),
--            or ""; and for each message before it: length of the queue, "" or the id of the notification that was
--            queued under its key before, and 1 where a message was replaced

-- include clock
-- include server_time
-- include lease_owner
-- include lease_life
-- include receipts
-- include enqueue
-- include deduplication
-- include collapse

local key_sets, first, last = {KEYS[3], KEYS[4]}, 3 * #KEYS - 13, #ARGV
local count, window, most = tonumber(ARGV[last - 6]), tonumber(ARGV[last - 5]), tonumber(ARGV[last - 4])
local most_collapsible, most_bytes = tonumber(ARGV[last - 2]), tonumber(ARGV[last - 1])
local lease_life, unusual = lease_life_of(KEYS[2], ARGV[last])
local is_owned = lease_life ~= -2
local now, stopped, next_receipt = server_time(), '', 7
local answer = {is_owned and 1 or 0, now, ''}
if count > 1 then
  -- Another type under a key must stop the script before anything is queued. The lives of several messages differ, so
  -- each extends the life of the queue by its own.
  for i = 3, 5 do redis.call('HLEN', KEYS[i]) end
  unusual = math.max(1, unusual)
end
for n = 1, count do
  local keys = first + count + 3 * n - 3
  local id, key, collapse_key = ARGV[keys], ARGV[keys + 1], ARGV[keys + 2]
  local receipt, of_receipt = KEYS[next_receipt], 3 * next_receipt - 16
  local has_receipt = receipt and tonumber(ARGV[of_receipt]) == n
  if has_receipt then next_receipt = next_receipt + 1 end
  local earlier = key ~= '' and first_of(key_sets, key, now, window)
  local length, removed = nil, 0
  if earlier then
    length = redis.call('LLEN', KEYS[1])
  else
    local is_collapsible = collapse_key ~= '' and not is_owned
    -- Read before anything is queued: another type under this key must stop the script now.
    if is_collapsible then redis.call('HLEN', KEYS[5]) end
    local queued
    queued, length, stopped = enqueue(first + n - 1, first + n - 1, unusual, now)
    if queued == 0 then break end
    if has_receipt then receipt_of(receipt, of_receipt, now) end
    if key ~= '' then remember(key_sets, key, id, now, window, most) end
    if is_collapsible then
      removed = collapse(KEYS[5], KEYS[6], collapse_key, id, ARGV[first + n - 1], now, ARGV[last - 3], most_collapsible,
        most_bytes)
    end
  end
  answer[#answer + 1] = length - removed
  answer[#answer + 1] = earlier or ''
  answer[#answer + 1] = removed
end
answer[3] = stopped
return answer
