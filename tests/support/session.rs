//! A session that writes down what it gets, and fails as it is told.

#![allow(dead_code)] // each suite uses a part of it

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use mcp_courier::{HandOverError, McpSession, Outbound, Presence, PresenceSender, async_trait};
use serde_json::Value;
use tokio::sync::Notify;

/// What a [`Recorder`] does with one call.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Takes it.
    Take,
    /// Answers with this error.
    Fail(HandOverError),
    /// Panics.
    Panic,
    /// Never answers.
    Hang,
}

/// Writes down what it gets. Acts by its script, and takes everything once that is used up.
pub(crate) struct Recorder {
    got: Mutex<Vec<Outbound>>,
    calls: Mutex<Vec<Outbound>>,
    script: Mutex<VecDeque<Act>>,
    always: Mutex<Option<Act>>,
    presence: PresenceSender,
    changed: Notify,
}

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Self::scripted([])
    }

    pub(crate) fn scripted(script: impl IntoIterator<Item = Act>) -> Arc<Self> {
        let presence = PresenceSender::new();
        presence.ready(1);
        Arc::new(Self {
            got: Mutex::default(),
            calls: Mutex::default(),
            script: Mutex::new(script.into_iter().collect()),
            always: Mutex::default(),
            presence,
            changed: Notify::new(),
        })
    }

    /// Does this from now on, whatever the script says; `None` goes back to it.
    pub(crate) fn always(&self, act: Option<Act>) {
        *self.always.lock().unwrap() = act;
    }

    pub(crate) fn presence(&self) -> &PresenceSender {
        &self.presence
    }

    /// The `n` of what it took, in order.
    pub(crate) fn taken(&self) -> Vec<i64> {
        numbers(&self.got.lock().unwrap())
    }

    pub(crate) fn outbound(&self) -> Vec<Outbound> {
        self.got.lock().unwrap().clone()
    }

    /// The `n` of what was offered, in order.
    pub(crate) fn offered(&self) -> Vec<i64> {
        numbers(&self.calls.lock().unwrap())
    }

    /// Waits until it was offered this many.
    pub(crate) async fn until_offered(&self, count: usize) {
        self.until(|| self.calls.lock().unwrap().len() >= count).await;
    }

    /// Waits until it took this many.
    pub(crate) async fn until_taken(&self, count: usize) {
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
            Act::Panic => panic!("as it was told"),
            Act::Hang => std::future::pending().await,
        }
    }

    fn presence(&self) -> Presence {
        self.presence.presence()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // A script that was not played to its end tested less than it says.
        if !std::thread::panicking() {
            let left = self.script.lock().unwrap();
            assert!(left.is_empty(), "a script was not used up: {left:?}");
        }
    }
}
