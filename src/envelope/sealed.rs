//! Sealed messages: the reader that opens them, and their stored form.
//!
//! An opened message is read as if its notification had been pushed in clear: the opened text takes the place of the
//! field `sealed`. The stored text stays beside it. A failed attempt, a dead letter and a redrive write that one, so a
//! message is sealed once in its life, under one key.

use std::time::Duration;

use super::drafted::{Drafted, DraftedSealed};
use super::wire::{Wire, fields_of};
use super::{Envelope, Undecodable};
use crate::json::{self, Fields};
use crate::question::{ASKS, AtRest, QuestionRoute};
use crate::seal::{Binding, FIELD, Purpose, Refused, Sealed, SealingKeys, Unopened};
use crate::timestamp::Timestamp;

/// Notification in place of the one that cannot be opened. No session gets it.
const CLOSED: &str = "{\"method\":\"notifications/mcp-courier/closed\"}";

/// Stored form of a message that is sealed, or refused because it is plain.
#[derive(Debug, Clone)]
pub(super) struct Sealing {
    /// Text of the message in the queue.
    pub(super) stored: String,
    /// Reason for which the message is not used, if there is one.
    pub(super) refused: Option<Refused>,
}

impl Sealing {
    /// Returns whether the stored text is sealed. A plain one stands here only where it is refused for that.
    pub(super) fn is_sealed(&self) -> bool {
        self.refused != Some(Refused::Plain)
    }
}

/// Id of the key that opened the field `sealed`, or the reason for which the text stays closed.
pub(super) type Opened = Result<String, Unopened>;

impl Envelope {
    /// Adds the stored text of a sealed message, and marks its question as sealed.
    pub(super) fn with_sealing(mut self, opened: Opened, stored: String) -> Self {
        let refused = match opened {
            Ok(key) => {
                if let Some(question) = &mut self.question {
                    question.at_rest = AtRest::Sealed(key.into());
                }
                None
            }
            Err(why) => Some(Refused::Unopened(why)),
        };
        self.sealing = Some(Box::new(Sealing { stored, refused }));
        self
    }

    /// Adds the text of a plain message that should be sealed.
    pub(super) fn with_plain_refused(mut self, stored: String) -> Self {
        self.sealing = Some(Box::new(Sealing { stored, refused: Some(Refused::Plain) }));
        self
    }
}

/// Reads a message of any form. A plain one lacks its text, which the caller adds.
///
/// # Errors
/// [`Undecodable`] where the message, or what was sealed in it, has not the form of a message.
pub(super) fn read_any(
    queue: &str,
    raw: &str,
    default_time_to_live: Duration,
    keys: Option<&SealingKeys>,
) -> Result<(Envelope, Option<Opened>), Undecodable> {
    let drafted = DraftedSealed::read(raw);
    let opened = drafted.as_ref().map(|message| open(&message.sealed, queue, message.id, keys));
    if let (Some(DraftedSealed { before, after, .. }), Some(Ok((content, key)))) = (drafted, &opened) {
        let text = [before, "\"notification\":", content, after].concat();
        // What was sealed may need the full reader, as the status of a task does.
        if let Some(drafted) = Drafted::read(&text) {
            return Ok((Envelope::of_drafted(drafted, text), Some(Ok(key.clone()))));
        }
    }
    let fields = fields_of(raw)?;
    match fields.get(FIELD).and_then(Sealed::of) {
        None => Ok((Envelope::of_wire(queue, Wire::of(&fields)?, raw.len(), default_time_to_live)?, None)),
        Some(sealed) => {
            let opened = opened.unwrap_or_else(|| {
                let id = fields.get("id").and_then(json::string).unwrap_or_default();
                sealed.and_then(|sealed| open(&sealed, queue, &id, keys))
            });
            read_sealed(queue, fields, opened, default_time_to_live)
        }
    }
}

/// Opens what is sealed in the message of this id. Returns the text, and the id of the key.
fn open(sealed: &Sealed<'_>, queue: &str, id: &str, keys: Option<&SealingKeys>) -> Result<(String, String), Unopened> {
    let text = sealed.open(keys, &Binding { purpose: Purpose::Notification, owner: queue, id })?;
    Ok((text, sealed.key.to_owned()))
}

/// Reads a sealed message of any form.
fn read_sealed(
    queue: &str,
    fields: Fields<'_>,
    opened: Result<(String, String), Unopened>,
    default_time_to_live: Duration,
) -> Result<(Envelope, Option<Opened>), Undecodable> {
    let (content, key) = match opened {
        Ok((text, key)) => (text, Ok(key)),
        Err(why) => (CLOSED.to_owned(), Err(why)),
    };
    // Checked alone: text behind an object would become fields of the message.
    if Fields::of(&content).is_err() {
        return Err(Undecodable::Json("what was sealed in it is no JSON object".to_owned()));
    }
    let route = fields.get(ASKS).and_then(QuestionRoute::from_json);
    let mut fields = fields;
    // A field `notification` beside the sealed one is not what was sealed.
    for other in [FIELD, ASKS, "notification"] {
        fields.remove(other);
    }
    fields.set("notification", &content);
    let text = fields.to_text();
    let fields = fields_of(&text)?;
    let mut envelope = Envelope::of_wire(queue, Wire::of(&fields)?, text.len(), default_time_to_live)?;
    if let Err(why) = &key {
        let deadline = envelope.expires_at.unwrap_or(Timestamp(0)).to_system();
        let question = route.map(|route| route.refused(Refused::Unopened(why.clone()), deadline));
        envelope.question = question.map(Box::new);
    }
    Ok((envelope.with_text(text), Some(key)))
}

#[cfg(all(test, feature = "seal", feature = "server"))]
mod tests;
