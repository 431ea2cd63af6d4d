//! [`KeyWatcher`]: waits for what others write, for any number of questions and receipts of this process over one link.
//!
//! The link tracks each key that is read over it, so the server tells of the next change to the key. What a lost message, a new
//! connection or a full tracking table could hide, a round of touches every few seconds finds; the same round says that those
//! who asked live. The first round in which nobody waits ends it all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use redis::Value;
use tokio::sync::Notify;

use super::link::{Command, Link, LinkEvent, Request, Watch};
use crate::failure::QueueErrorKind;
use crate::lock::lock;

/// Longest time for which an asker that says nothing is believed to live: three rounds.
pub(super) const ALIVE: Duration = Duration::from_secs(15);

/// Time between two rounds.
const ROUND: Duration = Duration::from_secs(5);

/// Pause after keys could not be read.
const AFTER_FAILURE: Duration = Duration::from_millis(250);

/// Number of keys that one request touches.
const TOGETHER: usize = 500;

/// All keys that this process waits for.
pub(super) struct KeyWatcher {
    shared: Arc<Shared>,
}

struct Shared {
    link: Link,
    state: Mutex<State>,
    /// Notified when a key is to be touched before the next round.
    work: Notify,
}

#[derive(Default)]
struct State {
    /// All that wait, by the number of their registration.
    waiting: HashMap<u64, Arc<Waiting>>,
    next: u64,
    /// Registrations to be touched at once.
    untouched: Vec<Weak<Waiting>>,
    running: bool,
}

struct Waiting {
    touch: Command,
    is_due: fn(&Value) -> bool,
    /// Notified when there may be something to look at.
    look: Notify,
}

/// Registration of a key, until it is dropped.
pub(super) struct WatchedKey<'a> {
    shared: &'a Arc<Shared>,
    waiting: Arc<Waiting>,
    number: u64,
    _watch: Watch,
}

impl KeyWatcher {
    /// Watches over a link that tells of the keys that are read.
    pub(super) fn new(link: Link) -> Self {
        Self { shared: Arc::new(Shared { link, state: Mutex::default(), work: Notify::new() }) }
    }

    /// Has a key watched. `touch` is sent at once, and again in every round: it reads the key last, so that the next change
    /// to the key is told; `is_due` says of its answer whether there is something to look at.
    pub(super) fn register(
        &self,
        key: String,
        touch: impl Into<Command>,
        is_due: fn(&Value) -> bool,
    ) -> WatchedKey<'_> {
        let shared = &self.shared;
        let waiting = Arc::new(Waiting { touch: touch.into(), is_due, look: Notify::new() });
        let watch = {
            let (shared, waiting) = (Arc::downgrade(shared), Arc::clone(&waiting));
            self.shared.link.watch(key, move |event| match (event, shared.upgrade()) {
                // Nothing is tracked on a new connection.
                (LinkEvent::Lost, Some(shared)) => shared.touch_soon(&waiting),
                _ => waiting.look.notify_one(),
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

    /// Returns the link that all wait on.
    pub(super) fn link(&self) -> &Link {
        &self.shared.link
    }
}

impl WatchedKey<'_> {
    /// Ends when there may be something to look at, also where that was before this call.
    pub(super) async fn looked(&self) {
        self.waiting.look.notified().await;
    }

    /// Has the key touched: after each look, as a change is told only once.
    pub(super) fn touch_soon(&self) {
        self.shared.touch_soon(&self.waiting);
    }
}

impl Shared {
    fn touch_soon(self: &Arc<Self>, waiting: &Arc<Waiting>) {
        let start = {
            let mut state = self.state();
            state.untouched.push(Arc::downgrade(waiting));
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            tokio::spawn(Running { shared: Arc::downgrade(self), over: false }.run());
        }
        self.work.notify_one();
    }

    /// Touches keys, and has those looked at that are due.
    ///
    /// # Errors
    /// Fails where the link does.
    async fn touch(&self, all: &[Arc<Waiting>]) -> Result<(), QueueErrorKind> {
        let mut failed: Option<(usize, QueueErrorKind)> = None;
        for some in all.chunks(TOGETHER) {
            let mut request = Request::new();
            for waiting in some {
                request.add(waiting.touch.clone());
            }
            for (waiting, answer) in some.iter().zip(self.link.send(&request).await?) {
                match answer {
                    Ok(answer) if (waiting.is_due)(&answer) => waiting.look.notify_one(),
                    Ok(_) => {}
                    // Something is wrong with this one, as with a key that holds something else. The others go on, and the next
                    // round looks again.
                    Err(error) => failed.get_or_insert((0, error)).0 += 1,
                }
            }
        }
        if let Some((count, error)) = failed {
            tracing::warn!(%error, count, "reading watched keys failed; the next round reads them again");
        }
        Ok(())
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

/// The task that touches. It ends when nobody waits, and however it ends another can be started.
struct Running {
    shared: Weak<Shared>,
    over: bool,
}

impl Running {
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
                } else if self.is_over(&mut state) {
                    break;
                } else {
                    state.waiting.values().cloned().collect()
                }
            };
            // A replica answers reads, and tells of no change.
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
                    // Logged the first time, and then each time that there have been twice as many.
                    if failures.is_power_of_two() {
                        tracing::warn!(%error, failures, "reading watched keys failed; trying again");
                    }
                    if is_primary {
                        // A check that failed has its own pause.
                        tokio::time::sleep(AFTER_FAILURE).await;
                    }
                    round.reset_immediately();
                }
            }
        }
    }

    /// Ends the task where nobody waits: under the lock, so that who registers next sees that it does not run.
    fn is_over(&mut self, state: &mut State) -> bool {
        self.over = state.waiting.is_empty();
        if self.over {
            state.running = false;
            state.untouched.clear();
        }
        self.over
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        if self.over {
            shared.link.rest();
            return;
        }
        // Dropped half-way, as its runtime ended. Whoever waits in another one starts it again there.
        let waiting: Vec<_> = {
            let mut state = shared.state();
            state.running = false;
            state.waiting.values().cloned().collect()
        };
        waiting.iter().for_each(|waiting| waiting.look.notify_one());
    }
}
