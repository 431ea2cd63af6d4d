//! [`Outbound`]: a notification in the form for the client.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::MessageId;
use super::drafted::Parts;
use crate::json;
use crate::notification::{ID_KEY, NotificationId};
use crate::trace_context::TraceContext;

/// Notification in the form for the client.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Id that the notification keeps for its whole life. The client finds the id in `params._meta` as
    /// [`Outbound::ID_KEY`].
    pub id: NotificationId,
    /// Number of failed attempts to hand the notification over before this one.
    pub attempt: u32,
    /// Name of the message, by which a client can say that it has the message: see
    /// [`SessionState::Connected`](crate::SessionState).
    ///
    /// `None` for a message that FastMCP pushed. Such a message has neither an id nor the queue's time, so two equal
    /// ones could not be distinguished.
    pub message_id: Option<MessageId>,
    /// Opening of the client's stream for which the message was read. Where the client has opened a newer stream since,
    /// the session answers [`HandOverError::NotReady`](crate::HandOverError::NotReady). The client may have named this
    /// message when it opened that stream, and must not get it twice.
    pub generation: u64,
    /// Trace context of the notification's cause. Boxed, because most notifications have none.
    pub(super) trace_context: Option<Box<TraceContext>>,
    /// Text of the message in the queue.
    pub(super) raw: String,
    pub(super) content: Content,
}

/// Method and params of a notification.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// Parts of the message's text, which the client gets unchanged except for `_meta`. Nothing is copied before the
    /// notification is sent.
    Queued(Parts),
    /// Texts that were composed from the fields of the message.
    Composed { method: String, params: String },
}

impl Outbound {
    /// Name of the field of `_meta` with the notification's id.
    pub const ID_KEY: &str = ID_KEY;

    /// Creates a notification from texts in the form for the client.
    #[cfg(all(test, feature = "rmcp"))]
    pub(crate) fn composed(id: NotificationId, method: &str, params: &str) -> Self {
        let content = Content::Composed { method: method.to_owned(), params: params.to_owned() };
        Self { id, attempt: 0, message_id: None, generation: 0, trace_context: None, raw: String::new(), content }
    }

    /// Returns the method, which begins with `notifications/`.
    pub fn method(&self) -> &str {
        match &self.content {
            Content::Queued(parts) => &self.raw[parts.method.clone()],
            Content::Composed { method, .. } => method,
        }
    }

    /// Returns the trace context of the notification's cause: the one that travelled beside the notification, or else
    /// that of the producer's `_meta`.
    pub fn trace_context(&self) -> Option<&TraceContext> {
        self.trace_context.as_deref()
    }

    /// Returns the params as JSON text: an object on one line, `_meta` included.
    ///
    /// Each value is the text that its producer pushed. Numbers keep their digits and strings their escapes. Inner
    /// objects keep their fields in the same order, also where a name occurs twice.
    ///
    /// The fields of the object itself and of `_meta` keep their order, and a producer's `_meta` comes last. The names
    /// of these fields may be written with other escapes, and the space around them may be removed.
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
    /// [`serde_json::Error`] where the params do not fit the type. A `Value` does not fit where a number exceeds every
    /// `f64`.
    pub fn parse_params<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.params())
    }

    /// Returns the whole JSON-RPC message as text on one line.
    pub fn to_json(&self) -> String {
        let mut text = String::with_capacity(self.size_hint());
        self.push_json(&mut text);
        text
    }

    /// Returns the approximate length of [`to_json`](Self::to_json). The length is too small only where the method
    /// needs escapes.
    pub(crate) fn size_hint(&self) -> usize {
        128 + match &self.content {
            Content::Queued(_) => self.raw.len(),
            Content::Composed { method, params, .. } => method.len() + params.len(),
        }
    }

    /// Appends the whole JSON-RPC message as text on one line.
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
        let Parts { fields, .. } = match &self.content {
            Content::Queued(parts) => parts,
            Content::Composed { params, .. } => return text.push_str(params),
        };
        text.push('{');
        if !fields.is_empty() {
            text.push_str(&self.raw[fields.clone()]);
            text.push(',');
        }
        text.push_str("\"_meta\":{\"");
        // A message of this form has no other `_meta`.
        for (name, value) in self.trace_context.iter().flat_map(|context| context.parts()) {
            text.push_str(name);
            text.push_str("\":");
            json::push_string(text, value);
            text.push_str(",\"");
        }
        text.push_str(ID_KEY);
        text.push_str("\":\"");
        text.push_str(self.id.0.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()));
        text.push_str("\"}}");
    }
}
