//! Rooms of a fleet. In Redis, under `{prefix}:chat:`, and all with an expiry:
//!
//! | key | type | what |
//! | --- | --- | --- |
//! | `rooms` | sorted set | rooms by the time when they end, in ms |
//! | `members:{room}` | sorted set | sessions by the time when they vanish unless kept |
//! | `names:{room}` | hash | session -> name |
//! | `watchers:{room}` | sorted set | sessions by the time when they vanish unless kept |
//! | `seq:{room}` | string | the number of the last message |
//! | `speaking:{room}` | string | the token of whoever speaks |
//! | `member-of:{session}`, `watches:{session}` | hash | rooms, for as long as the session is kept in any |
//!
//! The commands are among those that the crate's README asks for, so that one Redis user serves both.

use std::time::{Duration, Instant};

use mcp_courier::{SessionId, async_trait};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{FromRedisValue, IntoConnectionInfo, ProtocolVersion, RedisResult, Script, ScriptInvocation};

use super::{Member, Places, Result, Room, Rooms, Turn};

/// How long a turn lasts if whoever has it dies. Longer than any turn may take.
const TURN: Duration = Duration::from_secs(10);

/// How long Redis may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a speaker waits for its turn.
const PATIENCE: Duration = Duration::from_secs(15);

/// What every script begins with: by Redis's own clock, those who were not kept vanish, and with its last member a room.
/// A script sees a room as it is, whoever looked last.
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
local function look()
    return {
        tonumber(redis.call('GET', seq) or '0'),
        redis.call('HGETALL', names),
        redis.call('ZRANGE', watchers, 0, -1),
    }
end
";

/// No session id is empty, so that one is the chat itself.
const SPEAK: &str = r"
if ARGV[3] == '' then
    if redis.call('EXISTS', members) == 0 then return false end
elseif not redis.call('ZSCORE', members, ARGV[3]) then
    return false
end
redis.call('INCR', seq)
touch()
return look()
";

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
return look()
";

const LEAVE: &str = r"
local left = redis.call('ZREM', members, ARGV[3])
redis.call('HDEL', names, ARGV[3])
redis.call('HDEL', member_of, room)
tidy()
return left
";

const WATCH: &str = r"
redis.call('ZADD', watchers, now + ttl, ARGV[3])
redis.call('HSET', watches, room, '')
redis.call('PEXPIRE', watches, ttl)
touch()
";

const UNWATCH: &str = r"
redis.call('ZREM', watchers, ARGV[3])
redis.call('HDEL', watches, room)
";

/// A session's rooms, which are kept in mind for as long as they are asked for.
const PLACES: &str = r"
for i = 1, 2 do redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
return {redis.call('HKEYS', KEYS[1]), redis.call('HKEYS', KEYS[2])}
";

/// Only those who still are: one who left while this was under way is not made a member again.
const KEEP: &str = r"
for i = 4, 3 + ARGV[3] do redis.call('ZADD', members, 'XX', now + ttl, ARGV[i]) end
for i = 4 + ARGV[3], #ARGV do redis.call('ZADD', watchers, 'XX', now + ttl, ARGV[i]) end
touch()
return #gone
";

/// The names of the rooms that have not ended.
const LIST: &str = r"
local t = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], t[1] * 1000 + math.floor(t[2] / 1000), '+inf')
";

/// Begins a turn, unless another's has not run out. Answers 1 again to whoever has it.
const TURN_OF: &str = r"
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
";

/// Ends a turn, unless it has run out and is another's now.
const DONE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

pub(crate) struct RedisRooms {
    connection: ConnectionManager,
    prefix: String,
    ttl: Duration,
    scripts: Scripts,
}

struct Scripts {
    speak: Script,
    join: Script,
    leave: Script,
    look: Script,
    watch: Script,
    unwatch: Script,
    places: Script,
    list: Script,
    turn: Script,
    keep: Script,
}

/// seq, names, watchers.
type Looked = (u64, Vec<(String, String)>, Vec<String>);

impl RedisRooms {
    pub(crate) async fn connect(url: &str, prefix: &str, ttl: Duration) -> Result<Self> {
        // redis-rs gives up after half a second by default, and what it gave up on may have been done all the same.
        let config = ConnectionManagerConfig::new().set_response_timeout(Some(ANSWER));
        // Only with RESP3 the manager learns of a closed connection before the next command fails on it.
        let info = url.into_connection_info()?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = redis::Client::open(info.set_redis_settings(settings))?;
        let connection = ConnectionManager::new_with_config(client, config).await?;
        let script = |text: &str| Script::new(&format!("{PRELUDE}{text}"));
        let scripts = Scripts {
            speak: script(SPEAK),
            join: script(JOIN),
            leave: script(LEAVE),
            look: script("return look()"),
            watch: script(WATCH),
            unwatch: script(UNWATCH),
            places: Script::new(PLACES),
            list: Script::new(LIST),
            turn: Script::new(TURN_OF),
            keep: script(KEEP),
        };
        Ok(Self { connection, prefix: format!("{prefix}:chat"), ttl, scripts })
    }

    fn places_of(&self, session: &str) -> [String; 2] {
        ["member-of", "watches"].map(|what| format!("{}:{what}:{session}", self.prefix))
    }

    /// Prepares a script on a room. Where it is about one session, that is the first argument.
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

    /// Runs a script that counts what it changes. Returns whether it changed anything. A run that is repeated counts as a change:
    /// what the first one changed, whose answer was lost, the second does not see.
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

/// Runs a script that does and answers the same when it runs twice: it is repeated where its connection was closed, as Redis and what stands
/// before it do with idle ones.
async fn invoke<T: FromRedisValue>(connection: &ConnectionManager, call: &ScriptInvocation<'_>) -> RedisResult<T> {
    match call.invoke_async(&mut connection.clone()).await {
        Err(error) if error.is_connection_dropped() => call.invoke_async(&mut connection.clone()).await,
        answered => answered,
    }
}

fn room_of((seq, names, watchers): Looked) -> Result<Room> {
    let session = |session: String| session.parse::<SessionId>();
    let mut members = Vec::new();
    for (encoded, name) in names {
        members.push(Member { session: session(encoded)?, name });
    }
    // A hash has no order of its own.
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
            // At different intervals, so that those who wait do not all come at once again.
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..=5))).await;
        }
    }

    async fn speak(&self, room: &str, session: Option<&SessionId>) -> Result<Option<Room>> {
        let session = session.map(SessionId::to_string).unwrap_or_default();
        // Not repeated: a number would be skipped. The turn before it has just found the connection open.
        let call = self.on_room(&self.scripts.speak, room, &[&session]);
        let spoken: Option<Looked> = call.invoke_async(&mut self.connection.clone()).await?;
        spoken.map(room_of).transpose()
    }

    async fn join(&self, room: &str, session: &SessionId, name: &str) -> Result<Option<Room>> {
        let joined: Option<Looked> = self.run(&self.scripts.join, room, &[&session.to_string(), name]).await?;
        joined.map(room_of).transpose()
    }

    async fn leave(&self, room: &str, session: &SessionId) -> Result<bool> {
        self.changes(&self.scripts.leave, room, &[&session.to_string()]).await
    }

    async fn look(&self, room: &str) -> Result<Room> {
        room_of(self.run(&self.scripts.look, room, &[]).await?)
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

    async fn keep(&self, room: &str, members: &[SessionId], watchers: &[SessionId]) -> Result<bool> {
        let count = members.len().to_string();
        let sessions: Vec<String> = members.iter().chain(watchers).map(SessionId::to_string).collect();
        let mut args = vec![count.as_str()];
        args.extend(sessions.iter().map(String::as_str));
        self.changes(&self.scripts.keep, room, &args).await
    }
}

struct RedisTurn {
    connection: ConnectionManager,
    key: String,
    token: String,
}

#[async_trait]
impl Turn for RedisTurn {
    async fn done(self: Box<Self>) {
        let script = Script::new(DONE);
        let mut call = script.key(&self.key);
        call.arg(&self.token);
        if let Err(error) = invoke::<u64>(&self.connection, &call).await {
            tracing::warn!(%error, "ending a turn to speak failed; the room is silent for up to {TURN:?}");
        }
    }
}
