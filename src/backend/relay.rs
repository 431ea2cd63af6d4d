//! Steps of a server that relays answers.

use crate::backend::{Backend, Settled};
use crate::failure::QueueError;
use crate::metrics;
use crate::question::{Answer, Question};
use crate::session_id::SessionId;

/// Gives an answer to an open question of a session, and closes the question. A question that this process cannot open
/// is cancelled with the reason instead, as its answer could not be sealed.
pub(crate) async fn settle_open(
    queue: &dyn Backend,
    session: &SessionId,
    question: &Question,
    answer: &Answer,
) -> Result<Settled, QueueError> {
    let refused = question.refused().map(|why| Answer::cancelled(format!("the question cannot be used: {why}")));
    let answer = refused.as_ref().unwrap_or(answer);
    let settled = queue.settle(&question.task, &question.request_id, answer).await?;
    if settled == Settled::Done {
        metrics::QUESTIONS_ANSWERED.add(answer.label(), 1);
    }
    close(queue, session, question).await;
    Ok(settled)
}

/// Gives an answer that arrived at any process, also to a question that another process asked. The answer counts only
/// where this session has the question open.
pub(crate) async fn answer_open(
    queue: &dyn Backend,
    session: &SessionId,
    request_id: &str,
    answer: &Answer,
) -> Result<Settled, QueueError> {
    match queue.open_question(session, request_id).await? {
        Some(question) => settle_open(queue, session, &question, answer).await,
        None => Ok(Settled::NotWaiting),
    }
}

/// Cancels all open questions of a session, because nobody will answer them any more. Each asker gets the cancellation.
pub(crate) async fn cancel_open(queue: &dyn Backend, session: &SessionId, why: &str) -> Result<(), QueueError> {
    for question in queue.open_questions(session).await? {
        settle_open(queue, session, &question, &Answer::cancelled(why)).await?;
    }
    Ok(())
}

/// Removes a question from the open ones of a session. A failure loses nothing: a server that asks the question again
/// finds that no worker waits.
pub(crate) async fn close(queue: &dyn Backend, session: &SessionId, question: &Question) {
    if let Err(error) = queue.close_question(session, &question.request_id).await {
        tracing::debug!(?session, %error, "closing an answered question failed; it stays open until it expires");
    }
}
