//! [`ClientSession`]: one client as the decorated manager sees it: its introduction, its open streams, and its
//! confirmations.
//!
//! *One lock*. [`ClientState`] has streams, deliveries and questions. A newer stream breaks the deliveries and
//! questions on older ones in the same moment in which it becomes the newest. With separate locks a message could go
//! down the newer stream too early: before the caller of an unconfirmed message learns of the break. It would overtake
//! that message (`nothing_goes_down_another_stream_before_each_caller_knows_of_the_break`).
//!
//! *Presence* is sent under the same lock, so the subscriber sees the openings of streams in their order. An opening
//! carries the message that the client has named.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use self::activity::Activity;
use self::delivery::{Break, Delivery};
use self::introduction::Introduction;
use self::questions::Questions;
use self::streams::Streams;
use super::detachable_stream::DetachableStream;
use super::event_id::{EventId, EventIds};
use super::frames::Frames;
use crate::backend::ProcessId;
use crate::config::{Config, DeliveryLevel};
use crate::lock::lock;
use crate::metrics;
use crate::session::PresenceSender;
use crate::session_id::SessionId;
use crate::story;

mod activity;
mod delivery;
mod handing_over;
mod introduction;
mod pings;
mod questions;
mod streams;

pub(crate) use self::introduction::FIRST_WITH_PRIMING;
pub(super) use self::questions::Answered;

/// Client of one session: the [`McpSession`](crate::McpSession) that its subscriber delivers to.
pub(super) struct ClientSession {
    session_id: SessionId,
    /// This process, whose id the pings carry. Their answers may arrive at another process.
    process: ProcessId,
    /// Largest number of bytes that are kept of the client's introduction.
    state_max_bytes: usize,
    /// Longest time of one hand-over or confirmation.
    limit: Duration,
    level: DeliveryLevel,
    /// Sender of the presence that the subscriber watches.
    presence: PresenceSender,
    activity: Activity,
    introduction: Mutex<Introduction>,
    /// Set while the session is among the [`DeferredArrivals`](super::deferred_arrivals::DeferredArrivals).
    pub(super) is_arrival_deferred: AtomicBool,
    state: Mutex<ClientState>,
}

/// Streams, deliveries and questions of a client. One lock holds them, because they change together: a newer stream, or
/// the end of a stream, ends deliveries and questions on the others.
struct ClientState {
    streams: Streams,
    delivery: Delivery<oneshot::Sender<Result<(), Break>>>,
    questions: Questions,
}

impl ClientState {
    /// Ends the waits for answers on a stream, or on any stream where `stream` is `None`: no answer will count any
    /// more.
    fn break_off(&mut self, stream: Option<u64>, why: Break) {
        self.questions.withdraw(stream);
        if stream.is_none() || self.delivery.stream() == stream {
            for waiter in self.delivery.break_off(why) {
                // The waiter may be gone.
                let _ = waiter.send(Err(why));
            }
        }
    }
}

impl ClientSession {
    pub(super) fn new(config: &Config, session_id: SessionId, process: ProcessId) -> Self {
        Self {
            session_id,
            process,
            state_max_bytes: config.session_state_max_bytes(),
            limit: config.hand_over_timeout(),
            level: config.delivery_level(),
            presence: PresenceSender::new(),
            activity: Activity::new(),
            introduction: Mutex::default(),
            is_arrival_deferred: AtomicBool::new(false),
            state: Mutex::new(ClientState {
                streams: Streams::default(),
                delivery: Delivery::Idle,
                questions: Questions::default(),
            }),
        }
    }

    pub(super) fn session_id(&self) -> &SessionId {
        &self.session_id
    }

    /// Opens a stream, which becomes the newest and receives. Returns its number, by which to [close](Self::close) it,
    /// and the events for its reader. `resumed` is the id of the last event that the client has, if it named one.
    /// `is_layered` says that the HTTP layer writes the messages.
    pub(super) fn open(
        &self,
        rmcp: DetachableStream,
        resumed: Option<EventId<'_>>,
        is_layered: bool,
    ) -> (u64, Arc<Frames>) {
        metrics::STREAMS_OPENED.add(if resumed.is_some() { "resumed" } else { "new" }, 1);
        let mut state = self.locked();
        state.break_off(None, Break::Superseded);
        let opened = state.streams.open(rmcp, EventIds::behind(resumed), is_layered);
        let (number, frames) = (opened.number, Arc::clone(&opened.frames));
        story::stream_opened(&self.session_id, number, resumed.is_some());
        self.presence.resumed(number, resumed.and_then(|id| id.received));
        (number, frames)
    }

    /// Returns rmcp's part of the newest stream, if that is empty and nobody else fills it.
    pub(super) fn stream_to_fill(&self) -> Option<DetachableStream> {
        self.locked().streams.newest().map(|newest| newest.rmcp.clone()).filter(DetachableStream::claim)
    }

    /// Returns whether the client has an open stream.
    pub(super) fn has_stream(&self) -> bool {
        !self.locked().streams.is_empty()
    }

    /// Closes a stream that has ended: its client has hung up, or the server shuts down. The newest of the others then
    /// receives.
    pub(super) fn close(&self, number: u64, is_shut_down: bool) {
        self.close_for(number, Break::Ended, is_shut_down.then_some("shutdown"));
    }

    /// Closes a stream for a reason, which those who wait on it get. The newest of the others then receives. `cause` is
    /// the one that is counted; `None` where the client ended the stream.
    fn close_for(&self, number: u64, why: Break, cause: Option<&'static str>) {
        self.activity.touch();
        let mut state = self.locked();
        let is_newest = state.streams.newest().is_some_and(|newest| newest.number == number);
        let Some(closed) = state.streams.remove(number) else { return };
        story::stream_closed(&self.session_id, number, why.cause());
        state.break_off(Some(number), why);
        match state.streams.newest() {
            Some(newest) => self.presence.connected(newest.number),
            None => self.presence.disconnected(),
        }
        drop(state);
        closed.close(cause.unwrap_or(if is_newest { "hung_up" } else { "newer_stream" }));
    }

    /// Ends the session, for good or only in this process.
    pub(super) fn end(&self, only_here: bool) {
        story::moved(&self.session_id, if only_here { "closed here" } else { "ended" });
        if only_here {
            self.presence.detached();
        } else {
            self.presence.ended();
        }
        let mut state = self.locked();
        let streams = state.streams.take();
        for stream in &streams {
            story::stream_closed(&self.session_id, stream.number, "the session is closed");
        }
        state.break_off(None, Break::Ended);
        drop(state);
        streams.into_iter().for_each(|stream| stream.close("session_ended"));
    }

    pub(super) fn request_began(&self) {
        self.activity.request_began();
    }

    pub(super) fn request_ended(&self) {
        self.activity.request_ended();
    }

    /// Notes that something came from the client.
    pub(super) fn touch(&self) {
        self.activity.touch();
    }

    /// Returns since when the session has been idle: without an open stream and without a request.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        if self.has_stream() { None } else { self.activity.idle_since() }
    }

    fn locked(&self) -> MutexGuard<'_, ClientState> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests;
