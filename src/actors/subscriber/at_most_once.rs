//! [`Delivery::AtMostOnce`](crate::Delivery::AtMostOnce): take the oldest away, then deliver it. What is in hand when the
//! process dies is lost; what fails is tried again from memory, so order holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::discard::{cancel, discard};
use super::drive::Drive;
use crate::actors::post::{Memory, Post, StopReason};
use crate::actors::{Deliver, DeliverOutcome, Stopped, SubscriberState};
use crate::backend::{Fate, Permit};
use crate::envelope::{Envelope, Timestamp};
use crate::failure::QueueError;
use crate::fate::DiscardReason;
use crate::notification::NotificationId;
use crate::session::SessionState;

/// How long one `BRPOP` blocks: a stop is noticed between two.
const BLOCK: Duration = Duration::from_secs(1);

pub(super) async fn run(mut drive: Drive) -> (StopReason, Box<Memory>) {
    let reason = live(&mut drive).await;
    drive.release().await;
    if reason != StopReason::Parked {
        lose_in_hand(&drive.post, &mut drive.memory, &reason).await;
    }
    (reason, drive.memory)
}

async fn live(drive: &mut Drive) -> StopReason {
    loop {
        let seen = drive.memory.presence.now();
        match seen {
            _ if drive.stopping() => return StopReason::Stopped,
            SessionState::Ended => return StopReason::Closed,
            SessionState::Left => return StopReason::Left,
            SessionState::Away => {
                if drive.park_for_long(seen).await {
                    return StopReason::Parked;
                }
            }
            SessionState::Ready { .. } => match pop_and_deliver(drive).await {
                Ok(None) => {}
                Ok(Some(reason)) => return reason,
                Err(error) => drive.back_off(seen, &error).await,
            },
        }
    }
}

async fn pop_and_deliver(drive: &mut Drive) -> Result<Option<StopReason>, QueueError> {
    drive.set_state(SubscriberState::Connecting);
    let Post { queue, session_id, owner, config, .. } = drive.post.clone();
    let mut consumer = queue.open(&session_id, owner, Arc::new(Permit::new())).await?;
    consumer.share_limit(Arc::clone(&drive.memory.limit));
    // It guards nothing here: it lets broadcasts find the session.
    drive.to_release = true;
    consumer.claim().await?;
    let (mut renewed, mut empty) = (Instant::now(), None);
    while !drive.stopping() && matches!(drive.memory.presence.now(), SessionState::Ready { .. }) {
        if let Some((envelope, read_at)) = drive.memory.in_hand.take() {
            if let Some(reason) = deliver(drive, envelope, read_at).await {
                return Ok(Some(reason));
            }
            continue;
        }
        drive.set_state(SubscriberState::Waiting);
        if renewed.elapsed() >= config.heartbeat() {
            renewed = Instant::now();
            consumer.renew().await?;
        }
        let popped = consumer.pop(BLOCK.min(config.heartbeat())).await?;
        drive.succeeded();
        let Some((mut item, now)) = popped else {
            empty = Some(Instant::now());
            continue;
        };
        if let Some(empty) = empty.take() {
            drive.memory.arrivals.empty(now.minus(empty.elapsed()));
        }
        drive.arrived(std::slice::from_mut(&mut item), now);
        match item.envelope {
            Err(why) => {
                let reason = DiscardReason::Undecodable(why.to_string());
                discard(&drive.post, None, None, &reason);
                record(&drive.post, Some(reason), None, &item.unreadable).await;
            }
            Ok(envelope) => {
                // It is removed already: what derives the same id from now on is another one.
                drive.memory.arrivals.delivered(envelope.id);
                drive.memory.arrivals.acknowledged(true);
                drive.memory.in_hand = Some((envelope, (now, Instant::now())));
            }
        }
    }
    Ok(None)
}

/// Writes down what became of one, where that is wanted. It is removed already, so a process that dies here, or a queue that
/// fails, leaves nothing of it.
async fn record(post: &Post, discarded: Option<DiscardReason>, receipt: Option<NotificationId>, raw: &[u8]) {
    let Post { queue, session_id, config, .. } = post;
    if receipt.is_none() && (discarded.is_none() || config.dead_letters() == 0) {
        return;
    }
    let fate = Fate { position: 0, discarded, receipt };
    if let Err(error) = queue.record(session_id, &fate, raw).await {
        tracing::error!(session = ?session_id, ?receipt, %error, "what became of a notification is not written down");
    }
}

/// Makes one attempt to deliver a notification. It is in hand again afterwards where another attempt must follow.
async fn deliver(drive: &mut Drive, envelope: Envelope, read_at: (Timestamp, Instant)) -> Option<StopReason> {
    drive.set_state(SubscriberState::Delivering);
    let seen = drive.memory.presence.now();
    let id = envelope.id;
    let receipt = envelope.receipt.then_some(id);
    let kept = envelope.clone();
    let deliver = Deliver { batch: vec![envelope], read_at, permit: Arc::new(Permit::unlimited()) };
    let Ok(DeliverOutcome { accepted, stopped, .. }) = drive.session.send(deliver).await else {
        drive.memory.in_hand = Some((kept, read_at));
        return Some(StopReason::Panicked("the session actor is gone".to_owned()));
    };
    drive.post.stats.add_delivered(accepted);
    match stopped {
        Stopped::AllAccepted | Stopped::NotPermitted => {
            record(&drive.post, None, receipt, &[]).await;
            drive.ask(kept.question.into_iter().collect(), read_at);
        }
        Stopped::Discarded(reason) => {
            discard(&drive.post, Some(&id), kept.question.clone(), &reason);
            record(&drive.post, Some(reason), receipt, kept.raw()).await;
        }
        Stopped::Failed { mut envelope, error, pause } => {
            drive.post.stats.set_error(&error);
            drive.set_state(SubscriberState::BackingOff);
            envelope.attempt += 1;
            drive.memory.in_hand = Some((*envelope, read_at));
            tokio::time::sleep(pause).await;
        }
        Stopped::Parked(why) => {
            drive.post.stats.set_error(&why);
            drive.set_state(SubscriberState::BackingOff);
            drive.memory.in_hand = Some((kept, read_at));
            let pause = tokio::time::sleep(drive.post.config.backoff_max());
            drive.until_changed_from(seen, pause).await;
        }
        Stopped::Closed => {
            drive.memory.in_hand = Some((kept, read_at));
            return Some(StopReason::Closed);
        }
    }
    None
}

/// Discards what was in hand of a parked subscriber: its time to live is over, and its client is still away.
pub(in crate::actors) async fn expire_in_hand(post: &Post, envelope: &Envelope) {
    let receipt = envelope.receipt.then_some(envelope.id);
    discard(post, Some(&envelope.id), envelope.question.clone(), &DiscardReason::Expired);
    record(post, Some(DiscardReason::Expired), receipt, envelope.raw()).await;
}

/// Loses what was in hand at the end: it is in no queue any more. A worker that waits for the answer to its question is
/// told.
pub(in crate::actors) async fn lose_in_hand(post: &Post, memory: &mut Memory, reason: &StopReason) {
    let Some((envelope, _)) = memory.in_hand.take() else { return };
    let why = match reason {
        StopReason::Panicked(_) | StopReason::Dropped => "the session actor is gone",
        StopReason::Stopped => "the subscriber was stopped",
        _ => "the session has closed",
    };
    tracing::warn!(session = ?post.session_id, id = %envelope.id, why, "a notification in hand is lost");
    if let Some(question) = &envelope.question {
        cancel(post, question, why).await;
    }
}
