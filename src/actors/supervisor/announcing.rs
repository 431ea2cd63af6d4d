//! Record of the server process: written at the start of its supervisor and once a heartbeat, removed at the shutdown.
//!
//! *Cost*. One script call per process and heartbeat, whatever the number of sessions. The supervisor reads the
//! statistics of its subscribers, which sends them no message.
//!
//! *Failures* are logged and have no other consequence. Operators see less then, and deliveries go on.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::WeakAddr;
use actix::prelude::*;
use tokio::sync::Mutex;

use super::SupervisorActor;
use super::child::{Child, RunState};
use crate::actors::stats::Totals;
use crate::backend::{Backend, ServerId, ServerRecord, SessionTrouble, SubscriberCounts, TroubleState};
use crate::subscription::SubscriberState;

/// Longest time for the removal of the record at the shutdown. A record that was not removed expires by itself.
const WITHDRAWAL: Duration = Duration::from_secs(1);

/// Writer of the record. The shutdown and the task that writes share the writer.
pub(super) struct Announcer {
    pub(super) server: ServerId,
    /// Time at which the process connected to the queue.
    started: SystemTime,
    /// Counters of all subscribers.
    pub(super) totals: Arc<Totals>,
    queue: Arc<dyn Backend>,
    /// Set once the record is removed. The lock is held while the record is written, so that no late write brings the
    /// record back.
    is_withdrawn: Mutex<bool>,
}

impl Announcer {
    pub(super) fn new(queue: Arc<dyn Backend>) -> Arc<Self> {
        let (server, started) = (ServerId::new(), SystemTime::now());
        Arc::new(Self { server, started, totals: Arc::default(), queue, is_withdrawn: Mutex::default() })
    }

    /// Writes the record of a supervisor once a heartbeat, until the supervisor ends or the record is removed.
    async fn run(self: Arc<Self>, supervisor: WeakAddr<SupervisorActor>, heartbeat: Duration) {
        let mut failures = 0_u64;
        loop {
            // The address is dropped at once: a supervisor that nobody else addresses must end.
            let Some(asked) = supervisor.upgrade().map(|supervisor| supervisor.send(TakeCensus)) else { return };
            let Ok(record) = asked.await else { return };
            let is_withdrawn = self.is_withdrawn.lock().await;
            if *is_withdrawn {
                return;
            }
            match tokio::time::timeout(heartbeat, self.queue.announce_server(&record)).await {
                Ok(Ok(())) => failures = 0,
                failed => {
                    failures += 1;
                    let error = failed.map(|done| done.err().map(|error| error.to_string())).unwrap_or_default();
                    let error = error.unwrap_or_else(|| format!("no answer within {heartbeat:?}"));
                    // The failure of Redis itself is in the lines of the subscribers.
                    if failures.is_power_of_two() {
                        tracing::debug!(
                            error,
                            failures,
                            "writing the record of this server failed; operators do not see it"
                        );
                    }
                }
            }
            drop(is_withdrawn);
            tokio::time::sleep(heartbeat).await;
        }
    }

    /// Removes the record, for good.
    pub(super) async fn withdraw(&self) {
        let withdrawal = async {
            *self.is_withdrawn.lock().await = true;
            self.queue.withdraw_server(self.server).await
        };
        match tokio::time::timeout(WITHDRAWAL, withdrawal).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "removing the record of this server failed; it expires by itself")
            }
            Err(_) => tracing::debug!("removing the record of this server took too long; it expires by itself"),
        }
    }
}

/// Request for the record of this process, as it is now.
#[derive(Message)]
#[rtype(result = "ServerRecord")]
struct TakeCensus;

impl SupervisorActor {
    /// Begins to write the record of this process.
    pub(super) fn announce(&self, ctx: &Context<Self>) {
        let (announcer, heartbeat) = (Arc::clone(&self.announcer), self.config.heartbeat());
        actix_rt::spawn(announcer.run(ctx.address().downgrade(), heartbeat));
    }
}

/// Returns the trouble of a subscriber with this state and time of its newest error, if it is in any.
fn trouble_of(
    child: &Child,
    waits_for_place: bool,
    state: SubscriberState,
    error_at: Option<SystemTime>,
) -> Option<TroubleState> {
    match (&child.run_state, state) {
        (RunState::Parked(_), _) if waits_for_place => Some(TroubleState::WaitsForPlace),
        (RunState::Pausing, _) | (_, SubscriberState::BackingOff) => Some(TroubleState::BackingOff),
        (_, SubscriberState::StandingBy) => Some(TroubleState::StandingBy),
        _ => error_at.map(|_| TroubleState::Past),
    }
}

/// Counts one subscriber.
fn count(counts: &mut SubscriberCounts, state: SubscriberState) {
    let of_state = match state {
        SubscriberState::Connecting => &mut counts.connecting,
        SubscriberState::Reading => &mut counts.reading,
        SubscriberState::Waiting => &mut counts.waiting,
        SubscriberState::Delivering => &mut counts.delivering,
        SubscriberState::Rewriting => &mut counts.rewriting,
        SubscriberState::BackingOff => &mut counts.backing_off,
        SubscriberState::StandingBy => &mut counts.standing_by,
        SubscriberState::Parked => &mut counts.parked,
        SubscriberState::Stopping => &mut counts.stopping,
    };
    *of_state += 1;
}

impl Handler<TakeCensus> for SupervisorActor {
    type Result = MessageResult<TakeCensus>;

    fn handle(&mut self, _: TakeCensus, _: &mut Context<Self>) -> Self::Result {
        let mut counts = SubscriberCounts::default();
        let mut troubles = Vec::new();
        let waiting: HashSet<u64> = self.waiting.iter().map(|(_, epoch)| *epoch).collect();
        for (session, child) in &self.children {
            let (state, error_at) = child.context.stats.state_and_time_of_error();
            count(&mut counts, state);
            if let Some(kind) = trouble_of(child, waiting.contains(&child.context.epoch), state, error_at) {
                troubles.push((kind, Reverse(error_at), session, child));
            }
        }
        // Errors that are over come last, and the newest first among equals.
        troubles.sort_unstable_by_key(|(kind, error_at, ..)| (*kind, *error_at));
        troubles.truncate(ServerRecord::TROUBLES_MAX);
        let troubles = troubles
            .into_iter()
            .map(|(kind, _, session, child)| SessionTrouble::new(session, kind, child.context.stats.error()));
        let heartbeat = self.config.heartbeat();
        let Announcer { server, started, totals, .. } = &*self.announcer;
        let (delivered, discarded) = totals.counts();
        let record = ServerRecord::new(*server, *started, heartbeat, counts, troubles.collect());
        MessageResult(ServerRecord { delivered, discarded, ..record })
    }
}
