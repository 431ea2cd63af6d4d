//! Discarding a notification: counted, logged, and said to the worker whose question it brought.

use crate::actors::post::Post;
use crate::backend::questions::settle_open;
use crate::fate::DiscardReason;
use crate::notification::NotificationId;
use crate::question::{Answer, Question};

/// Counts and logs a discarded notification, and has the worker of its question told.
pub(super) fn discard(post: &Post, id: Option<&NotificationId>, question: Option<Question>, reason: &DiscardReason) {
    post.stats.add_discarded();
    if *reason != DiscardReason::Expired {
        post.stats.set_error(reason);
    }
    let id = id.map(ToString::to_string);
    tracing::warn!(session = ?post.session_id, id, %reason, "a notification is discarded");
    if let Some(question) = question {
        let (post, why) = (post.clone(), reason.to_string());
        let settling = post.count_settling();
        // Beside the delivery, which it must not hold up.
        actix::spawn(async move {
            cancel(&post, &question, &why).await;
            drop(settling);
        });
    }
}

/// Settles a question that nobody will answer: its worker hears why, at once.
pub(super) async fn cancel(post: &Post, question: &Question, why: &str) {
    let answer = Answer::cancelled(why);
    if let Err(error) = settle_open(&*post.queue, &post.session_id, question, &answer).await {
        tracing::warn!(session = ?post.session_id, %error, "a question was not cancelled; its worker waits out its time");
    }
}
