//! [`KeyWatcher`]: waits for writes of other processes, for any number of questions and receipts of this process over
//! one link.
//!
//! The link tracks each key that is read over it, so Redis announces the next change of that key. A lost announcement,
//! a new connection or a full tracking table would hide a change. Therefore all keys are read again every few seconds,
//! in a round of touches. The same round keeps alive the mark that says that the asker of a question lives. The first
//! round without a waiter ends the task.
//!
//! *Callers*. `questions/answers` waits for the response to a question, `outcomes` for the outcome of a receipt. Both
//! register before their first read: a change between an earlier read and the registration would go unnoticed.
//!
//! *The round is part of the protocol*. It finds lost announcements, and it checks that the link leads to a primary: a
//! replica answers reads and announces nothing
//! (`a_worker_that_waits_gets_the_answer_that_its_user_gives_at_the_new_primary`). It also keeps the askers alive.
//! Without the round another process could take the place of a waiting question after [`ALIVE`].
//!
//! *Runtimes*. The task runs on the runtime of the waiter that started it. That runtime may end before other waiters
//! do. The task's guard then wakes all of them, and the next touch starts the task again elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use redis::Value;
use tokio::sync::Notify;

use super::link::{Command, Link, LinkEvent, Request, Watch};
use crate::failure::QueueErrorKind;
use crate::lock::lock;

/// Time for which a silent asker counts as alive: three rounds.
#[cfg(feature = "elicitation")]
pub(super) const ALIVE: Duration = Duration::from_secs(15);

/// Time between two rounds.
const ROUND: Duration = Duration::from_secs(5);

/// Pause after a failed read of keys.
const AFTER_FAILURE: Duration = Duration::from_millis(250);

/// Number of keys per request of a round.
const TOGETHER: usize = 500;

/// Keys that this process waits for.
pub(super) struct KeyWatcher {
    shared: Arc<Shared>,
}

/// State that the waiters and the task share. The task holds it weakly, so that the task ends with the watcher.
struct Shared {
    link: Link,
    state: Mutex<State>,
    /// Notified when a key must be touched before the next round.
    work: Notify,
}

#[derive(Default)]
struct State {
    /// All waiters, by the number of their registration.
    waiting: HashMap<u64, Arc<Waiting>>,
    next: u64,
    /// Registrations whose keys must be touched at once.
    untouched: Vec<Weak<Waiting>>,
    /// Set while a task touches the keys.
    running: bool,
}

/// Waiter for a change of one key: the command that reads the key, and the condition that wakes the waiter.
struct Waiting {
    /// Command that reads the key last, so that Redis announces its next change.
    touch: Command,
    /// Decides by the answer to `touch` whether the waiter is woken.
    is_due: fn(&Value) -> bool,
    /// Notified when the waiter should read its key.
    wake: Notify,
}

/// Registration of a key, until it is dropped.
pub(super) struct WatchedKey<'a> {
    shared: &'a Arc<Shared>,
    waiting: Arc<Waiting>,
    number: u64,
    /// Registration at the link. Dropping it ends the announcements.
    _watch: Watch,
}

impl KeyWatcher {
    /// Makes a watcher over a link that tracks the keys that are read.
    pub(super) fn new(link: Link) -> Self {
        Self { shared: Arc::new(Shared { link, state: Mutex::default(), work: Notify::new() }) }
    }

    /// Watches a key. `touch` is sent at once and again in every round, and must read the key last: then Redis
    /// announces the next change. `is_due` says of the answer whether the waiter should read the key.
    pub(super) fn register(
        &self,
        key: String,
        touch: impl Into<Command>,
        is_due: fn(&Value) -> bool,
    ) -> WatchedKey<'_> {
        let shared = &self.shared;
        let waiting = Arc::new(Waiting { touch: touch.into(), is_due, wake: Notify::new() });
        let watch = {
            let (shared, waiting) = (Arc::downgrade(shared), Arc::clone(&waiting));
            self.shared.link.watch(key, move |event| match (event, shared.upgrade()) {
                // A new connection tracks nothing yet.
                (LinkEvent::Lost, Some(shared)) => shared.touch_soon(&waiting),
                _ => waiting.wake.notify_one(),
            })
        };
        let number = {
            let mut state = shared.state();
            state.next += 1;
            let number = state.next;
            state.waiting.insert(number, Arc::clone(&waiting));
            number
        };
        shared.touch_soon(&waiting);
        WatchedKey { shared, waiting, number, _watch: watch }
    }

    /// Returns the link over which all wait.
    #[cfg(feature = "elicitation")]
    pub(super) fn link(&self) -> &Link {
        &self.shared.link
    }
}

impl WatchedKey<'_> {
    /// Waits until the key should be read. Returns at once where that was so before this call.
    pub(super) async fn until_due(&self) {
        self.waiting.wake.notified().await;
    }

    /// Touches the key soon. Needed after each read of the key, as Redis announces only one change per read.
    pub(super) fn touch_soon(&self) {
        self.shared.touch_soon(&self.waiting);
    }
}

impl Shared {
    /// Notes that a key must be touched, and starts the task where none runs.
    fn touch_soon(self: &Arc<Self>, waiting: &Arc<Waiting>) {
        let start = {
            let mut state = self.state();
            state.untouched.push(Arc::downgrade(waiting));
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            tokio::spawn(Running { shared: Arc::downgrade(self), has_ended: false }.run());
        }
        self.work.notify_one();
    }

    /// Touches keys, and wakes the waiters whose answers are due.
    ///
    /// # Errors
    /// The failure of the link.
    async fn touch(&self, all: &[Arc<Waiting>]) -> Result<(), QueueErrorKind> {
        let (mut failed, mut lost): (Option<(usize, QueueErrorKind)>, _) = (None, None);
        for some in all.chunks(TOGETHER) {
            let mut request = Request::new();
            for waiting in some {
                request.add(waiting.touch.clone());
            }
            for (waiting, answer) in some.iter().zip(self.link.send(&request).await?) {
                match answer {
                    Ok(answer) if (waiting.is_due)(&answer) => waiting.wake.notify_one(),
                    Ok(_) => {}
                    // One key is wrong, as where it holds another type. The other keys are not affected, and the next
                    // round tries this one again.
                    Err(error @ QueueErrorKind::Refused(_)) => failed.get_or_insert((0, error)).0 += 1,
                    // One node of a cluster failed. Its keys are read again as after the failure of a single server.
                    Err(error) => lost = Some(error),
                }
            }
        }
        if let Some((count, error)) = failed {
            tracing::warn!(%error, count, "reading watched keys failed; the next round reads them again");
        }
        lost.map_or(Ok(()), Err)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for WatchedKey<'_> {
    fn drop(&mut self) {
        self.shared.state().waiting.remove(&self.number);
    }
}

/// Task that touches the keys. It ends when nobody waits. However it ends, another can be started.
struct Running {
    shared: Weak<Shared>,
    /// Set when the task ended in order. Where it is unset at the drop, the task was aborted, and its waiters must
    /// start another.
    has_ended: bool,
}

impl Running {
    /// Touches new keys at once, and all keys in every round. A round first checks that the server is a primary.
    async fn run(mut self) {
        let mut round = tokio::time::interval(ROUND);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        round.reset();
        let mut failures = 0_u32;
        while let Some(shared) = self.shared.upgrade() {
            let all = tokio::select! {
                _ = round.tick() => true,
                () = shared.work.notified() => false,
            };
            let touched: Vec<Arc<Waiting>> = {
                let mut state = shared.state();
                let untouched = std::mem::take(&mut state.untouched);
                if !all {
                    untouched.iter().filter_map(Weak::upgrade).collect()
                } else if self.end_if_unused(&mut state) {
                    break;
                } else {
                    state.waiting.values().cloned().collect()
                }
            };
            // A replica answers reads, but never announces a change.
            let checked = if all { shared.link.check().await.map(drop) } else { Ok(()) };
            let is_primary = checked.is_ok();
            let worked = match checked {
                Ok(()) => shared.touch(&touched).await,
                refused => refused,
            };
            match worked {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures = failures.saturating_add(1);
                    // Logged the first time, and then whenever the number of failures has doubled.
                    if failures.is_power_of_two() {
                        tracing::warn!(%error, failures, "reading watched keys failed; trying again");
                    }
                    if is_primary {
                        // A failed check has paused already.
                        tokio::time::sleep(AFTER_FAILURE).await;
                    }
                    round.reset_immediately();
                }
            }
        }
    }

    /// Ends the task where nobody waits. Runs under the lock, so that the next to register sees that the task has
    /// ended.
    fn end_if_unused(&mut self, state: &mut State) -> bool {
        self.has_ended = state.waiting.is_empty();
        if self.has_ended {
            state.running = false;
            state.untouched.clear();
        }
        self.has_ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        if self.has_ended {
            shared.link.disconnect();
            return;
        }
        // The task was dropped half-way because its runtime ended. A waiter in another runtime starts the task again
        // there.
        let waiting: Vec<_> = {
            let mut state = shared.state();
            state.running = false;
            state.waiting.values().cloned().collect()
        };
        waiting.iter().for_each(|waiting| waiting.wake.notify_one());
    }
}
