//! Queue of one session, over a link of its own.
//!
//! A *take* is one pipeline: the script that acknowledges, the clock, a plain read of the oldest messages, and the
//! lease. The lease stands last. An owner that holds it then held it at the read as well, because only a claim of its
//! own could have won it back.
//!
//! A *wait* puts a `BLMOVE` of the tail onto itself before the same pipeline. The command blocks until there is a
//! message, and removes nothing. While it blocks, Redis answers nothing else on this link, so a wait must end before
//! the next renewal of the lease.
//!
//! After a failure the outcome of the last request is unknown, and so is the tracking of the lease. The consumer is
//! therefore dropped with its link, and its owner opens another.
//!
//! # Rules
//! - *Every write of the lease is followed by a read of it*. A write ends the tracking, and without tracking the permit
//!   would outlive a takeover (`whoever_reclaimed_by_a_take_learns_of_a_takeover_at_once`).
//! - *A request that may run late reclaims nothing*. Redis performs a wait, or a renewal beside it, even after its
//!   owner has gone. With a reclaim it would take the lease for a dead owner, and the next server would stand by for a
//!   whole lease (`an_absent_lease_is_not_reclaimed_by_a_wait`).
//! - *A refused `BLMOVE` is an error of the wait*. Out of memory, Redis refuses the command at once. The take behind it
//!   would succeed, and the owner would wait again at once, thousands of times a second
//!   (`out_of_memory_what_is_queued_is_delivered_and_what_is_pushed_is_refused`).
//! - *Messages count only where the lease behind them is this owner's*. A claim may come between the two, and its
//!   announcement may be lost on the way.
//!
//! *Callers*. The driver of a dedicated subscriber, one operation at a time. A wait may be dropped; the machine then
//! closes the consumer, because Redis may still perform the dropped request.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use self::lease::Renewal;
use super::discards::not_kept;
use super::lease::{lease_then, lease_value};
use super::link::{Answer, Deployment, Link, Pushes, Request, Watch, is_timeout};
use super::lua::{ACKNOWLEDGE, RENEW};
use super::take::{self, Acknowledged, Acknowledgement, Read, Reads};
use super::{reply, wrong_type};
use crate::backend::{Behind, Consumer, Delivered, LeaseState, LineLimit, Mark, OwnerToken, Permit, Replaced, Taken};
use crate::config::Config;
use crate::failure::{QueueError, QueueErrorKind};
use crate::keys::{Keys, QueueKeys};
use crate::lock::lock;
use crate::session_id::SessionId;
use crate::subscription::SuspensionMark;

mod lease;

/// Longest time of one wait. A connection that died silently, or a Redis that stopped answering, shows at the end of a
/// wait, within a few seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Consumer of one session's queue over a dedicated link.
pub(super) struct RedisConsumer {
    link: Link,
    /// Link over which the session is announced as live, where that is not the one of the queue.
    elsewhere: Option<Link>,
    /// Suspends the permit when the lease may have changed, or when the connection broke. Both count the same:
    /// another owner may have claimed.
    _watch: Watch,
    config: Arc<Config>,
    keys: QueueKeys,
    /// Sorted set of live sessions, and this owner's member in it. The member belongs to this owner alone, so removing
    /// it removes no other owner's.
    sessions: String,
    member: String,
    session: SessionId,
    owner: OwnerToken,
    /// Value of the owner's lease.
    lease: String,
    /// Permit of the owner, which this consumer renews, suspends and revokes.
    permit: Arc<Permit>,
    /// Moment of this consumer's last claim or renewal of the lease.
    renewed: Instant,
    /// Bounds of the next take, and what the takes teach about the line to Redis.
    limit: Arc<Mutex<LineLimit>>,
    /// Number of messages that the next read asks for, learned from earlier reads.
    reads: Reads,
    /// Least life of the queue, for the messages that were read from it.
    life: Duration,
}

impl RedisConsumer {
    /// Connects, registers for the lease, and loads the scripts of takes and renewals. Claims nothing yet. `common` is
    /// the link of the whole process.
    pub(super) async fn open(
        (deployment, common): (&Deployment, &Link),
        config: Arc<Config>,
        session: &SessionId,
        owner: OwnerToken,
        permit: Arc<Permit>,
    ) -> Result<Self, QueueError> {
        let failed = |kind| QueueError::new(format!("opening the queue of {session:?}"), kind);
        let fleet = Keys::new(config.prefix());
        let keys = fleet.of(session);
        // Only the lease is tracked, and only where a command asks for it. Otherwise Redis would also announce every
        // push to the queue.
        let link = Link::dedicated(deployment, &config, Pushes::ChosenKeys, &keys.queue);
        let suspended = Arc::clone(&permit);
        let watch = link.watch(keys.lease.clone(), move |_| suspended.suspend());
        link.connect().await.map_err(failed)?;
        // Calls of these scripts travel behind other commands, the take behind a blocking wait. A missing script would
        // be noticed only after that wait.
        link.load(&[&ACKNOWLEDGE, &RENEW]).await;
        // The sorted set of live sessions is in another slot of a cluster, and so perhaps at another node.
        let elsewhere = deployment.is_cluster().then(|| common.clone());
        Ok(Self {
            link,
            elsewhere,
            _watch: watch,
            keys,
            sessions: fleet.sessions(),
            member: member(session, owner, &config),
            session: session.clone(),
            lease: lease_value(owner, &config),
            owner,
            permit,
            renewed: Instant::now(),
            limit: Arc::new(Mutex::new(LineLimit::of_batches(&config))),
            reads: Reads::new(),
            life: Duration::ZERO,
            config,
        })
    }

    /// Adds the commands of a take: the acknowledgement, the time, and the read.
    fn add_take(
        &self,
        request: &mut Request,
        (delivered, behind): (Option<&Delivered>, Option<&Behind>),
        reclaim: bool,
        limit: LineLimit,
    ) {
        let Self { keys, lease, life, .. } = self;
        let QueueKeys { queue, lease: lease_key, collapsible, .. } = keys;
        let all = || keys.clone();
        let acknowledgement =
            Acknowledgement { queue, lease_key, collapsible, keys: &all, lease, delivered, reclaim, life: *life };
        request.add(acknowledgement.call(&self.config));
        request.add(redis::cmd("TIME"));
        self.add_read(request, behind, limit);
    }

    /// Adds the read of the oldest messages, and behind it the read of the lease. The owner that the second read finds
    /// owned the queue at the first.
    ///
    /// A claim may come between the acknowledgement and the read. Behind a proxy that swallows invalidations, only this
    /// read of the lease shows it.
    fn add_read(&self, request: &mut Request, behind: Option<&Behind>, limit: LineLimit) {
        request.add(self.reads.command(&self.keys.queue, behind, limit));
        request.add(redis::cmd("GET").arg(&self.keys.lease));
    }

    /// Sends a take, and learns from its answer how much the next one may ask for.
    async fn do_take(
        &mut self,
        delivered: Option<&Delivered>,
        behind: Option<&Behind>,
    ) -> Result<Taken, QueueErrorKind> {
        let (sent, mark, limit) = (Instant::now(), self.permit.mark(), *lock(&self.limit));
        let mut request = Request::sequence();
        self.add_take(&mut request, (delivered, behind), true, limit);
        let (answers, renewal) = self.answer_within(limit, request).await?;
        let taken = self.taken(answers, behind, limit, sent, mark, renewal).await?;
        let bytes = taken.items.iter().map(|item| item.mark.length).sum();
        lock(&self.limit).succeeded(taken.items.len(), bytes, sent.elapsed());
        Ok(taken)
    }

    /// Sends a wait with a take behind it. The take reclaims no absent lease, as it may run after the owner has gone.
    async fn do_wait(&mut self, block: Duration) -> Result<Taken, QueueErrorKind> {
        let (sent, mark, limit) = (Instant::now(), self.permit.mark(), *lock(&self.limit));
        let block = block.min(LONGEST_WAIT);
        let queue = &self.keys.queue;
        let mut request = Request::sequence();
        // `BLMOVE` rotates the tail onto itself: the command waits for a message and removes nothing. The take travels
        // behind it in the same pipeline, and runs the moment the wait ends.
        request.add(redis::cmd("BLMOVE").arg(&[queue, queue]).arg(&["RIGHT", "RIGHT"]).arg(seconds(block)));
        self.add_take(&mut request, (None, None), false, limit);
        // The limit learns nothing from a wait: nearly all waits move nothing. After a timeout the next connection
        // begins with a take.
        let ([moved, acknowledged, time, read, owner], renewal) =
            self.answer(request.within(block + limit.time())).await?;
        // A refused command, for lack of memory or for a wrong type, did not wait. The caller must pause instead.
        moved?;
        self.taken([acknowledged, time, read, owner], None, limit, sent, mark, renewal).await
    }

    /// Sends a request whose answer must come within the time of the limit. Teaches the limit where the answer comes
    /// too late.
    async fn answer_within<const N: usize>(
        &self,
        limit: LineLimit,
        request: Request,
    ) -> Result<([Answer; N], Option<Renewal>), QueueErrorKind> {
        let answered = self.answer(request.within(limit.time())).await;
        if answered.as_ref().is_err_and(is_timeout) {
            lock(&self.limit).timed_out();
        }
        answered
    }

    /// Reads the answers to a take that was sent at `sent`, and to a renewal that was sent while they were on their
    /// way.
    async fn taken(
        &mut self,
        [acknowledged, time, mut read, mut owner]: [Answer; 4],
        behind: Option<&Behind>,
        limit: LineLimit,
        sent: Instant,
        mark: SuspensionMark,
        mut renewal: Option<Renewal>,
    ) -> Result<Taken, QueueErrorKind> {
        let Acknowledged { mut lease, changed, at, trouble } = take::acknowledged(acknowledged?)?;
        not_kept(&self.session, &trouble);
        let now = at.map_or_else(|| Ok(reply::time(time?)?), Ok::<_, QueueErrorKind>)?;
        let read = loop {
            if lease.is_held() {
                lease = lease_then(self.owner, lease, &owner?);
            }
            if !lease.is_held() {
                break Read::default();
            }
            if let Some(read) = self.reads.read(read?, behind, limit)? {
                break read;
            }
            let mut again = Request::new();
            self.add_read(&mut again, behind, limit);
            let renewed;
            ([read, owner], renewed) = self.answer_within(limit, again).await?;
            renewal = renewed.or(renewal);
        };
        // Two events end the tracking of the lease: a change of the lease, which suspends the permit, and the reclaim
        // of an absent lease.
        let untracked = lease == LeaseState::Reclaimed || self.permit.is_suspended();
        // Redis before 6.2.6 announces this owner's own renewals too. Therefore a suspension since the take was sent
        // is settled here.
        let mark = if untracked { self.permit.mark() } else { mark };
        let still_ours = lease.is_held() && (!untracked || self.track_now().await?);
        match lease {
            LeaseState::Reclaimed if still_ours => self.permit.renewed(sent, self.config.lease(), mark),
            LeaseState::Held if still_ours => self.permit.confirmed(mark),
            // A newer claim may have come between. The next take says whether one did.
            _ => self.permit.revoke(),
        }
        if lease == LeaseState::Reclaimed && still_ours {
            self.announce(now.0 / 1000).await?;
        }
        let lease = renewal.map_or(lease, |renewal| self.settle(lease, &renewal));
        let (items, life) = take::items(&self.config, &self.keys.queue, read.messages, now);
        // Messages that were passed over are still in the queue, so their life counts too.
        self.life = if behind.is_some() { life.max(self.life) } else { life };
        // Where another owner has the lease by now, that owner delivers the messages that were read.
        let items = if lease.is_held() || renewal.is_none() { items } else { Vec::new() };
        Ok(Taken { lease, changed: changed || read.changed, has_more: read.has_more, now, items })
    }

    async fn do_replace(&mut self, oldest: &Mark, replacement: Vec<u8>) -> Result<Replaced, QueueErrorKind> {
        let QueueKeys { queue, lease, .. } = &self.keys;
        let replace = take::replacement(&self.config, self.owner, [queue, lease], oldest, replacement);
        Ok(take::replaced(self.link.query(replace).await?)?)
    }

    async fn named<T>(&self, doing: &str, result: Result<T, QueueErrorKind>) -> Result<T, QueueError> {
        wrong_type::named(&self.link, &self.keys, &self.session, doing, result).await
    }
}

impl Drop for RedisConsumer {
    fn drop(&mut self) {
        // From here on no invalidation reaches the permit, so a takeover would go unnoticed.
        self.permit.suspend();
    }
}

#[async_trait]
impl Consumer for RedisConsumer {
    fn share_limit(&mut self, limit: Arc<Mutex<LineLimit>>) {
        self.limit = limit;
    }

    async fn claim(&mut self) -> Result<bool, QueueError> {
        let claimed = self.do_claim().await;
        self.named("claiming the queue", claimed).await
    }

    async fn renew(&mut self) -> Result<LeaseState, QueueError> {
        let renewed = self.do_renew().await;
        self.named("renewing the lease", renewed).await
    }

    async fn take_behind(
        &mut self,
        delivered: Option<&Delivered>,
        behind: Option<&Behind>,
    ) -> Result<Taken, QueueError> {
        let taken = self.do_take(delivered, behind).await;
        self.named("reading the queue", taken).await
    }

    async fn wait(&mut self, block: Duration) -> Result<Taken, QueueError> {
        let taken = self.do_wait(block).await;
        self.named("waiting for the queue", taken).await
    }

    async fn replace_oldest(&mut self, oldest: &Mark, replacement: Vec<u8>) -> Result<Replaced, QueueError> {
        let replaced = self.do_replace(oldest, replacement).await;
        self.named("writing a failed attempt into the queue", replaced).await
    }
}

/// Returns the member of a live session in the sorted set: the session as keys spell it, and the value of its lease.
pub(super) fn member(session: &SessionId, owner: OwnerToken, config: &Config) -> String {
    format!("{session}:{}", lease_value(owner, config))
}

/// Returns a blocking time in the form that Redis reads: in seconds, half a millisecond above a whole millisecond.
///
/// Redis reads 0 as "block for ever". Before 7.0 it truncates to whole milliseconds. As a binary fraction 0.001 s is
/// slightly less than one millisecond, so Redis would make 0 of it.
fn seconds(block: Duration) -> f64 {
    (block.as_millis().max(1) as f64 + 0.5) / 1000.0
}

/// Returns the answers to a request of `N` commands.
pub(super) fn each<const N: usize>(answers: Vec<Answer>) -> Result<[Answer; N], QueueErrorKind> {
    answers.try_into().map_err(|_| QueueErrorKind::Broken("answers of an unexpected number".into()))
}
