//! Parser of `text/event-stream`, as browsers read it.

use std::collections::VecDeque;

/// Complete event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Id for `Last-Event-ID`.
    pub id: Option<String>,
    /// Pause before the client opens its next stream, in milliseconds.
    pub retry: Option<u64>,
    /// Data, which priming events do not have.
    pub data: String,
}

/// Parser of one stream, which arrives in pieces.
///
/// An event that is cut before its empty line is none, and its id counts for nothing.
#[derive(Debug, Default)]
pub struct Parser {
    /// Beginning of a line that is not complete.
    rest: Vec<u8>,
    event: Event,
    /// The event has a field, and is more than comments.
    has_fields: bool,
    events: VecDeque<Event>,
}

impl Parser {
    /// Takes a piece of the stream.
    ///
    /// # Panics
    /// Where a line is not UTF-8, or the pause is no number.
    pub fn feed(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
        let mut lines = std::mem::take(&mut self.rest);
        let Some(end) = lines.iter().rposition(|byte| *byte == b'\n') else {
            self.rest = lines;
            return;
        };
        self.rest = lines.split_off(end + 1);
        for line in lines[..end].split(|byte| *byte == b'\n') {
            self.line(std::str::from_utf8(line).expect("UTF-8").trim_end_matches('\r'));
        }
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_fields) {
                self.events.push_back(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.event.id = Some(value.to_owned()),
            "retry" => self.event.retry = Some(value.parse().expect("a number of milliseconds")),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // A comment keeps the connection alive; `event` says nothing here.
            _ => return,
        }
        self.has_fields = true;
    }
}

/// The events that are complete.
impl Iterator for Parser {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_in_pieces_are_whole_and_one_without_its_end_is_none() {
        let mut parser = Parser::default();
        let text = "id: 1\ndata: a\ndata: b\n\n: comment\n\nretry: 10\r\nid:\r\n\r\nid: 9\ndata: cut";
        let mut events = Vec::new();
        for byte in text.as_bytes() {
            parser.feed(&[*byte]);
            events.extend(parser.by_ref());
        }
        let event = |id: &str, retry, data: &str| Event { id: Some(id.to_owned()), retry, data: data.to_owned() };
        assert_eq!(events, [event("1", None, "a\nb"), event("", Some(10), "")]);
    }
}
