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
use crate::question::{AtRest, QuestionRoute};
use crate::seal::{Binding, FIELD, Purpose, Refused, Sealed, SealingKeys, Unopened};
use crate::timestamp::Timestamp;

/// Name of the field with the task and the id of a question. They stand in clear, so that a server that cannot open the
/// question can cancel it.
const ASKS: &str = "asks";

/// Notification in place of the one that cannot be opened. No session gets it.
const CLOSED: &str = "{\"method\":\"notifications/mcp-courier/closed\"}";

/// Stored form of a message that is sealed, or refused because it is plain.
#[derive(Debug, Clone)]
pub(super) struct Sealing {
    /// Text of the message in the queue.
    pub(super) stored: String,
    pub(super) is_sealed: bool,
    /// Reason for which the message is not used, if there is one.
    pub(super) refused: Option<Refused>,
}

/// Result of the reading of the field `sealed`.
#[derive(Debug)]
pub(super) struct Opened {
    /// Id of the key, or the reason for which the text stays closed.
    key: Result<String, Unopened>,
}

impl Envelope {
    /// Adds the stored text of a sealed message, and marks its question as sealed.
    pub(super) fn with_sealing(mut self, Opened { key }: Opened, stored: String) -> Self {
        let refused = match key {
            Ok(key) => {
                if let Some(question) = &mut self.question {
                    question.at_rest = AtRest::Sealed(key.into());
                }
                None
            }
            Err(why) => Some(Refused::Unopened(why)),
        };
        self.sealing = Some(Box::new(Sealing { stored, is_sealed: true, refused }));
        self
    }

    /// Adds the text of a plain message that should be sealed.
    pub(super) fn with_plain_refused(mut self, stored: String) -> Self {
        self.sealing = Some(Box::new(Sealing { stored, is_sealed: false, refused: Some(Refused::Plain) }));
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
    if let Some(read) = DraftedSealed::read(raw).and_then(|message| read_drafted(queue, message, keys)) {
        return Ok(read);
    }
    let fields = fields_of(raw)?;
    match fields.get(FIELD).and_then(Sealed::of) {
        None => Ok((Envelope::of_wire(queue, Wire::of(&fields)?, raw.len(), default_time_to_live)?, None)),
        Some(sealed) => read_sealed(queue, fields, sealed, default_time_to_live, keys),
    }
}

/// Reads a sealed message that has not changed since its push. Returns `None` where the message cannot be opened, or
/// what was sealed needs the full reader.
fn read_drafted(
    queue: &str,
    DraftedSealed { before, sealed, after, id }: DraftedSealed<'_>,
    keys: Option<&SealingKeys>,
) -> Option<(Envelope, Option<Opened>)> {
    let opened = sealed.open(keys, &Binding { purpose: Purpose::Notification, owner: queue, id }).ok()?;
    let text = [before, "\"notification\":", &opened, after].concat();
    let envelope = Envelope::of_drafted(Drafted::read(&text)?, text);
    Some((envelope, Some(Opened { key: Ok(sealed.key.to_owned()) })))
}

/// Reads a sealed message of any form.
fn read_sealed(
    queue: &str,
    fields: Fields<'_>,
    sealed: Result<Sealed<'_>, Unopened>,
    default_time_to_live: Duration,
    keys: Option<&SealingKeys>,
) -> Result<(Envelope, Option<Opened>), Undecodable> {
    let id = fields.get("id").and_then(json::string).unwrap_or_default();
    let binding = Binding { purpose: Purpose::Notification, owner: queue, id: &id };
    let opened = sealed.and_then(|sealed| Ok((sealed.open(keys, &binding)?, sealed.key.to_owned())));
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
    Ok((envelope.with_text(text), Some(Opened { key })))
}

#[cfg(all(test, feature = "seal", feature = "server"))]
mod tests;
