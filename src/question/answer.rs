//! [`Answer`]: reply of a user to a question, and its JSON in Redis.

use serde_json::{Map, Value, json};

/// Outcome of a question: MCP's `ElicitResult`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Answer {
    /// The user answered with this content, which is empty in URL mode.
    Accept(Map<String, Value>),
    /// The user declined.
    Decline,
    /// The user dismissed the question, or could not be asked.
    Cancel {
        /// Reason, where the cancellation was not the user's act.
        reason: Option<String>,
    },
}

impl Answer {
    /// Returns the value of the label `outcome`.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Accept(_) => "accepted",
            Self::Decline => "declined",
            Self::Cancel { .. } => "cancelled",
        }
    }

    /// Creates a cancellation that is not the user's act.
    pub(crate) fn cancelled(reason: impl Into<String>) -> Self {
        Self::Cancel { reason: Some(reason.into()) }
    }

    /// Returns the answer, or a cancellation where the answer has more than `limit` bytes on the wire. Only HTTP bounds
    /// the size of a client's answer otherwise.
    #[cfg(feature = "server")]
    pub(crate) fn within(self, limit: usize) -> Self {
        let bytes = self.to_wire("").len();
        if bytes <= limit {
            return self;
        }
        Self::cancelled(format!("the answer has {bytes} bytes, and at most {limit} are allowed"))
    }

    /// Returns MCP's word for the answer.
    pub(crate) fn action(&self) -> &'static str {
        match self {
            Self::Accept(_) => "accept",
            Self::Decline => "decline",
            Self::Cancel { .. } => "cancel",
        }
    }

    /// Returns the JSON that the worker reads, with the id of the question. FastMCP reads `action` and `content`.
    pub(crate) fn to_wire(&self, request_id: &str) -> String {
        let (content, reason) = match self {
            Self::Accept(content) => (Some(content), None),
            Self::Decline => (None, None),
            Self::Cancel { reason } => (None, reason.as_ref()),
        };
        let mut wire = json!({"action": self.action(), "content": content, "request_id": request_id});
        if let Some(reason) = reason {
            wire["reason"] = json!(reason);
        }
        wire.to_string()
    }

    /// Reads an answer to `request_id`. Returns `None` where the answer is to another question. An answer of FastMCP
    /// names no question, and counts.
    #[cfg(feature = "elicitation")]
    pub(crate) fn from_wire(wire: &[u8], request_id: &str) -> Option<Self> {
        let wire: Value = serde_json::from_slice(wire).ok()?;
        match wire.get("request_id") {
            Some(id) if id != request_id => None,
            _ => Some(Self::from_result(&wire)),
        }
    }

    /// Reads a client's `ElicitResult`.
    #[cfg(any(feature = "elicitation", feature = "rmcp"))]
    pub(crate) fn from_result(result: &Value) -> Self {
        match result.get("action").and_then(Value::as_str) {
            Some("accept") => {
                Self::Accept(result.get("content").and_then(Value::as_object).cloned().unwrap_or_default())
            }
            Some("decline") => Self::Decline,
            Some("cancel") => Self::Cancel { reason: result.get("reason").and_then(Value::as_str).map(str::to_owned) },
            _ => Self::cancelled("the client's answer has no action that MCP knows"),
        }
    }
}
