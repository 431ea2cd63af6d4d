//! [`Round`]: jobs of many sessions that go to Redis together, and the return of each answer to its job.
//!
//! *Why one round at a time*. Jobs that arrive while a round is on its way share the next one. So the number of round
//! trips does not grow with the number of sessions. The price: the slowest answer of a round delays all its sessions.
//! Therefore a round after a large or slow one is narrower.
//!
//! *Isolation*. Each job is a sequence of its own in the request. A script that Redis does not know is loaded, and only
//! the commands of that job are sent again. An error of one job reaches that job alone. Only a failure of the
//! connection fails all jobs of a round; each session then acts on its own
//! (`g7_sessions_that_are_stuck_hold_up_no_neighbour`).
//!
//! *Clock*. The first command reads Redis's clock. Expiry needs the time of each read, and a plain read returns none.
//! One clock serves all jobs of the round.

use std::time::{Duration, Instant};

use redis::Value;
use tokio::sync::oneshot;

use crate::backend::redis::consumer::each;
use crate::backend::redis::lease::announcement;
use crate::backend::redis::link::{ANSWER_TIMEOUT, Answer, Command, Link, Request, is_migrating, same, size};
use crate::backend::redis::reply;
use crate::config::Config;
use crate::envelope::Timestamp;
use crate::failure::QueueErrorKind;

/// Commands of one session that go together, in their order.
pub(super) struct Job {
    pub(super) commands: Vec<Command>,
    /// Slot of the commands' keys in a cluster.
    pub(super) slot: u16,
    /// Time that the answers may take.
    pub(super) time: Duration,
    pub(super) answer: oneshot::Sender<Reply>,
}

/// Announcement that a session is live.
pub(super) struct Announcement {
    pub(super) member: String,
    /// Moment from which the session is live for one lease, in ms by Redis's clock.
    pub(super) now_ms: i64,
    /// Dropped when the announcement was made.
    pub(super) done: oneshot::Sender<()>,
}

/// Answer to a job.
pub(super) type Reply = Result<Answered, QueueErrorKind>;

/// Answers to the commands of a job.
pub(super) struct Answered {
    answers: Vec<Answer>,
    /// Time by Redis's clock at the beginning of the round.
    began: Timestamp,
    /// Moment at which the round was sent.
    pub(super) sent: Instant,
}

impl Answered {
    /// Returns the present time by Redis's clock. The result is late by at most the way of the round to Redis, and
    /// never early.
    pub(super) fn now(&self) -> Timestamp {
        self.began.plus(self.sent.elapsed())
    }

    /// Returns whether a command was refused because the slot of its keys is being migrated.
    pub(super) fn is_migrating(&self) -> bool {
        self.answers.iter().any(is_migrating)
    }

    /// Returns the position of the first of these commands to send again where their slot is being migrated. That is
    /// the first refused one, or the command without a key directly before it, which concerns it.
    pub(super) fn first_migrating(&self, commands: &[Command]) -> Option<usize> {
        let refused = self.answers.iter().position(is_migrating)?;
        let has_key = |command: &Command| command.slot().is_some();
        Some(commands.iter().take(refused).rposition(has_key).map_or(0, |last| last + 1))
    }

    /// Moves the answers before the position to `done`.
    pub(super) fn keep_until(&mut self, position: usize, done: &mut Vec<Answer>) {
        done.extend(self.answers.drain(..position));
    }

    /// Returns the answers behind those of earlier commands of the same job.
    pub(super) fn behind(mut self, mut earlier: Vec<Answer>) -> Self {
        earlier.append(&mut self.answers);
        Self { answers: earlier, ..self }
    }

    /// Returns the answers of a job of `N` commands.
    pub(super) fn answers<const N: usize>(self) -> Result<[Answer; N], QueueErrorKind> {
        each(self.answers)
    }
}

/// Outcome of a round that was answered.
pub(super) struct Done {
    /// Number of bytes of the answers.
    pub(super) bytes: usize,
    /// Time from the sending to the last answer.
    pub(super) took: Duration,
    /// Reason for which sessions could not be announced.
    pub(super) unannounced: Option<QueueErrorKind>,
}

/// Commands that are sent together. The first one reads Redis's clock.
pub(super) struct Round {
    request: Request,
    /// Number of commands of each job, and the sender of its answers.
    jobs: Vec<(usize, oneshot::Sender<Reply>)>,
    /// Dropped after the announcements were made, which ends the waits for them.
    announced: Vec<oneshot::Sender<()>>,
    /// Time that the answers may take.
    time: Duration,
}

impl Round {
    /// Begins a round that only reads the clock.
    pub(super) fn new() -> Self {
        let clock = Command::read(redis::cmd("TIME"));
        Self { request: Request::of(clock).impatient(), jobs: Vec::new(), announced: Vec::new(), time: ANSWER_TIMEOUT }
    }

    /// Returns the number of jobs.
    pub(super) fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Returns whether the round only reads the clock.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.announced.is_empty()
    }

    /// Adds a job.
    pub(super) fn add(&mut self, Job { commands, slot: _, time, answer }: Job) {
        self.time = self.time.max(time);
        self.jobs.push((commands.len(), answer));
        self.request.add_sequence(commands);
    }

    /// Adds announcements to the sorted set of live sessions. They stand behind the jobs, so that the answers of the
    /// jobs come first.
    pub(super) fn announce(&mut self, config: &Config, sessions: &str, announcements: Vec<Announcement>) {
        let mut live = Vec::with_capacity(announcements.len());
        for Announcement { member, now_ms, done } in announcements {
            live.push((now_ms, member));
            self.announced.push(done);
        }
        for command in announcement(config, sessions, &live) {
            self.request.add(command);
        }
    }

    /// Sends the round, and passes the answers on to those who wait for them.
    ///
    /// # Errors
    /// The failure of the whole round. Those who wait for its answers have got the same error already.
    pub(super) async fn send(self, link: &Link) -> Result<Done, QueueErrorKind> {
        let Self { request, jobs, announced, time } = self;
        let (sent, request) = (Instant::now(), request.within(time));
        let result = link.send(&request).await;
        let begun = result.and_then(|answers| {
            let bytes = answers.iter().flatten().map(size).sum();
            let mut answers = answers.into_iter();
            let began = reply::time(answers.next().unwrap_or(Ok(Value::Nil))?)?;
            Ok((began, answers, bytes))
        });
        match begun {
            Ok((began, mut answers, bytes)) => {
                for (count, answer) in jobs {
                    let answers = answers.by_ref().take(count).collect();
                    // A waiter that gave up meanwhile needs no answer.
                    let _ = answer.send(Ok(Answered { answers, began, sent }));
                }
                drop(announced);
                Ok(Done { bytes, took: sent.elapsed(), unannounced: answers.find_map(Result::err) })
            }
            Err(error) => {
                for (_, answer) in jobs {
                    let _ = answer.send(Err(same(&error)));
                }
                Err(error)
            }
        }
    }
}
