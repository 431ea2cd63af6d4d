//! [`Question`]: a background task's question to its user (MCP's elicitation), and its JSON in Redis.
//!
//! The JSON is FastMCP's, with additional fields of this crate.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use percent_encoding::utf8_percent_encode;
use serde_json::{Map, Value, json};

use crate::json::{MAX_DEPTH, nests_deeper};
#[cfg(feature = "server")]
use crate::seal::Refused;
use crate::session_id::ENCODED;
use crate::timestamp::Timestamp;
use crate::trace_context::TraceContext;

#[cfg(any(feature = "elicitation", feature = "server"))]
mod answer;
mod form;
#[cfg(any(feature = "elicitation", feature = "rmcp"))]
mod json_rpc;
#[cfg(any(feature = "elicitation", feature = "server"))]
mod open;
mod route;

#[cfg(any(feature = "elicitation", feature = "server"))]
pub use self::answer::Answer;
#[cfg(feature = "elicitation")]
pub(crate) use self::form::{ALLOWED, FORMATS};
#[cfg(feature = "rmcp")]
pub(crate) use self::json_rpc::JSON_RPC_ID;
pub(crate) use self::route::{ASKS, AtRest, QuestionRoute};

/// Key in `_meta` under which FastMCP puts the data for its relay.
pub(crate) const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";

/// Time for which FastMCP waits for an answer where the question names no deadline.
const FASTMCP_PATIENCE: Duration = Duration::from_secs(3600);

/// Task, with the authorisation scope that it belongs to.
///
/// The scope is FastMCP's: usually the client id, or client id and subject. `None` is for a server without
/// authentication. Both parts are in the keys, so an answer under one scope never reaches a task of another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaskKey {
    scope: Option<String>,
    id: String,
}

impl TaskKey {
    /// Length of the longest task id, and of the longest scope, in bytes.
    pub const MAX_LEN: usize = 256;

    /// Creates the key of a task on a server without authentication.
    ///
    /// # Errors
    /// [`InvalidQuestion::Task`] where the id is empty, too long or has control characters.
    pub fn anonymous(id: impl Into<String>) -> Result<Self, InvalidQuestion> {
        Self::checked(None, id.into())
    }

    /// Creates the key of an authenticated user's or client's task.
    ///
    /// # Errors
    /// [`InvalidQuestion::Task`] where the id or the scope is empty, too long or has control characters.
    pub fn of_scope(scope: impl Into<String>, id: impl Into<String>) -> Result<Self, InvalidQuestion> {
        Self::checked(Some(scope.into()), id.into())
    }

    fn checked(scope: Option<String>, id: String) -> Result<Self, InvalidQuestion> {
        for (what, text) in [("id", Some(&id)), ("scope", scope.as_ref())] {
            let Some(text) = text else { continue };
            if text.is_empty() || text.len() > Self::MAX_LEN || text.chars().any(char::is_control) {
                return Err(InvalidQuestion::Task { what, length: text.len() });
            }
        }
        Ok(Self { scope, id })
    }

    /// Returns the task's id, `taskId` in MCP.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the scope, if there is one.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// Returns the task's part of a key in Redis: `anon:{id}` or `auth:{scope}:{id}`.
    pub(crate) fn in_key(&self) -> String {
        let id = utf8_percent_encode(&self.id, ENCODED);
        match &self.scope {
            None => format!("anon:{id}"),
            Some(scope) => format!("auth:{}:{id}", utf8_percent_encode(scope, ENCODED)),
        }
    }
}

/// Question to a user: `params` of MCP's `elicitation/create`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Elicitation {
    /// Form mode: the client shows a form.
    Form {
        /// Text that the user reads.
        message: String,
        /// Schema of the form (`requestedSchema`): an object with properties of primitive types. Never ask for secrets
        /// in a form.
        ///
        /// Numbers in the schema are those of a [`Value`]: whole numbers of 64 bits, and any other number as the
        /// nearest `f64`.
        requested_schema: Map<String, Value>,
    },
    /// URL mode: the client sends its user to a page.
    Url {
        /// Text that the user reads.
        message: String,
        /// URL of the page.
        url: String,
        /// Id for [`Notification::elicitation_complete`](crate::Notification::elicitation_complete) (`elicitationId`).
        elicitation_id: String,
    },
}

impl Elicitation {
    /// Creates a question in form mode.
    ///
    /// # Errors
    /// [`InvalidQuestion::Schema`] where the schema is not that of an object with primitive properties. MCP demands
    /// such an object. Primitive are strings, numbers, integers, booleans, and choices of one or several names. The
    /// error names the property.
    pub fn form(message: impl Into<String>, requested_schema: Value) -> Result<Self, InvalidQuestion> {
        let wrong = |why: String| InvalidQuestion::Schema { why };
        let Value::Object(schema) = requested_schema else {
            return Err(wrong("it is not a JSON object".to_owned()));
        };
        if schema.get("type") != Some(&json!("object")) {
            return Err(wrong("its type is not \"object\"".to_owned()));
        }
        let Some(Value::Object(properties)) = schema.get("properties") else {
            return Err(wrong("its properties are not a JSON object".to_owned()));
        };
        // The schema is three levels deep in `_meta`.
        if nests_deeper(schema.values(), MAX_DEPTH - 4) {
            return Err(wrong(format!("it is nested deeper than {} levels", MAX_DEPTH - 3)));
        }
        for (name, property) in properties {
            if !form::is_allowed(property) {
                return Err(wrong(format!("field {name:?} is none that MCP allows; {}", form::ALLOWED)));
            }
        }
        Ok(Self::Form { message: message.into(), requested_schema: schema })
    }

    /// Creates a question in URL mode. Nothing is checked: the caller passes a valid URL, and an `elicitation_id` that
    /// is unique and the server's own.
    pub fn url(message: impl Into<String>, url: impl Into<String>, elicitation_id: impl Into<String>) -> Self {
        Self::Url { message: message.into(), url: url.into(), elicitation_id: elicitation_id.into() }
    }

    /// Returns the text that the user reads.
    pub fn message(&self) -> &str {
        match self {
            Self::Form { message, .. } | Self::Url { message, .. } => message,
        }
    }

    /// Returns the JSON under which FastMCP keeps the open question of a task.
    #[cfg(feature = "elicitation")]
    pub(crate) fn to_request(&self, request_id: &str) -> String {
        let mut request = json!({"request_id": request_id, "message": self.message()});
        if let Self::Form { requested_schema, .. } = self {
            request["schema"] = json!(requested_schema);
        }
        request.to_string()
    }
}

/// Open question of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Id of the question. An answer belongs to this id, and to no other question of the same task.
    pub request_id: String,
    /// Task that asks.
    pub task: TaskKey,
    /// Question to the user.
    pub elicitation: Elicitation,
    /// Time after which no worker waits for an answer, by the clock of the queue.
    pub deadline: SystemTime,
    /// Trace context of the question's cause. `None` where the notification that brought the question had none.
    pub trace_context: Option<Box<TraceContext>>,
    /// Form in which the question came from the queue, and in which it is stored among the open questions.
    pub(crate) at_rest: AtRest,
}

impl Question {
    /// Creates a question, for tests of an [`McpSession`](crate::McpSession).
    pub fn new(request_id: impl Into<String>, task: TaskKey, elicitation: Elicitation, deadline: SystemTime) -> Self {
        let trace_context = None;
        Self { request_id: request_id.into(), task, elicitation, deadline, trace_context, at_rest: AtRest::Plain }
    }

    /// Returns the reason for which the question is not asked, if there is one.
    #[cfg(feature = "server")]
    pub(crate) fn refused(&self) -> Option<&Refused> {
        match &self.at_rest {
            AtRest::Refused(why) => Some(why),
            AtRest::Plain | AtRest::Sealed(_) => None,
        }
    }

    /// Moves the deadline, where it was computed from a wrong time of the push.
    #[cfg(feature = "server")]
    pub(crate) fn queued_at(&mut self, said: Timestamp, corrected: Timestamp) {
        if self.deadline == said.plus(FASTMCP_PATIENCE).to_system() {
            self.deadline = corrected.plus(FASTMCP_PATIENCE).to_system();
        }
    }

    /// Returns whether a question can have this id. A client's answer may name any id, and an impossible one is not
    /// looked up.
    pub(crate) fn id_is_possible(request_id: &str) -> bool {
        (1..=TaskKey::MAX_LEN).contains(&request_id.len())
    }

    /// Returns the `params` of `elicitation/create` for the client. MCP demands that a message about a task names the
    /// task, so `_meta` has the task's id. `_meta` also has the trace context, if there is one.
    pub fn to_params(&self) -> Map<String, Value> {
        let params = match &self.elicitation {
            // `mode` is optional for a form, and clients before 2025-11-25 do not know the field.
            Elicitation::Form { message, requested_schema } => {
                json!({"message": message, "requestedSchema": requested_schema})
            }
            Elicitation::Url { message, url, elicitation_id } => {
                json!({"mode": "url", "message": message, "url": url, "elicitationId": elicitation_id})
            }
        };
        let mut params = match params {
            Value::Object(params) => params,
            _ => Map::new(),
        };
        let mut meta = Map::from_iter([(RELATED_TASK.to_owned(), json!({"taskId": self.task.id}))]);
        let parts = self.trace_context.iter().flat_map(|context| context.parts());
        meta.extend(parts.map(|(name, text)| (name.to_owned(), json!(text))));
        params.insert("_meta".to_owned(), Value::Object(meta));
        params
    }

    /// Reads the relay's part of a task's status, if there is one.
    pub(crate) fn from_related_task(related: &Value, enqueued_at: Option<Timestamp>) -> Option<Self> {
        let elicitation = related.get("elicitation")?;
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let task = route::task_of(related)?;
        let message = text(elicitation, "message").unwrap_or_default();
        let asked = match elicitation.get("mode").and_then(Value::as_str) {
            Some("url") => Elicitation::url(message, text(elicitation, "url")?, text(elicitation, "elicitationId")?),
            // A question of FastMCP's passes unchanged. The client judges its schema.
            _ => Elicitation::Form {
                message,
                requested_schema: elicitation.get("requestedSchema")?.as_object()?.clone(),
            },
        };
        let deadline = text(elicitation, "deadline")
            .and_then(|at| Timestamp::parse(&at))
            .or_else(|| enqueued_at.map(|at| at.plus(FASTMCP_PATIENCE)))?;
        let request_id = text(elicitation, "requestId").filter(|id| Self::id_is_possible(id))?;
        let question = Self::new(request_id, task, asked, deadline.to_system());
        // Only an open question has the trace context here. That of a notification stands beside the notification.
        let trace_context = TraceContext::read(|name| text(elicitation, name).map(Cow::Owned)).map(Box::new);
        Some(Self { trace_context, ..question })
    }
}

/// Reason why a question cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidQuestion {
    /// The id or the scope of a task cannot be used.
    #[error(
        "the {what} of a task must have 1 to {max} bytes and no control characters, and this one has {length} bytes",
        max = TaskKey::MAX_LEN
    )]
    Task {
        /// Faulty part: `id` or `scope`.
        what: &'static str,
        /// Length of the id or scope, in bytes.
        length: usize,
    },
    /// MCP does not allow the schema for a form.
    #[error("the requested schema must be of an object with primitive properties, and {why}")]
    Schema {
        /// Fault of the schema, for the error's text.
        why: String,
    },
    /// The time to wait for an answer is out of range.
    #[error("the timeout of a question must be 1 ms to 365 days, and this one is {given:?}")]
    Timeout {
        /// Time that was given.
        given: Duration,
    },
}

#[cfg(all(test, feature = "elicitation", feature = "server"))]
mod tests;
