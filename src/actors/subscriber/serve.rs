//! The service of an owner: take, send `Deliver`, acknowledge by its outcome, wait, and keep the lease all the while.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::discard::discard;
use super::drive::Drive;
use crate::actors::post::stopped;
use crate::actors::{Deliver, DeliverOutcome, Stopped, SubscriberState};
use crate::backend::{Consumer, Delivered, Fate, Item, LeaseState, Mark, Replaced, Taken};
use crate::envelope::Envelope;
use crate::failure::QueueError;
use crate::fate::DiscardReason;
use crate::notification::NotificationId;
use crate::session::SessionState;

/// How long one wait may last. A connection that has died silently, or a Redis that no longer answers, is found out by the
/// end of a wait, and by a few seconds besides.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Why an owner left its service without an error.
pub(super) enum Left {
    /// It was asked to stop, or the client's presence has changed: see what is the case.
    ToLookAround,
    /// The connection broke, or the lease has changed: ask whose it is.
    InDoubt,
    /// Another has the lease.
    Displaced,
    /// The session cannot take anything now, though its presence may not say so.
    NotReady,
    /// The session is over.
    Closed,
    /// There is nobody to hand over to: a defect.
    SessionActorGone,
}

/// What follows a batch.
enum Next {
    Go,
    Leave(Left),
    /// The oldest failed. What was delivered before it is removed, then this is written in its place.
    Retry {
        oldest: Mark,
        replacement: Vec<u8>,
        pause: Duration,
    },
}

/// Serves as long as it may. What was delivered is acknowledged before it returns, unless the queue fails.
pub(super) async fn serve(drive: &mut Drive, consumer: &mut dyn Consumer, opened: u64) -> Result<Left, QueueError> {
    let here = SessionState::Ready { opened };
    let mut lease = Heartbeat::new(drive);
    // What an earlier connection had sent may have been done or not.
    drive.memory.arrivals.acknowledged(false);
    let (mut delivered, mut first) = (None, true);
    loop {
        if drive.stopping() || drive.memory.presence.now() != here {
            return leave(drive, consumer, delivered, Left::ToLookAround).await;
        }
        if lease.is_due() && !lease.renew(consumer).await? {
            // Nothing is removed, but receipts of what was delivered can still tell the truth.
            let told = delivered.filter(|delivered: &Delivered| !delivered.fates.is_empty());
            return leave(drive, consumer, told, Left::Displaced).await;
        }
        let mut taken = acknowledge(drive, consumer, delivered.take()).await?;
        if first && taken.lease.is_ours() {
            // What an earlier owner had asked, or this one before it lost touch.
            first = false;
            let open = drive.post.queue.open_questions(&drive.post.session_id).await?;
            drive.ask(open, (taken.now, Instant::now()));
        }
        if taken.items.is_empty() && taken.lease.is_ours() {
            drive.set_state(SubscriberState::Waiting);
            let permit = Arc::clone(&drive.permit);
            let since = Instant::now();
            tokio::select! {
                // Not less: each wait costs a round trip.
                waited = consumer.wait(lease.left().clamp(Duration::from_millis(10), LONGEST_WAIT)) => taken = waited?,
                // The consumer has a wait under way and is of no more use: a new one is opened.
                () = permit.doubted() => {
                    if since.elapsed() > drive.post.config.backoff_max() {
                        drive.succeeded();
                    }
                    return Ok(Left::InDoubt);
                }
                _ = drive.until_changed_from(here, std::future::pending()) => return Ok(Left::ToLookAround),
            }
            drive.succeeded();
            if taken.lease.is_ours() {
                drive.arrived(&mut taken.items, taken.now);
            }
        }
        if !taken.lease.is_ours() {
            // Absent is seen by a wait only, which must not reclaim: whoever looks around does.
            return Ok(match taken.lease {
                LeaseState::Lost => Left::Displaced,
                _ => Left::InDoubt,
            });
        }
        if taken.changed {
            tracing::warn!(session = ?drive.post.session_id,
                "the queue changed under its owner; nothing was removed, and what was delivered is skipped");
        }
        if taken.items.is_empty() {
            continue;
        }
        drive.set_state(SubscriberState::Delivering);
        let (done, next) = deliver(drive, consumer, &mut lease, taken).await;
        delivered = done;
        match next {
            Next::Go => {}
            Next::Leave(left) => return leave(drive, consumer, delivered, left).await,
            Next::Retry { oldest, replacement, pause } => {
                if delivered.is_some() {
                    let taken = acknowledge(drive, consumer, delivered.take()).await?;
                    if taken.changed || !taken.lease.is_ours() {
                        continue;
                    }
                }
                if consumer.replace_oldest(&oldest, replacement).await? == Replaced::Done {
                    drive.set_state(SubscriberState::BackingOff);
                    let paused = async {
                        drive.until_changed_from(here, tokio::time::sleep(pause)).await;
                    };
                    lease.keep_during(consumer, paused).await;
                }
            }
        }
    }
}

/// Acknowledges what was delivered, looks at the next batch, and has the client asked what was delivered.
async fn acknowledge(
    drive: &mut Drive,
    consumer: &mut dyn Consumer,
    delivered: Option<Delivered>,
) -> Result<Taken, QueueError> {
    let mut taken = consumer.take(delivered.as_ref()).await?;
    if taken.lease.is_ours() {
        drive.memory.arrivals.acknowledged(!taken.changed);
        drive.arrived(&mut taken.items, taken.now);
    }
    if let (Some(Delivered { questions, .. }), true) = (delivered, taken.lease.is_ours()) {
        // Asked only now that they are open questions of the queue: should this process die, another asks them.
        drive.ask(questions, (taken.now, Instant::now()));
    }
    Ok(taken)
}

/// Acknowledges what was delivered and leaves.
async fn leave(
    drive: &mut Drive,
    consumer: &mut dyn Consumer,
    delivered: Option<Delivered>,
    left: Left,
) -> Result<Left, QueueError> {
    if let Some(delivered) = delivered {
        let taken = consumer.take(Some(&delivered)).await?;
        drive.memory.arrivals.acknowledged(taken.lease.is_ours() && !taken.changed);
    }
    Ok(left)
}

/// Delivers a batch as far as it goes.
async fn deliver(
    drive: &mut Drive,
    consumer: &mut dyn Consumer,
    lease: &mut Heartbeat,
    taken: Taken,
) -> (Option<Delivered>, Next) {
    let read_at = (taken.now, Instant::now());
    let mut items: VecDeque<Item> = taken.items.into();
    let (mut count, mut last, mut questions, mut fates) = (0, None, Vec::new(), Vec::new());
    let next = loop {
        // What needs no session: what cannot be read, and what was delivered before.
        match items.front() {
            None => break Next::Go,
            Some(Item { envelope: Err(why), .. }) => {
                let reason = DiscardReason::Undecodable(why.to_string());
                discard(&drive.post, None, None, &reason);
                fates.push(Fate { position: count, discarded: Some(reason), receipt: None });
                (count, last) = (count + 1, items.pop_front().map(|item| item.mark));
                continue;
            }
            Some(Item { envelope: Ok(envelope), .. }) if drive.memory.recent.contains(&envelope.id) => {
                tracing::debug!(session = ?drive.post.session_id, id = %envelope.id,
                    "a notification was delivered before; it is acknowledged and not sent again");
                drive.memory.arrivals.delivered(envelope.id);
                questions.extend(envelope.question.clone());
                fates.extend(delivered_at(count, envelope.receipt.then_some(envelope.id)));
                (count, last) = (count + 1, items.pop_front().map(|item| item.mark));
                continue;
            }
            Some(_) => {}
        }
        let (mut batch, mut marks) = (Vec::new(), Vec::new());
        while let Some(Item { envelope: Ok(envelope), .. }) = items.front() {
            // The same id twice in one batch: the second is seen again, and skipped, once the first is delivered.
            if drive.memory.recent.contains(&envelope.id) || batch.iter().any(|e: &Envelope| e.id == envelope.id) {
                break;
            }
            if let Some(Item { mark, envelope: Ok(envelope), .. }) = items.pop_front() {
                batch.push(envelope);
                marks.push(mark);
            }
        }
        let brought: Vec<_> = batch.iter().map(|e| (e.id, e.question.clone(), e.receipt.then_some(e.id))).collect();
        let sent = drive.session.send(Deliver { batch, read_at, permit: Arc::clone(&drive.permit) });
        let mut stop = drive.post.stop.clone();
        let permit = Arc::clone(&drive.permit);
        let outcome = async {
            tokio::pin!(sent);
            tokio::select! {
                outcome = &mut sent => outcome,
                () = stopped(&mut stop) => {
                    // It puts down what it has in hand, within its own time limit, and answers.
                    permit.close();
                    sent.await
                }
            }
        };
        let Ok(DeliverOutcome { accepted, stopped, rest }) = lease.keep_during(consumer, outcome).await else {
            break Next::Leave(Left::SessionActorGone);
        };
        drive.post.stats.add_delivered(accepted);
        if accepted > 0 {
            // Not sooner: a session that takes nothing, or a queue that is read and not written, fails each time anew.
            drive.succeeded();
        }
        for (i, (id, question, receipt)) in brought[..accepted].iter().enumerate() {
            drive.memory.recent.insert(*id);
            drive.memory.arrivals.delivered(*id);
            questions.extend(question.clone());
            fates.extend(delivered_at(count + i, *receipt));
        }
        if let Some(mark) = accepted.checked_sub(1).and_then(|i| marks.get(i)) {
            (count, last) = (count + accepted, Some(mark.clone()));
        }
        match stopped {
            Stopped::AllAccepted => {}
            Stopped::Discarded(reason) => {
                if let Some((id, question, receipt)) = brought.get(accepted) {
                    discard(&drive.post, Some(id), question.clone(), &reason);
                    fates.push(Fate { position: count, discarded: Some(reason), receipt: *receipt });
                }
                (count, last) = (count + 1, marks.get(accepted).cloned());
                for (mark, envelope) in marks.into_iter().skip(accepted + 1).zip(rest).rev() {
                    items.push_front(Item { mark, envelope: Ok(envelope), unreadable: Vec::new() });
                }
            }
            Stopped::Failed { envelope, error, pause } => {
                drive.post.stats.set_error(&error);
                tracing::warn!(session = ?drive.post.session_id, id = %envelope.id, %error, ?pause,
                    attempt = envelope.attempt + 1, "handing over failed; trying again");
                let Some(oldest) = marks.get(accepted).cloned() else { break Next::Go };
                break Next::Retry { oldest, replacement: envelope.after_failure(&error), pause };
            }
            Stopped::Parked(why) => {
                drive.post.stats.set_error(&why);
                tracing::debug!(session = ?drive.post.session_id, why, "the session is not ready");
                break Next::Leave(Left::NotReady);
            }
            Stopped::Closed => break Next::Leave(Left::Closed),
            Stopped::NotPermitted => {
                // In doubt, or out of time: ask before anything else.
                lease.renewed = None;
                break Next::Go;
            }
        }
    };
    (last.map(|last| Delivered { count, last, questions, fates }), next)
}

/// What is to be written down of one that was delivered, if anything is.
fn delivered_at(position: usize, receipt: Option<NotificationId>) -> Option<Fate> {
    receipt.map(|id| Fate { position, discarded: None, receipt: Some(id) })
}

/// When the lease must be renewed.
struct Heartbeat {
    every: Duration,
    renewed: Option<Instant>,
}

impl Heartbeat {
    /// The lease was renewed, or claimed, just now.
    fn new(drive: &Drive) -> Self {
        Self { every: drive.post.config.heartbeat(), renewed: Some(Instant::now()) }
    }

    fn is_due(&self) -> bool {
        self.left().is_zero()
    }

    fn left(&self) -> Duration {
        self.renewed.map_or(Duration::ZERO, |at| self.every.saturating_sub(at.elapsed()))
    }

    /// Renews it; whether it is still ours.
    async fn renew(&mut self, consumer: &mut dyn Consumer) -> Result<bool, QueueError> {
        let sent = Instant::now();
        let state = consumer.renew().await?;
        self.renewed = Some(sent);
        Ok(state.is_ours())
    }

    /// Does something that may take long, and renews meanwhile. The work is never dropped half-way: where the lease is
    /// lost the permit says so, and where it cannot be renewed the permit runs out; the work ends by that.
    async fn keep_during<T>(&mut self, consumer: &mut dyn Consumer, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let mut can_renew = true;
        loop {
            let due = tokio::time::sleep(self.left());
            tokio::select! {
                done = &mut work => return done,
                () = due, if can_renew => {
                    // What failed shows again at the next take.
                    can_renew = self.renew(consumer).await.is_ok_and(|ours| ours);
                }
            }
        }
    }
}
