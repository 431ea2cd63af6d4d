//! [`Outbound`]: a notification as the client gets it.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::MessageId;
use crate::json;
use crate::notification::{ID_KEY, NotificationId};

/// A notification as the client gets it.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Its id for its whole life; in `params._meta` as [`Outbound::ID_KEY`] too.
    pub id: NotificationId,
    /// Its method.
    pub method: String,
    /// Its params as JSON text, an object on one line, `_meta` included.
    ///
    /// Each value is the text that its producer pushed: its numbers have the same digits, its strings the same escapes,
    /// and inner objects the same fields in the same order, also where a name occurs twice. The fields of the object itself
    /// and of `_meta` keep their order. Their names may be written anew, and the space around them may go. A producer's
    /// `_meta` stands at the end.
    pub params: Box<RawValue>,
    /// How many attempts to hand it over have failed before this one.
    pub attempt: u32,
    /// Name of the queue's message, by which a client can say that it has it: [`SessionState::Ready`](crate::SessionState). `None` for
    /// what FastMCP pushed, which has neither an id nor the queue's time: two equal ones could not be told apart.
    pub message_id: Option<MessageId>,
    /// Opening of the client's stream for which it was read. A session whose client has opened another one since answers
    /// [`HandOverError::NotReady`](crate::HandOverError::NotReady): with that one the client may have said that it has this notification.
    pub opened: u64,
}

impl Outbound {
    /// Where in `_meta` the id stands.
    pub const ID_KEY: &str = ID_KEY;

    /// Reads the params as a type, or as a [`Value`](serde_json::Value).
    ///
    /// A `Value` holds whole numbers of 64 bits, and any other number as the nearest `f64`.
    ///
    /// # Errors
    /// [`serde_json::Error`] where the params are not of that type; for a `Value` where a number is beyond any `f64`.
    pub fn parse_params<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.params.get())
    }

    /// Returns the whole JSON-RPC message as text, on one line.
    pub fn to_json(&self) -> String {
        let mut text = String::with_capacity(self.params.get().len() + self.method.len() + 48);
        self.push_json(&mut text);
        text
    }

    /// Appends the whole JSON-RPC message as text, on one line.
    pub(crate) fn push_json(&self, text: &mut String) {
        text.push_str("{\"jsonrpc\":\"2.0\",\"method\":");
        json::push_string(text, &self.method);
        text.push_str(",\"params\":");
        text.push_str(self.params.get());
        text.push('}');
    }
}
