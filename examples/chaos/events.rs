//! Reads `text/event-stream` as browsers do.

use std::string::FromUtf8Error;

/// Events of one stream, which arrives in pieces.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Beginning of an event that is not complete.
    rest: Vec<u8>,
}

/// Complete event.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    /// Data of the event, which servers of this fleet write on one line.
    pub(crate) data: String,
}

impl Events {
    /// Returns the events that a piece completes. An event that is cut before its empty line is none, and its id counts for
    /// nothing.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<Vec<Event>, FromUtf8Error> {
        self.rest.extend_from_slice(piece);
        let Some(end) = self.rest.windows(2).rposition(|pair| pair == b"\n\n") else { return Ok(Vec::new()) };
        let complete = String::from_utf8(self.rest.drain(..end + 2).collect())?;
        Ok(complete.split_terminator("\n\n").map(event).collect())
    }
}

fn event(text: &str) -> Event {
    let mut event = Event::default();
    for (field, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => event.id = Some(value.to_owned()),
            "data" => event.data.push_str(value),
            _ => {}
        }
    }
    event
}
