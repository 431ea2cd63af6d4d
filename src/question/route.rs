//! [`QuestionRoute`]: part of a question that stays in clear where the question is sealed.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::{Elicitation, Question, RELATED_TASK, TaskKey};
use crate::seal::Refused;

/// Name of the field with the task and the id of a question. They stand in clear, so that a server that cannot open the
/// question can cancel it.
pub(crate) const ASKS: &str = "asks";

/// Form of a question in Redis.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum AtRest {
    /// The question is stored as its worker wrote it.
    #[default]
    Plain,
    /// The question is sealed under the key of this id, and is stored under the same key.
    Sealed(Box<str>),
    /// The question is not asked, for this reason. Its text is empty.
    Refused(Box<Refused>),
}

/// Task and id of a question. Both stand in the names and values of other keys anyway. A server that cannot open the
/// question cancels it by them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuestionRoute {
    task: TaskKey,
    request_id: String,
}

impl QuestionRoute {
    /// Returns the route of the question in the text of a notification's `_meta`, if there is one.
    pub(crate) fn in_meta(meta: &str) -> Option<Self> {
        let meta: Map<String, Value> = serde_json::from_str(meta).ok()?;
        let related = meta.get(RELATED_TASK)?;
        let request_id = related.get("elicitation")?.get("requestId")?.as_str()?;
        Self::checked(task_of(related)?, request_id)
    }

    /// Returns the route of a question.
    #[cfg(feature = "server")]
    pub(crate) fn of(question: &Question) -> Self {
        Self { task: question.task.clone(), request_id: question.request_id.clone() }
    }

    /// Reads the text that [`to_json`](Self::to_json) wrote.
    pub(crate) fn from_json(text: &str) -> Option<Self> {
        let route: Value = serde_json::from_str(text).ok()?;
        Self::checked(task_of(&route)?, route.get("requestId")?.as_str()?)
    }

    fn checked(task: TaskKey, request_id: &str) -> Option<Self> {
        Question::id_is_possible(request_id).then(|| Self { task, request_id: request_id.to_owned() })
    }

    /// Returns the route as a JSON object.
    pub(crate) fn to_json(&self) -> String {
        let (id, scope) = (self.task.id(), self.task.scope());
        json!({"taskId": id, "task_scope": scope, "requestId": self.request_id}).to_string()
    }

    /// Returns the id of the question.
    #[cfg(any(feature = "elicitation", feature = "server"))]
    pub(crate) fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Returns a question without a text, which is cancelled and never asked.
    pub(crate) fn refused(self, refused: Refused, deadline: SystemTime) -> Question {
        let elicitation = Elicitation::Form { message: String::new(), requested_schema: Map::new() };
        let question = Question::new(self.request_id, self.task, elicitation, deadline);
        Question { at_rest: AtRest::Refused(Box::new(refused)), ..question }
    }
}

/// Reads the task of a question from its fields `taskId` and `task_scope`.
pub(super) fn task_of(fields: &Value) -> Option<TaskKey> {
    let id = fields.get("taskId")?.as_str()?;
    // An absent scope does not mean an anonymous task. FastMCP skips the relay then, and so does this crate.
    match fields.get("task_scope")? {
        Value::Null => TaskKey::anonymous(id).ok(),
        Value::String(scope) => TaskKey::of_scope(scope, id).ok(),
        _ => None,
    }
}
