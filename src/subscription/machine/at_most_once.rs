//! Delivery at most once: the acknowledgement comes before the delivery, in batches of one.
//!
//! A crash loses at most the one notification in `removed`. It has left the queue and is not delivered yet.
//!
//! *A message is delivered only where its removal is certain*. The answer to the acknowledgement may be lost, or may
//! say that the queue has changed. The message is then read again or left to its next owner. It may be lost then, and
//! is never delivered twice (`a_notification_whose_removal_is_unknown_is_not_delivered`,
//! `a_removal_that_did_not_happen_is_no_delivery`).
//!
//! *`removed` survives* connections, parking and takeovers, because no queue has the message any more. The machine
//! counts its attempts itself, and discards it at its expiry even while the client is away
//! (`a_removed_notification_of_a_parked_subscriber_expires_at_its_time`). An end of the subscriber reports it as lost
//! (`a_removed_notification_is_lost_at_the_end_and_the_reason_is_noted`).
//!
//! *Outcomes* cannot travel with an acknowledgement, which has gone before. They are recorded by a request of their own
//! ([`Action::Record`]), and may be lost with the process.

use std::sync::Arc;
use std::time::Instant;

use super::{NextStep, RemovedNotification, Subscription};
use crate::envelope::Envelope;
use crate::outcome::DiscardReason;
use crate::subscription::ack::MessageOutcome;
use crate::subscription::batch::{Item, Taken};
use crate::subscription::delivery::BatchEnd;
use crate::subscription::event::{Action, Note};
use crate::subscription::permit::Permit;
use crate::subscription::state::ExitReason;

impl Subscription {
    /// Keeps the oldest message that was read, which is removed next.
    pub(super) fn keep_oldest(&mut self, taken: Taken) {
        self.items = taken.items.into();
        self.complete_items(taken.now);
        self.items.truncate(1);
    }

    /// Removes a message from the queue. The message is delivered once its removal is certain.
    pub(super) fn remove(&mut self, Item { mark, envelope, .. }: Item, now: Instant) {
        let (envelope, read_at) = match (envelope, self.read_at) {
            (Ok(envelope), Some(read_at)) => (envelope, read_at),
            (Ok(_), None) => return self.acknowledge(NextStep::Serve, now),
            (Err(why), _) => {
                self.discard_unreadable(mark, &why);
                return self.acknowledge(NextStep::Serve, now);
            }
        };
        self.ack.deliver(mark, None, None);
        self.acknowledge(NextStep::Deliver(Box::new(RemovedNotification { envelope, read_at })), now);
    }

    /// Delivers the notification that was removed from the queue.
    pub(super) fn deliver_removed(&mut self) {
        let Some(RemovedNotification { envelope, read_at }) = self.removed.as_deref() else { return };
        let (mut envelope, read_at) = (envelope.clone(), *read_at);
        envelope.set_generation(self.serving);
        // No lease guards a notification that is in no queue any more, so the permit always holds.
        self.deliver(vec![envelope], read_at, Arc::new(Permit::unlimited()));
    }

    /// Acts on the end of the delivery of a removed notification, and returns the next step.
    pub(super) fn conclude_removed_delivery(
        &mut self,
        mut removed: Box<RemovedNotification>,
        end: BatchEnd,
        jitter: f64,
    ) -> NextStep {
        match end {
            BatchEnd::AllAccepted => {
                if removed.envelope.receipt {
                    self.record(None, &removed.envelope);
                }
                if let Some(question) = removed.envelope.question {
                    self.actions.push_back(Action::Ask { questions: vec![*question], read_at: removed.read_at });
                }
            }
            BatchEnd::Discarded(reasons) => {
                for reason in reasons {
                    self.discard_removed(removed.envelope.clone(), reason);
                }
            }
            BatchEnd::Failed { error, pause, .. } => {
                self.note_failed_attempt(&removed.envelope, error, pause);
                removed.envelope.count_attempt();
                self.removed = Some(removed);
                return NextStep::Pause(pause);
            }
            BatchEnd::NotReady(why) => {
                self.removed = Some(removed);
                return self.pause_until_ready(why, jitter);
            }
            BatchEnd::Closed => {
                self.removed = Some(removed);
                return NextStep::Exit(ExitReason::Closed);
            }
            BatchEnd::NotPermitted => self.removed = Some(removed),
        }
        NextStep::Serve
    }

    /// Records and notes the discard of a removed notification.
    pub(super) fn discard_removed(&mut self, envelope: Envelope, reason: DiscardReason) {
        self.record(Some(reason.clone()), &envelope);
        let (id, question) = (Some(envelope.id), envelope.question);
        self.note(Note::Discarded { id, question, reason });
    }

    /// Asks the driver to record the outcome of a removed notification. No acknowledgement can record it any more.
    pub(super) fn record(&mut self, discarded: Option<DiscardReason>, envelope: &Envelope) {
        let outcome = MessageOutcome { position: 0, discarded, receipt: envelope.receipt.then_some(envelope.id) };
        self.actions.push_back(Action::Record { outcome, raw: envelope.raw().to_vec() });
    }

    /// Discards the notification that a parked subscriber has removed from the queue, if its time to live is over.
    pub(super) fn expire_removed(&mut self, now: Instant) {
        if self.removed.as_ref().is_some_and(|removed| self.expiry(removed) <= now)
            && let Some(removed) = self.removed.take()
        {
            self.discard_removed(removed.envelope, DiscardReason::Expired);
        }
    }

    /// Returns the moment at which the removed notification expires, if there is such a notification.
    pub(super) fn removed_expiry(&self) -> Option<Instant> {
        self.removed.as_ref().map(|removed| self.expiry(removed))
    }

    /// Returns the moment at which a removed notification expires. A notification without an expiry of its own is kept
    /// for [`Config::time_to_live`](crate::Config::time_to_live).
    pub(super) fn expiry(
        &self,
        RemovedNotification { envelope, read_at: (clock, read) }: &RemovedNotification,
    ) -> Instant {
        *read + envelope.expires_at.map_or(self.config.time_to_live(), |at| at.since(*clock))
    }
}
