//! Session port: the interface of an MCP server through which the crate reaches one client.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::question::{Answer, Question};

pub(crate) use crate::envelope::{MessageId, Outbound};
pub use crate::subscription::{HandOverError, SessionState};

#[cfg(feature = "rmcp")]
pub(crate) mod rmcp;

/// Session of an MCP server. The `rmcp` feature implements the trait for rmcp; anyone may implement it for another
/// server.
///
/// The calls of [`hand_over`](Self::hand_over) follow one another. [`confirm`](Self::confirm) is called after those of
/// a batch, and may still wait while the next batch is handed over. Each call may take
/// [`Config::hand_over_timeout`](crate::Config::hand_over_timeout). A call that exceeds this time by a second is
/// dropped. Such a call counts as failed, and so does one that panics. [`elicit`](Self::elicit) runs beside these
/// calls.
///
/// # Cancellation
/// A stop may drop any future at any await point. Unconfirmed notifications are delivered again later.
#[async_trait]
pub trait McpSession: Send + Sync + 'static {
    /// Hands one notification to the client. `Ok` says that the session has the notification, and wants no repeat.
    ///
    /// # Errors
    /// [`HandOverError`] says what follows: stop, wait, try again, or discard the notification.
    async fn hand_over(&self, notification: &Outbound) -> Result<(), HandOverError>;

    /// Makes sure that the client has received everything handed over before this call. Only then are those
    /// notifications removed from the queue. The default returns `Ok`, and so trusts `hand_over`.
    ///
    /// The future is polled once before the next `hand_over`. While it waits, more may be handed over, up to
    /// [`Config::window_messages`](crate::Config::window_messages). Further calls confirm those, and end in their
    /// order.
    ///
    /// # Errors
    /// As of `hand_over`. Everything handed over since the last `Ok` is then offered again. Other waiting calls should
    /// fail too.
    async fn confirm(&self) -> Result<(), HandOverError> {
        Ok(())
    }

    /// Asks the client's user a question of a background task, by MCP's `elicitation/create`, and waits for the answer.
    /// The future may take as long as the user does; other calls and other questions run beside it. The default answers
    /// [`AskError::Impossible`].
    ///
    /// Implementations ask only in a mode that the client has declared.
    ///
    /// # Errors
    /// [`AskError`] says whether the client can never be asked, or not now.
    ///
    /// # Cancellation
    /// The future is dropped when nobody waits for its answer any more: the answer came elsewhere, the question was
    /// withdrawn, or its time is over. It is also dropped when the client leaves, or the session moves to another
    /// process. The question is then asked again when the client is back, or by that process.
    async fn elicit(&self, question: &Question) -> Result<Answer, AskError> {
        let _ = question;
        let why = "this server does not ask its clients".to_owned();
        Err(AskError::Impossible(why))
    }

    /// Returns the presence of the client: whether it can be reached, now and later. Defaults to always.
    fn presence(&self) -> Presence {
        Presence::always()
    }
}

/// Knowledge of a session about its client's presence, for those who watch it.
#[derive(Debug, Clone)]
pub struct Presence(
    /// `None` for a client that can always be reached: nothing needs to be watched.
    Option<watch::Receiver<SessionState>>,
);

impl Presence {
    /// Makes the presence of a client that can always be reached.
    pub fn always() -> Self {
        Self(None)
    }

    /// Returns the present state.
    pub fn now(&self) -> SessionState {
        self.0.as_ref().map_or(SessionState::Connected { generation: 0, received: None }, |watched| *watched.borrow())
    }

    /// Waits until the state is no longer `seen`.
    pub async fn changed_from(&mut self, seen: SessionState) {
        let has_changed = match &mut self.0 {
            Some(watched) => watched.wait_for(|state| *state != seen).await.is_ok(),
            None => self.now() != seen,
        };
        if !has_changed {
            // The sender is gone, so the state never changes again.
            std::future::pending::<()>().await;
        }
    }
}

/// Sending side of a [`Presence`], held by the session.
#[derive(Debug, Clone)]
pub struct PresenceSender(Arc<watch::Sender<SessionState>>);

impl PresenceSender {
    /// Makes the presence of a client that is away.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(SessionState::Disconnected)))
    }

    /// Returns a view for those who watch.
    pub fn presence(&self) -> Presence {
        Presence(Some(self.0.subscribe()))
    }

    /// Notes that the client opened its `generation`-th stream, or that the stream with that number receives again.
    pub fn connected(&self, generation: u64) {
        self.set(SessionState::Connected { generation, received: None });
    }

    /// Notes that the client opened its `generation`-th stream, and said that it has all messages up to `received`.
    pub fn resumed(&self, generation: u64, received: Option<MessageId>) {
        self.set(SessionState::Connected { generation, received });
    }

    /// Notes that the client has no stream any more.
    pub fn disconnected(&self) {
        self.set(SessionState::Disconnected);
    }

    /// Notes that the session is over. The state is final.
    pub fn ended(&self) {
        self.set(SessionState::Ended);
    }

    /// Notes that the session is over here, and may continue at another server. The state is final.
    pub fn detached(&self) {
        self.set(SessionState::Detached);
    }

    fn set(&self, new: SessionState) {
        self.0.send_if_modified(|state| {
            let changes = !matches!(state, SessionState::Ended | SessionState::Detached) && *state != new;
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
    /// The client lacks the capability or the mode, or refused: it can never be asked. The worker gets this error at
    /// once.
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
    /// The process cannot get another thread or descriptor for the subscriber. The text is the system's.
    #[error("no arbiter can be started for it: {0}")]
    NoArbiter(String),
    /// The supervisor is shutting down and starts nothing new.
    #[error("the supervisor is shutting down")]
    ShuttingDown,
    /// The supervisor is gone.
    #[error("the supervisor is gone")]
    Gone,
}
