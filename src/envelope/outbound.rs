//! [`Outbound`]: a notification as the client gets it.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::MessageId;
use super::drafted::Parts;
use crate::json;
use crate::notification::{ID_KEY, NotificationId};

/// A notification as the client gets it.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Its id for its whole life; in `params._meta` as [`Outbound::ID_KEY`] too.
    pub id: NotificationId,
    /// How many attempts to hand it over have failed before this one.
    pub attempt: u32,
    /// Name of the queue's message, by which a client can say that it has it: [`SessionState::Ready`](crate::SessionState). `None` for
    /// what FastMCP pushed, which has neither an id nor the queue's time: two equal ones could not be told apart.
    pub message_id: Option<MessageId>,
    /// Opening of the client's stream for which it was read. A session whose client has opened another one since answers
    /// [`HandOverError::NotReady`](crate::HandOverError::NotReady): with that one the client may have said that it has this notification.
    pub opened: u64,
    /// The message as it lies in the queue.
    pub(super) raw: String,
    pub(super) content: Content,
}

/// Method and params of a notification.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// Both stand in the message of the queue as the client gets them, but for `_meta`. Nothing is copied before it goes out.
    Queued(Parts),
    /// Both were put together of what is in the message.
    Composed { method: String, params: String },
}

impl Outbound {
    /// Where in `_meta` the id stands.
    pub const ID_KEY: &str = ID_KEY;

    /// Makes a notification of texts that are as the client gets them.
    #[cfg(all(test, feature = "rmcp"))]
    pub(crate) fn composed(id: NotificationId, method: &str, params: &str) -> Self {
        let content = Content::Composed { method: method.to_owned(), params: params.to_owned() };
        Self { id, attempt: 0, message_id: None, opened: 0, raw: String::new(), content }
    }

    /// Returns its method.
    pub fn method(&self) -> &str {
        match &self.content {
            Content::Queued(parts) => &self.raw[parts.method.clone()],
            Content::Composed { method, .. } => method,
        }
    }

    /// Returns its params as JSON text, an object on one line, `_meta` included.
    ///
    /// Each value is the text that its producer pushed: its numbers have the same digits, its strings the same escapes,
    /// and inner objects the same fields in the same order, also where a name occurs twice. The fields of the object itself
    /// and of `_meta` keep their order. Their names may be written anew, and the space around them may go. A producer's
    /// `_meta` stands at the end.
    pub fn params(&self) -> Cow<'_, str> {
        match &self.content {
            Content::Queued(parts) => {
                let mut text = String::with_capacity(parts.fields.len() + 128);
                self.push_params(&mut text);
                text.into()
            }
            Content::Composed { params, .. } => params.into(),
        }
    }

    /// Reads the params as a type, or as a [`Value`](serde_json::Value).
    ///
    /// A `Value` holds whole numbers of 64 bits, and any other number as the nearest `f64`.
    ///
    /// # Errors
    /// [`serde_json::Error`] where the params are not of that type; for a `Value` where a number is beyond any `f64`.
    pub fn parse_params<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.params())
    }

    /// Returns the whole JSON-RPC message as text, on one line.
    pub fn to_json(&self) -> String {
        let mut text = String::with_capacity(self.size_hint());
        self.push_json(&mut text);
        text
    }

    /// Returns about the length of [`to_json`](Self::to_json), and not less but where the method has escapes.
    pub(crate) fn size_hint(&self) -> usize {
        128 + match &self.content {
            Content::Queued(_) => self.raw.len(),
            Content::Composed { method, params, .. } => method.len() + params.len(),
        }
    }

    /// Appends the whole JSON-RPC message as text, on one line.
    pub(crate) fn push_json(&self, text: &mut String) {
        match &self.content {
            Content::Queued(_) => {
                text.push_str("{\"jsonrpc\":\"2.0\",\"method\":\"");
                text.push_str(self.method());
                text.push_str("\",\"params\":");
            }
            Content::Composed { method, .. } => {
                text.push_str("{\"jsonrpc\":\"2.0\",\"method\":");
                json::push_string(text, method);
                text.push_str(",\"params\":");
            }
        }
        self.push_params(text);
        text.push('}');
    }

    fn push_params(&self, text: &mut String) {
        let Parts { fields, traceparent, .. } = match &self.content {
            Content::Queued(parts) => parts,
            Content::Composed { params, .. } => return text.push_str(params),
        };
        text.push('{');
        if !fields.is_empty() {
            text.push_str(&self.raw[fields.clone()]);
            text.push(',');
        }
        text.push_str("\"_meta\":{\"");
        if let Some(traceparent) = traceparent {
            text.push_str("traceparent\":\"");
            text.push_str(&self.raw[traceparent.clone()]);
            text.push_str("\",\"");
        }
        text.push_str(ID_KEY);
        text.push_str("\":\"");
        text.push_str(self.id.0.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()));
        text.push_str("\"}}");
    }
}
