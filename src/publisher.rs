//! [`Publisher`]: the worker's side. No actors; usable from any tokio program.

use std::collections::{HashMap, HashSet};
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::backend::{Backend, Outgoing, PushRefusal, Queued};
use crate::config::Config;
use crate::connect::{ConnectError, connect};
use crate::envelope::Draft;
use crate::failure::QueueError;
use crate::json::MAX_DEPTH;
use crate::notification::{Notification, NotificationId, Task};
use crate::question::TaskKey;
use crate::session_id::{SessionId, SessionStatus};

mod dead_letters;
mod fastmcp;
mod receipts;
mod reporter;
mod unknown;

use self::unknown::UnknownSessions;

pub use self::dead_letters::{DeadLetter, DeadLetters, Redriven};
pub use self::reporter::TaskReporter;

/// Pushes notifications to sessions, wherever in the fleet they are. Cheap to clone; one per process is enough.
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
    /// Shared by all clones, so that they count and warn as one.
    unknown: Arc<UnknownSessions>,
}

/// A notification is queued: it will be delivered, or discarded for a reason that is counted and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pushed {
    /// Its id for its whole life; the client finds it in `_meta` as `mcp-courier/id`.
    pub id: NotificationId,
    /// Number of notifications that wait for that session now, this one included.
    pub waiting: usize,
    /// Standing of the session at the push. A notification for an unknown session waits like any other, in case the session
    /// begins before the notification expires.
    pub session: SessionStatus,
}

impl Publisher {
    /// Connects to a queue: `redis://`, `unix://`, or `memory://name` for this process alone.
    ///
    /// # Errors
    /// [`ConnectError`] where the URL cannot be used or the queue cannot be reached.
    ///
    /// # Cancellation
    /// Nothing remains.
    pub async fn connect(url: &str, config: Config) -> Result<Self, ConnectError> {
        let config = Arc::new(config);
        let queue = connect(url, Arc::clone(&config)).await?;
        Ok(Self::new(queue, config))
    }

    pub(crate) fn new(queue: Arc<dyn Backend>, config: Arc<Config>) -> Self {
        Self { queue, config, unknown: Arc::default() }
    }

    pub(crate) fn queue(&self) -> &Arc<dyn Backend> {
        &self.queue
    }

    /// Tells a session how a task goes.
    pub fn task_reporter(&self, session: &SessionId, task: Task) -> TaskReporter {
        TaskReporter::new(self.clone(), session.clone(), task)
    }

    /// Queues a notification for a session. The session need not exist yet: a notification that nobody takes expires after its
    /// own time to live, or else [`Config::time_to_live`]. [`Pushed::session`] says whether the fleet knows the session. Pushes to
    /// unknown sessions are also [counted](Self::pushed_to_unknown), and logged at most once a minute.
    ///
    /// # Errors
    /// [`PushError`] carries the notification, and says whether it may have been queued all the same.
    ///
    /// # Cancellation
    /// The notification may or may not be queued.
    pub async fn push(&self, session: &SessionId, notification: Notification) -> Result<Pushed, PushError> {
        let mut results = self.push_many([(session.clone(), notification)]).await;
        // One went in, so one comes out.
        results.swap_remove(0)
    }

    /// Queues many notifications, to one session or to many, in few round trips, and answers for each in the order given.
    ///
    /// Each session gets its own in the order given. After a refusal the later ones to the same session are refused too
    /// ([`PushRefusal::AfterRefused`]), so that pushing the refused ones again keeps the order. A notification whose id the call
    /// has had for the same session already is queued once, and answered like the first.
    ///
    /// # Errors
    /// None as a whole; for each its [`PushError`], as from [`push`](Self::push).
    ///
    /// # Cancellation
    /// Any of them may or may not be queued.
    pub async fn push_many(
        &self,
        notifications: impl IntoIterator<Item = (SessionId, Notification)>,
    ) -> Vec<Result<Pushed, PushError>> {
        let (mut kept, mut batch) = (Vec::new(), Vec::new());
        // Refused here, and with each the later ones to its session: order comes first.
        let mut refused: HashSet<SessionId> = HashSet::new();
        let mut named: HashMap<(SessionId, NotificationId), usize> = HashMap::new();
        for (session, mut notification) in notifications {
            let first = notification.id.map(|id| *named.entry((session.clone(), id)).or_insert(kept.len()));
            let id = *notification.id.get_or_insert_with(|| NotificationId(Uuid::now_v7()));
            let way = match self.unfit(&notification) {
                _ if refused.contains(&session) => Way::Refused(PushRefusal::AfterRefused),
                Some(reason) => {
                    refused.insert(session.clone());
                    Way::Refused(reason)
                }
                None => match first.filter(|first| *first < kept.len()) {
                    Some(first) => Way::RepeatOf(first),
                    None => {
                        let draft = Draft::new(&notification, id, self.config.time_to_live());
                        batch.push(Outgoing { session: session.clone(), draft });
                        Way::Queue
                    }
                },
            };
            kept.push((session, notification, id, way));
        }
        let mut results = self.queue.push(batch).await.into_iter();
        let mut answers: Vec<Result<Pushed, PushError>> = Vec::with_capacity(kept.len());
        for (session, notification, id, way) in kept {
            let result = match way {
                Way::Refused(reason) => Err(reason),
                Way::RepeatOf(first) => answers[first].as_ref().copied().map_err(|_| PushRefusal::AfterRefused),
                // One went in for each that goes this way, so one comes out.
                Way::Queue => match results.next().unwrap_or(Err(PushRefusal::AfterRefused)) {
                    Ok(Queued { waiting, session: status }) => {
                        if status == SessionStatus::Unknown {
                            self.unknown.push(&session);
                        }
                        Ok(Pushed { id, waiting, session: status })
                    }
                    Err(reason) => Err(reason),
                },
            };
            answers.push(result.map_err(|reason| PushError { session, notification: Box::new(notification), reason }));
        }
        answers
    }

    /// Returns why a notification cannot be queued at all, or `None`.
    fn unfit(&self, notification: &Notification) -> Option<PushRefusal> {
        // Before it is rendered, which goes as deep as it does.
        if notification.is_too_deep() {
            return Some(PushRefusal::TooDeep { limit: MAX_DEPTH });
        }
        let misfit = if self.config.fastmcp_servers() { fastmcp::misfit(notification) } else { None };
        if let Some(why) = misfit {
            return Some(PushRefusal::NotForFastMcp { why });
        }
        let bytes = notification.task_id().map(|id| id.len()).filter(|bytes| *bytes > TaskKey::MAX_LEN)?;
        Some(PushRefusal::TaskIdTooLong { bytes, limit: TaskKey::MAX_LEN })
    }

    /// Number of notifications that this publisher and its clones queued for sessions unknown to the fleet
    /// ([`SessionStatus::Unknown`]). A number that grows hints at wrong session ids.
    pub fn pushed_to_unknown(&self) -> u64 {
        self.unknown.count()
    }

    /// Queues a notification for every session that someone in the fleet owns now, each under an id of its own, and
    /// answers for each session.
    ///
    /// # Errors
    /// [`QueueError`] where the live sessions cannot be read. Nothing is queued then.
    ///
    /// # Cancellation
    /// Any of them may or may not be queued.
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

/// Way of one notification through [`Publisher::push_many`].
enum Way {
    Refused(PushRefusal),
    /// The notification at this place of the call is the same. Queued together, both would have one id and one time, and a
    /// client that names the first would seem to have all up to the second.
    RepeatOf(usize),
    Queue,
}

/// Refusal of a push: the notification was not, or perhaps not, queued. The error gives it back to the caller.
#[derive(Debug)]
#[non_exhaustive]
pub struct PushError {
    /// Session to which the notification was pushed.
    pub session: SessionId,
    /// Notification, which carries its id now. Pushing it again repeats the same notification: the subscriber recognises
    /// the repeat and makes no second one.
    pub notification: Box<Notification>,
    /// Reason of the refusal.
    pub reason: PushRefusal,
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pushing to session {:?}: {}", self.session, self.reason)
    }
}

impl StdError for PushError {
    /// Returns the cause of the reason: the reason itself stands in the text already.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.reason.source()
    }
}
