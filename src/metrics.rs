//! Metrics through the `metrics` facade: each metric with its name, kind, unit, labels and description.
//!
//! [`register`] describes all metrics and makes their handles, once in a process. An event then costs one increment of a
//! handle that is already there. Without the feature `metrics` the same calls are empty.
//!
//! *Labels* have fixed sets of values, which stand here. No label names a session, a user or a notification: their
//! number has no bound.
//!
//! `docs/metrics.md` says what each metric means, and what to do when it moves. A test compares both.

#[cfg(feature = "metrics")]
mod facade;
#[cfg(not(feature = "metrics"))]
mod off;

#[cfg(feature = "metrics")]
use self::facade as form;
#[cfg(not(feature = "metrics"))]
use self::off as form;

#[cfg(all(feature = "metrics", feature = "server", any(test, feature = "testing")))]
pub use self::facade::Description;
#[cfg(all(feature = "metrics", feature = "server"))]
pub(crate) use self::facade::Share;
#[cfg(any(feature = "elicitation", feature = "rmcp", feature = "server"))]
pub(crate) use self::form::Level;
use self::form::{Counter, Gauge, Histogram};

/// Defines the metrics, the function that registers them, and their list.
///
/// A label stands as `"name" ["value", …]`. Two labels that go together stand as `"a:b" ["value:value", …]`.
macro_rules! define {
    ($($(#[$attribute:meta])* $name:ident: $kind:ident, $metric:literal, $unit:ident,
        $label:literal [$($value:literal),*], $text:literal;)+) => {
        $($(#[$attribute])* #[doc = $text] pub(crate) static $name: $kind =
            $kind::new($metric, form::unit::$unit, $label, &[$($value),*], $text);)+

        /// Describes all metrics to the recorder of the program, and makes their handles. Only the first call has an
        /// effect: a recorder must be installed before.
        pub(crate) fn register() {
            $($name.register();)+
        }

        /// Returns the descriptions of all metrics.
        #[cfg(all(feature = "metrics", feature = "server", any(test, feature = "testing")))]
        pub fn all() -> Vec<Description> {
            vec![$($name.description()),+]
        }
    };
}

define! {
    PUSHED: Counter, "mcp_courier_pushed_total", COUNT,
        "session" ["owned", "known", "unknown", "not_read"],
        "Notifications that this process has queued, by the standing of their sessions at the push.";
    PUSH_REFUSED: Counter, "mcp_courier_push_refused_total", COUNT,
        "reason" ["too_large", "queue_full", "not_for_fastmcp", "too_deep", "task_id_too_long", "not_sealed",
            "after_refused", "unreachable", "uncertain", "refused"],
        "Notifications whose push was refused, by reason.";
    PUSH_DUPLICATES: Counter, "mcp_courier_push_duplicates_total", COUNT, "" [""],
        "Notifications that were not queued again, because one with their deduplication key was queued before.";
    REDRIVEN: Counter, "mcp_courier_redriven_total", COUNT, "" [""],
        "Dead letters that this process has queued again.";
    ELICITATIONS_OPEN: Gauge, "mcp_courier_elicitations_open", COUNT, "" [""],
        "Questions of this worker that wait for their answers.";
    ELICITATIONS: Counter, "mcp_courier_elicitations_total", COUNT,
        "outcome" ["accepted", "declined", "cancelled", "timed_out", "failed"],
        "Questions of this worker that ended, by outcome.";

    DELIVERED: Counter, "mcp_courier_delivered_total", COUNT, "" [""],
        "Notifications that were handed over to their sessions, repeats included.";
    CONFIRMED: Counter, "mcp_courier_confirmed_total", COUNT, "" [""],
        "Notifications that their clients have confirmed.";
    REPEATED: Counter, "mcp_courier_repeated_total", COUNT, "" [""],
        "Notifications that this process handed over again, because their first delivery was not confirmed.";
    RETRIED: Counter, "mcp_courier_retried_total", COUNT, "" [""],
        "Attempts to hand a notification over that failed and are followed by another.";
    SKIPPED: Counter, "mcp_courier_skipped_total", COUNT,
        "reason" ["delivered", "named"],
        "Notifications that were acknowledged without a delivery: delivered before, or named by the client as received.";
    DISCARDED: Counter, "mcp_courier_discarded_total", COUNT,
        "reason" ["expired", "rejected", "attempts_exhausted", "superseded", "undecodable", "purged", "collapsed",
            "cannot_open", "not_sealed"],
        "Notifications that were discarded, by reason.";
    LOST: Counter, "mcp_courier_lost_total", COUNT, "" [""],
        "Notifications that were removed from their queues before a delivery that failed, with at-most-once delivery only.";
    DELIVERY_SECONDS: Histogram, "mcp_courier_delivery_seconds", SECONDS, "" [""],
        "Time from the push of a notification to its confirmation, by the queue's clock.";

    QUEUED: Gauge, "mcp_courier_owned_queue_messages", COUNT, "" [""],
        "Notifications in the queues that this process owns, together.";
    QUEUED_MAX: Gauge, "mcp_courier_owned_queue_messages_max", COUNT, "" [""],
        "Notifications in the longest queue that this process owns.";
    OLDEST_SECONDS: Gauge, "mcp_courier_owned_queue_oldest_seconds", SECONDS, "" [""],
        "Age of the oldest notification in the queues that this process owns.";

    SUBSCRIBERS: Gauge, "mcp_courier_subscribers", COUNT,
        "state" ["connecting", "reading", "waiting", "delivering", "rewriting", "backing_off", "standing_by", "parked",
            "stopping"],
        "Subscribers of this process, by state.";
    SUBSCRIBERS_FAILED: Counter, "mcp_courier_subscriber_failures_total", COUNT, "" [""],
        "Subscribers that panicked or lost their thread, and were started again or given up.";
    TAKEOVERS: Counter, "mcp_courier_takeovers_total", COUNT,
        "side" ["won", "lost"],
        "Claims of a session that another owner held (won), and sessions that another owner has claimed (lost).";
    RECLAIMED: Counter, "mcp_courier_leases_reclaimed_total", COUNT, "" [""],
        "Leases that had gone, and that their owners have claimed again.";
    QUEUE_CHANGED: Counter, "mcp_courier_queue_changes_total", COUNT, "" [""],
        "Reads and acknowledgements that found a queue changed under its owner.";

    SESSIONS: Gauge, "mcp_courier_sessions", COUNT, "" [""],
        "Sessions that this process holds.";
    RESTORED: Counter, "mcp_courier_sessions_restored_total", COUNT,
        "outcome" ["restored", "unknown", "no_room", "failed"],
        "Sessions of other servers whose clients came to this one, by outcome.";
    STREAMS_OPEN: Gauge, "mcp_courier_streams_open", COUNT, "" [""],
        "Streams that are open now.";
    STREAMS_OPENED: Counter, "mcp_courier_streams_opened_total", COUNT,
        "kind" ["new", "resumed", "early_close"],
        "Streams that clients opened: without an event id, with one, and those that were closed early.";
    STREAMS_CLOSED: Counter, "mcp_courier_streams_closed_total", COUNT,
        "by:cause" ["client:hung_up", "client:newer_stream", "server:early_close", "server:unread", "server:unanswered",
            "server:session_ended", "server:shutdown"],
        "Streams that ended, by whom and by cause.";
    STREAMS_REFUSED: Counter, "mcp_courier_streams_refused_total", COUNT, "" [""],
        "Streams that were refused, because the server's limit of open streams was reached.";

    QUESTIONS_OPEN: Gauge, "mcp_courier_questions_open", COUNT, "" [""],
        "Questions of workers that this server asks its clients now.";
    QUESTIONS_ASKED: Counter, "mcp_courier_questions_asked_total", COUNT, "" [""],
        "Questions that were put to a client, each time that it was asked.";
    QUESTIONS_ANSWERED: Counter, "mcp_courier_questions_answered_total", COUNT,
        "outcome" ["accepted", "declined", "cancelled"],
        "Answers that this server has given to workers, by outcome. The first answer to a question counts.";

    REDIS_CONNECTIONS: Counter, "mcp_courier_redis_connections_total", COUNT,
        "outcome" ["made", "made_again", "failed"],
        "Attempts to connect to Redis: first connections, connections in place of lost ones, and failed attempts.";
    QUEUE_FAILURES: Counter, "mcp_courier_queue_failures_total", COUNT,
        "kind" ["unreachable", "broken", "refused", "sealing"],
        "Operations of subscribers on their queues that failed and are tried again, by kind.";
}

/// Counts one stream that was closed early.
#[cfg(feature = "rmcp")]
pub(crate) fn early_close() {
    STREAMS_OPENED.add("early_close", 1);
    STREAMS_CLOSED.add("early_close", 1);
}

#[cfg(test)]
mod tests;
