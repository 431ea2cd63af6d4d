//! The lease of a consumer: claimed, renewed, tracked, and kept while an answer takes long.

use std::future::Future;
use std::time::{Duration, Instant};

use redis::{Pipeline, RedisError, RedisResult, Value};
use tokio::task::JoinSet;

use super::{RedisConsumer, bad, each, evalsha, is_noscript};
use crate::backend::redis::connection::{kind, within};
use crate::backend::redis::lease;
use crate::backend::redis::lua::{CLAIM, RENEW};
use crate::backend::redis::reply;
use crate::backend::{LeaseState, OwnerToken};
use crate::failure::QueueErrorKind;
use crate::subscription::DoubtMark;

/// A renewal that was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Renewal {
    state: LeaseState,
    sent: Instant,
    mark: DoubtMark,
}

impl RedisConsumer {
    /// Reads the lease so that the next change to it is told of. After every write of ours: that ends the tracking.
    fn track(&self, pipe: &mut Pipeline) {
        pipe.cmd("CLIENT").arg(&["CACHING", "YES"]);
        pipe.cmd("GET").arg(&self.keys.lease);
    }

    /// Whether the lease is ours at the moment from which its changes are told of.
    pub(super) async fn track_now(&mut self) -> Result<bool, QueueErrorKind> {
        let mut pipe = redis::pipe();
        self.track(&mut pipe);
        let [_, owner] = self.pipeline(&mut pipe).await?;
        let owner = owner.map_err(kind)?;
        if owner == Value::Nil {
            // Deleted since, and no other owner has it: nobody tells us, so the next take must ask.
            self.permit.suspend();
        }
        Ok(is_owner(self.owner, &owner))
    }

    fn lease_keys(&self) -> [String; 2] {
        [self.keys.lease.clone(), self.keys.queue.clone()]
    }

    fn lease_arguments(&self, reclaim: bool) -> Vec<Vec<u8>> {
        lease::arguments(&self.config, self.owner, reclaim)
    }

    pub(super) async fn do_claim(&mut self) -> Result<(), QueueErrorKind> {
        let (sent, mark) = (Instant::now(), self.permit.mark());
        let [lease, queue] = self.lease_keys();
        let now = self.script(&CLAIM, &[&lease, &queue], &self.lease_arguments(true)).await?;
        let now: i64 = reply::number(now).map_err(bad)?;
        if self.track_now().await? {
            self.permit.renewed(sent, self.config.lease(), mark);
            self.renewed = sent;
        } else {
            // A newer claim came between: the next take says so.
            self.permit.revoke();
        }
        self.announce(now).await
    }

    pub(super) async fn do_renew(&mut self) -> Result<LeaseState, QueueErrorKind> {
        let (sent, mark) = (Instant::now(), self.permit.mark());
        let [renewed, _, tracked] = self.pipeline(&mut self.renewal(true)).await?;
        let (renewed, tracked) = match renewed {
            Err(error) if is_noscript(&error) => {
                let [lease, queue] = self.lease_keys();
                let renewed = self.script(&RENEW, &[&lease, &queue], &self.lease_arguments(true)).await?;
                let mut pipe = redis::pipe();
                self.track(&mut pipe);
                let [_, tracked] = self.pipeline(&mut pipe).await?;
                (renewed, tracked)
            }
            other => (other.map_err(kind)?, tracked),
        };
        let (state, now) = judge(self.owner, renewed, &tracked.map_err(kind)?)?;
        self.settle(LeaseState::Held, &Renewal { state, sent, mark });
        if state == LeaseState::Absent {
            self.permit.suspend();
            return Ok(LeaseState::Reclaimed);
        }
        // Redis before 6.2.6 tells us of our own renewal, as NOLOOP is not heeded within scripts there.
        if state.is_ours() && self.permit.is_in_doubt() {
            let mark = self.permit.mark();
            if self.track_now().await? {
                self.permit.confirmed(mark);
            } else {
                // The next take says whether another has the lease, or nobody.
                self.permit.revoke();
                self.permit.suspend();
                return Ok(state);
            }
        }
        if state.is_ours() {
            self.announce(now).await?;
        }
        Ok(state)
    }

    /// Waits for an answer, at most for `time`, and renews the lease meanwhile when that is due: Redis does so at once, and
    /// says so behind the answer. Returns the answer and the last renewal, or `None` where no answer came in time.
    pub(super) async fn answer<T>(
        &self,
        time: Duration,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<Option<(T, Option<Renewal>)>, QueueErrorKind> {
        let heartbeat = self.config.heartbeat();
        // A little late: who waits for a message, or delivers, renews by itself when the heartbeat is over.
        let mut due = self.renewed + heartbeat + heartbeat / 4;
        // Dropped with this future, as the connection must be.
        let mut renewals = JoinSet::new();
        let answer = tokio::time::timeout(time, answer);
        tokio::pin!(answer);
        let answer = loop {
            tokio::select! {
                answer = &mut answer => break answer,
                () = tokio::time::sleep_until(due.into()) => {
                    due = Instant::now() + heartbeat;
                    self.renew_beside(&mut renewals, time);
                }
            }
        };
        let Ok(answer) = answer else { return Ok(None) };
        let answer = answer.map_err(kind)?;
        let mut last: Option<Renewal> = None;
        while let Some(renewed) = renewals.join_next().await {
            // What failed shows again at the next renewal.
            if let Ok(Ok(renewed)) = renewed
                && last.is_none_or(|last| last.sent < renewed.sent)
            {
                last = Some(renewed);
            }
        }
        Ok(Some((answer, last)))
    }

    /// Sends a renewal over the same connection, without waiting for its answer.
    fn renew_beside(&self, renewals: &mut JoinSet<Result<Renewal, QueueErrorKind>>, time: Duration) {
        let (sent, mark, owner) = (Instant::now(), self.permit.mark(), self.owner);
        // It takes no absent lease: it may be done after its owner has gone.
        let (mut connection, mut pipe) = (self.connection.clone(), self.renewal(false));
        renewals.spawn(async move {
            // Its answer comes behind the one that is waited for.
            let [renewed, _, tracked] = each(within(time, pipe.ignore_errors().query_async(&mut connection)).await?)?;
            let (state, _) = judge(owner, renewed.map_err(kind)?, &tracked.map_err(kind)?)?;
            Ok(Renewal { state, sent, mark })
        });
    }

    /// Tells the permit of a renewal, and returns the state of the lease after it.
    pub(super) fn settle(&mut self, before: LeaseState, renewal: &Renewal) -> LeaseState {
        if !renewal.state.is_ours() {
            self.permit.revoke();
            return renewal.state;
        }
        self.permit.renewed(renewal.sent, self.config.lease(), renewal.mark);
        self.renewed = renewal.sent;
        before
    }

    /// The commands that renew the lease and track it from then on.
    fn renewal(&self, reclaim: bool) -> Pipeline {
        let mut pipe = redis::pipe();
        let [lease, queue] = self.lease_keys();
        pipe.add_command(evalsha(&RENEW, &[&lease, &queue])).arg(self.lease_arguments(reclaim));
        self.track(&mut pipe);
        pipe
    }

    /// Says in the sorted set until when the session is live. The set lies in a slot of its own, so in no script.
    async fn announce(&mut self, now_ms: i64) -> Result<(), QueueErrorKind> {
        let lease_ms = i64::try_from(self.config.lease().as_millis()).unwrap_or(i64::MAX);
        let mut pipe = redis::pipe();
        pipe.cmd("ZADD").arg(&self.sessions).arg(now_ms + lease_ms).arg(&self.member);
        pipe.cmd("ZREMRANGEBYSCORE").arg(&self.sessions).arg("-inf").arg(now_ms);
        pipe.cmd("PEXPIRE").arg(&self.sessions).arg(lease_ms * 2);
        let answers: [RedisResult<Value>; 3] = self.pipeline(&mut pipe).await?;
        if let Some(Err(error)) = answers.into_iter().find(Result::is_err) {
            // It serves broadcasts and monitoring only; an owner without it still delivers.
            tracing::warn!(session = ?self.session, %error, "the session could not be announced as live");
        }
        Ok(())
    }
}

/// Reads the answers to a renewal, and to the read of the lease behind it.
fn judge(owner: OwnerToken, renewed: Value, tracked: &Value) -> Result<(LeaseState, i64), QueueErrorKind> {
    let (state, now) = lease::renewed(renewed).map_err(bad)?;
    // Else a newer claim came between. The renewal had ended the tracking, so nobody else tells us.
    let state = match tracked {
        // Deleted since, and no other owner has it.
        Value::Nil if state.is_ours() => LeaseState::Absent,
        tracked if state.is_ours() && !is_owner(owner, tracked) => LeaseState::Lost,
        _ => state,
    };
    Ok((state, now))
}

fn is_owner(owner: OwnerToken, lease: &Value) -> bool {
    let Value::BulkString(lease) = lease else { return false };
    // Behind the token stands the life of the lease.
    lease.split(|byte| *byte == b' ').next() == Some(owner.to_string().as_bytes())
}
