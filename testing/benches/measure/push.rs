//! Pushing in four ways, each beside a bare redis-rs script (`LPUSH`, `PEXPIRE`, `LLEN`) over one connection:
//! `cargo bench -p mcp-courier-testing -- push`. It starts a `redis-server` of its own.
//!
//! Both sides build each message of about 300 bytes anew, give it an id, and read every answer. The session is owned by a
//! server, or by none: then a push also says whether a session store remembers it.

use std::sync::LazyLock;
use std::time::Instant;

use mcp_courier::{Config, Notification, Publisher, SessionId};
use mcp_courier_testing::redis_server::RedisServer;
use redis::aio::MultiplexedConnection;
use serde_json::json;
use uuid::Uuid;

use crate::support::bare;
use crate::support::figures::{Bench, Row, Wanted, print_head, print_row};
use crate::support::messages::{lease_of, notification, now, queue_of, session};

/// Size of a message in the queue, in bytes.
const BYTES: usize = 300;
/// Number of messages in one round.
const COUNT: usize = 20_000;
/// Number of sessions that have leases, and of queues that are filled in turn.
const SESSIONS: usize = 1000;
/// Most messages in one call of a script, on both sides.
const CALL: usize = 100;

static BARE: LazyLock<redis::Script> = LazyLock::new(|| {
    redis::Script::new(
        "redis.call('LPUSH', KEYS[1], unpack(ARGV, 2)) redis.call('PEXPIRE', KEYS[1], ARGV[1]) \
         return redis.call('LLEN', KEYS[1])",
    )
});

/// Way of pushing.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// By so many tasks at once, each of which awaits one push before the next.
    Singly { tasks: usize },
    /// In calls of `push_many` over so many sessions, with so many messages each.
    Together { sessions: usize, each: usize },
}

/// Redis server to which the rounds of one row push.
struct Place {
    publisher: Publisher,
    connection: MultiplexedConnection,
    /// Life of a queue, in ms.
    life: String,
    count: usize,
    _server: RedisServer,
}

pub(crate) fn run(bench: &Bench) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    print_head("bare script");
    // In a task: what `block_on` itself polls stands outside of the runtime's threads.
    let bench = bench.clone();
    runtime.block_on(async { tokio::spawn(async move { measure(&bench).await }).await.unwrap() });
}

async fn measure(bench: &Bench) {
    let singly = |tasks| Way::Singly { tasks };
    let together = |sessions, each| Way::Together { sessions, each };
    for (name, way, wanted) in [
        ("push, one at a time", singly(1), 0.8),
        ("push, 50 at once", singly(50), 0.7),
        ("push_many, 1 session, 1,000 messages", together(1, 1000), 0.7),
        ("push_many, 1,000 sessions, 1 message each", together(SESSIONS, 1), 0.7),
        ("push_many, 1,000 sessions, 10 messages each", together(SESSIONS, 10), 0.7),
    ] {
        for (owner, is_owned) in [("owned", true), ("no owner", false)] {
            let mut row = Row::new(format!("{name}, {owner}"), "/s").wanted(Wanted::AtLeast(wanted));
            let rounds = bench.rounds(std::slice::from_ref(&row));
            if rounds.is_empty() {
                continue;
            }
            let place = Place::open(bench.count(COUNT)).await;
            // Connections, scripts and memory are made by then.
            place.round(way, is_owned).await;
            for _ in rounds {
                let (ours, beside) = place.round(way, is_owned).await;
                row.add(ours, beside);
            }
            print_row(&row);
        }
    }
}

impl Place {
    async fn open(count: usize) -> Self {
        let server = RedisServer::start();
        let config = Config::builder().queue_max_messages(2 * COUNT).build().unwrap();
        let life = (config.time_to_live() + config.expiry_grace()).as_millis().to_string();
        let publisher = Publisher::connect(&server.url(), config).await.unwrap();
        let mut connection = bare::connect(&server.url()).await;
        let _: String = BARE.load_async(&mut connection).await.unwrap();
        Self { publisher, connection, life, count, _server: server }
    }

    /// Pushes by this crate and by the script, and returns the messages a second of both.
    async fn round(&self, way: Way, is_owned: bool) -> (f64, f64) {
        self.empty(is_owned).await;
        let ours = match way {
            Way::Singly { tasks } => self.singly(tasks, ours).await,
            Way::Together { sessions, each } => self.ours_together(sessions, each).await,
        };
        self.empty(is_owned).await;
        let beside = match way {
            Way::Singly { tasks } => self.singly(tasks, beside).await,
            Way::Together { sessions, each } => self.beside_together(sessions, each).await,
        };
        (ours, beside)
    }

    /// Removes all messages, and gives the sessions leases where a server owns them.
    async fn empty(&self, is_owned: bool) {
        let mut commands = redis::pipe();
        commands.cmd("FLUSHALL");
        for number in (0..SESSIONS).filter(|_| is_owned) {
            commands.cmd("SET").arg(lease_of(&session(number))).arg("another 60000").arg("PX").arg(60_000);
        }
        commands.exec_async(&mut self.connection.clone()).await.unwrap();
    }

    async fn singly<F: Future<Output = ()> + Send + 'static>(
        &self,
        tasks: usize,
        push: fn(&Self, Vec<usize>) -> F,
    ) -> f64 {
        let begun = Instant::now();
        let tasks: Vec<_> =
            (0..tasks).map(|task| tokio::spawn(push(self, (task..self.count).step_by(tasks).collect()))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        rate(self.count, begun)
    }

    async fn ours_together(&self, sessions: usize, each: usize) -> f64 {
        let ids: Vec<SessionId> = (0..sessions).map(session).collect();
        let begun = Instant::now();
        for _ in 0..self.calls(sessions * each) {
            let batch = (0..sessions * each).map(|n| (ids[n % sessions].clone(), made()));
            for pushed in self.publisher.push_many(batch).await {
                pushed.unwrap();
            }
        }
        rate(self.calls(sessions * each) * sessions * each, begun)
    }

    async fn beside_together(&self, sessions: usize, each: usize) -> f64 {
        let queues: Vec<String> = (0..sessions).map(|number| queue_of(&session(number))).collect();
        let begun = Instant::now();
        for _ in 0..self.calls(sessions * each) {
            let mut commands = redis::pipe();
            for queue in &queues {
                for first in (0..each).step_by(CALL) {
                    let call = commands.cmd("EVALSHA").arg(BARE.get_hash()).arg(1).arg(queue).arg(&self.life);
                    for _ in first..each.min(first + CALL) {
                        call.arg(made_beside());
                    }
                }
            }
            let lengths: Vec<usize> = commands.query_async(&mut self.connection.clone()).await.unwrap();
            assert!(lengths.iter().all(|length| *length > 0));
        }
        rate(self.calls(sessions * each) * sessions * each, begun)
    }

    /// Returns the number of calls in a round, where one call pushes so many messages.
    fn calls(&self, messages: usize) -> usize {
        (self.count / messages).max(1)
    }
}

fn rate(messages: usize, begun: Instant) -> f64 {
    messages as f64 / begun.elapsed().as_secs_f64()
}

/// Pushes the messages of these numbers, one after the other, to sessions in turn.
fn ours(place: &Place, numbers: Vec<usize>) -> impl Future<Output = ()> + Send + use<> {
    let publisher = place.publisher.clone();
    let sessions: Vec<SessionId> = numbers.into_iter().map(|number| session(number % SESSIONS)).collect();
    async move {
        for session in sessions {
            publisher.push(&session, made()).await.unwrap();
        }
    }
}

/// Does the same by the bare script.
fn beside(place: &Place, numbers: Vec<usize>) -> impl Future<Output = ()> + Send + use<> {
    let (mut connection, life) = (place.connection.clone(), place.life.clone());
    let queues: Vec<String> = numbers.into_iter().map(|number| queue_of(&session(number % SESSIONS))).collect();
    async move {
        for queue in queues {
            let mut call = redis::cmd("EVALSHA");
            call.arg(BARE.get_hash()).arg(1).arg(queue).arg(&life).arg(made_beside());
            let length: usize = call.query_async(&mut connection).await.unwrap();
            assert!(length > 0);
        }
    }
}

fn made() -> Notification {
    notification(BYTES)
}

/// Makes a message of the same size with an id, and nothing else that such a script can do without.
fn made_beside() -> String {
    let params = json!({"made": now(), "padding": "x".repeat(BYTES - 151)});
    let notification = json!({"method": "notifications/bench", "params": params});
    serde_json::to_string(&json!({"notification": notification, "id": Uuid::now_v7().to_string()})).unwrap()
}
