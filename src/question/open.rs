//! JSON of a question in its notification, and among the open questions of a queue.

use serde_json::{Value, json};

use super::{Elicitation, Question};
use crate::timestamp::Timestamp;

impl Question {
    /// Returns the part of `_meta` that FastMCP's relay reads.
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
            // The scope is present and null for an anonymous task: FastMCP treats an absent scope differently.
            "task_scope": self.task.scope,
            "elicitation": elicitation,
        })
    }

    /// Returns the JSON under which the question is kept among the open questions of a queue.
    #[cfg(feature = "server")]
    pub(crate) fn to_open(&self) -> String {
        let mut related = self.to_related_task();
        for (name, text) in self.trace_context.iter().flat_map(|context| context.parts()) {
            related["elicitation"][name] = json!(text);
        }
        related.to_string()
    }

    /// Reads an open question of a queue.
    pub(crate) fn from_open(text: &[u8]) -> Option<Self> {
        Self::from_related_task(&serde_json::from_slice(text).ok()?, None)
    }
}
