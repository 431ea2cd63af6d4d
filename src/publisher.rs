//! [`Publisher`]: the worker's side. It needs no actors and works in any tokio program.

use std::collections::{HashMap, HashSet};
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use tracing::Instrument;
use uuid::Uuid;

use crate::backend::{Backend, Outgoing, PushRefusal, Queued};
use crate::config::Config;
use crate::connect::{ConnectError, connect};
use crate::envelope::Draft;
use crate::failure::QueueError;
use crate::inspector::Inspector;
use crate::json::MAX_DEPTH;
use crate::keys::Keys;
use crate::metrics;
use crate::notification::{Notification, NotificationId, Task};
use crate::outcome::DiscardReason;
use crate::question::TaskKey;
use crate::seal::{self, SealError};
use crate::session_id::{SessionId, SessionStatus};
use crate::spans;
use crate::trace_context::TraceContext;

mod dead_letters;
mod fastmcp;
mod receipts;
mod reporter;
mod unknown;

use self::unknown::UnknownSessions;

pub use self::dead_letters::{DeadLetter, DeadLetters, Redriven};
pub use self::reporter::TaskReporter;

/// Pushes notifications to sessions, at any server of the fleet. Cloning is cheap, and one publisher per process is
/// enough: all clones share its connections.
///
/// ```no_run
/// use mcp_courier::{Config, Notification, Publisher, SessionId};
///
/// # async fn worker() -> Result<(), Box<dyn std::error::Error>> {
/// let publisher = Publisher::connect("redis://127.0.0.1/", Config::default()).await?;
/// let session = SessionId::new("1f0c2f6e-7a52-4c5e-9a3c-2f0f4a0c9a11")?;
/// let pushed = publisher.push(&session, Notification::resource_updated("file:///a")).await?;
/// println!("{} is queued, {} wait", pushed.id, pushed.waiting);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Publisher {
    queue: Arc<dyn Backend>,
    config: Arc<Config>,
    /// Count of pushes to unknown sessions. All clones share the count, so that they warn as one.
    unknown: Arc<UnknownSessions>,
}

/// Confirmation of a push: the notification is queued. It will be delivered, or discarded for a reason that is counted
/// and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pushed {
    /// Id that the queued notification keeps for its whole life. The client finds the id in `_meta` as
    /// `mcp-courier/id`. Of a duplicate this is the id of the notification that was queued first, under which its
    /// receipt is kept.
    pub id: NotificationId,
    /// Set where nothing was queued, because a notification with the same deduplication key was queued before
    /// ([`Notification::with_deduplication_key`]). That one may have been delivered, or discarded, meanwhile.
    pub is_duplicate: bool,
    /// Set where the notification replaced an older one that waited ([`Notification::with_collapse_key`]).
    pub collapsed: bool,
    /// Number of notifications that wait for the session now, this one included.
    pub waiting: usize,
    /// Standing of the session at the push. A notification for an unknown session stays queued like any other, and is
    /// delivered if the session begins before it expires.
    pub session: SessionStatus,
}

impl Publisher {
    /// Connects to a queue. The URL is one of [those of Redis](crate::ways_to_redis), or `memory://name` for a queue
    /// in this process alone, which needs the feature `server`.
    ///
    /// # Errors
    /// [`ConnectError`] where the URL cannot be used or the queue cannot be reached.
    ///
    /// # Cancellation
    /// Dropping the future leaves nothing behind.
    pub async fn connect(url: &str, config: Config) -> Result<Self, ConnectError> {
        let config = Arc::new(config);
        let queue = connect(url, Arc::clone(&config)).await?;
        Ok(Self::new(queue, config))
    }

    pub(crate) fn new(queue: Arc<dyn Backend>, config: Arc<Config>) -> Self {
        Self { queue, config, unknown: Arc::default() }
    }

    #[cfg(feature = "elicitation")]
    pub(crate) fn queue(&self) -> &Arc<dyn Backend> {
        &self.queue
    }

    /// Returns an inspector over the publisher's connections.
    pub fn inspector(&self) -> Inspector {
        Inspector::new(Arc::clone(&self.queue), Arc::clone(&self.config))
    }

    /// Returns a reporter that pushes the status and the progress of one task to a session.
    pub fn task_reporter(&self, session: &SessionId, task: Task) -> TaskReporter {
        TaskReporter::new(self.clone(), session.clone(), task)
    }

    /// Queues a notification for a session.
    ///
    /// With the feature `opentelemetry` a notification without a trace context carries that of the current span.
    ///
    /// The session need not exist yet. A notification that no server delivers expires after its own time to live, which
    /// defaults to [`Config::time_to_live`]. [`Pushed::session`] reports whether the fleet knows the session. Pushes to
    /// unknown sessions are also [counted](Self::pushed_to_unknown), and logged at most once a minute.
    ///
    /// # Errors
    /// [`PushError`] has the notification for another try, and a reason that says whether the notification may be
    /// queued nevertheless.
    ///
    /// # Cancellation
    /// The notification may or may not be queued.
    pub async fn push(&self, session: &SessionId, notification: Notification) -> Result<Pushed, PushError> {
        let mut results = self.push_many([(session.clone(), notification)]).await;
        // One notification went in, so one result comes out.
        results.swap_remove(0)
    }

    /// Queues many notifications, for one session or several, in few round trips. Returns a result for each, in the
    /// same order.
    ///
    /// Each session gets its notifications in this order. Where one is refused, the later ones for the same session are
    /// refused too ([`PushRefusal::AfterRefused`]). Pushing the refused ones again therefore keeps the order. A
    /// notification whose id occurred earlier in the call for the same session is queued once, and gets the result of
    /// the first.
    ///
    /// # Errors
    /// Each notification has its own [`PushError`], as from [`push`](Self::push).
    ///
    /// # Cancellation
    /// Each notification may or may not be queued.
    pub async fn push_many(
        &self,
        notifications: impl IntoIterator<Item = (SessionId, Notification)>,
    ) -> Vec<Result<Pushed, PushError>> {
        let span = spans::push(self.queue.system());
        let cause = spans::context_of(&span);
        let (mut kept, mut batch) = (Vec::new(), Vec::new());
        // Sessions with a refused notification. Their later notifications are refused too, because order comes first.
        let mut refused: HashSet<SessionId> = HashSet::new();
        let mut named: HashMap<(SessionId, NotificationId), usize> = HashMap::new();
        for (session, mut notification) in notifications {
            let is_repeated = notification.id.is_some();
            let first = notification.id.map(|id| *named.entry((session.clone(), id)).or_insert(kept.len()));
            let id = *notification.id.get_or_insert_with(|| NotificationId(Uuid::now_v7()));
            let plan = match self.refusal_of(&notification) {
                _ if refused.contains(&session) => PushPlan::Refused(PushRefusal::AfterRefused),
                Some(reason) => {
                    refused.insert(session.clone());
                    PushPlan::Refused(reason)
                }
                None => match first.filter(|first| *first < kept.len()) {
                    Some(first) => PushPlan::RepeatOf(first),
                    None => match self.draft(&session, &notification, id, cause.as_ref()) {
                        Ok(mut draft) => {
                            // A repetition may be skipped by its id, and must not take a newer one's place.
                            let key = notification.collapse_key(self.config.collapse());
                            draft.collapse_key = key.filter(|_| !is_repeated);
                            batch.push(Outgoing { session: session.clone(), draft });
                            PushPlan::Queue
                        }
                        Err(error) => {
                            refused.insert(session.clone());
                            PushPlan::Refused(PushRefusal::NotSealed { why: error.to_string() })
                        }
                    },
                },
            };
            kept.push((session, notification, id, plan));
        }
        spans::record_pushed(&span, kept.iter().map(|(session, notification, id, _)| (session, notification, *id)));
        let mut results = self.queue.push(batch).instrument(span.clone()).await.into_iter();
        let mut answers: Vec<Result<Pushed, PushError>> = Vec::with_capacity(kept.len());
        for (session, notification, id, plan) in kept {
            let result = match plan {
                PushPlan::Refused(reason) => Err(reason),
                PushPlan::RepeatOf(first) => answers[first].as_ref().copied().map_err(|_| PushRefusal::AfterRefused),
                // The backend returns one result for each notification of the batch, so there is one here.
                PushPlan::Queue => match results.next().unwrap_or(Err(PushRefusal::AfterRefused)) {
                    Ok(Queued { waiting, session: status, duplicate_of, collapsed }) => {
                        match duplicate_of {
                            None => metrics::PUSHED.add(status.label(), 1),
                            Some(_) => metrics::PUSH_DUPLICATES.count(1),
                        }
                        if collapsed {
                            metrics::DISCARDED.add(DiscardReason::Collapsed.label(), 1);
                        }
                        if status == SessionStatus::Unknown {
                            self.unknown.push(&session);
                        }
                        let (is_duplicate, id) = (duplicate_of.is_some(), duplicate_of.unwrap_or(id));
                        Ok(Pushed { id, is_duplicate, collapsed, waiting, session: status })
                    }
                    Err(reason) => Err(reason),
                },
            };
            if let Err(reason) = &result {
                metrics::PUSH_REFUSED.add(reason.label(), 1);
                spans::record_failure(&span, reason);
            }
            answers.push(result.map_err(|reason| PushError { session, notification: Box::new(notification), reason }));
        }
        answers
    }

    /// Renders a notification, sealed where this process seals.
    fn draft(
        &self,
        session: &SessionId,
        notification: &Notification,
        id: NotificationId,
        cause: Option<&TraceContext>,
    ) -> Result<Draft, SealError> {
        let default = self.config.time_to_live();
        match seal::sealer(self.config.sealing_keys()) {
            None => Ok(Draft::caused_by(notification, id, default, cause)),
            Some((keys, primary)) => {
                let queue = Keys::new(self.config.prefix()).queue(session);
                Draft::sealed(notification, id, default, cause, (keys, primary, &queue))
            }
        }
    }

    /// Returns the reason why a notification cannot be queued at all, if there is one.
    fn refusal_of(&self, notification: &Notification) -> Option<PushRefusal> {
        // The depth is checked before the notification is rendered, because rendering recurses as deep as the
        // notification is nested.
        if notification.is_too_deep() {
            return Some(PushRefusal::TooDeep { limit: MAX_DEPTH });
        }
        let unsupported_reason =
            if self.config.fastmcp_servers() { fastmcp::unsupported_reason(notification) } else { None };
        if let Some(why) = unsupported_reason {
            return Some(PushRefusal::NotForFastMcp { why });
        }
        let bytes = notification.task_id().map(|id| id.len()).filter(|bytes| *bytes > TaskKey::MAX_LEN)?;
        Some(PushRefusal::TaskIdTooLong { bytes, limit: TaskKey::MAX_LEN })
    }

    /// Returns the number of notifications that this publisher and its clones queued for sessions unknown to the fleet
    /// ([`SessionStatus::Unknown`]). A growing number is a sign of wrong session ids.
    pub fn pushed_to_unknown(&self) -> u64 {
        self.unknown.count()
    }

    /// Queues a notification for every session that a server of the fleet owns now. Each session gets a notification
    /// with an id of its own. Returns a result for each session.
    ///
    /// # Errors
    /// [`QueueError`] where the live sessions cannot be read. Nothing is queued then.
    ///
    /// # Cancellation
    /// The notification may or may not be queued for each session.
    pub async fn broadcast(&self, notification: &Notification) -> Result<Vec<Result<Pushed, PushError>>, QueueError> {
        let sessions = self.queue.live_sessions().await?;
        let each = sessions.into_iter().map(|session| {
            let mut notification = notification.clone();
            notification.id = None;
            (session, notification)
        });
        Ok(self.push_many(each).await)
    }
}

/// Treatment of one notification by [`Publisher::push_many`].
enum PushPlan {
    Refused(PushRefusal),
    /// The notification at this position of the call is the same one. Two copies that are queued together would have
    /// one id and one time. A client that names the first copy would then seem to have everything up to the second.
    RepeatOf(usize),
    Queue,
}

/// Refusal of a push. The notification was not queued, or perhaps was: the reason says which. The error returns the
/// notification to the caller.
#[non_exhaustive]
pub struct PushError {
    /// Session to which the notification was pushed.
    pub session: SessionId,
    /// Notification with the id that it got at the push. Pushing it again pushes the same notification: the subscriber
    /// recognises the id and delivers one.
    pub notification: Box<Notification>,
    /// Reason for the refusal.
    pub reason: PushRefusal,
}

/// Shows no content of the notification: a `main` that returns the error prints this form.
impl fmt::Debug for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushError")
            .field("session", &self.session)
            .field("id", &self.notification.id)
            .field("method", &self.notification.method())
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pushing to session {:?}: {}", self.session, self.reason)
    }
}

impl StdError for PushError {
    /// Returns the cause of the reason, because `Display` already shows the reason itself.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.reason.source()
    }
}
