//! SSE event ids, which tell a server what a returning client has received.
//!
//! Each event of a standalone stream that has an id carries the whole state. So a client may name any of the ids that
//! it saw, and loses nothing:
//!
//! ```text
//!   9d6c…-17          ~  e 4b825dc642cb6eb9 . 2f     ~  0191d4c0a1b27c3d8e4f5061728394a5.65a1b2c3d4e5f
//!   position of rmcp     kind, stream and event         newest message of the courier
//! ```
//!
//! - The *position* is the id of rmcp's last event. rmcp numbers the events of a session from 0 in every process. A
//!   position from another process would therefore resume at other events. So each process marks these ids with an
//!   [`Epoch`] of its own. The ids of an event store are valid in the whole fleet, and stay unmarked. The position is
//!   empty before rmcp's first event.
//! - The *kind* is `e`, or `c` for an [early close](super::early_close). The random number of the stream, and the
//!   number of the event in it, make each id unique, as MCP demands within a session. Both are hexadecimal.
//! - The *message* is the newest that this stream, or a stream that it resumes, has carried. It may be empty.
//!
//! Any other id is read as a position alone. Such ids are those of streams that answer requests, those of earlier
//! versions, and forged ones.
//!
//! Tests: `any_cut_of_an_id_names_no_other_message`, `ids_are_unique_across_streams_and_carry_on_what_came_before`, and
//! over HTTP `g2_old_forged_and_foreign_ids_lose_nothing`.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::hex;
use crate::session::MessageId;

/// Largest length of a position that is carried on for a client, in bytes. A longer one is left out of the ids that go
/// out. Otherwise a stream would repeat it with each event.
const POSITION_MAX: usize = 512;

/// Mark of the ids that rmcp gives events in this process.
#[derive(Debug, Clone)]
pub(super) struct Epoch(Arc<str>);

impl Epoch {
    pub(super) fn new() -> Self {
        Self(format!("{:016x}-", random()).into())
    }

    /// Makes a mark that changes no id: the ids of an event store are valid in the whole fleet.
    pub(super) fn of_event_store() -> Self {
        Self("".into())
    }

    /// Returns an id of rmcp's in the form in which it goes out.
    pub(super) fn mark(&self, id: &str) -> String {
        format!("{}{id}", self.0)
    }

    /// Returns rmcp's own id of a position that this process issued.
    pub(super) fn unmark<'a>(&self, position: &'a str) -> Option<&'a str> {
        position.strip_prefix(&*self.0)
    }
}

/// Id of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventId<'a> {
    /// Marked position of rmcp.
    pub(super) position: Option<&'a str>,
    /// `None` for an id that is a position alone.
    token: Option<Token>,
    /// Newest message that the client has.
    pub(super) received: Option<MessageId>,
}

/// Part that makes an id unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    is_early_close: bool,
    /// Random number of the stream.
    stream: u64,
    /// Number of the event in its stream.
    event: u64,
}

impl<'a> EventId<'a> {
    /// Reads a `Last-Event-ID`.
    pub(super) fn parse(id: &'a str) -> Self {
        Self::parse_typed(id).unwrap_or(Self {
            position: Some(id).filter(|id| !id.is_empty()),
            token: None,
            received: None,
        })
    }

    fn parse_typed(id: &'a str) -> Option<Self> {
        // Read from the end: the ids of an event store may contain any character.
        let (rest, received) = id.rsplit_once('~')?;
        let (position, token) = rest.rsplit_once('~')?;
        let received = if received.is_empty() { None } else { Some(received.parse().ok()?) };
        let position = Some(position).filter(|position| !position.is_empty());
        Some(Self { position, token: Some(Token::parse(token)?), received })
    }

    /// Returns whether the id belongs to a standalone stream. The ids of other streams, and of earlier versions, are
    /// positions alone.
    pub(super) fn is_typed(&self) -> bool {
        self.token.is_some()
    }

    /// Returns whether the id belongs to an early close.
    pub(super) fn is_early_close(&self) -> bool {
        self.token.is_some_and(|token| token.is_early_close)
    }

    /// Returns the id of an early close, which carries the state of this id on.
    pub(super) fn early_close(&self) -> Self {
        let token = Token { is_early_close: true, stream: random(), event: 0 };
        Self { position: self.position.filter(|position| may_be_carried(position)), token: Some(token), ..*self }
    }
}

impl fmt::Display for EventId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, token, received } = self;
        f.write_str(position.unwrap_or_default())?;
        let Some(Token { is_early_close, stream, event }) = token else { return Ok(()) };
        let kind = if *is_early_close { 'c' } else { 'e' };
        write!(f, "~{kind}{stream:016x}.{event:x}~")?;
        received.map_or(Ok(()), |received| received.fmt(f))
    }
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let is_early_close = match text.as_bytes().first()? {
            b'c' => true,
            b'e' => false,
            _ => return None,
        };
        let (stream, event) = text[1..].split_once('.')?;
        if stream.len() != 16 {
            return None;
        }
        Some(Self { is_early_close, stream: hex::read(stream)?, event: hex::read_shortest(event)? })
    }
}

/// Ids of the events of one stream, in the order in which the events are written.
#[derive(Debug)]
pub(super) struct EventIds {
    position: Option<String>,
    /// Number of the stream.
    stream: u64,
    /// Number of the next event.
    next: u64,
    received: Option<MessageId>,
    /// Text of each id up to the number of the event. Kept because composing it is most of the work of writing an id.
    head: String,
}

impl EventIds {
    /// Begins a stream that resumes behind an id, if there is one.
    pub(super) fn behind(resumed: Option<EventId<'_>>) -> Self {
        let position = resumed.and_then(|id| id.position).filter(|position| may_be_carried(position));
        Self {
            position: position.map(str::to_owned),
            stream: random(),
            next: 0,
            received: resumed.and_then(|id| id.received),
            head: String::new(),
        }
    }

    /// Returns the newest message that the stream has carried.
    pub(super) fn received(&self) -> Option<MessageId> {
        self.received
    }

    /// Sets the newest message.
    pub(super) fn set_received(&mut self, received: Option<MessageId>) {
        self.received = received;
    }

    /// Sets the position of rmcp. A position that would break the framing is left out.
    pub(super) fn set_position(&mut self, position: &str) {
        if !position.contains(BREAKING) {
            (self.position, self.head) = (Some(position.to_owned()), String::new());
        }
    }

    /// Returns the id of the next event.
    pub(super) fn next(&mut self) -> EventId<'_> {
        let token = Token { is_early_close: false, stream: self.stream, event: self.next };
        self.next += 1;
        EventId { position: self.position.as_deref(), token: Some(token), received: self.received }
    }

    /// Appends the id of the next event, the same that [`next`](Self::next) returns. Each message needs one.
    pub(super) fn push_next(&mut self, out: &mut String) {
        if self.head.is_empty() {
            self.head = format!("{}~e{:016x}.", self.position.as_deref().unwrap_or_default(), self.stream);
        }
        out.push_str(&self.head);
        push_hexadecimal(out, self.next);
        self.next += 1;
        out.push('~');
        if let Some(MessageId { notification, at }) = &self.received {
            out.push_str(notification.0.as_simple().encode_lower(&mut Uuid::encode_buffer()));
            out.push('.');
            push_hexadecimal(out, *at);
        }
    }
}

/// Appends a number without leading zeros.
fn push_hexadecimal(out: &mut String, number: u64) {
    // The crate `uuid` writes all digits of an id at once.
    let mut buffer = Uuid::encode_buffer();
    let digits: &str = Uuid::from_u128(number.into()).as_simple().encode_lower(&mut buffer);
    let leading = number.max(1).leading_zeros() as usize / 4 + 16;
    out.push_str(&digits[leading..]);
}

/// Characters that no field of an event may contain.
const BREAKING: [char; 3] = ['\n', '\r', '\0'];

fn may_be_carried(position: &str) -> bool {
    position.len() <= POSITION_MAX && !position.contains(BREAKING)
}

/// Returns 64 random bits, which no other stream or process draws in practice.
fn random() -> u64 {
    // In a version 4 id two bits of the lower half are fixed, and four of the upper half.
    let (upper, lower) = Uuid::new_v4().as_u64_pair();
    upper ^ lower
}

#[cfg(test)]
mod tests;
