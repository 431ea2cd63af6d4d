//! [`Multiplexer`]: sessions that share a connection, their jobs and waits, and the rounds in which everything goes to
//! Redis.
//!
//! A *job* is the commands of one operation of one session. Jobs queue up in the order in which they came. A *round* is
//! one pipeline of jobs; the next round leaves when the answers of the last are there. A *wait* becomes a job at one of
//! three moments: at once where the queue is stale, at a change of the queue, or at its end.
//!
//! A queue is *stale* unless its last read found it empty and is tracked. The flag is cleared when a read is put into a
//! round, before it is sent. So a change that Redis announces while the read is on its way sets the flag again, and no
//! change is lost.
//!
//! *Files*. `rounds` composes and sends the rounds, `migrating` repeats jobs of a slot that a cluster migrates.
//!
//! *Order of the handling*. An invalidation is handled in the task that reads the connection, before any answer behind
//! it. So a permit is suspended before the answer of a read that the new owner may contradict.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::registration::{End, Reading, Registration, Wait};
use super::round::{Announcement, Job, Reply};
use crate::backend::Permit;
use crate::backend::redis::lease::ANNOUNCED_WITHIN;
use crate::backend::redis::link::{ANSWER_TIMEOUT, Command, Concerned, Link};
use crate::backend::redis::tail::oldest;
use crate::config::Config;
use crate::failure::QueueErrorKind;
use crate::keys::Keys;
use crate::lock::lock;

mod migrating;
mod rounds;

/// Shortest time between two reads of a queue whose changes Redis does not announce, and the share of each session in
/// that time.
const POLL: Duration = Duration::from_millis(250);
const POLL_EACH: Duration = Duration::from_micros(50);

/// Multiplexer of one arbiter: its sessions share one link.
pub(super) struct Multiplexer {
    pub(super) link: Link,
    pub(super) config: Arc<Config>,
    pub(super) keys: Keys,
    /// Slot of the sorted set of live sessions in a cluster.
    sessions_slot: u16,
    state: Mutex<State>,
    /// Notified when there is a job, and at the end of the line.
    work: Arc<Notify>,
}

/// State of the multiplexer. One lock holds it, so that a wait, a change and a round see each other whole.
struct State {
    /// Consumers by the queues that they have opened. A queue has two for a while when a subscriber is replaced.
    registrations: HashMap<Arc<str>, Vec<Arc<Registration>>>,
    /// Jobs of the next rounds, the oldest first. Each session has one job at a time, so no session overtakes its
    /// neighbours.
    jobs: VecDeque<(Job, Option<Arc<Registration>>)>,
    /// Sessions to announce as live, with the next round.
    announcements: Vec<Announcement>,
    /// Waits by their ends.
    ends: BTreeMap<End, Arc<Registration>>,
    /// Number of waits so far, which makes each end unique.
    waits: u64,
    /// Largest number of jobs in the next round.
    width: usize,
    /// Number of rounds in a row whose sessions could not be announced.
    unannounced: u32,
    /// Time at which the next round is due even without a job: such a round finds a dead connection.
    check: Instant,
}

impl Multiplexer {
    /// Starts a line. Its rounds run on the runtime of the caller until the line is dropped.
    pub(super) fn start(link: Link, config: Arc<Config>) -> Arc<Self> {
        let state = State {
            registrations: HashMap::new(),
            jobs: VecDeque::new(),
            announcements: Vec::new(),
            ends: BTreeMap::new(),
            waits: 0,
            width: rounds::NARROWEST,
            unannounced: 0,
            check: Instant::now(),
        };
        let keys = Keys::new(config.prefix());
        let mux = Arc::new(Self {
            sessions_slot: link.slot_of(&[redis::cmd("EXISTS").arg(keys.sessions()).into()]),
            keys,
            link,
            config,
            state: Mutex::new(state),
            work: Arc::default(),
        });
        let weak = Arc::downgrade(&mux);
        mux.link.observe(move |concerned| {
            if let Some(mux) = weak.upgrade() {
                mux.handle_invalidation(concerned);
            }
        });
        tokio::spawn(rounds::run(Arc::downgrade(&mux), mux.link.for_large_answers(), Arc::clone(&mux.work)));
        mux
    }

    /// Registers a consumer.
    pub(super) fn enter(&self, queue: String, permit: Arc<Permit>) -> Arc<Registration> {
        let registration = Arc::new(Registration {
            queue: queue.into(),
            permit,
            reading: Mutex::new(Reading { is_stale: true, wait: None }),
        });
        let mut state = lock(&self.state);
        state
            .registrations
            .entry(Arc::clone(&registration.queue))
            .or_insert_with(|| Vec::with_capacity(1))
            .push(Arc::clone(&registration));
        registration
    }

    /// Removes a consumer.
    pub(super) fn leave(&self, registration: &Arc<Registration>) {
        let mut state = lock(&self.state);
        if let Some(registrations) = state.registrations.get_mut(&registration.queue) {
            registrations.retain(|other| !Arc::ptr_eq(other, registration));
            if registrations.is_empty() {
                state.registrations.remove(&registration.queue);
            }
        }
    }

    /// Sends one command, and returns its answer.
    ///
    /// # Errors
    /// Redis's refusal, or the failure of the round.
    ///
    /// # Cancellation
    /// A command that was sent may be done. A command that was not sent is dropped.
    pub(super) async fn call(&self, command: Command) -> Result<redis::Value, QueueErrorKind> {
        let [answer] = self.send([command]).await?.answers()?;
        answer
    }

    /// Sends commands together, and returns their answers. Errors and cancellation are those of [`call`](Self::call).
    pub(super) async fn send(&self, commands: impl Into<Vec<Command>>) -> Reply {
        self.queue_patiently(commands.into(), ANSWER_TIMEOUT, None).await
    }

    /// Sends commands whose last reads concern the queue of this place. Their answers may take `time`.
    pub(super) async fn read_by(
        &self,
        registration: &Arc<Registration>,
        commands: Vec<Command>,
        time: Duration,
    ) -> Reply {
        self.queue_patiently(commands, time, Some(Arc::clone(registration))).await
    }

    /// Suspends the permits of all on this connection except the writer of the lease: Redis does not announce a
    /// connection's own writes. Must be called before the answer to the write is used.
    pub(super) fn wrote_lease(&self, queue: &str, writer: Option<&Arc<Registration>>) {
        let state = lock(&self.state);
        let others = state.registrations.get(queue).into_iter().flatten();
        others
            .filter(|other| writer.is_none_or(|writer| !Arc::ptr_eq(other, writer)))
            .for_each(|other| other.permit.suspend());
    }

    /// Sends the [`commands_to_read`](Self::commands_to_read) when the queue may no longer be empty, and at `end` at
    /// the latest. Returns their answers.
    ///
    /// *Locks*. `state` is always locked before `reading`, and neither is held across an await. The wait is entered
    /// under both. A change before the entry is seen as `is_stale`; a change after the entry finds the wait.
    /// `reading` is released before `end_wait`, which locks it again.
    ///
    /// *Wake-ups*. The task of the rounds wakes for a job or for an earlier end. The wait becomes a job here,
    /// in `handle_invalidation`, or in `next_round` at its end, and the answer of that job wakes the caller.
    ///
    /// # Cancellation
    /// Nothing is lost. `Waiting` removes the wait and its end.
    async fn wait_once(
        &self,
        registration: &Arc<Registration>,
        (most, time): (usize, Duration),
        end: Instant,
    ) -> Reply {
        let reply = {
            let (answer, reply) = oneshot::channel();
            let mut state = lock(&self.state);
            let poll_at = (!self.link.is_tracking()).then(|| Instant::now() + polling(state.registrations.len()));
            state.waits += 1;
            let end = (poll_at.map_or(end, |poll_at| poll_at.min(end)), state.waits);
            let mut reading = lock(&registration.reading);
            reading.wait = Some(Wait { end, most, time, answer });
            let is_stale = reading.is_stale;
            drop(reading);
            state.ends.insert(end, Arc::clone(registration));
            if is_stale {
                self.end_wait(&mut state, registration);
                self.work.notify_one();
            } else if state.ends.first_key_value().is_some_and(|(first, _)| *first == end) {
                // The rounds sleep until the earliest end that they know, and this end is earlier.
                self.work.notify_one();
            }
            reply
        };
        let _waiting = Waiting { mux: self, registration };
        answered(reply.await)
    }

    /// Announces in the sorted set of live sessions that a session is live for one lease from `now_ms` on, in ms by
    /// Redis's clock.
    pub(super) async fn announce(&self, member: String, now_ms: i64) {
        let (done, announced) = oneshot::channel();
        lock(&self.state).announcements.push(Announcement { member, now_ms, done });
        self.work.notify_one();
        // The channel closes without an answer only where the runtime of the rounds has ended.
        if self.link.is_cluster() {
            let _ = tokio::time::timeout(ANNOUNCED_WITHIN, announced).await;
        } else {
            let _ = announced.await;
        }
    }

    /// Queues a job, and waits for its answer.
    async fn queue(&self, commands: Vec<Command>, time: Duration, registration: Option<Arc<Registration>>) -> Reply {
        let (answer, reply) = oneshot::channel();
        let slot = self.link.slot_of(&commands);
        lock(&self.state).jobs.push_back((Job { commands, slot, time, answer }, registration));
        self.work.notify_one();
        answered(reply.await)
    }

    /// Returns the commands that read up to `most` of the oldest messages, and then the lease. The owner that the
    /// second read finds owned the queue at the first.
    pub(super) fn commands_to_read(&self, queue: &str, passed_over: usize, most: usize) -> Vec<Command> {
        let lease = redis::cmd("GET").arg(self.keys.lease_of(queue)).take();
        vec![Command::read(oldest(queue, passed_over, most)), Command::read(lease)]
    }

    /// Ends the wait of a place, if it has one, with a read of its queue.
    fn end_wait(&self, state: &mut State, registration: &Arc<Registration>) {
        let Some(Wait { end, most, time, answer }) = lock(&registration.reading).wait.take() else { return };
        state.ends.remove(&end);
        let commands = self.commands_to_read(&registration.queue, 0, most);
        let slot = self.link.slot_of(&commands);
        state.jobs.push_back((Job { commands, slot, time, answer }, Some(Arc::clone(registration))));
    }

    /// Evaluates an invalidation in the task that reads the connection, before any answer that came behind it.
    fn handle_invalidation(&self, concerned: Concerned<'_>) {
        let mut state = lock(&self.state);
        let changed = |state: &mut State, registrations: &[Arc<Registration>]| {
            for registration in registrations {
                registration.set_stale();
                self.end_wait(state, registration);
            }
        };
        let key = match concerned {
            Concerned::One(key) => key,
            Concerned::Each(is_concerned) => {
                // After a flush, on a lost connection, or on a move of slots, nothing is known of these leases and
                // queues.
                let all = state.registrations.iter().filter(|(queue, _)| is_concerned(queue));
                let all: Vec<Arc<Registration>> = all.flat_map(|(_, registrations)| registrations).cloned().collect();
                all.iter().for_each(|registration| registration.permit.suspend());
                changed(&mut state, &all);
                self.work.notify_one();
                return;
            }
        };
        let Ok(key) = std::str::from_utf8(key) else { return };
        if let Some(queue) = self.keys.queue_of_lease(key) {
            state.registrations.get(queue).into_iter().flatten().for_each(|registration| registration.permit.suspend());
        } else if let Some(registrations) = state.registrations.get(key).cloned() {
            changed(&mut state, &registrations);
            self.work.notify_one();
        }
    }
}

impl Drop for Multiplexer {
    fn drop(&mut self) {
        self.work.notify_one();
    }
}

/// Open wait, until it is dropped.
struct Waiting<'a> {
    mux: &'a Multiplexer,
    registration: &'a Arc<Registration>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.mux.state);
        if let Some(wait) = lock(&self.registration.reading).wait.take() {
            state.ends.remove(&wait.end);
        }
    }
}

/// Returns the time between two reads of a queue where Redis announces no changes, for this number of sessions.
fn polling(sessions: usize) -> Duration {
    POLL.max(POLL_EACH * u32::try_from(sessions).unwrap_or(u32::MAX))
}

fn answered(reply: Result<Reply, oneshot::error::RecvError>) -> Reply {
    reply.unwrap_or_else(|_| Err(QueueErrorKind::Broken("the runtime of the connection has ended".into())))
}
