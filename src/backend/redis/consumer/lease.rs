//! Lease of a consumer: claimed, renewed, tracked, and renewed also while an answer takes long.
//!
//! Redis announces the next change of the lease only after a read of it (client tracking), and every write ends that.
//! So each write by this owner is followed by a read. An announcement suspends the [`Permit`](crate::backend::Permit):
//! the owner may have lost its lease, and delivers nothing until an answer says otherwise.
//!
//! The *mark* of a permit counts the suspensions up to the sending of a request. Its answer lifts only those. A
//! suspension that was raised later may concern a later takeover, so it stays.
//!
//! *Late answers*. A batch may need longer than a heartbeat on a narrow line. A renewal is then sent beside the
//! request. Redis performs it at once, and its answer comes behind the batch. Without that renewal every large batch
//! would cost the lease (`g4_a_take_that_lasts_longer_than_a_lease_keeps_the_lease`).
//!
//! *Order of the answers*. The state of a renewal and the owner that the tracking read found are judged together.
//! Another owner in that read has claimed in between, while the tracking was off: the lease is lost, although the
//! renewal succeeded. A suspension that remains is lifted by the next read of the lease, and the tracking continues
//! from there (`whoever_was_in_doubt_and_still_owns_learns_of_the_next_takeover`).

use std::time::{Duration, Instant};

use redis::Value;
use tokio::task::JoinSet;

use super::{RedisConsumer, each};
use crate::backend::redis::lease::{self, ANNOUNCED_WITHIN, is_owner};
use crate::backend::redis::link::{ANSWER_TIMEOUT, Answer, Command, Request};
use crate::backend::redis::lua::{CLAIM, RENEW};
use crate::backend::{LeaseState, OwnerToken};
use crate::failure::QueueErrorKind;
use crate::subscription::SuspensionMark;

/// Answered renewal of a lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Renewal {
    state: LeaseState,
    /// Moment of the sending, from which the permit counts. The lease began later, so the permit never outlives it.
    sent: Instant,
    /// Suspensions up to the sending. The renewal lifts these, and no later ones.
    mark: SuspensionMark,
}

impl RedisConsumer {
    /// Adds the read of the lease that makes Redis announce its next change. Needed after every write by this owner,
    /// because a write ends the tracking.
    fn track(&self, request: &mut Request) {
        request.add(redis::cmd("CLIENT").arg(&["CACHING", "YES"]));
        request.add(redis::cmd("GET").arg(&self.keys.lease));
    }

    /// Tracks the lease anew. Returns whether the caller holds the lease at the moment from which its changes are
    /// announced.
    pub(super) async fn track_now(&mut self) -> Result<bool, QueueErrorKind> {
        let mut request = Request::sequence();
        self.track(&mut request);
        let [_, owner] = each(self.link.send(&request).await?)?;
        let owner = owner?;
        if owner == Value::Nil {
            // The lease was deleted meanwhile and has no owner. Nobody will announce that again, so the next take must
            // ask.
            self.permit.suspend();
        }
        Ok(is_owner(self.owner, &owner))
    }

    fn lease_keys(&self) -> [String; 3] {
        [self.keys.lease.clone(), self.keys.queue.clone(), self.keys.collapsible.clone()]
    }

    fn lease_arguments(&self, reclaim: bool) -> Vec<Vec<u8>> {
        lease::arguments(&self.config, self.owner, reclaim)
    }

    /// Claims the lease, tracks it, and announces the session as live. Returns whether another owner held it. The permit counts from before the sending.
    pub(super) async fn do_claim(&mut self) -> Result<bool, QueueErrorKind> {
        let (sent, mark) = (Instant::now(), self.permit.mark());
        let now = self.link.query(Command::call(&CLAIM, &self.lease_keys(), &self.lease_arguments(true))).await?;
        let (displaced, now) = lease::claimed(now)?;
        if self.track_now().await? {
            self.permit.renewed(sent, self.config.lease(), mark);
            self.renewed = sent;
        } else {
            // A newer claim came between. The next take says so.
            self.permit.revoke();
        }
        self.announce(now).await?;
        Ok(displaced)
    }

    /// Renews the lease and tracks it in one pipeline. A lease that was deleted behind the renewal counts as reclaimed,
    /// with the permit suspended until the next take.
    pub(super) async fn do_renew(&mut self) -> Result<LeaseState, QueueErrorKind> {
        let (sent, mark) = (Instant::now(), self.permit.mark());
        let [renewed, _, tracked] = each(self.link.send(&self.renewal(true)).await?)?;
        let (state, now) = judge(self.owner, renewed?, &tracked?)?;
        self.settle(LeaseState::Held, &Renewal { state, sent, mark });
        if state == LeaseState::Absent {
            self.permit.suspend();
            return Ok(LeaseState::Reclaimed);
        }
        // Redis before 6.2.6 announces this owner's own renewal too: it ignores NOLOOP within scripts.
        if state.is_held() && self.permit.is_suspended() {
            let mark = self.permit.mark();
            if self.track_now().await? {
                self.permit.confirmed(mark);
            } else {
                // The next take says whether another owner has the lease, or nobody.
                self.permit.revoke();
                self.permit.suspend();
                return Ok(state);
            }
        }
        if state.is_held() {
            self.announce(now).await?;
        }
        Ok(state)
    }

    /// Sends a request, and renews the lease when a renewal falls due before the answer comes. Redis performs the
    /// renewal at once, but its answer comes behind the awaited one. Returns the answers and the last renewal.
    pub(super) async fn answer<const N: usize>(
        &self,
        request: Request,
    ) -> Result<([Answer; N], Option<Renewal>), QueueErrorKind> {
        let time = request.time().unwrap_or(ANSWER_TIMEOUT);
        let heartbeat = self.config.heartbeat();
        // Due a quarter of a heartbeat late: an owner that waits for messages, or delivers, renews by itself after one
        // heartbeat.
        let mut due = self.renewed + heartbeat + heartbeat / 4;
        // Dropping this future drops the renewals. The connection must then be dropped too.
        let mut renewals = JoinSet::new();
        let answer = self.link.send(&request);
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
        let answers = each(answer?)?;
        let mut last: Option<Renewal> = None;
        while let Some(renewed) = renewals.join_next().await {
            // A failed renewal shows again at the next one.
            if let Ok(Ok(renewed)) = renewed
                && last.is_none_or(|last| last.sent < renewed.sent)
            {
                last = Some(renewed);
            }
        }
        Ok((answers, last))
    }

    /// Sends a renewal over the same link, without waiting for its answer.
    fn renew_beside(&self, renewals: &mut JoinSet<Result<Renewal, QueueErrorKind>>, time: Duration) {
        let (sent, mark, owner) = (Instant::now(), self.permit.mark(), self.owner);
        // The renewal takes no absent lease, because Redis may perform it after this owner has gone. Its answer comes
        // behind the awaited one, so it has that answer's time as well.
        let (link, renewal) = (self.link.clone(), self.renewal(false).within(time + ANSWER_TIMEOUT));
        renewals.spawn(async move {
            let [renewed, _, tracked] = each(link.send(&renewal).await?)?;
            let (state, _) = judge(owner, renewed?, &tracked?)?;
            Ok(Renewal { state, sent, mark })
        });
    }

    /// Informs the permit of a renewal. Returns the state of the lease after the renewal.
    pub(super) fn settle(&mut self, before: LeaseState, renewal: &Renewal) -> LeaseState {
        if !renewal.state.is_held() {
            self.permit.revoke();
            return renewal.state;
        }
        self.permit.renewed(renewal.sent, self.config.lease(), renewal.mark);
        self.renewed = renewal.sent;
        before
    }

    /// Makes the commands that renew the lease and track it from then on.
    fn renewal(&self, reclaim: bool) -> Request {
        let mut request = Request::sequence();
        request.add(Command::call(&RENEW, &self.lease_keys(), &self.lease_arguments(reclaim)));
        self.track(&mut request);
        request
    }

    /// Announces in the sorted set until when the session is live.
    pub(super) async fn announce(&mut self, now_ms: i64) -> Result<(), QueueErrorKind> {
        let mut request = Request::new();
        for command in lease::announcement(&self.config, &self.sessions, &[(now_ms, &self.member)]) {
            request.add(command);
        }
        let announced = if let Some(elsewhere) = &self.elsewhere {
            // A failure of another node of the cluster does not concern this queue.
            let announced = tokio::time::timeout(ANNOUNCED_WITHIN, elsewhere.send(&request)).await;
            let late = || QueueErrorKind::Broken("no answer yet from the node of the live sessions".into());
            announced.unwrap_or_else(|_| Err(late())).unwrap_or_else(|error| vec![Err(error)])
        } else {
            self.link.send(&request).await?
        };
        if let Some(Err(error)) = announced.into_iter().find(Result::is_err) {
            // The announcement serves broadcasts and monitoring only. An owner without it still delivers.
            tracing::warn!(session = ?self.session, %error,
                "announcing a session as live failed; broadcasts may miss it");
        }
        Ok(())
    }
}

/// Reads the answers to a renewal, and to the read of the lease behind it.
fn judge(owner: OwnerToken, renewed: Value, tracked: &Value) -> Result<(LeaseState, i64), QueueErrorKind> {
    let (state, now) = lease::renewed(renewed)?;
    // Any other owner in `tracked` claimed between the renewal and the read. The renewal had ended the tracking, so
    // only this read shows that claim.
    let state = match tracked {
        // The lease was deleted between the renewal and the read, and no other owner has it.
        Value::Nil if state.is_held() => LeaseState::Absent,
        tracked if state.is_held() && !is_owner(owner, tracked) => LeaseState::Lost,
        _ => state,
    };
    Ok((state, now))
}
