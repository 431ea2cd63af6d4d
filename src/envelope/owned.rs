//! Work of a queue's owner with an envelope.

use std::time::Duration;

use super::outbound::Content;
use super::{Envelope, Outbound, Timestamp, delivered, shortened};
use crate::json::{self, Fields};
use crate::notification::NotificationId;

/// Facts about a message that only the owner of its queue needs.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Id of the task whose status the notification reports, and whether that status is final. `None` for any other
    /// notification.
    pub(super) task_status: Option<Box<(String, bool)>>,
    /// Set where the times are of the queue's clock. Otherwise they are of the producer's clock.
    pub(super) is_stamped: bool,
    /// Set where the message carries no id. The id is then derived, and equal messages derive the same id.
    pub(super) has_derived_id: bool,
}

impl Envelope {
    /// Returns the notification in the form for the client.
    pub(crate) fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// Sets the opening of the client's stream for which the notification is delivered.
    pub(crate) fn set_generation(&mut self, generation: u64) {
        self.outbound.generation = generation;
    }

    /// Counts one more failed attempt, in memory only. The message in the queue is not changed.
    pub(crate) fn count_attempt(&mut self) {
        self.outbound.attempt = self.attempt.saturating_add(1);
    }

    /// Returns whether the notification must not be delivered any more.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Returns whether the times are of the queue's clock. Otherwise they are of the producer's clock.
    pub(crate) fn is_stamped(&self) -> bool {
        self.facts.is_stamped
    }

    /// Returns whether the message carries no id, so that equal messages derive the same id.
    pub(crate) fn has_derived_id(&self) -> bool {
        self.facts.has_derived_id
    }

    /// Gives the notification another id, also in the params for the client. The message in the queue is not changed.
    pub(crate) fn set_id(&mut self, id: NotificationId) {
        if let Content::Composed { params, .. } = &mut self.outbound.content {
            let Ok(mut fields) = Fields::of(params) else { return };
            let meta = fields.remove("_meta").and_then(|meta| Fields::of(meta).ok()).unwrap_or_default();
            let length = params.len();
            *params = delivered(fields, meta, id, None, length);
        }
        self.outbound.id = id;
    }

    /// Corrects the time of the push, and the times that follow from it. The message in the queue is not changed.
    pub(crate) fn set_enqueued_at(&mut self, at: Timestamp, time_to_live: Duration) {
        if let (Some(question), Some(said)) = (&mut self.question, self.enqueued_at) {
            question.queued_at(said, at);
        }
        self.enqueued_at = Some(at);
        self.expires_at = Some(at.plus(time_to_live));
    }

    /// Returns the id of the task whose status the notification reports, and whether that status is final.
    pub(crate) fn task_status(&self) -> Option<(&str, bool)> {
        self.facts.task_status.as_deref().map(|(id, is_terminal)| (id.as_str(), *is_terminal))
    }

    /// Returns the bytes of the message in the queue.
    pub(crate) fn raw(&self) -> &[u8] {
        self.stored().as_bytes()
    }

    /// Returns the message with one more failed attempt counted, to be written in its place. Unknown fields are kept.
    pub fn after_failure(&self, error: &str) -> Vec<u8> {
        // The envelope was decoded from this text, so it can be read again. If not, the message stays unchanged.
        let Ok(mut fields) = self.fields() else { return self.raw().to_vec() };
        let attempt = self.attempt.saturating_add(1).to_string();
        let (last_error, id) = (json::quoted(shortened(error)), json::quoted(&self.id.to_string()));
        fields.set("attempt", &attempt);
        fields.set("last_error", &last_error);
        let at = fields.get("at").map(ToOwned::to_owned);
        for last in ["id", "at"] {
            fields.remove(last);
        }
        // `id` and `at` come last, because an acknowledgement distinguishes messages by their last bytes.
        fields.set("id", &id);
        if let Some(at) = &at {
            fields.set("at", at);
        }
        fields.to_text().into_bytes()
    }
}

/// Returns the task's id from the params of a status, and whether the status is final.
pub(super) fn task_status(params: &Fields<'_>) -> Option<Box<(String, bool)>> {
    let text = |name: &str| params.get(name).and_then(json::string);
    let is_terminal = matches!(text("status")?.as_ref(), "completed" | "failed" | "cancelled");
    Some(Box::new((text("taskId")?.into_owned(), is_terminal)))
}
