//! Queues of many sessions over one connection: the shared subscribers of one arbiter.
//!
//! ```text
//!   SharedConsumer, one a session ── jobs ──►  Multiplexer  ── rounds, one at a time ──►  Link  ──►  Redis
//!        ▲                 ▲                    ▲ │                                 │
//!        │ permit suspended│ answers            │ └─────────────────────────────────┘
//!        └─────────────────┴──── invalidations: of a queue, look again; of a lease, suspend
//! ```
//!
//! Redis tracks the keys that were read over the link, and announces the next change of each once (client tracking).
//! Until that change a waiting session sends nothing. Some changes are never announced, as where Redis's table of
//! tracked keys is full. Therefore each wait ends with a read of its queue, within a heartbeat.
//!
//! *Callers*. The drivers of the shared subscribers of one arbiter. [`Queues`] is the same trait as for dedicated
//! subscribers, so neither the machine nor the driver knows the difference.
//!
//! # Rules
//! Each has a variant of the simulation (`tests/protocol/simulation`) that removes it, and then finds a broken
//! guarantee or a late delivery:
//! - *Read last*. A write over this link ends the tracking of the key. Therefore each acknowledgement reads the queue
//!   behind its removal (`an_acknowledgement_that_reads_before_it_removes_is_not_prompt`).
//! - *Read the lease behind the queue*. Only then the messages are this owner's, even where an announcement was lost
//!   (`a_plain_read_without_the_lease_behind_it_breaks_g4`).
//! - *A change during a read asks for another read*
//!   (`a_change_that_comes_while_the_queue_is_read_and_is_forgotten_is_not_prompt`).
//! - *Every wait ends within a heartbeat*, whatever Redis announces (`a_wait_that_only_a_change_ends_is_not_prompt`).
//! - *A lost connection wakes every waiter and suspends every permit*
//!   (`a_wait_that_outlives_its_connection_is_not_prompt`). A flush does the same: Redis announces it without a key
//!   (`a_null_invalidation_that_means_nothing_is_not_prompt`).

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future;

use self::consumer::SharedConsumer;
use self::multiplexer::Multiplexer;
use super::lease::{self, lease_value};
use super::link::{Command, Deployment, Link, Pushes, read};
use super::lua::{RELEASE, RENEW};
use super::{consumer::member, reply};
use crate::backend::sealing::read_open_question;
use crate::backend::{Consumer, LeaseState, OwnerToken, Permit, Queues};
use crate::config::Config;
use crate::failure::{QueueError, QueueErrorKind};
use crate::keys::QueueKeys;
use crate::question::Question;
use crate::session_id::SessionId;

mod consumer;
mod multiplexer;
mod registration;
mod round;

/// Queues that share one line.
pub(super) struct SharedQueues {
    mux: Arc<Multiplexer>,
    shown_url: String,
}

impl std::fmt::Debug for SharedQueues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedQueues({})", self.shown_url)
    }
}

impl SharedQueues {
    /// Makes a line on the runtime of the caller. Connects at the first job.
    pub(super) fn new(deployment: &Deployment, shown_url: &str, config: Arc<Config>) -> Self {
        let link = Link::shared(deployment, &config, Pushes::KeysButThose);
        Self { mux: Multiplexer::start(link, config), shown_url: shown_url.to_owned() }
    }

    fn failed(&self, doing: &str, error: impl Into<QueueErrorKind>) -> QueueError {
        QueueError::new(format!("{doing} at {}", self.shown_url), error.into())
    }
}

#[async_trait]
impl Queues for SharedQueues {
    async fn open(
        &self,
        session: &SessionId,
        owner: OwnerToken,
        permit: Arc<Permit>,
    ) -> Result<Box<dyn Consumer>, QueueError> {
        Ok(Box::new(SharedConsumer::new(Arc::clone(&self.mux), session, owner, permit)))
    }

    async fn claim_if_absent(&self, session: &SessionId, owner: OwnerToken) -> Result<LeaseState, QueueError> {
        const DOING: &str = "reading a lease";
        let QueueKeys { lease, queue, collapsible, .. } = self.mux.keys.of(session);
        let arguments = lease::arguments(&self.mux.config, owner, true);
        let renew = Command::call(&RENEW, &[&lease, &queue, &collapsible], &arguments);
        let state = async { Ok(lease::renewed(self.mux.call(renew).await?)?.0) };
        let state = state.await.map_err(|e: QueueErrorKind| self.failed(DOING, e));
        if !state.as_ref().is_ok_and(|state| *state != LeaseState::Reclaimed) {
            self.mux.wrote_lease(&queue, None);
        }
        state
    }

    async fn release(&self, session: &SessionId, owner: OwnerToken) -> Result<bool, QueueError> {
        const DOING: &str = "releasing a lease";
        let Multiplexer { config, keys, .. } = &*self.mux;
        let QueueKeys { queue, lease, .. } = keys.of(session);
        let release = Command::call(&RELEASE, &[lease], &[lease_value(owner, config)]);
        let unlist = redis::cmd("ZREM").arg(keys.sessions()).arg(member(session, owner, config)).take();
        let released = async {
            // Two jobs: the sorted set of live sessions is in another slot of a cluster.
            let (released, unlisted) = future::join(self.mux.call(release), self.mux.call(unlist.into())).await;
            let released: i64 = reply::number(released?)?;
            unlisted?;
            Ok(released == 1)
        };
        let released = released.await.map_err(|e: QueueErrorKind| self.failed(DOING, e));
        if !matches!(released, Ok(false)) {
            self.mux.wrote_lease(&queue, None);
        }
        released
    }

    async fn open_questions(&self, session: &SessionId) -> Result<Vec<Question>, QueueError> {
        // Nobody waits for a change of these keys, so Redis need not track them. Without tracking Redis refuses this
        // command, which does no harm.
        let forget = redis::cmd("CLIENT").arg(&["CACHING", "NO"]).take();
        let (queue, keys) = (self.mux.keys.of(session), self.mux.config.sealing_keys());
        let values = redis::cmd("HVALS").arg(queue.questions).take();
        let open = async {
            let [_, values] = self.mux.send([forget.into(), values.into()]).await?.answers()?;
            read::<Vec<Vec<u8>>>(values?)
        };
        let open = open.await.map_err(|e| self.failed("reading open questions", e))?;
        Ok(open.iter().filter_map(|text| read_open_question(keys, &queue.queue, text)).collect())
    }
}
