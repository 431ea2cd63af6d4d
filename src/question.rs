//! A question of a background task to its user, MCP's elicitation, as it lies in Redis: FastMCP's JSON with ours besides.

use std::time::{Duration, SystemTime};

use percent_encoding::utf8_percent_encode;
use serde_json::{Map, Value, json};

use crate::json::{MAX_DEPTH, nests_deeper};
use crate::session_id::ENCODED;
use crate::timestamp::Timestamp;

mod form;

pub(crate) use self::form::{ALLOWED, FORMATS};

/// Where in `_meta` FastMCP puts what its relay needs.
pub(crate) const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";

/// What the JSON-RPC id of a question begins with.
pub(crate) const JSON_RPC_ID: &str = "mcp-courier:elicit:";

/// How long FastMCP waits for an answer, where the question does not say.
const FASTMCP_PATIENCE: Duration = Duration::from_secs(3600);

/// A task and the authorisation scope that it belongs to.
///
/// The scope is FastMCP's: usually the client id, or client id and subject; `None` is for a server without authentication.
/// Both are part of the keys, so that an answer under one scope never reaches a task of another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaskKey {
    scope: Option<String>,
    id: String,
}

impl TaskKey {
    /// The longest task id and the longest scope, in bytes.
    pub const MAX_LEN: usize = 256;

    /// A task of a server without authentication.
    ///
    /// # Errors
    /// [`InvalidQuestion::Task`] where the id is empty, too long or has control characters.
    pub fn anonymous(id: impl Into<String>) -> Result<Self, InvalidQuestion> {
        Self::checked(None, id.into())
    }

    /// A task of an authenticated user or client.
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

    /// `taskId`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The scope, if any.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// As it stands in a key: `anon:{id}` or `auth:{scope}:{id}`.
    pub(crate) fn in_key(&self) -> String {
        let id = utf8_percent_encode(&self.id, ENCODED);
        match &self.scope {
            None => format!("anon:{id}"),
            Some(scope) => format!("auth:{}:{id}", utf8_percent_encode(scope, ENCODED)),
        }
    }
}

/// What the user is asked: `params` of MCP's `elicitation/create`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Elicitation {
    /// Form mode: the client shows a form.
    Form {
        /// What the user reads.
        message: String,
        /// `requestedSchema`: an object with properties of primitive types. Never ask for secrets by it.
        ///
        /// Numbers in it are those of a [`Value`]: whole ones of 64 bits, and any other as the nearest `f64`.
        requested_schema: Map<String, Value>,
    },
    /// URL mode: the client sends its user to a page.
    Url {
        /// What the user reads.
        message: String,
        /// Where to go.
        url: String,
        /// `elicitationId`, for [`Notification::elicitation_complete`](crate::Notification::elicitation_complete).
        elicitation_id: String,
    },
}

impl Elicitation {
    /// A form.
    ///
    /// # Errors
    /// [`InvalidQuestion::Schema`] where the schema is not of an object whose properties are primitive, as MCP demands:
    /// strings, numbers, integers, booleans, and choices of one or several names. The error names the property.
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
        // It goes out three levels down in `_meta`.
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

    /// A page to go to. Nothing is checked: the URL must be one, and `elicitation_id` must be the server's own, and unique.
    pub fn url(message: impl Into<String>, url: impl Into<String>, elicitation_id: impl Into<String>) -> Self {
        Self::Url { message: message.into(), url: url.into(), elicitation_id: elicitation_id.into() }
    }

    /// What the user reads.
    pub fn message(&self) -> &str {
        match self {
            Self::Form { message, .. } | Self::Url { message, .. } => message,
        }
    }

    /// As FastMCP keeps the question under way of a task.
    pub(crate) fn to_request(&self, request_id: &str) -> String {
        let mut request = json!({"request_id": request_id, "message": self.message()});
        if let Self::Form { requested_schema, .. } = self {
            request["schema"] = json!(requested_schema);
        }
        request.to_string()
    }
}

/// One question under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Which. An answer is to this, and to no other question of the same task.
    pub request_id: String,
    /// Whose.
    pub task: TaskKey,
    /// What.
    pub elicitation: Elicitation,
    /// Time after which no worker waits for an answer, by the clock of the queue.
    pub deadline: SystemTime,
}

impl Question {
    /// The JSON-RPC id of the request by which a client is asked. It names the question, so that any server of the fleet
    /// knows what an answer is to.
    pub(crate) fn json_rpc_id(request_id: &str) -> String {
        format!("{JSON_RPC_ID}{request_id}")
    }

    /// Moves the deadline, where it was derived from the time at which the notification was queued.
    pub(crate) fn queued_at(&mut self, said: Timestamp, corrected: Timestamp) {
        if self.deadline == said.plus(FASTMCP_PATIENCE).to_system() {
            self.deadline = corrected.plus(FASTMCP_PATIENCE).to_system();
        }
    }

    /// The other way.
    #[cfg(feature = "rmcp")]
    pub(crate) fn id_from_json_rpc(id: &str) -> Option<&str> {
        id.strip_prefix(JSON_RPC_ID)
    }

    /// A client's answer may name anything. What no question can be called is not looked for.
    pub(crate) fn id_is_possible(request_id: &str) -> bool {
        (1..=TaskKey::MAX_LEN).contains(&request_id.len())
    }

    /// What the client gets as `params` of `elicitation/create`. A message of a task other than its status says whose it is.
    pub fn to_params(&self) -> Map<String, Value> {
        let params = match &self.elicitation {
            // The mode may be left out for a form, and clients before 2025-11-25 do not know it.
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
        params.insert("_meta".to_owned(), json!({RELATED_TASK: {"taskId": self.task.id}}));
        params
    }

    /// The relay's part of `_meta`, as FastMCP reads it.
    pub(crate) fn to_related_task(&self) -> Value {
        let mut elicitation = json!({
            "requestId": self.request_id,
            "message": self.elicitation.message(),
            "deadline": Timestamp::from_system(self.deadline).to_string(),
        });
        match &self.elicitation {
            Elicitation::Form { requested_schema, .. } => elicitation["requestedSchema"] = json!(requested_schema),
            Elicitation::Url { url, elicitation_id, .. } => {
                elicitation["mode"] = json!("url");
                elicitation["url"] = json!(url);
                elicitation["elicitationId"] = json!(elicitation_id);
            }
        }
        json!({
            "taskId": self.task.id,
            "status": "input_required",
            "statusMessage": self.elicitation.message(),
            // Present and null for anonymous: FastMCP tells that from absent.
            "task_scope": self.task.scope,
            "elicitation": elicitation,
        })
    }

    /// Reads the relay's part of a task's status, if it has one.
    pub(crate) fn from_related_task(related: &Value, enqueued_at: Option<Timestamp>) -> Option<Self> {
        let elicitation = related.get("elicitation")?;
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let id = text(related, "taskId")?;
        // Absent is not anonymous: FastMCP skips the relay then, and so do we.
        let task = match related.get("task_scope")? {
            Value::Null => TaskKey::anonymous(id).ok()?,
            Value::String(scope) => TaskKey::of_scope(scope, id).ok()?,
            _ => return None,
        };
        let message = text(elicitation, "message").unwrap_or_default();
        let asked = match elicitation.get("mode").and_then(Value::as_str) {
            Some("url") => Elicitation::url(message, text(elicitation, "url")?, text(elicitation, "elicitationId")?),
            // What FastMCP asked is passed on as it is: the client judges its schema.
            _ => Elicitation::Form {
                message,
                requested_schema: elicitation.get("requestedSchema")?.as_object()?.clone(),
            },
        };
        let deadline = text(elicitation, "deadline")
            .and_then(|at| Timestamp::parse(&at))
            .or_else(|| enqueued_at.map(|at| at.plus(FASTMCP_PATIENCE)))?;
        let request_id = text(elicitation, "requestId").filter(|id| Self::id_is_possible(id))?;
        Some(Self { request_id, task, elicitation: asked, deadline: deadline.to_system() })
    }

    /// As it stands among the open questions of a queue.
    pub(crate) fn to_open(&self) -> String {
        self.to_related_task().to_string()
    }

    /// The other way.
    pub(crate) fn from_open(text: &[u8]) -> Option<Self> {
        Self::from_related_task(&serde_json::from_slice(text).ok()?, None)
    }
}

/// What came of a question: MCP's `ElicitResult`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Answer {
    /// The user answered: `content`, which is empty in URL mode.
    Accept(Map<String, Value>),
    /// The user said no.
    Decline,
    /// The user gave none, or could not be asked.
    Cancel {
        /// Why, where it was not the user.
        reason: Option<String>,
    },
}

impl Answer {
    /// A cancellation that is not the user's.
    pub(crate) fn cancelled(reason: impl Into<String>) -> Self {
        Self::Cancel { reason: Some(reason.into()) }
    }

    /// Itself, or a cancellation where the worker would find more than so many bytes: what a client sends is bounded by
    /// HTTP only.
    pub(crate) fn within(self, limit: usize) -> Self {
        let bytes = self.to_wire("").len();
        if bytes <= limit {
            return self;
        }
        Self::cancelled(format!("the answer has {bytes} bytes, and at most {limit} are allowed"))
    }

    /// As the worker finds it, under the id of its question. FastMCP reads `action` and `content`.
    pub(crate) fn to_wire(&self, request_id: &str) -> String {
        let (action, content, reason) = match self {
            Self::Accept(content) => ("accept", Some(content), None),
            Self::Decline => ("decline", None, None),
            Self::Cancel { reason } => ("cancel", None, reason.as_ref()),
        };
        let mut wire = json!({"action": action, "content": content, "request_id": request_id});
        if let Some(reason) = reason {
            wire["reason"] = json!(reason);
        }
        wire.to_string()
    }

    /// Reads an answer to `request_id`; `None` where it is to another question. FastMCP's do not say to which.
    pub(crate) fn from_wire(wire: &[u8], request_id: &str) -> Option<Self> {
        let wire: Value = serde_json::from_slice(wire).ok()?;
        match wire.get("request_id") {
            Some(id) if id != request_id => None,
            _ => Some(Self::from_result(&wire)),
        }
    }

    /// Reads what a client answered.
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

/// Rejection of what is no question that can be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidQuestion {
    /// The id or the scope of a task cannot be used.
    #[error(
        "the {what} of a task must have 1 to {max} bytes and no control characters, and this one has {length} bytes",
        max = TaskKey::MAX_LEN
    )]
    Task {
        /// `id` or `scope`.
        what: &'static str,
        /// Length of the id or scope, in bytes.
        length: usize,
    },
    /// The schema is none that MCP allows for a form.
    #[error("the requested schema must be of an object with primitive properties, and {why}")]
    Schema {
        /// Fault of the schema.
        why: String,
    },
    /// The time to wait for an answer is out of range.
    #[error("the timeout of a question must be 1 ms to 365 days, and this one is {given:?}")]
    Timeout {
        /// Time that was given.
        given: Duration,
    },
}

#[cfg(test)]
mod tests;
