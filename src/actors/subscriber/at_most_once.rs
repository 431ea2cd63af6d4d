//! [`Delivery::AtMostOnce`](crate::Delivery::AtMostOnce): take the oldest away, then deliver it. What is in hand when the
//! process dies is lost; what fails is tried again from memory, so order holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Addr;

use super::drive::Drive;
use crate::actors::post::{Post, StopReason};
use crate::actors::{Deliver, DeliverOutcome, DiscardReason, SessionActor, Stopped, SubscriberState};
use crate::envelope::{Envelope, Timestamp};
use crate::error::QueueError;
use crate::queue::Permit;
use crate::session::SessionState;

/// How long one `BRPOP` blocks: a stop is noticed between two.
const BLOCK: Duration = Duration::from_secs(1);

pub(super) async fn run(post: Post, session: Addr<SessionActor>) -> StopReason {
    let mut drive = Drive::new(post, session);
    let reason = live(&mut drive).await;
    drive.release().await;
    reason
}

async fn live(drive: &mut Drive) -> StopReason {
    loop {
        let seen = drive.presence.now();
        match seen {
            _ if drive.stopping() => return StopReason::Stopped,
            SessionState::Ended => return StopReason::Closed,
            SessionState::Left => return StopReason::Left,
            SessionState::Away => {
                drive.set_state(SubscriberState::Parked);
                drive.release().await;
                drive.until_changed_from(seen, std::future::pending()).await;
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
    // It guards nothing here: it lets broadcasts find the session.
    drive.to_release = true;
    consumer.claim().await?;
    let mut renewed = Instant::now();
    while !drive.stopping() && matches!(drive.presence.now(), SessionState::Ready { .. }) {
        drive.set_state(SubscriberState::Waiting);
        if renewed.elapsed() >= config.heartbeat() {
            renewed = Instant::now();
            consumer.renew().await?;
        }
        let Some((item, now)) = consumer.pop(BLOCK.min(config.heartbeat())).await? else { continue };
        drive.failures = 0;
        match item.envelope {
            Err(why) => super::serve::discard(drive, None, None, &DiscardReason::Undecodable(why.to_string())),
            Ok(envelope) => {
                if let Some(reason) = deliver(drive, envelope, now).await {
                    return Ok(Some(reason));
                }
            }
        }
    }
    Ok(None)
}

/// Holds one notification until it is delivered, discarded, or nobody can take it any more.
async fn deliver(drive: &mut Drive, envelope: Envelope, now: Timestamp) -> Option<StopReason> {
    let read_at = (now, Instant::now());
    let mut in_hand = Some(envelope);
    while let Some(envelope) = in_hand.take() {
        drive.set_state(SubscriberState::Delivering);
        let seen = drive.presence.now();
        let id = envelope.id;
        let kept = envelope.clone();
        let deliver = Deliver { batch: vec![envelope], read_at, permit: Arc::new(Permit::unlimited()) };
        let Ok(DeliverOutcome { accepted, stopped, .. }) = drive.session.send(deliver).await else {
            return Some(StopReason::Panicked("the session actor is gone".to_owned()));
        };
        drive.post.stats.add_delivered(accepted);
        match stopped {
            Stopped::AllAccepted | Stopped::NotPermitted => {
                drive.ask(kept.question.into_iter().collect(), read_at);
            }
            Stopped::Discarded(reason) => super::serve::discard(drive, Some(&id), kept.question, &reason),
            Stopped::Failed { mut envelope, error, pause } => {
                drive.post.stats.set_error(&error);
                drive.set_state(SubscriberState::BackingOff);
                envelope.attempt += 1;
                tokio::time::sleep(pause).await;
                in_hand = Some(*envelope);
            }
            Stopped::Parked(why) => {
                drive.post.stats.set_error(&why);
                drive.set_state(SubscriberState::Parked);
                let pause = tokio::time::sleep(drive.post.config.backoff_max());
                drive.until_changed_from(seen, pause).await;
                in_hand = Some(kept);
            }
            Stopped::Closed => return Some(StopReason::Closed),
        }
        if drive.stopping() && in_hand.is_some() {
            tracing::warn!(session = %drive.post.session_id, %id, "stopped with a notification in hand: it is lost");
            return Some(StopReason::Stopped);
        }
    }
    None
}
