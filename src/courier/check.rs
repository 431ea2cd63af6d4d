//! [`Courier::check`]: health of this process, for the probes of an orchestrator.
//!
//! *In time*. The answer comes within [`LIMIT`], as an orchestrator gives a probe one second by default. Whatever has
//! not answered by then is not well.
//!
//! *Bounded*. However often the check is called, one probe of the queue runs at a time, and one question to each
//! arbiter. Callers that come meanwhile wait for the same answer
//! (`many_checks_at_once_probe_a_silent_redis_once`).

use std::error::Error as StdError;
use std::future::Future;
#[cfg(feature = "rmcp")]
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, join};
use tokio::task::AbortHandle;

use super::Courier;
use crate::actors::CheckHealth;
use crate::backend::Backend;
#[cfg(feature = "rmcp")]
use crate::health::Room;
use crate::health::{HealthPart, HealthReport};
use crate::lock::lock;

/// Longest time of a check. Kubernetes gives a probe one second by default.
const LIMIT: Duration = Duration::from_millis(800);

/// State of the checks, which all clones of a courier share.
#[derive(Default)]
pub(super) struct Checks {
    /// Set once a shutdown of the server has begun, which is before the supervisor hears of it.
    is_shutting_down: AtomicBool,
    /// Probe of the queue that was begun last.
    probe: Mutex<Option<(AbortHandle, Probe)>>,
    /// Parts of the process that hold sessions.
    #[cfg(feature = "rmcp")]
    rooms: Mutex<Vec<Weak<dyn Room>>>,
}

/// Running probe of the queue, for all who wait for it. The error is the reason for which the queue is not well.
type Probe = Shared<BoxFuture<'static, Result<(), String>>>;

impl std::fmt::Debug for Checks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checks").field("is_shutting_down", &self.is_shutting_down).finish_non_exhaustive()
    }
}

impl Checks {
    /// Returns the answer of the probe that runs, or of one that begins now.
    ///
    /// The probe runs in a task: a caller that waits no longer leaves it to the next one. The link gives a silent Redis
    /// more time than a check has, and replaces the connection only after that time.
    fn probe(&self, queue: &Arc<dyn Backend>) -> Probe {
        let mut running = lock(&self.probe);
        if let Some((_, probe)) = running.as_ref().filter(|(task, _)| !task.is_finished()) {
            return probe.clone();
        }
        let queue = Arc::clone(queue);
        let task = tokio::spawn(async move { queue.probe().await.map_err(|error| with_source(&error)) });
        let handle = task.abort_handle();
        let probe = async move { task.await.unwrap_or_else(|_| Err("the thread of the probe has ended".to_owned())) };
        let probe = probe.boxed().shared();
        *running = Some((handle, probe.clone()));
        probe
    }

    #[cfg(feature = "rmcp")]
    fn shortage(&self) -> Option<String> {
        lock(&self.rooms).iter().filter_map(Weak::upgrade).find_map(|room| room.shortage())
    }

    #[cfg(not(feature = "rmcp"))]
    fn shortage(&self) -> Option<String> {
        None
    }
}

impl Courier {
    /// Checks the health of this process, for the probes of an orchestrator. Takes at most one second.
    ///
    /// - *Liveness* ([`HealthReport::is_live`]): the supervisor answers, and so does each thread that subscribers
    ///   share. A thread of one dedicated subscriber that is blocked concerns one session, and does not count.
    /// - *Readiness* ([`HealthReport::is_ready`]): the process is live, Redis accepts a write, there is room for one
    ///   more session, and no shutdown has begun. The write is a `SET` of `{prefix}:probe` that expires after 1 ms.
    ///
    /// Call the method from another thread than that of the supervisor, as every worker of an actix `HttpServer` is. A
    /// blocked supervisor could not report itself otherwise.
    ///
    /// ```no_run
    /// # #[cfg(feature = "rmcp")]
    /// # mod handler {
    /// use actix_web::{HttpResponse, web};
    /// use mcp_courier::Courier;
    ///
    /// async fn readyz(courier: web::Data<Courier>) -> HttpResponse {
    ///     let report = courier.check().await;
    ///     if report.is_ready() { HttpResponse::Ok().json(report) } else { HttpResponse::ServiceUnavailable().json(report) }
    /// }
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Nothing is left behind but a probe of Redis, which ends by itself.
    pub async fn check(&self) -> HealthReport {
        let queue = in_time(self.checks.probe(&self.queue));
        let (supervisor, queue) = join(in_time(self.supervisor.send(CheckHealth)), queue).await;
        let silent = |what: &str| format!("{what} did not answer within {LIMIT:?}");
        let queue = queue.unwrap_or_else(|| Err(silent("the queue"))).err();
        let is_shutting_down = self.checks.is_shutting_down.load(Ordering::Acquire);
        let shutdown = |is_begun: bool| is_begun.then(|| "the server shuts down".to_owned());
        let [supervisor, arbiters, room, shutdown] = match supervisor {
            Some(Ok(answer)) => {
                let room = answer.shortage.or_else(|| self.checks.shortage());
                [None, answer.silent_arbiters, room, shutdown(is_shutting_down || answer.is_shutting_down)]
            }
            Some(Err(_)) => [Some("the supervisor has ended".to_owned()), None, None, shutdown(is_shutting_down)],
            None => [Some(silent("the supervisor")), None, None, shutdown(is_shutting_down)],
        };
        HealthReport::new([
            (HealthPart::Supervisor, supervisor),
            (HealthPart::Arbiters, arbiters),
            (HealthPart::Queue, queue),
            (HealthPart::Room, room),
            (HealthPart::Shutdown, shutdown),
        ])
    }

    /// Makes the process unready, because its shutdown begins.
    pub(crate) fn note_shutdown(&self) {
        self.checks.is_shutting_down.store(true, Ordering::Release);
    }

    /// Adds a part of the process that holds sessions.
    #[cfg(feature = "rmcp")]
    pub(super) fn add_room(&self, room: Weak<dyn Room>) {
        let mut rooms = lock(&self.checks.rooms);
        rooms.retain(|room| room.strong_count() > 0);
        rooms.push(room);
    }
}

/// Waits for an answer within the limit of a check.
async fn in_time<T>(answer: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(LIMIT, answer).await.ok()
}

fn with_source(error: &dyn StdError) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
