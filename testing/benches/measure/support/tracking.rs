//! Bare loop that delivers from many queues over one connection, with the commands of shared waiting and no guarantee to keep.
//!
//! Client tracking tells which queue was pushed to. Each round of the loop is one pipeline: a plain `LRANGE` for each queue that
//! was, and for each that gave messages before, one script that removes them and reads the next. The script is guarded by the
//! lease and by what stands at the tail, as that of this crate.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread::JoinHandle;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, PushInfo, PushKind, Value};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;

use super::bare::BATCH;
use super::messages::{lease_of, queue_of, session};
use super::sessions::Sink;

/// Value of every lease.
const OWNER: &str = "bare";

/// Removes what was delivered, where it still stands there, and reads the next batch.
const ACKNOWLEDGE: &str = "if redis.call('GET', KEYS[2]) ~= ARGV[1] then return {} end
local last = redis.call('LINDEX', KEYS[1], -ARGV[2])
if last and #last == tonumber(ARGV[3]) and string.sub(last, -256) == ARGV[4] then
  redis.call('LTRIM', KEYS[1], 0, -1 - ARGV[2])
end
return redis.call('LRANGE', KEYS[1], -ARGV[5], -1)";

/// Running loop, on a thread of its own.
#[derive(Debug)]
pub(crate) struct TrackingLoop {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl TrackingLoop {
    /// Starts a loop over the queues of so many sessions. Returns when all of them are tracked.
    pub(crate) async fn start(url: String, sessions: usize, sink: Arc<dyn Sink>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let run = async move {
            let mut queues = Queues::connect(&url, sessions, sink).await;
            queues.round((0..sessions).collect(), Vec::new()).await;
            let _ = ready.send(());
            tokio::select! {
                () = queues.run() => {}
                _ = stopped => {}
            }
        };
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run);
        });
        is_ready.await.unwrap();
        Self { stop, thread }
    }

    pub(crate) fn stop(self) {
        let _ = self.stop.send(());
        self.thread.join().unwrap();
    }
}

/// Messages of one queue that were delivered and are still in the queue.
struct Delivered {
    queue: usize,
    count: usize,
    last: Vec<u8>,
}

struct Queues {
    connection: MultiplexedConnection,
    pushes: UnboundedReceiver<PushInfo>,
    script: String,
    /// Keys of the queue and of the lease of each session.
    keys: Vec<(String, String)>,
    by_key: HashMap<Vec<u8>, usize>,
    sink: Arc<dyn Sink>,
}

impl Queues {
    async fn connect(url: &str, sessions: usize, sink: Arc<dyn Sink>) -> Self {
        let (sender, pushes) = unbounded_channel();
        let settings = AsyncConnectionConfig::new()
            .set_push_sender(sender)
            .set_response_timeout(Some(std::time::Duration::from_secs(60)));
        let client = redis::Client::open(format!("{url}?protocol=resp3")).unwrap();
        let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await.unwrap();
        let keys: Vec<_> = (0..sessions).map(session).map(|id| (queue_of(&id), lease_of(&id))).collect();
        let mut claims = redis::pipe();
        for (_, lease) in &keys {
            claims.set(lease, OWNER).ignore();
        }
        let () = claims.query_async(&mut connection).await.unwrap();
        let () =
            redis::cmd("CLIENT").arg("TRACKING").arg("ON").arg("NOLOOP").query_async(&mut connection).await.unwrap();
        let script = redis::cmd("SCRIPT").arg("LOAD").arg(ACKNOWLEDGE).query_async(&mut connection).await.unwrap();
        let by_key = keys.iter().enumerate().map(|(number, (queue, _))| (queue.clone().into_bytes(), number)).collect();
        Self { connection, pushes, script, keys, by_key, sink }
    }

    async fn run(&mut self) {
        let (mut woken, mut delivered) = (Vec::new(), Vec::new());
        loop {
            if delivered.is_empty() && woken.is_empty() {
                let Some(push) = self.pushes.recv().await else { return };
                woken.extend(self.queue_of(&push));
            }
            while let Ok(push) = self.pushes.try_recv() {
                woken.extend(self.queue_of(&push));
            }
            delivered = self.round(std::mem::take(&mut woken), delivered).await;
        }
    }

    /// Returns the queue of which an invalidation tells.
    fn queue_of(&self, PushInfo { kind, data }: &PushInfo) -> Option<usize> {
        assert_eq!(*kind, PushKind::Invalidate, "the connection holds");
        let Some(Value::Array(keys)) = data.first() else { return None };
        let Some(Value::BulkString(key)) = keys.first() else { return None };
        self.by_key.get(key).copied()
    }

    /// Acknowledges what was delivered, reads what is there, and delivers that.
    async fn round(&mut self, woken: Vec<usize>, delivered: Vec<Delivered>) -> Vec<Delivered> {
        let mut pipe = Pipeline::with_capacity(woken.len() + delivered.len());
        for Delivered { queue, count, last } in &delivered {
            let (key, lease) = &self.keys[*queue];
            let acknowledge = pipe.cmd("EVALSHA").arg(&self.script).arg(2).arg(key).arg(lease).arg(OWNER).arg(*count);
            acknowledge.arg(last.len()).arg(&last[last.len().saturating_sub(256)..]).arg(BATCH);
        }
        // What is acknowledged is read by that too.
        let acknowledged: HashSet<usize> = delivered.iter().map(|delivered| delivered.queue).collect();
        let read: Vec<usize> = woken.into_iter().filter(|queue| !acknowledged.contains(queue)).collect();
        for queue in &read {
            pipe.cmd("LRANGE").arg(&self.keys[*queue].0).arg(-(BATCH as i64)).arg(-1);
        }
        let answers: Vec<Vec<Vec<u8>>> = pipe.query_async(&mut self.connection).await.unwrap();
        let mut next = Vec::new();
        for (queue, messages) in delivered.into_iter().map(|delivered| delivered.queue).chain(read).zip(answers) {
            // The oldest stands at the end; the mark is that of the newest.
            messages.iter().rev().for_each(|message| self.sink.take(message));
            let count = messages.len();
            next.extend(messages.into_iter().next().map(|last| Delivered { queue, count, last }));
        }
        next
    }
}
