//! The session port: what an MCP server lends the crate so that it can reach one client.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::envelope::Envelope;
use crate::json;
use crate::notification::{ID_KEY, NotificationId};
use crate::question::{Answer, Question};

pub use crate::subscription::{HandOverError, SessionState};

#[cfg(feature = "rmcp")]
pub(crate) mod rmcp;

/// One session of an MCP server. The `rmcp` feature has one for rmcp; anyone may write their own.
///
/// The calls of [`hand_over`](Self::hand_over) and [`confirm`](Self::confirm) come one after another, never two at once for
/// one session. Each may take [`Config::hand_over_timeout`](crate::Config::hand_over_timeout); one that takes a second longer
/// is dropped and counts as a failed attempt, as does one that panics. [`elicit`](Self::elicit) goes on beside them.
///
/// # Cancellation
/// All futures may be dropped at any await point, at a stop. What was not confirmed by then comes again.
#[async_trait]
pub trait McpSession: Send + Sync + 'static {
    /// Hands one notification to the client. `Ok` says that the session has it, and that a repeat is not wanted.
    ///
    /// # Errors
    /// [`HandOverError`] says what to do next: stop, wait, try again, or discard it.
    async fn hand_over(&self, notification: &Outbound) -> Result<(), HandOverError>;

    /// Makes sure that all that was handed over since the last call has arrived. Only then is it removed from the queue.
    /// Defaults to believing `hand_over`.
    ///
    /// # Errors
    /// As above; everything handed over since the last `Ok` is then offered again.
    async fn confirm(&self) -> Result<(), HandOverError> {
        Ok(())
    }

    /// Asks the client's user a question of a background task, MCP's `elicitation/create`, and waits for the answer. It may
    /// take as long as the user does: other calls go on beside it, and other questions too. Defaults to not being able to.
    ///
    /// Ask only in a mode that the client has declared.
    ///
    /// # Errors
    /// [`AskError`]: never, or not now.
    ///
    /// # Cancellation
    /// It is dropped when nobody waits for the answer any more (given elsewhere, withdrawn, too late), and when the client
    /// leaves or the session moves to another process. The question is then asked again when it is back, or there.
    async fn elicit(&self, question: &Question) -> Result<Answer, AskError> {
        let _ = question;
        let why = "this server does not ask its clients".to_owned();
        Err(AskError::Impossible(why))
    }

    /// Whether the client can be reached, now and later. Defaults to always.
    fn presence(&self) -> Presence {
        Presence::always()
    }
}

/// A notification as the client gets it.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Its id for its whole life; in `params._meta` as [`Outbound::ID_KEY`] too.
    pub id: NotificationId,
    /// Its method.
    pub method: String,
    /// Its params as JSON text, an object on one line, `_meta` included.
    ///
    /// Each value is the text that its producer pushed: its numbers have the same digits, its strings the same escapes,
    /// and inner objects the same fields in the same order, also where a name occurs twice. The fields of the object itself
    /// and of `_meta` keep their order, their names are written anew, and the space around them goes. A producer's
    /// `_meta` stands at the end.
    pub params: Box<RawValue>,
    /// How many attempts to hand it over have failed before this one.
    pub attempt: u32,
}

impl Outbound {
    /// Where in `_meta` the id stands.
    pub const ID_KEY: &str = ID_KEY;

    pub(crate) fn of(envelope: &Envelope) -> Self {
        let Envelope { id, method, params, attempt, .. } = envelope;
        Self { id: *id, method: method.clone(), params: params.clone(), attempt: *attempt }
    }

    /// Reads the params as a type, or as a [`Value`](serde_json::Value).
    ///
    /// A `Value` holds whole numbers of 64 bits, and any other number as the nearest `f64`.
    ///
    /// # Errors
    /// [`serde_json::Error`] where the params are not of that type; for a `Value` where a number is beyond any `f64`.
    pub fn parse_params<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.params.get())
    }

    /// Returns the whole JSON-RPC message as text, on one line.
    pub fn to_json(&self) -> String {
        let params = self.params.get();
        let mut text = String::with_capacity(params.len() + self.method.len() + 48);
        text.push_str("{\"jsonrpc\":\"2.0\",\"method\":");
        json::push_string(&mut text, &self.method);
        text.push_str(",\"params\":");
        text.push_str(params);
        text.push('}');
        text
    }
}

/// What a session knows of its client's presence, to be watched.
#[derive(Debug, Clone)]
pub struct Presence(watch::Receiver<SessionState>);

impl Presence {
    /// A client that can always be reached.
    pub fn always() -> Self {
        let (_, receiver) = watch::channel(SessionState::Ready { opened: 0 });
        Self(receiver)
    }

    /// How it is now.
    pub fn now(&self) -> SessionState {
        *self.0.borrow()
    }

    /// Ends when it is no longer `seen`.
    pub async fn changed_from(&mut self, seen: SessionState) {
        if self.0.wait_for(|state| *state != seen).await.is_err() {
            // The session that would change it is gone, so it stays as it is.
            std::future::pending::<()>().await;
        }
    }
}

/// The side of a [`Presence`] that a session holds.
#[derive(Debug, Clone)]
pub struct PresenceSender(Arc<watch::Sender<SessionState>>);

impl PresenceSender {
    /// A client that is away.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(SessionState::Away)))
    }

    /// A view of it.
    pub fn presence(&self) -> Presence {
        Presence(self.0.subscribe())
    }

    /// The client opened its `opened`-th stream, or the one with that number receives again.
    pub fn ready(&self, opened: u64) {
        self.set(SessionState::Ready { opened });
    }

    /// The client has no stream any more.
    pub fn away(&self) {
        self.set(SessionState::Away);
    }

    /// The session is over; nothing changes that.
    pub fn ended(&self) {
        self.set(SessionState::Ended);
    }

    /// The session is over here, and may go on at another server; nothing changes that.
    pub fn left(&self) {
        self.set(SessionState::Left);
    }

    fn set(&self, new: SessionState) {
        self.0.send_if_modified(|state| {
            let changes = !matches!(state, SessionState::Ended | SessionState::Left) && *state != new;
            if changes {
                *state = new;
            }
            changes
        });
    }
}

impl Default for PresenceSender {
    fn default() -> Self {
        Self::new()
    }
}

/// Failure of a session to ask its client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The client lacks the capability or the mode, or refused: it can never be asked. The worker learns of it at once.
    #[error("{0}")]
    Impossible(String),
    /// The client went away before it answered. The question is asked again when the client is back.
    #[error("the client is away: {0}")]
    NotReady(String),
}

/// Refusal of an [`EnsureSubscriber`](crate::EnsureSubscriber).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnsureError {
    /// As many subscribers run in this process as [`Config::dedicated_limit`](crate::Config::dedicated_limit) and
    /// [`Config::shared_limit`](crate::Config::shared_limit) allow.
    #[error(
        "as many subscribers run in this process as dedicated_limit ({dedicated}) and shared_limit ({shared}) allow"
    )]
    LimitReached {
        /// Largest number of dedicated subscribers.
        dedicated: usize,
        /// Largest number of shared subscribers.
        shared: usize,
    },
    /// The process can have no further thread or descriptor for the subscriber; the text is the system's.
    #[error("no arbiter can be started for it: {0}")]
    NoArbiter(String),
    /// The supervisor is shutting down and starts nothing new.
    #[error("the supervisor is shutting down")]
    ShuttingDown,
    /// The supervisor is gone.
    #[error("the supervisor is gone")]
    Gone,
}
