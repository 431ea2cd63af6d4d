//! Shutdown of a supervisor. The supervisor starts nothing new, lets deliveries finish within a limit, releases leases,
//! ends the threads, and reports.
//!
//! *Order*. No new subscriber can start once the flag is set, so the list of those to wait for is complete. Leases are
//! released before the threads end: another server can then take over at once, while a blocked thread may take for ever
//! (`a_process_ends_after_a_shutdown_though_a_session_blocks_its_thread_for_ever`,
//! `two_shutdowns_at_once_both_tell_the_truth`).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::FutureExt;

use super::SupervisorActor;
use crate::actors::log_gate::log_through;
use crate::actors::subscriber_context::Forced;

/// Longest time for the release of all leases of subscribers that did not end by themselves. The end of all arbiters
/// may take this time too.
const RELEASE: Duration = Duration::from_secs(2);

/// Request to stop every subscriber and to start none afterwards.
///
/// Each subscriber finishes the notification that it is delivering, acknowledges, and releases its lease, so that
/// another process can take over at once. A subscriber that has not ended after `drain` is dropped, and its lease is
/// released for it. Its unacknowledged notifications are delivered again by another process. Pending notifications stay
/// queued.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "ShutdownReport")]
pub struct Shutdown {
    /// Longest time that all subscribers together may take to end by themselves. Releases and the end of threads may
    /// take 4 s more.
    pub drain: Duration,
}

/// Report of a [`Shutdown`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Number of subscribers that ended by themselves.
    pub stopped: usize,
    /// Number of subscribers that did not end within the time and were dropped.
    pub forced: usize,
    /// Number of notifications that the subscribers, stopped and forced ones together, had delivered in their lives.
    pub delivered: u64,
    /// Number of notifications that these subscribers had discarded in their lives.
    pub discarded: u64,
}

impl Handler<Shutdown> for SupervisorActor {
    type Result = ResponseActFuture<Self, ShutdownReport>;

    fn handle(&mut self, Shutdown { drain }: Shutdown, ctx: &mut Context<Self>) -> Self::Result {
        self.shutting_down = true;
        self.waiting.clear();
        let mut report = ShutdownReport::default();
        let (mut ends, mut stats) = (Vec::new(), Vec::new());
        for stopping in self.stopping.all() {
            stats.push(Arc::clone(&stopping.context.stats));
            ends.push(stopping.watch());
        }
        let sessions: Vec<_> = self.children.keys().cloned().collect();
        for session in sessions {
            if let Some(child) = self.children.get(&session) {
                stats.push(Arc::clone(&child.context.stats));
            }
            ends.extend(self.stop_child(&session, ctx));
        }
        let count = ends.len();
        // The forced ends are counted one by one, because the other subscribers may not end within the time.
        let forced = Rc::new(Cell::new(0));
        let all = futures_util::future::join_all(ends.into_iter().map(|end| {
            let forced = Rc::clone(&forced);
            async move { forced.set(forced.get() + usize::from(end.await.is_ok())) }
        }));
        let drained = async move {
            let _ = tokio::time::timeout(drain, all).await;
        };
        Box::pin(drained.into_actor(self).then(move |(), supervisor, _| {
            let left: Vec<_> = supervisor.stopping.take();
            report.forced = left.len() + forced.get();
            report.stopped = count.saturating_sub(report.forced);
            let (queue, announcer) = (Arc::clone(&supervisor.queue), Arc::clone(&supervisor.announcer));
            let shared = supervisor.shared_arbiters.end();
            async move {
                let releases = left.iter().map(|stopping| {
                    // The subscriber is stopped before the release. A subscriber that still ran could claim the lease
                    // again after the release.
                    stopping.run_state.stop(&stopping.context);
                    let release = queue.release(&stopping.context.session_id, stopping.context.owner);
                    async {
                        if let Err(error) = release.await {
                            let passes = stopping.context.passes(|gates| &gates.not_released);
                            log_through!(passes, warn, session = ?stopping.context.session_id, %error,
                                "releasing the lease of a dropped subscriber failed; it expires by itself");
                        }
                    }
                });
                let released = tokio::time::timeout(RELEASE, futures_util::future::join_all(releases));
                let (released, ()) = futures_util::future::join(released, announcer.withdraw()).await;
                if released.is_err() {
                    tracing::warn!("releasing all leases took too long; the rest expire by themselves");
                }
                let ends = left.into_iter().map(|stopping| {
                    // Another shutdown with a longer limit may wait for the same subscriber.
                    stopping.waiters.into_iter().for_each(|waiter| drop(waiter.send(Forced)));
                    stopping.run_state.end()
                });
                let ends = ends.map(FutureExt::left_future).chain(shared.map(FutureExt::right_future));
                // A thread that never reaches an await point is left behind, and ends with the process.
                let _ = tokio::time::timeout(RELEASE, futures_util::future::join_all(ends)).await;
                for stats in stats {
                    let (delivered, discarded) = stats.totals.counts();
                    report.delivered += delivered;
                    report.discarded += discarded;
                }
                report
            }
            .into_actor(supervisor)
        }))
    }
}
