//! [`Frames`]: events that wait to be written into one stream, as the bytes that go out.
//!
//! # Rules
//! - *Whole events only*. The buffer never ends within an event, so the end of a stream cuts none, and a comment may
//!   follow each part.
//! - *One lock for the text and the ids*. An id names the messages before it. An id that was drawn outside the lock
//!   could be written before a message that it names. A client that resumes behind it would lose that message
//!   (`an_event_of_rmcp_is_behind_all_that_its_id_names_and_moves_the_position`).
//! - *Discarded bytes are named by no later id*. [`discard`](Frames::discard) sets the newest message back to the last
//!   one that the reader took (`what_a_newer_stream_gets_is_dropped_and_named_by_no_id`).
//! - *A ping always has room*. Without the ping a full stream would never be confirmed
//!   (`a_full_buffer_wakes_its_reader_and_takes_pings_only`).
//!
//! *Callers*. `client` writes under the lock of the client's streams; `stream` reads on the thread of the HTTP
//! connection.

use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use rmcp::transport::streamable_http_server::session::ServerSseMessage;
use tokio::sync::Notify;

use super::event_id::{EventId, EventIds};
use super::sse;
use crate::lock::lock;
use crate::session::{MessageId, Outbound};

/// Number of bytes from which a stream takes no more messages until its reader has taken these. One more message may be
/// in the buffer.
const CAPACITY: usize = 64 * 1024;

/// Events of the courier that wait for the reader of a stream.
///
/// A message is written without waking the reader. [`flush`](Self::flush), a ping, a question and a full buffer wake
/// the reader, which then takes all events at once. A buffer uses memory only while it contains something.
#[derive(Debug)]
pub(super) struct Frames {
    buffer: Mutex<Buffer>,
    /// Notified when the reader has taken events, when events are dropped, and when the stream must end.
    moved: Notify,
}

/// Text of the events that wait, and the ids of the next ones. One lock protects both, so ids have the order of the
/// writing.
#[derive(Debug)]
struct Buffer {
    /// Whole events.
    text: String,
    ids: EventIds,
    /// Newest message that the reader has taken, or that the resumed stream had carried.
    taken: Option<MessageId>,
    /// Number of bytes written so far, in total.
    written: u64,
    /// Length of the last text that the reader took: the next text is likely to be as long.
    last: usize,
    /// Set when the reader must take the text.
    is_flushed: bool,
    /// Set when the stream must end.
    is_closed: bool,
    /// Waker of the reader, while it waits for text.
    reader: Option<Waker>,
}

/// Error of a hand-over to a full buffer.
#[derive(Debug)]
pub(super) struct Full;

impl Frames {
    pub(super) fn new(ids: EventIds) -> Self {
        let taken = ids.received();
        let buffer = Buffer {
            text: String::new(),
            ids,
            taken,
            written: 0,
            last: 0,
            is_flushed: false,
            is_closed: false,
            reader: None,
        };
        Self { buffer: Mutex::new(buffer), moved: Notify::new() }
    }

    /// Writes a message. The ids from here on name it as the newest.
    pub(super) fn hand_over(&self, notification: &Outbound) -> Result<(), Full> {
        let mut buffer = self.room_in()?;
        if notification.message_id.is_some() {
            buffer.ids.set_received(notification.message_id);
        }
        let needed = notification.size_hint() + 128;
        buffer.write(needed, |text, ids| sse::push_notification(text, |text| ids.push_next(text), notification));
        Ok(())
    }

    /// Writes a request of the courier's, and wakes the reader.
    pub(super) fn request(&self, json: &str) -> Result<(), Full> {
        let buffer = self.room_in()?;
        self.write_request(buffer, json);
        Ok(())
    }

    /// Writes a ping behind all messages, and wakes the reader. A ping has room even in a full buffer. Returns the
    /// place behind it.
    pub(super) fn ping(&self, json: &str) -> u64 {
        self.write_request(self.buffer(), json)
    }

    /// Wakes the reader to take the text. Returns the place behind the text, for [`taken`](Self::taken).
    pub(super) fn flush(&self) -> u64 {
        flush(self.buffer())
    }

    /// Waits until there is room, or the stream must end.
    pub(super) async fn until_room(&self) {
        self.until(|buffer| buffer.is_closed || buffer.text.len() < CAPACITY).await;
    }

    /// Waits until the reader has taken everything before a place, or the stream must end.
    pub(super) async fn until_taken(&self, place: u64) {
        self.until(|buffer| buffer.is_closed || buffer.written - buffer.text.len() as u64 >= place).await;
    }

    /// Drops the text that the reader has not taken: the client has a newer stream, which gets those messages.
    pub(super) fn discard(&self) {
        let mut buffer = self.buffer();
        buffer.text = String::new();
        buffer.is_flushed = false;
        let taken = buffer.taken;
        buffer.ids.set_received(taken);
        drop(buffer);
        self.moved.notify_waiters();
    }

    /// Ends the stream at once. Unconfirmed messages are repeated on a later stream.
    pub(super) fn close(&self) {
        let mut buffer = self.buffer();
        (buffer.text, buffer.is_closed) = (String::new(), true);
        let reader = buffer.reader.take();
        drop(buffer);
        if let Some(reader) = reader {
            reader.wake();
        }
        self.moved.notify_waiters();
    }

    /// Makes the first event of the stream. It has an id, and asks nothing of the client.
    pub(super) fn first(&self, make: impl FnOnce(&EventId<'_>) -> ServerSseMessage) -> ServerSseMessage {
        make(&self.buffer().ids.next())
    }

    /// Polls for flushed text; `None` where the stream must end.
    pub(super) fn poll_take(&self, context: &mut Context<'_>) -> Poll<Option<String>> {
        let mut buffer = self.buffer();
        if buffer.is_closed {
            return Poll::Ready(None);
        }
        if !buffer.is_flushed {
            buffer.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let text = buffer.take();
        drop(buffer);
        self.moved.notify_waiters();
        Poll::Ready(Some(text))
    }

    /// Gives an event of rmcp its id. Returns the text that must be written before the event, flushed or not, because
    /// the id names those messages too.
    pub(super) fn insert(&self, event: &mut ServerSseMessage) -> String {
        let mut buffer = self.buffer();
        let before = buffer.take();
        if let Some(position) = &event.event_id {
            buffer.ids.set_position(position);
            event.event_id = Some(buffer.ids.next().to_string());
        }
        drop(buffer);
        self.moved.notify_waiters();
        before
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        lock(&self.buffer)
    }

    /// Returns the buffer if there is room in it. Otherwise wakes the reader to make room.
    fn room_in(&self) -> Result<MutexGuard<'_, Buffer>, Full> {
        let buffer = self.buffer();
        if buffer.text.len() < CAPACITY {
            return Ok(buffer);
        }
        flush(buffer);
        Err(Full)
    }

    fn write_request(&self, mut buffer: MutexGuard<'_, Buffer>, json: &str) -> u64 {
        // The request has no id of its own: a reader of the stream keeps the last id.
        buffer.write(json.len() + 64, |text, _| sse::push_request(text, json));
        flush(buffer)
    }

    /// Waits until a condition on the buffer holds.
    async fn until(&self, is_so: impl Fn(&Buffer) -> bool) {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            // Registered before the check, so that no later notification is missed.
            moved.as_mut().enable();
            if is_so(&self.buffer()) {
                return;
            }
            moved.await;
        }
    }
}

impl Buffer {
    fn write(&mut self, needed: usize, write: impl FnOnce(&mut String, &mut EventIds)) {
        if self.text.capacity() == 0 {
            // A little more than needed, so that the same text with a longer number or two fits without moving the
            // buffer.
            self.text.reserve(needed.max(self.last + self.last / 16));
        }
        let before = self.text.len();
        write(&mut self.text, &mut self.ids);
        self.written += (self.text.len() - before) as u64;
    }

    fn take(&mut self) -> String {
        self.is_flushed = false;
        if !self.text.is_empty() {
            self.last = self.text.len().min(CAPACITY);
        }
        self.taken = self.ids.received();
        std::mem::take(&mut self.text)
    }
}

/// Wakes the reader to take the text. Returns the place behind the text.
fn flush(mut buffer: MutexGuard<'_, Buffer>) -> u64 {
    let place = buffer.written;
    let reader = if buffer.text.is_empty() { None } else { buffer.reader.take() };
    buffer.is_flushed |= !buffer.text.is_empty();
    drop(buffer);
    if let Some(reader) = reader {
        reader.wake();
    }
    place
}

#[cfg(test)]
mod tests;
