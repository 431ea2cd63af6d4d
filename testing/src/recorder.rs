//! Session that records its notifications, and fails by a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use mcp_courier::{HandOverError, McpSession, Outbound, Presence, PresenceSender, async_trait};
use serde_json::Value;
use tokio::sync::Notify;

/// Reaction of a [`Recorder`] to one call.
#[derive(Debug, Clone)]
pub enum Act {
    /// Takes the notification.
    Take,
    /// Returns this error.
    Fail(HandOverError),
    /// Panics.
    Panic,
    /// Never returns.
    Hang,
}

/// Session that acts by its script, and takes every notification after the end of the script.
///
/// A script that was not played to its end fails the test when the session is dropped.
#[derive(Debug)]
pub struct Recorder {
    got: Mutex<Vec<Outbound>>,
    calls: Mutex<Vec<Outbound>>,
    script: Mutex<VecDeque<Act>>,
    always: Mutex<Option<Act>>,
    presence: PresenceSender,
    changed: Notify,
}

impl Recorder {
    /// Returns a ready session that takes every notification.
    pub fn new() -> Arc<Self> {
        Self::scripted([])
    }

    /// Returns a ready session with a script.
    pub fn scripted(script: impl IntoIterator<Item = Act>) -> Arc<Self> {
        let presence = PresenceSender::new();
        presence.connected(1);
        Arc::new(Self {
            got: Mutex::default(),
            calls: Mutex::default(),
            script: Mutex::new(script.into_iter().collect()),
            always: Mutex::default(),
            presence,
            changed: Notify::new(),
        })
    }

    /// Sets the reaction from now on, whatever the script says. `None` returns to the script.
    pub fn always(&self, act: Option<Act>) {
        *self.always.lock().unwrap() = act;
    }

    /// Returns the sender that says whether the client is there.
    pub fn presence(&self) -> &PresenceSender {
        &self.presence
    }

    /// Returns the parameter `n` of each notification that was taken, in order.
    pub fn taken(&self) -> Vec<i64> {
        numbers(&self.got.lock().unwrap())
    }

    /// Returns the notifications that were taken, in order.
    pub fn outbound(&self) -> Vec<Outbound> {
        self.got.lock().unwrap().clone()
    }

    /// Returns the parameter `n` of each notification that was handed over, in order.
    pub fn offered(&self) -> Vec<i64> {
        numbers(&self.calls.lock().unwrap())
    }

    /// Waits until this number of notifications was handed over.
    pub async fn until_offered(&self, count: usize) {
        self.until(|| self.calls.lock().unwrap().len() >= count).await;
    }

    /// Waits until this number of notifications was taken.
    pub async fn until_taken(&self, count: usize) {
        self.until(|| self.got.lock().unwrap().len() >= count).await;
    }

    async fn until(&self, reached: impl Fn() -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if reached() {
                    return;
                }
                changed.await;
            }
        };
        let deadline = std::time::Duration::from_secs(30);
        if tokio::time::timeout(deadline, wait).await.is_err() {
            panic!("not reached in {deadline:?}: offered {:?}, took {:?}", self.offered(), self.taken());
        }
    }
}

fn numbers(outbound: &[Outbound]) -> Vec<i64> {
    outbound.iter().map(|o| o.parse_params::<Value>().unwrap()["n"].as_i64().unwrap()).collect()
}

#[async_trait]
impl McpSession for Recorder {
    async fn hand_over(&self, notification: &Outbound) -> Result<(), HandOverError> {
        self.calls.lock().unwrap().push(notification.clone());
        self.changed.notify_waiters();
        let always = self.always.lock().unwrap().clone();
        let act = always.or_else(|| self.script.lock().unwrap().pop_front()).unwrap_or(Act::Take);
        match act {
            Act::Take => {
                self.got.lock().unwrap().push(notification.clone());
                self.changed.notify_waiters();
                Ok(())
            }
            Act::Fail(error) => Err(error),
            Act::Panic => panic!("as the script says"),
            Act::Hang => std::future::pending().await,
        }
    }

    fn presence(&self) -> Presence {
        self.presence.presence()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let left = self.script.lock().unwrap();
            assert!(left.is_empty(), "a script was not used up: {left:?}");
        }
    }
}
