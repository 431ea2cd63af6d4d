//! Stored form of questions and answers, which are sealed where their worker seals.
//!
//! A sealed request, answer or open question is a JSON object with the field `sealed`. Beside it stand the fields that
//! the scripts, and a server without the key, must read:
//!
//! ```json
//! {"request_id": "…", "sealed": {…}}
//! {"asks": {"taskId": "…", "task_scope": null, "requestId": "…"}, "sealed": {…}}
//! ```
//!
//! *One key for one question*. The request is sealed under the primary key of its worker. The answer and the open
//! question are sealed under that key too, whatever the primary key of the server is. So the worker can open the
//! answer, and every server that could open the notification can open the question.
//!
//! *A plain cancellation counts for a sealed question*. It has no content, and a server that cannot open the question
//! sends it. Any other plain answer to a sealed question is refused, as everybody who may write to Redis could forge it
//! (`a_plain_answer_to_a_sealed_question_is_refused_and_a_cancellation_counts`).

use crate::envelope::Timestamp;
use crate::failure::QueueErrorKind;
use crate::json::{self, Fields};
use crate::question::{ASKS, Answer, AtRest, Question, QuestionRoute};
use crate::seal::{Binding, FIELD, Purpose, Refused, SealError, Sealed, SealingKeys};

impl From<SealError> for QueueErrorKind {
    fn from(error: SealError) -> Self {
        Self::Sealing(format!("the payload could not be sealed, and nothing was written: {error}"))
    }
}

/// Returns the request of a question as it is stored, sealed where this process seals. `owner` is the key of the
/// request.
#[cfg(feature = "elicitation")]
pub(crate) fn request_text(
    keys: Option<&SealingKeys>,
    owner: &str,
    request_id: &str,
    request: String,
) -> Result<String, SealError> {
    match crate::seal::sealer(keys) {
        None => Ok(request),
        Some((keys, primary)) => {
            let binding = Binding { purpose: Purpose::Request, owner, id: request_id };
            Ok(named(request_id, &keys.seal(primary, &binding, &request)?))
        }
    }
}

/// Returns an answer as it is stored: sealed under the key of its request, where that is sealed. `owner` is the key of
/// the request, and `request` is the stored request, if there is one.
pub(crate) fn answer_text(
    keys: Option<&SealingKeys>,
    owner: &str,
    request: Option<&[u8]>,
    request_id: &str,
    answer: &Answer,
) -> Result<String, SealError> {
    let text = answer.to_wire(request_id);
    let fields = request.and_then(|request| std::str::from_utf8(request).ok()).and_then(|text| Fields::of(text).ok());
    let sealed = fields.and_then(|fields| Sealed::of(fields.get(FIELD)?));
    let key = match sealed {
        None => return Ok(text),
        Some(Ok(Sealed { key, .. })) => key.to_owned(),
        Some(Err(unopened)) => unopened.key,
    };
    let binding = Binding { purpose: Purpose::Answer, owner, id: request_id };
    match keys.ok_or_else(|| SealError::UnknownKey(key.clone())).and_then(|keys| keys.seal(&key, &binding, &text)) {
        Ok(sealed) => Ok(named(request_id, &sealed)),
        // A cancellation tells no more than that nobody answers.
        Err(_) if matches!(answer, Answer::Cancel { .. }) => Ok(text),
        Err(error) => Err(error),
    }
}

/// Reads an answer to `request_id`. Returns `None` where the answer is to another question.
///
/// # Errors
/// [`Refused`] where the answer cannot be opened, or is plain although its question was sealed.
#[cfg(feature = "elicitation")]
pub(crate) fn read_answer(
    keys: Option<&SealingKeys>,
    owner: &str,
    request_id: &str,
    wire: &[u8],
) -> Result<Option<Answer>, Refused> {
    let fields = std::str::from_utf8(wire).ok().and_then(|text| Fields::of(text).ok());
    let is_to_another = |fields: &Fields<'_>| {
        fields.get("request_id").is_some_and(|id| json::string(id).as_deref() != Some(request_id))
    };
    match fields.as_ref().and_then(|fields| Sealed::of(fields.get(FIELD)?)) {
        Some(_) if fields.as_ref().is_some_and(is_to_another) => Ok(None),
        Some(sealed) => {
            let binding = Binding { purpose: Purpose::Answer, owner, id: request_id };
            let text = sealed?.open(keys, &binding)?;
            Ok(Answer::from_wire(text.as_bytes(), request_id))
        }
        None => match Answer::from_wire(wire, request_id) {
            Some(Answer::Accept(_) | Answer::Decline) if keys.is_some_and(|keys| keys.primary().is_some()) => {
                Err(Refused::Plain)
            }
            answer => Ok(answer),
        },
    }
}

/// Returns a question as it is stored among the open questions of the queue of this name.
#[cfg(feature = "server")]
pub(crate) fn open_question_text(keys: Option<&SealingKeys>, queue: &str, question: &Question) -> String {
    let AtRest::Sealed(key) = &question.at_rest else { return question.to_open() };
    let binding = Binding { purpose: Purpose::OpenQuestion, owner: queue, id: &question.request_id };
    let sealed = keys.map(|keys| keys.seal(key, &binding, &question.to_open()));
    let sealed = match sealed {
        Some(Ok(sealed)) => sealed,
        // The question was opened here, so the key is there, and only random numbers can fail. Never stored in clear.
        other => {
            tracing::error!(?other, "sealing an open question failed; it is cancelled where its server changes");
            format!("{{\"v\":1,\"k\":\"{key}\",\"n\":\"\"}}")
        }
    };
    format!("{{\"{ASKS}\":{},\"{FIELD}\":{sealed}}}", QuestionRoute::of(question).to_json())
}

/// Reads an open question of the queue of this name. A question that cannot be opened has no text, and its reason.
pub(crate) fn read_open_question(keys: Option<&SealingKeys>, queue: &str, stored: &[u8]) -> Option<Question> {
    let fields = Fields::of(std::str::from_utf8(stored).ok()?).ok()?;
    let Some(sealed) = fields.get(FIELD).and_then(Sealed::of) else {
        let question = Question::from_open(stored)?;
        let is_refused = keys.is_some_and(SealingKeys::is_required);
        let at_rest = if is_refused { AtRest::Refused(Box::new(Refused::Plain)) } else { AtRest::Plain };
        return Some(Question { at_rest, ..question });
    };
    let route = QuestionRoute::from_json(fields.get(ASKS)?)?;
    let binding = Binding { purpose: Purpose::OpenQuestion, owner: queue, id: route.request_id() };
    match sealed.and_then(|sealed| Ok((sealed.open(keys, &binding)?, sealed.key.to_owned()))) {
        Ok((text, key)) => {
            Some(Question { at_rest: AtRest::Sealed(key.into()), ..Question::from_open(text.as_bytes())? })
        }
        // Its deadline is sealed too. The question is cancelled at once, so any deadline will do.
        Err(unopened) => Some(route.refused(Refused::Unopened(unopened), Timestamp(i64::MAX / 2).to_system())),
    }
}

/// Returns the stored form of a sealed request or answer. Scripts compare the id.
fn named(request_id: &str, sealed: &str) -> String {
    format!("{{\"request_id\":{},\"{FIELD}\":{sealed}}}", json::quoted(request_id))
}

#[cfg(all(test, feature = "seal", feature = "elicitation", feature = "server"))]
mod tests;
