//! Health of a supervisor and its threads, for [`Courier::check`](crate::Courier::check).
//!
//! Each shared arbiter is asked to call a function. An arbiter that does not call it in time is blocked, by a session
//! that never awaits, and all of its subscribers stand still. A dedicated arbiter concerns one session, whose own limits
//! apply: no neighbour suffers, so a restart of the process would cost more than it mends.

use std::time::Duration;

use actix::prelude::*;
use futures_util::future::join_all;

use super::SupervisorActor;

/// Longest time in which an arbiter answers. Shorter than a whole check, so that the supervisor's own answer still
/// arrives in time.
const PATIENCE: Duration = Duration::from_millis(500);

/// Request for the health of the supervisor and its arbiters.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "SupervisorHealth")]
pub(crate) struct CheckHealth;

/// Answer to a [`CheckHealth`]. The answer itself proves that the supervisor works.
#[derive(Debug)]
pub(crate) struct SupervisorHealth {
    /// Number of the shared arbiters that did not answer in time, as a text; `None` where all answered.
    pub(crate) silent_arbiters: Option<String>,
    /// Reason why no further subscriber has a place; `None` where there is a place.
    pub(crate) shortage: Option<String>,
    pub(crate) is_shutting_down: bool,
}

impl Handler<CheckHealth> for SupervisorActor {
    type Result = ResponseFuture<SupervisorHealth>;

    fn handle(&mut self, _: CheckHealth, _: &mut Context<Self>) -> Self::Result {
        let (is_shutting_down, shortage) = (self.shutting_down, self.limits.choose(&self.config, None).err());
        let answers: Vec<_> =
            self.shared_arbiters.answers().map(|answer| tokio::time::timeout(PATIENCE, answer)).collect();
        Box::pin(async move {
            let all = answers.len();
            let silent = join_all(answers).await.into_iter().filter(Result::is_err).count();
            let silent_arbiters = (silent > 0)
                .then(|| format!("{silent} of {all} threads of shared subscribers did not answer within {PATIENCE:?}"));
            SupervisorHealth { silent_arbiters, shortage: shortage.map(|error| error.to_string()), is_shutting_down }
        })
    }
}
