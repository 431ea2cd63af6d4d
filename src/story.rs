//! Story of each session at the level TRACE: all that a server does for one session, in lines that follow each other.
//!
//! A reader filters by the session's shortened id and needs no other level. Each line is written here, so this file is
//! the list of them. No line has a payload, a whole session id, or a user.
//!
//! *From whom*. The driver of a subscriber reports each event, each action and each change of the state. The supervisor
//! reports starts, parking and ends. The rmcp adapter reports streams and moves.
//!
//! *Cost*. Where nobody listens at TRACE, each call is one comparison of levels.

use tracing::Level;

use crate::question::Question;
use crate::session_id::SessionId;
use crate::subscription::{Action, Event, ExitReason, Note, Operation, SessionState, SubscriberState};

/// Writes an event that a subscriber's machine is about to handle.
#[inline]
pub(crate) fn event(session: &SessionId, event: &Event) {
    if tracing::enabled!(Level::TRACE) {
        write_event(session, event);
    }
}

/// Writes an action that a subscriber's driver is about to perform.
#[inline]
pub(crate) fn action(session: &SessionId, action: &Action) {
    if tracing::enabled!(Level::TRACE) {
        write_action(session, action);
    }
}

/// Writes a change of a subscriber's state.
#[inline]
pub(crate) fn state(session: &SessionId, before: SubscriberState, now: SubscriberState) {
    if before != now {
        tracing::trace!(?session, ?before, ?now, "the state of a subscriber changes");
    }
}

fn write_event(session: &SessionId, event: &Event) {
    match event {
        Event::Presence(SessionState::Connected { generation, received }) => {
            let names_a_message = received.is_some();
            tracing::trace!(?session, generation, names_a_message, "the client has an open stream");
        }
        Event::Presence(SessionState::Disconnected) => tracing::trace!(?session, "the client has no open stream"),
        Event::Presence(SessionState::Ended) => tracing::trace!(?session, "the session has ended at every server"),
        Event::Presence(SessionState::Detached) => tracing::trace!(?session, "the session has ended at this server"),
        Event::Stop => tracing::trace!(?session, "the subscriber is asked to stop"),
        Event::Timer => tracing::trace!(?session, "the subscriber acts on the time"),
        Event::PermitSuspended => tracing::trace!(?session, "the lease may belong to another owner"),
        Event::Opened => tracing::trace!(?session, "the connection to the queue is open"),
        Event::Claimed => tracing::trace!(?session, "the lease is claimed"),
        Event::Renewed(lease) => tracing::trace!(?session, ?lease, "the lease is renewed"),
        Event::Taken(taken) => {
            let (count, unreadable) =
                (taken.items.len(), taken.items.iter().filter(|item| item.envelope.is_err()).count());
            let (lease, changed, has_more) = (taken.lease, taken.changed, taken.has_more);
            tracing::trace!(?session, count, unreadable, has_more, changed, ?lease, "messages are taken");
        }
        Event::Questions(questions) => {
            tracing::trace!(?session, count = questions.len(), "the open questions are read");
        }
        Event::Delivered(Some(outcome)) => {
            let (accepted, end) = (outcome.accepted, outcome.end_name());
            tracing::trace!(?session, accepted, end, "a batch is handed over");
        }
        Event::Delivered(None) => tracing::trace!(?session, "a batch is given up; its messages stay queued"),
        Event::Confirmed { delivery, answer: Ok(()) } => {
            tracing::trace!(?session, delivery, "the client has confirmed a delivery");
        }
        Event::Confirmed { delivery, answer: Err(error) } => {
            tracing::trace!(?session, delivery, %error, "a delivery is not confirmed; its messages stay queued");
        }
        Event::Rewritten(replaced) => tracing::trace!(?session, ?replaced, "a failed attempt is written"),
        Event::Cancelled => tracing::trace!(?session, "the open questions are cancelled"),
        Event::Released => tracing::trace!(?session, "the lease is released"),
        Event::Settled => tracing::trace!(?session, "no answer is on its way to a worker"),
        Event::Failed(error) => tracing::trace!(?session, %error, "an operation on the queue failed"),
    }
}

fn write_action(session: &SessionId, action: &Action) {
    match action {
        Action::Begin(Operation::Take { delivered: Some(delivered), .. }) => {
            let count = delivered.count;
            tracing::trace!(?session, count, "messages are acknowledged, and the next ones read");
        }
        Action::Begin(operation) => {
            tracing::trace!(?session, operation = ?operation.kind(), "an operation on the queue begins");
        }
        Action::Close => tracing::trace!(?session, "the connection to the queue is closed"),
        Action::Deliver { delivery, batch, .. } => {
            let [first, last] = [batch.first(), batch.last()].map(|envelope| envelope.map(|envelope| envelope.id));
            let last = last.filter(|last| first != Some(*last));
            let (first, last) = (first.map(tracing::field::display), last.map(tracing::field::display));
            tracing::trace!(?session, delivery, count = batch.len(), first, last, "a batch is delivered");
        }
        Action::Ask { questions, .. } => {
            tracing::trace!(?session, count = questions.len(), "the client is to be asked");
        }
        Action::StopAsking => tracing::trace!(?session, "the client is asked no more"),
        Action::Record { .. } => tracing::trace!(?session, "the outcome of a notification is recorded"),
        Action::Note(Note::Delivered { count, .. }) => tracing::trace!(?session, count, "notifications are delivered"),
        // The other notes have lines of their own, at other levels.
        Action::Note(_) => {}
        Action::Exit(reason) => ended(session, reason),
    }
}

/// Writes the end of a subscriber, or of its stay on an arbiter.
fn ended(session: &SessionId, reason: &ExitReason) {
    tracing::trace!(?session, ?reason, "the subscriber exits");
}

/// Writes the outcome of a request to run a subscriber.
#[inline]
pub(crate) fn ensured(session: &SessionId, outcome: &dyn std::fmt::Debug) {
    tracing::trace!(?session, ?outcome, "a subscriber is ensured");
}

/// Writes the start of a subscriber on an arbiter. `epoch` is the number of the start in this process.
#[inline]
pub(crate) fn started(session: &SessionId, epoch: u64, placement: &dyn std::fmt::Debug) {
    tracing::trace!(?session, epoch, ?placement, "a subscriber is started");
}

/// Writes the parking of a subscriber whose client is away.
#[inline]
pub(crate) fn parked(session: &SessionId, epoch: u64) {
    tracing::trace!(?session, epoch, "a subscriber is parked; notifications wait for the client");
}

/// Writes the return of the client of a parked subscriber.
#[inline]
pub(crate) fn returned(session: &SessionId, epoch: u64) {
    tracing::trace!(?session, epoch, "the client of a parked subscriber is back");
}

/// Writes a request to stop a subscriber.
#[inline]
pub(crate) fn stopping(session: &SessionId, epoch: u64) {
    tracing::trace!(?session, epoch, "a subscriber is to stop");
}

/// Writes the end of a subscriber as its supervisor sees it.
#[inline]
pub(crate) fn removed(session: &SessionId, epoch: u64) {
    tracing::trace!(?session, epoch, "a subscriber has ended");
}

/// Writes that a client is asked a question.
#[inline]
pub(crate) fn asked(session: &SessionId, question: &Question) {
    tracing::trace!(?session, question = %question.request_id, "the client is asked a question");
}

/// Writes that a question has an answer. `action` is MCP's word for the answer, without its content.
#[inline]
pub(crate) fn answered(session: &SessionId, request_id: &str, action: &'static str) {
    tracing::trace!(?session, question = request_id, action, "a question has an answer");
}

/// Writes a step of a session between servers, such as `created` or `loaded`.
#[cfg(feature = "rmcp")]
#[inline]
pub(crate) fn moved(session: &SessionId, step: &'static str) {
    tracing::trace!(?session, step, "a session moves");
}

/// Writes that a client has opened a stream. `resumed` says whether it named the last event that it has.
#[cfg(feature = "rmcp")]
#[inline]
pub(crate) fn stream_opened(session: &SessionId, stream: u64, resumed: bool) {
    tracing::trace!(?session, stream, resumed, "a stream is opened");
}

/// Writes the end of a stream, with its cause.
#[cfg(feature = "rmcp")]
#[inline]
pub(crate) fn stream_closed(session: &SessionId, stream: u64, cause: &'static str) {
    tracing::trace!(?session, stream, cause, "a stream is closed");
}
