//! Framing of server-sent events.
//!
//! ```text
//!   event: message
//!   id: …
//!   data: {…}
//! ```
//!
//! A message never contains a line break, as JSON escapes it, so one `data` line holds it.
//! [`Escaper`](super::escape::Escaper) escapes the separators that some readers take for line breaks.

use std::fmt::Write;

use rmcp::transport::streamable_http_server::session::ServerSseMessage;

use super::escape::{Escaper, SEPARATORS};
use crate::session::Outbound;

/// Appends the event of a notification. `push_id` appends its id.
pub(super) fn push_notification(out: &mut String, push_id: impl FnOnce(&mut String), notification: &Outbound) {
    let push_id = |out: &mut String| {
        out.push_str("id: ");
        push_id(out);
        out.push('\n');
    };
    push_message(out, push_id, |out| notification.push_json(out));
}

/// Appends the event of a request, which has no id of its own. The JSON must be on one line.
pub(super) fn push_request(out: &mut String, json: &str) {
    push_message(out, |_| {}, |out| out.push_str(json));
}

/// Appends an event of rmcp.
pub(crate) fn push_event(out: &mut String, event: &ServerSseMessage) {
    let push_fields = |out: &mut String| {
        // Writing to a `String` cannot fail.
        if let Some(id) = &event.event_id {
            let _ = writeln!(out, "id: {id}");
        }
        if let Some(retry) = event.retry {
            let _ = writeln!(out, "retry: {}", retry.as_millis());
        }
    };
    match &event.message {
        Some(message) => match serde_json::to_string(&**message) {
            Ok(json) => push_message(out, push_fields, |out| out.push_str(&json)),
            Err(error) => tracing::error!(%error, "writing a message of the server failed; the client does not get it"),
        },
        None => {
            out.push_str("data: \n");
            push_fields(out);
            out.push('\n');
        }
    }
}

/// Reads events that the functions above wrote. Returns the id of each, if there is one, and its data.
pub(super) fn read(events: &str) -> impl Iterator<Item = (Option<&str>, &str)> {
    events.split_terminator("\n\n").map(|event| {
        let field = |name| event.lines().find_map(|line| line.strip_prefix(name));
        (field("id: "), field("data: ").unwrap_or_default())
    })
}

fn push_message(out: &mut String, push_fields: impl FnOnce(&mut String), push_data: impl FnOnce(&mut String)) {
    // Some readers need the name.
    out.push_str("event: message\n");
    push_fields(out);
    out.push_str("data: ");
    let at = out.len();
    push_data(out);
    escape(out, at);
    out.push_str("\n\n");
}

/// Escapes line separators behind a place. Most texts have none, and are not copied.
fn escape(out: &mut String, at: usize) {
    let text = &out[at..];
    // The loop has no early end, so that it handles many bytes at a time.
    let is_ascii = text.bytes().fold(0, |all, byte| all | byte) < 0x80;
    if is_ascii || !text.contains(SEPARATORS) {
        return;
    }
    let (text, mut escaped, mut escaper) = (out.split_off(at), Vec::new(), Escaper::default());
    escaper.push(text.as_bytes(), &mut escaped);
    out.push_str(&String::from_utf8_lossy(&escaped));
}

#[cfg(test)]
mod tests;
