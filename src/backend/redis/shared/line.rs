//! [`Line`]: the sessions that share a connection, their jobs and waits, and the rounds in which all that goes to Redis.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::round::{Announcement, Done, Job, Reply, Round};
use crate::backend::Permit;
use crate::backend::redis::link::{ANSWER_TIMEOUT, CHECK_EVERY, Command, Link, same};
use crate::backend::redis::take::oldest;
use crate::config::Config;
use crate::failure::QueueErrorKind;
use crate::keys::Keys;
use crate::lock::lock;

/// Most jobs of one round. More would make each job wait for longer than its own answer takes.
const WIDEST: usize = 256;

/// Fewest jobs of one round.
const NARROWEST: usize = 1;

/// Bytes of answers from which on the next rounds are narrower.
const LARGE: usize = 1024 * 1024;

/// Bytes of answers from which on their time says something of the line.
const TELLING: usize = 16 * 1024;

/// Shortest time between two reads of a queue whose changes Redis does not tell, and the part of it for each session.
const POLL: Duration = Duration::from_millis(250);
const POLL_EACH: Duration = Duration::from_micros(50);

/// Sessions over one link.
pub(super) struct Line {
    pub(super) link: Link,
    pub(super) config: Arc<Config>,
    pub(super) keys: Keys,
    state: Mutex<State>,
    /// Notified when there is a job, and at the end of the line.
    work: Arc<Notify>,
}

struct State {
    /// Consumers by the queues that they have opened. A session that is replaced has two for a while.
    places: HashMap<Arc<str>, Vec<Arc<Place>>>,
    /// Jobs of the next rounds, the oldest first: each session has one at a time, so none gets ahead of its neighbours.
    jobs: VecDeque<(Job, Option<Arc<Place>>)>,
    announcements: Vec<Announcement>,
    /// Waits by their ends.
    ends: BTreeMap<End, Arc<Place>>,
    /// Number of waits so far.
    waits: u64,
    /// Most jobs of the next round.
    width: usize,
    /// Number of rounds in a row whose sessions could not be announced.
    unannounced: u32,
    /// When the next round is due though there is no job: so a dead connection is found.
    check: Instant,
}

type End = (Instant, u64);

/// Place of one consumer on the line.
pub(super) struct Place {
    pub(super) queue: Arc<str>,
    pub(super) permit: Arc<Permit>,
    reading: Mutex<Reading>,
}

struct Reading {
    /// Set unless the queue was empty at its last read, and Redis will tell of its next change.
    is_stale: bool,
    wait: Option<Wait>,
}

/// A wait under way: a read of the queue that is sent when the queue changes, or at the end of the wait.
struct Wait {
    end: End,
    most: usize,
    time: Duration,
    answer: oneshot::Sender<Reply>,
}

impl Place {
    /// Has the next wait read the queue at once: there is a message in it, or Redis will not tell of the next change, as after
    /// a write over this line.
    pub(super) fn set_stale(&self) {
        lock(&self.reading).is_stale = true;
    }
}

impl Line {
    /// Starts a line, whose rounds run on the runtime of the caller until the line is dropped.
    pub(super) fn start(link: Link, config: Arc<Config>) -> Arc<Self> {
        let state = State {
            places: HashMap::new(),
            jobs: VecDeque::new(),
            announcements: Vec::new(),
            ends: BTreeMap::new(),
            waits: 0,
            width: NARROWEST,
            unannounced: 0,
            check: Instant::now(),
        };
        let line = Arc::new(Self {
            keys: Keys::new(config.prefix()),
            link,
            config,
            state: Mutex::new(state),
            work: Arc::default(),
        });
        let told = Arc::downgrade(&line);
        line.link.observe(move |key| {
            if let Some(line) = told.upgrade() {
                line.tell(key);
            }
        });
        tokio::spawn(run(Arc::downgrade(&line), line.link.for_large_answers(), Arc::clone(&line.work)));
        line
    }

    /// Gives a consumer its place.
    pub(super) fn enter(&self, queue: String, permit: Arc<Permit>) -> Arc<Place> {
        let place = Arc::new(Place {
            queue: queue.into(),
            permit,
            reading: Mutex::new(Reading { is_stale: true, wait: None }),
        });
        let mut state = lock(&self.state);
        state.places.entry(Arc::clone(&place.queue)).or_insert_with(|| Vec::with_capacity(1)).push(Arc::clone(&place));
        place
    }

    /// Takes a consumer's place.
    pub(super) fn leave(&self, place: &Arc<Place>) {
        let mut state = lock(&self.state);
        if let Some(places) = state.places.get_mut(&place.queue) {
            places.retain(|other| !Arc::ptr_eq(other, place));
            if places.is_empty() {
                state.places.remove(&place.queue);
            }
        }
    }

    /// Sends one command, and returns its answer.
    ///
    /// # Errors
    /// Redis's refusal, or the failure of the round.
    ///
    /// # Cancellation
    /// What was sent may be done; what was not is not.
    pub(super) async fn call(&self, command: Command) -> Result<redis::Value, QueueErrorKind> {
        let [answer] = self.send([command]).await?.answers()?;
        answer
    }

    /// Sends commands together, and returns their answers. Errors and cancellation are as those of [`call`](Self::call).
    pub(super) async fn send(&self, commands: impl Into<Vec<Command>>) -> Reply {
        self.queue(commands.into(), ANSWER_TIMEOUT, None).await
    }

    /// Sends commands that read the queue of this place last, and whose answers may take this time.
    pub(super) async fn read_by(&self, place: &Arc<Place>, commands: Vec<Command>, time: Duration) -> Reply {
        self.queue(commands, time, Some(Arc::clone(place))).await
    }

    /// Puts the lease of a queue in doubt to all on this line but the one who wrote it: Redis does not tell a connection of what it
    /// wrote itself. To be called before the answer to the write is made use of.
    pub(super) fn wrote_lease(&self, queue: &str, writer: Option<&Arc<Place>>) {
        let state = lock(&self.state);
        let others = state.places.get(queue).into_iter().flatten();
        others
            .filter(|other| writer.is_none_or(|writer| !Arc::ptr_eq(other, writer)))
            .for_each(|other| other.permit.suspend());
    }

    /// Sends the [`commands_to_read`](Self::commands_to_read) when the queue may not be empty any more, and at the latest at
    /// `end`. Returns their answers.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub(super) async fn wait(&self, place: &Arc<Place>, (most, time): (usize, Duration), end: Instant) -> Reply {
        let reply = {
            let (answer, reply) = oneshot::channel();
            let mut state = lock(&self.state);
            let untold = (!self.link.is_tracking()).then(|| Instant::now() + polling(state.places.len()));
            state.waits += 1;
            let end = (untold.map_or(end, |untold| untold.min(end)), state.waits);
            let mut reading = lock(&place.reading);
            reading.wait = Some(Wait { end, most, time, answer });
            let is_stale = reading.is_stale;
            drop(reading);
            state.ends.insert(end, Arc::clone(place));
            if is_stale {
                self.end_wait(&mut state, place);
                self.work.notify_one();
            } else if state.ends.first_key_value().is_some_and(|(first, _)| *first == end) {
                // The rounds sleep until the first end that they know.
                self.work.notify_one();
            }
            reply
        };
        let _waiting = Waiting { line: self, place };
        answered(reply.await)
    }

    /// Says in the sorted set of live sessions that a session is live for a lease from this moment on, in ms by Redis's clock.
    pub(super) async fn announce(&self, member: String, now_ms: i64) {
        let (done, announced) = oneshot::channel();
        lock(&self.state).announcements.push(Announcement { member, now_ms, done });
        self.work.notify_one();
        // The rounds end with their runtime only.
        let _ = announced.await;
    }

    async fn queue(&self, commands: Vec<Command>, time: Duration, place: Option<Arc<Place>>) -> Reply {
        let (answer, reply) = oneshot::channel();
        lock(&self.state).jobs.push_back((Job { commands, time, answer }, place));
        self.work.notify_one();
        answered(reply.await)
    }

    /// Returns the commands that read up to `most` of the oldest messages, then the lease: who owns it then owned the queue at
    /// the read.
    pub(super) fn commands_to_read(&self, queue: &str, passed_over: usize, most: usize) -> Vec<Command> {
        let lease = redis::cmd("GET").arg(self.keys.lease_of(queue)).take();
        vec![Command::read(oldest(queue, passed_over, most)), Command::read(lease)]
    }

    /// Has the queue read for which a place waits, if it does.
    fn end_wait(&self, state: &mut State, place: &Arc<Place>) {
        let Some(Wait { end, most, time, answer }) = lock(&place.reading).wait.take() else { return };
        state.ends.remove(&end);
        let commands = self.commands_to_read(&place.queue, 0, most);
        state.jobs.push_back((Job { commands, time, answer }, Some(Arc::clone(place))));
    }

    /// Takes note of what Redis tells, in the task that reads the connection: before any answer that came behind it.
    fn tell(&self, key: Option<&[u8]>) {
        let mut state = lock(&self.state);
        let changed = |state: &mut State, places: &[Arc<Place>]| {
            for place in places {
                place.set_stale();
                self.end_wait(state, place);
            }
        };
        let Some(key) = key else {
            // After a flush, or on a lost connection, nothing is known: neither of the leases nor of the queues.
            let all: Vec<Arc<Place>> = state.places.values().flatten().cloned().collect();
            all.iter().for_each(|place| place.permit.suspend());
            changed(&mut state, &all);
            self.work.notify_one();
            return;
        };
        let Ok(key) = std::str::from_utf8(key) else { return };
        if let Some(queue) = self.keys.queue_of_lease(key) {
            state.places.get(queue).into_iter().flatten().for_each(|place| place.permit.suspend());
        } else if let Some(places) = state.places.get(key).cloned() {
            changed(&mut state, &places);
            self.work.notify_one();
        }
    }

    /// Returns the next round, or the time until which there is none.
    fn next_round(&self) -> Result<Round, Instant> {
        let (now, mut state) = (Instant::now(), lock(&self.state));
        while let Some((&(end, _), place)) = state.ends.first_key_value() {
            if end > now {
                break;
            }
            let place = Arc::clone(place);
            self.end_wait(&mut state, &place);
        }
        let State { jobs, announcements, places, width, check, ends, .. } = &mut *state;
        let mut round = Round::new();
        while round.jobs() < *width {
            let Some((job, place)) = jobs.pop_front() else { break };
            // Nobody waits for its answer any more: what was given up is not done.
            if job.answer.is_closed() {
                continue;
            }
            if let Some(place) = place {
                // Whatever changes from now on may not be in the answer.
                lock(&place.reading).is_stale = false;
            }
            round.add(job);
        }
        let announcements: Vec<_> = announcements.drain(..announcements.len().min(WIDEST)).collect();
        if !announcements.is_empty() {
            round.announce(&self.config, &self.keys.sessions(), announcements);
        }
        if round.is_empty() && (*check > now || places.is_empty()) {
            let check = if places.is_empty() { now + CHECK_EVERY } else { *check };
            return Err(ends.first_key_value().map_or(check, |(end, _)| end.0.min(check)));
        }
        *check = now + CHECK_EVERY;
        Ok(round)
    }

    /// Learns from a round that had so many jobs, above all the width of the next ones.
    fn learn(&self, jobs: usize, Done { bytes, took, unannounced }: Done) {
        let mut state = lock(&self.state);
        state.unannounced = if unannounced.is_some() { state.unannounced.saturating_add(1) } else { 0 };
        if let Some(error) = unannounced.filter(|_| state.unannounced.is_power_of_two()) {
            // An owner delivers without.
            let consequence = "broadcasts miss them, and they are not listed as live";
            tracing::warn!(%error, consequence, rounds = state.unannounced, "shared sessions could not be announced");
        }
        let width = &mut state.width;
        // Less passes any line in time, and a slow answer of so few bytes says nothing of the line.
        let slower_than = |time: Duration| bytes >= TELLING && took > time;
        if bytes > LARGE || slower_than(ANSWER_TIMEOUT / 2) {
            *width = (jobs / 2).max(NARROWEST);
        } else if jobs >= *width && bytes < LARGE / 2 && !slower_than(ANSWER_TIMEOUT / 4) {
            *width = (*width * 2).min(WIDEST);
        }
    }

    /// Takes note of a round that failed: its answers may have been too large for the line.
    ///
    /// Where no connection can be had, all jobs fail that came meanwhile: each of their rounds would try for as long again.
    fn failed(&self, error: &QueueErrorKind) {
        let mut state = lock(&self.state);
        state.width = NARROWEST;
        if matches!(error, QueueErrorKind::Unreachable(_)) {
            state.announcements.clear();
            for (job, _) in state.jobs.drain(..) {
                let _ = job.answer.send(Err(same(error)));
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.work.notify_one();
    }
}

/// A wait under way, until it is dropped.
struct Waiting<'a> {
    line: &'a Line,
    place: &'a Arc<Place>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.line.state);
        if let Some(wait) = lock(&self.place.reading).wait.take() {
            state.ends.remove(&wait.end);
        }
    }
}

/// Sends round after round, one at a time, until the line is dropped.
async fn run(line: Weak<Line>, link: Link, work: Arc<Notify>) {
    loop {
        // Not held while there is nothing to do: the line ends with its last user.
        let Some(next) = line.upgrade().map(|line| line.next_round()) else { return };
        match next {
            Ok(round) => {
                let jobs = round.jobs();
                let done = round.send(&link).await;
                let Some(line) = line.upgrade() else { return };
                match done {
                    Ok(done) => line.learn(jobs, done),
                    Err(error) => line.failed(&error),
                }
            }
            Err(until) => {
                let _ = tokio::time::timeout_at(until, work.notified()).await;
            }
        }
    }
}

/// Returns the time between two reads of a queue where Redis does not tell of changes, for so many sessions.
fn polling(sessions: usize) -> Duration {
    POLL.max(POLL_EACH * u32::try_from(sessions).unwrap_or(u32::MAX))
}

fn answered(reply: Result<Reply, oneshot::error::RecvError>) -> Reply {
    reply.unwrap_or_else(|_| Err(QueueErrorKind::Broken("the runtime of the connection has ended".into())))
}
