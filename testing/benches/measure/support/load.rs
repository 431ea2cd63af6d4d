//! Producers: on a thread of their own, as a worker is a process of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mcp_courier::{Config, Publisher, SessionId};

use super::bare;
use super::messages::{message, notification, queue_of, session};

/// Size of the messages, in bytes: as a task's status has it.
pub(crate) const SIZE: usize = 300;

/// Number of messages that one call pushes, where many are pushed.
const CHUNK: usize = 100;

/// Way of pushing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Pusher {
    /// `Publisher::push_many`, or `push` for one message.
    Publisher,
    /// Pipelines of bare `LPUSH`, one for each queue.
    Bare,
}

impl Pusher {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Publisher => "Publisher",
            Self::Bare => "LPUSH",
        }
    }
}

/// Pushes one message to each of the sessions in turn, as fast as it goes.
pub(crate) fn push_all(url: String, pusher: Pusher, sessions: Vec<usize>) -> JoinHandle<()> {
    on_a_thread(async move {
        match pusher {
            Pusher::Publisher => {
                let publisher = connect(&url).await;
                for chunk in sessions.chunks(CHUNK) {
                    let many = chunk.iter().map(|number| (session(*number), notification(SIZE)));
                    for pushed in publisher.push_many(many).await {
                        pushed.unwrap();
                    }
                }
            }
            Pusher::Bare => {
                let mut connection = bare::connect(&url).await;
                for chunk in sessions.chunks(CHUNK) {
                    let mut by_queue = chunk.to_vec();
                    by_queue.sort_unstable();
                    let mut pipe = redis::pipe();
                    for same in by_queue.chunk_by(|a, b| a == b) {
                        let messages: Vec<_> = same.iter().map(|_| message(SIZE)).collect();
                        pipe.lpush(queue_of(&session(same[0])), messages).ignore();
                    }
                    let () = pipe.query_async(&mut connection).await.unwrap();
                }
            }
        }
    })
}

/// Queues so many messages for each session of these ids.
pub(crate) async fn fill(url: &str, sessions: &[String], each: usize, message: impl Fn() -> Vec<u8>) {
    let mut connection = bare::connect(url).await;
    let queues: Vec<String> = sessions.iter().map(|id| queue_of(&SessionId::new(id.as_str()).unwrap())).collect();
    for some in queues.chunks(1000) {
        for from in (0..each).step_by(CHUNK) {
            let mut pipe = redis::pipe();
            for queue in some {
                let messages: Vec<_> = (from..each.min(from + CHUNK)).map(|_| message()).collect();
                pipe.lpush(queue, messages).ignore();
            }
            let () = pipe.query_async(&mut connection).await.unwrap();
        }
    }
}

/// Pusher at a steady pace, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Paced {
    is_stopped: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Paced {
    /// Pushes one message to each of the sessions in turn with a publisher, one at a time and with a pause from one to the next.
    pub(crate) fn start(url: String, pace: Duration, sessions: impl Iterator<Item = usize> + Send + 'static) -> Self {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&is_stopped);
        let thread = on_a_thread(async move {
            let publisher = connect(&url).await;
            let mut ticks = tokio::time::interval(pace);
            for number in sessions.take_while(|_| !stopped.load(Ordering::Relaxed)) {
                ticks.tick().await;
                publisher.push(&session(number), notification(SIZE)).await.unwrap();
            }
        });
        Self { is_stopped, thread }
    }

    /// Waits until all is pushed.
    pub(crate) fn join(self) {
        self.thread.join().unwrap();
    }

    /// Pushes no more.
    pub(crate) fn stop(self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.join();
    }
}

async fn connect(url: &str) -> Publisher {
    let anything = Config::builder().queue_max_messages(10_000_000).queue_max_bytes(usize::MAX / 2);
    Publisher::connect(url, anything.build().unwrap()).await.unwrap()
}

/// Runs a future on a thread of its own.
pub(crate) fn on_a_thread(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
    })
}

/// Way in which messages are spread over sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Spread {
    /// Each session gets as many as any other.
    Uniform,
    /// By Zipf's law with the exponent 1: of 1,000 sessions 200 get four fifths of the messages.
    Skewed,
}

impl Spread {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Skewed => "skewed",
        }
    }

    /// Returns for each of `count` messages the number of its session: the same at each call.
    pub(crate) fn sessions(self, sessions: usize, count: usize) -> Vec<usize> {
        let mut random = fastrand::Rng::with_seed(10);
        let weight = |rank: usize| match self {
            Self::Uniform => 1.0,
            Self::Skewed => 1.0 / (rank + 1) as f64,
        };
        let sums: Vec<f64> = (0..sessions)
            .scan(0.0, |sum, rank| {
                Some({
                    *sum += weight(rank);
                    *sum
                })
            })
            .collect();
        let whole = sums[sessions - 1];
        (0..count).map(|_| sums.partition_point(|sum| *sum < random.f64() * whole).min(sessions - 1)).collect()
    }
}
