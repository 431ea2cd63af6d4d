//! The session port: what an MCP server lends the crate so that it can reach one client.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::question::{Answer, Question};

pub use crate::envelope::{InvalidMessageId, MessageId, Outbound};
pub use crate::subscription::{HandOverError, SessionState};

#[cfg(feature = "rmcp")]
pub(crate) mod rmcp;

/// One session of an MCP server. The `rmcp` feature has one for rmcp; anyone may write their own.
///
/// The calls of [`hand_over`](Self::hand_over) come one after another. [`confirm`](Self::confirm) is called behind those of a
/// batch, and may still wait while the next batch is handed over. Each call may take
/// [`Config::hand_over_timeout`](crate::Config::hand_over_timeout). A call that takes a second longer is dropped, and counts as
/// failed, as does one that panics. [`elicit`](Self::elicit) goes on beside them.
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

    /// Makes sure that all that was handed over before this call has arrived. Only then is it removed from the queue.
    /// Defaults to believing `hand_over`.
    ///
    /// The future is polled once before the next `hand_over`. While it waits, more may be handed over, up to
    /// [`Config::window_messages`](crate::Config::window_messages), and confirmed by further calls, which end in their order.
    ///
    /// # Errors
    /// As above; everything handed over since the last `Ok` is then offered again. Calls that wait besides should fail too.
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

/// A session's knowledge of its client's presence, to be watched.
#[derive(Debug, Clone)]
pub struct Presence(
    /// `None` for a client that can always be reached: there is nothing to watch.
    Option<watch::Receiver<SessionState>>,
);

impl Presence {
    /// A client that can always be reached.
    pub fn always() -> Self {
        Self(None)
    }

    /// How it is now.
    pub fn now(&self) -> SessionState {
        self.0.as_ref().map_or(SessionState::Ready { opened: 0, received: None }, |watched| *watched.borrow())
    }

    /// Ends when it is no longer `seen`.
    pub async fn changed_from(&mut self, seen: SessionState) {
        let has_changed = match &mut self.0 {
            Some(watched) => watched.wait_for(|state| *state != seen).await.is_ok(),
            None => self.now() != seen,
        };
        if !has_changed {
            // Nobody is there any more who would change it, so it stays as it is.
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
        Presence(Some(self.0.subscribe()))
    }

    /// The client opened its `opened`-th stream, or the one with that number receives again.
    pub fn ready(&self, opened: u64) {
        self.set(SessionState::Ready { opened, received: None });
    }

    /// The client opened its `opened`-th stream, and said that it has all messages up to this one.
    pub fn resumed(&self, opened: u64, received: Option<MessageId>) {
        self.set(SessionState::Ready { opened, received });
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
