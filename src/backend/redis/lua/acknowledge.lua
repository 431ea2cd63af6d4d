-- Checks the lease, removes the delivered messages where they still stand at the tail, and extends the life of the
-- queue.
--
-- A plain command behind this script reads the oldest messages. The same read costs Redis ten times as much in a
-- script.
--
-- The guard compares only the newest delivered message: its position, its length and its last 256 bytes. The last bytes
-- contain the message's id and the time of its push, so even two copies of one notification differ. Where the newest
-- delivered message stands at its position, the older ones stand behind it.
--
-- KEYS[1]  queue
-- KEYS[2]  lease
-- KEYS[3]  messages that a push may replace, deleted where the lease is taken
-- ARGV[1]  value of the caller's lease
-- ARGV[2]  life of the lease in ms where an absent lease is to be taken, or ""
-- ARGV[3]  least life of the queue, in ms
-- ARGV[4]  life of a queue that has none, in ms
-- ARGV[5]  position of the newest delivered message from the tail, where -1 is the oldest; none where nothing was delivered
-- ARGV[6]  position of the message before it
-- ARGV[7]  length of the newest delivered message, in bytes
-- ARGV[8]  last bytes of the newest delivered message, at most 256
-- Reply    state of the lease (held, reclaimed, absent, lost);
--          with " changed" behind held or reclaimed where another message stood at that position

-- include clock

-- Numbers travel as text: a number in a call is formatted, which costs more than the call.
local call, queue, lease = redis.call, KEYS[1], KEYS[2]
local owner = call('GET', lease)
local state = 'held'
if owner ~= ARGV[1] then
  if owner then return 'lost' end
  if ARGV[2] == '' then return 'absent' end
  -- DEL first: a script whose first write is SET is refused when Redis is out of memory.
  call('DEL', lease, KEYS[3])
  call('SET', lease, ARGV[1], 'PX', ARGV[2])
  state = 'reclaimed'
end

if ARGV[5] then
  local last = call('LINDEX', queue, ARGV[5])
  if last and #last == tonumber(ARGV[7]) and string.sub(last, -256) == ARGV[8] then
    call('LTRIM', queue, '0', ARGV[6])
  else
    state = state .. ' changed'
  end
end

-- include queue_life

return state
