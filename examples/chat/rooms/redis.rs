//! [`RedisRooms`]: rooms of a fleet. The keys in Redis stand under `{prefix}:chat:`, and each has an expiry:
//!
//! | key | type | content |
//! | --- | --- | --- |
//! | `rooms` | sorted set | rooms by the time when they end, in ms |
//! | `members:{room}` | sorted set | sessions by the time when they vanish unless renewed |
//! | `names:{room}` | hash | session -> name |
//! | `watchers:{room}` | sorted set | sessions by the time when they vanish unless renewed |
//! | `seq:{room}` | string | number of the last message |
//! | `speaking:{room}` | string | token of the session that speaks |
//! | `member-of:{session}`, `watches:{session}` | hash | rooms, while the session is renewed in any |
//!
//! The README of the crate lists commands that a Redis user needs. The chat uses no others, so one user serves both.

use std::time::{Duration, Instant};

use mcp_courier::{SessionId, async_trait};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{FromRedisValue, IntoConnectionInfo, ProtocolVersion, RedisResult, Script, ScriptInvocation};

use super::{Member, Places, Result, Room, Rooms, Turn};

/// Time after which the turn of a server that died ends. A turn never takes this long.
const TURN: Duration = Duration::from_secs(10);

/// Time that Redis may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Time that a speaker waits for its turn.
const PATIENCE: Duration = Duration::from_secs(15);

/// Beginning of every script on a room. By the server clock, members and watchers that were not renewed vanish, and a
/// room without members ends. So each script sees the room as it is at that moment.
const PRELUDE: &str = r"
local rooms, members, names, watchers, seq, room, ttl = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], ARGV[1], ARGV[2]
local member_of, watches = KEYS[6], KEYS[7]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local gone = redis.call('ZRANGEBYSCORE', members, '-inf', now)
for _, session in ipairs(gone) do
    redis.call('ZREM', members, session)
    redis.call('HDEL', names, session)
end
redis.call('ZREMRANGEBYSCORE', watchers, '-inf', now)
local function tidy()
    if redis.call('EXISTS', members) == 0 then
        redis.call('DEL', seq)
        redis.call('ZREM', rooms, room)
    end
end
tidy()
local function touch()
    if redis.call('EXISTS', members) == 1 then
        redis.call('ZADD', rooms, now + ttl, room)
        redis.call('ZREMRANGEBYSCORE', rooms, '-inf', now)
        redis.call('PEXPIRE', rooms, ttl)
    end
    for _, key in ipairs({members, names, watchers, seq}) do redis.call('PEXPIRE', key, ttl) end
end
local function read()
    return {
        tonumber(redis.call('GET', seq) or '0'),
        redis.call('HGETALL', names),
        redis.call('ZRANGE', watchers, 0, -1),
    }
end
";

/// Counts a message. The chat itself speaks with an empty session id, which no session has.
const SPEAK: &str = r"
if ARGV[3] == '' then
    if redis.call('EXISTS', members) == 0 then return false end
elseif not redis.call('ZSCORE', members, ARGV[3]) then
    return false
end
redis.call('INCR', seq)
touch()
return read()
";

/// Makes a session a member, unless another session has that name.
const JOIN: &str = r"
local all = redis.call('HGETALL', names)
for i = 1, #all, 2 do
    if all[i + 1] == ARGV[4] and all[i] ~= ARGV[3] then return false end
end
redis.call('ZADD', members, now + ttl, ARGV[3])
redis.call('HSET', names, ARGV[3], ARGV[4])
redis.call('HSET', member_of, room, '')
redis.call('PEXPIRE', member_of, ttl)
touch()
return read()
";

/// Ends a membership.
const LEAVE: &str = r"
local left = redis.call('ZREM', members, ARGV[3])
redis.call('HDEL', names, ARGV[3])
redis.call('HDEL', member_of, room)
tidy()
return left
";

/// Makes a session a watcher.
const WATCH: &str = r"
redis.call('ZADD', watchers, now + ttl, ARGV[3])
redis.call('HSET', watches, room, '')
redis.call('PEXPIRE', watches, ttl)
touch()
";

/// Ends the watching of a session.
const UNWATCH: &str = r"
redis.call('ZREM', watchers, ARGV[3])
redis.call('HDEL', watches, room)
";

/// Returns the rooms of a session, and renews the two keys with them.
const PLACES: &str = r"
for i = 1, 2 do redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
return {redis.call('HKEYS', KEYS[1]), redis.call('HKEYS', KEYS[2])}
";

/// Renews members and watchers. A session that has left meanwhile does not become a member again.
const RENEW: &str = r"
for i = 4, 3 + ARGV[3] do redis.call('ZADD', members, 'XX', now + ttl, ARGV[i]) end
for i = 4 + ARGV[3], #ARGV do redis.call('ZADD', watchers, 'XX', now + ttl, ARGV[i]) end
touch()
return #gone
";

/// Returns the names of the rooms that have not ended.
const LIST: &str = r"
local t = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], t[1] * 1000 + math.floor(t[2] / 1000), '+inf')
";

/// Begins a turn, unless another turn lasts. Answers 1 where the caller has the turn, also at a repetition.
const BEGIN_TURN: &str = r"
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
";

/// Ends a turn, unless the turn has run out and another session speaks by now.
const END_TURN: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

/// Rooms in Redis.
pub(crate) struct RedisRooms {
    connection: ConnectionManager,
    /// Prefix of the chat's keys, without a colon at its end.
    prefix: String,
    /// Time after which members and watchers vanish unless renewed.
    ttl: Duration,
    scripts: Scripts,
}

struct Scripts {
    speak: Script,
    join: Script,
    leave: Script,
    read: Script,
    watch: Script,
    unwatch: Script,
    places: Script,
    list: Script,
    turn: Script,
    renew: Script,
}

/// Answer of a script that reads a room: number of the last message, names by session, watchers.
type RoomReply = (u64, Vec<(String, String)>, Vec<String>);

impl RedisRooms {
    pub(crate) async fn connect(url: &str, prefix: &str, ttl: Duration) -> Result<Self> {
        // By default redis-rs gives up after half a second, although Redis may still perform the command.
        let config = ConnectionManagerConfig::new().set_response_timeout(Some(ANSWER));
        // With RESP3 the manager learns of a closed connection at once, and not by the next command that fails.
        let info = url.into_connection_info()?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = redis::Client::open(info.set_redis_settings(settings))?;
        let connection = ConnectionManager::new_with_config(client, config).await?;
        let script = |text: &str| Script::new(&format!("{PRELUDE}{text}"));
        let scripts = Scripts {
            speak: script(SPEAK),
            join: script(JOIN),
            leave: script(LEAVE),
            read: script("return read()"),
            watch: script(WATCH),
            unwatch: script(UNWATCH),
            places: Script::new(PLACES),
            list: Script::new(LIST),
            turn: Script::new(BEGIN_TURN),
            renew: script(RENEW),
        };
        Ok(Self { connection, prefix: format!("{prefix}:chat"), ttl, scripts })
    }

    fn places_of(&self, session: &str) -> [String; 2] {
        ["member-of", "watches"].map(|what| format!("{}:{what}:{session}", self.prefix))
    }

    /// Prepares a script on a room. The first argument is the session, where the script concerns one.
    fn on_room<'a>(&self, script: &'a Script, room: &str, args: &[&str]) -> ScriptInvocation<'a> {
        let mut call = script.key(format!("{}:rooms", self.prefix));
        for what in ["members", "names", "watchers", "seq"] {
            call.key(format!("{}:{what}:{room}", self.prefix));
        }
        if let Some(session) = args.first() {
            for key in self.places_of(session) {
                call.key(key);
            }
        }
        call.arg(room).arg(millis(self.ttl)).arg(args);
        call
    }

    async fn run<T: FromRedisValue>(&self, script: &Script, room: &str, args: &[&str]) -> Result<T> {
        Ok(invoke(&self.connection, &self.on_room(script, room, args)).await?)
    }

    /// Runs a script that returns the number of its changes. Returns whether there was a change. A run that is repeated
    /// counts as a change: the first run, whose answer was lost, may have made the change already.
    async fn changes(&self, script: &Script, room: &str, args: &[&str]) -> Result<bool> {
        let call = self.on_room(script, room, args);
        match call.invoke_async::<u64>(&mut self.connection.clone()).await {
            Err(error) if error.is_connection_dropped() => {
                call.invoke_async::<u64>(&mut self.connection.clone()).await?;
                Ok(true)
            }
            changed => Ok(changed? > 0),
        }
    }
}

/// Runs a script whose effect and answer stay the same when it runs twice. The run is repeated where the connection was
/// closed, as Redis and proxies close idle connections.
async fn invoke<T: FromRedisValue>(connection: &ConnectionManager, call: &ScriptInvocation<'_>) -> RedisResult<T> {
    match call.invoke_async(&mut connection.clone()).await {
        Err(error) if error.is_connection_dropped() => call.invoke_async(&mut connection.clone()).await,
        answered => answered,
    }
}

/// Reads the answer of a script.
fn room_of((seq, names, watchers): RoomReply) -> Result<Room> {
    let session = |session: String| session.parse::<SessionId>();
    let mut members = Vec::new();
    for (encoded, name) in names {
        members.push(Member { session: session(encoded)?, name });
    }
    // The fields of a hash have no order.
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let watchers = watchers.into_iter().map(session).collect::<std::result::Result<_, _>>()?;
    Ok(Room { members, watchers, seq })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Rooms for RedisRooms {
    async fn turn(&self, room: &str) -> Result<Box<dyn Turn>> {
        let turn = RedisTurn {
            connection: self.connection.clone(),
            key: format!("{}:speaking:{room}", self.prefix),
            token: format!("{:032x}", fastrand::u128(..)),
        };
        let began = Instant::now();
        loop {
            let mut call = self.scripts.turn.key(&turn.key);
            call.arg(&turn.token).arg(millis(TURN));
            if invoke(&turn.connection, &call).await? {
                return Ok(Box::new(turn) as Box<dyn Turn>);
            }
            if began.elapsed() > PATIENCE {
                return Err("too many speak in this room at once".into());
            }
            // The pauses differ, so that those who wait do not all try again at once.
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..=5))).await;
        }
    }

    async fn speak(&self, room: &str, session: Option<&SessionId>) -> Result<Option<Room>> {
        let session = session.map(SessionId::to_string).unwrap_or_default();
        // A repetition could skip a number, so there is none. The begin of the turn has just used the connection.
        let call = self.on_room(&self.scripts.speak, room, &[&session]);
        let spoken: Option<RoomReply> = call.invoke_async(&mut self.connection.clone()).await?;
        spoken.map(room_of).transpose()
    }

    async fn join(&self, room: &str, session: &SessionId, name: &str) -> Result<Option<Room>> {
        let joined: Option<RoomReply> = self.run(&self.scripts.join, room, &[&session.to_string(), name]).await?;
        joined.map(room_of).transpose()
    }

    async fn leave(&self, room: &str, session: &SessionId) -> Result<bool> {
        self.changes(&self.scripts.leave, room, &[&session.to_string()]).await
    }

    async fn read(&self, room: &str) -> Result<Room> {
        room_of(self.run(&self.scripts.read, room, &[]).await?)
    }

    async fn list(&self) -> Result<Vec<String>> {
        let call = self.scripts.list.key(format!("{}:rooms", self.prefix));
        let mut names: Vec<String> = invoke(&self.connection, &call).await?;
        names.sort();
        Ok(names)
    }

    async fn watch(&self, room: &str, session: &SessionId) -> Result<()> {
        self.run(&self.scripts.watch, room, &[&session.to_string()]).await
    }

    async fn unwatch(&self, room: &str, session: &SessionId) -> Result<()> {
        self.run(&self.scripts.unwatch, room, &[&session.to_string()]).await
    }

    async fn places(&self, session: &SessionId) -> Result<Places> {
        let [member_of, watches] = self.places_of(&session.to_string());
        let mut call = self.scripts.places.key(member_of);
        call.key(watches).arg(millis(self.ttl));
        let (member_of, watches) = invoke(&self.connection, &call).await?;
        Ok(Places { member_of, watches })
    }

    async fn renew(&self, room: &str, members: &[SessionId], watchers: &[SessionId]) -> Result<bool> {
        let count = members.len().to_string();
        let sessions: Vec<String> = members.iter().chain(watchers).map(SessionId::to_string).collect();
        let mut args = vec![count.as_str()];
        args.extend(sessions.iter().map(String::as_str));
        self.changes(&self.scripts.renew, room, &args).await
    }
}

/// Turn to speak, until it is ended or runs out.
struct RedisTurn {
    connection: ConnectionManager,
    key: String,
    token: String,
}

#[async_trait]
impl Turn for RedisTurn {
    async fn end(self: Box<Self>) {
        let script = Script::new(END_TURN);
        let mut call = script.key(&self.key);
        call.arg(&self.token);
        if let Err(error) = invoke::<u64>(&self.connection, &call).await {
            tracing::warn!(%error, "ending a turn to speak failed; nobody can speak in the room for up to {TURN:?}");
        }
    }
}
