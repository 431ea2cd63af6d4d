//! Writers of a machine's notes: to the log, to the statistics, and to workers whose questions nobody will answer.
//!
//! *What is logged*. The machine reports facts and decides nothing about the log. This file chooses level and wording.
//! A shared subscriber's lines pass a gate (`log_gate`), because a fault of Redis concerns all of them at once
//! (`a_fault_of_many_shared_subscribers_is_logged_a_few_times`, `a_long_trouble_fills_no_log`). So do the discards of all
//! subscribers for a missing key (`a_missing_key_is_logged_a_few_times`).
//!
//! *Tasks*. Cancellations of questions and records of outcomes run beside the deliveries, and are counted (`Settling`):
//! the end of the subscriber waits for them, or a worker would wait until its timeout.

use std::sync::Arc;

use crate::actors::Placement;
use crate::actors::log_gate::log_through;
use crate::actors::subscriber_context::{Settling, SubscriberContext};
use crate::backend::relay::settle_open;
use crate::metrics;
use crate::outcome::DiscardReason;
use crate::question::{Answer, Question};
use crate::subscription::{MessageOutcome, Note};

/// Writes a note to the log and the statistics.
pub(in crate::actors) fn note(context: &Arc<SubscriberContext>, note: Note) {
    let (session, stats) = (&context.session_id, &context.stats);
    match note {
        Note::Delivered { count, since_push } => {
            stats.totals.add_delivered(count);
            context.common.totals.add_delivered(count);
            metrics::CONFIRMED.count(count);
            metrics::DELIVERY_SECONDS.record(since_push.iter().map(|time| time.as_secs_f64()));
        }
        Note::Repeated(count) => {
            metrics::REPEATED.count(count);
            tracing::debug!(?session, count, "notifications that were not confirmed are delivered again");
        }
        Note::Discarded { id, question, reason } => {
            stats.totals.add_discarded();
            context.common.totals.add_discarded();
            metrics::DISCARDED.add(reason.label(), 1);
            if reason != DiscardReason::Expired {
                stats.set_error(&reason);
            }
            let id = id.map(|id| id.to_string());
            let is_of_seal = matches!(reason, DiscardReason::CannotOpen { .. } | DiscardReason::NotSealed);
            let passes = !is_of_seal || context.common.gates.not_opened.passes();
            log_through!(passes, warn, ?session, id, %reason, "a notification is discarded");
            if let Some(question) = question {
                cancel(context, *question, reason.to_string());
            }
        }
        Note::Skipped(id) => {
            metrics::SKIPPED.add("delivered", 1);
            tracing::debug!(?session, %id, "a notification was delivered before; it is acknowledged and not sent again");
        }
        Note::Received(count) => {
            metrics::SKIPPED.add("named", count);
            tracing::debug!(
                ?session,
                count,
                "a client has notifications that were not confirmed; they are acknowledged"
            );
        }
        Note::AttemptFailed { id, attempts, error, pause } => {
            stats.set_error(&error);
            metrics::RETRIED.count(1);
            tracing::warn!(?session, %id, %error, ?pause, attempts, "handing over a notification failed; trying again");
        }
        Note::NotReady(why) => {
            stats.set_error(&why);
            tracing::debug!(?session, why, "a session is not ready; its notifications stay queued");
        }
        Note::QueueFailed { error, failures, pause } => {
            stats.set_error(&error);
            metrics::QUEUE_FAILURES.add(error.kind.label(), 1);
            let source = std::error::Error::source(&error).map(ToString::to_string);
            // Subscribers fail together and for hours. The first failure is logged, then the second, the fourth, the
            // eighth and so on. The count is of one dedicated subscriber, or of all shared ones together.
            let passes = context.passes(|gates| &gates.queue_failed)
                && (context.placement == Placement::Shared || failures.is_power_of_two());
            log_through!(passes, warn, ?session, %error, source, failures, ?pause, "the queue failed; trying again");
        }
        Note::LeaseUnread(error) => stats.set_error(&error),
        Note::Recovered(failures) => {
            let passes = context.passes(|gates| &gates.recovered);
            log_through!(passes, info, ?session, failures, "the subscriber is at work again");
        }
        Note::Reclaimed => {
            metrics::RECLAIMED.count(1);
            let passes = context.passes(|gates| &gates.reclaimed);
            log_through!(passes, warn, ?session, "the lease had gone; it is claimed again");
        }
        Note::Changed => {
            metrics::QUEUE_CHANGED.count(1);
            let consequence = "nothing is removed, and delivered notifications are skipped";
            let passes = context.passes(|gates| &gates.changed);
            log_through!(passes, warn, ?session, consequence, "the queue changed under its owner");
        }
        Note::TakenOver => {
            metrics::TAKEOVERS.add("lost", 1);
            let passes = context.passes(|gates| &gates.taken_over);
            log_through!(passes, info, ?session, "another subscriber has taken the session over; this one stands by");
        }
        Note::WrongClock(off) => {
            let consequence = "its notifications expire by the times at which their owner read the queue";
            tracing::warn!(?session, ?off, consequence, "a producer's clock is wrong");
        }
        Note::Lost { envelope, why } => {
            metrics::LOST.count(1);
            tracing::warn!(?session, id = %envelope.id, why,
                "a notification is lost, because it was removed from its queue before its delivery");
            if let Some(question) = envelope.question {
                cancel(context, *question, why.to_owned());
            }
        }
    }
}

/// Cancels a question that nobody will answer, in a task beside the deliveries. The question's worker gets the reason
/// at once.
fn cancel(context: &Arc<SubscriberContext>, question: Question, why: String) {
    let (context, settling) = (Arc::clone(context), Settling::count(context));
    actix_rt::spawn(async move {
        let answer = Answer::cancelled(why);
        if let Err(error) = settle_open(&*context.common.queue, &context.session_id, &question, &answer).await {
            let consequence = "its worker waits until its time is over";
            tracing::warn!(session = ?context.session_id, %error, consequence, "cancelling a question failed");
        }
        drop(settling);
    });
}

/// Records the outcome of a notification that is in no queue any more, in a task beside the deliveries. Does nothing
/// where the notification has no receipt and no dead letter is kept.
pub(in crate::actors) fn record(context: &Arc<SubscriberContext>, outcome: MessageOutcome, raw: Vec<u8>) {
    if outcome.receipt.is_none() && (outcome.discarded.is_none() || context.common.config.dead_letters() == 0) {
        return;
    }
    let (context, settling) = (Arc::clone(context), Settling::count(context));
    actix_rt::spawn(async move {
        if let Err(error) = context.common.queue.record(&context.session_id, &outcome, &raw).await {
            let consequence = "its receipt and its dead letter are lost";
            tracing::error!(session = ?context.session_id, %error, consequence,
                "recording the outcome of a notification failed");
        }
        drop(settling);
    });
}
