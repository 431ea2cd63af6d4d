//! Answers of clients that belong to another process or to a worker, and answers that cannot be read.
//!
//! An answer may arrive at any server, by a request that ends when its client hangs up. So each is passed on in a task
//! of its own, and is idempotent in Redis: the first answer to its question counts. The queue is asked first, and only
//! then the future that asks in this process. Otherwise an answer would count here although another server's was the
//! first (`a_question_may_be_answered_at_any_server`, `duplicate_answers_over_http_never_satisfy_the_next_question`).

use std::sync::Arc;

use rmcp::transport::streamable_http_server::session::SessionManager;

use super::client::ClientSession;
use super::error::ManagerError;
use super::manager::CourierSessionManager;
use super::principal::session_of;
use super::subscribers::Subscribers;
use crate::backend::ProcessId;
use crate::backend::Settled;
use crate::failure::QueueError;
use crate::question::{Answer, Question};
use crate::story;

impl<M: SessionManager> CourierSessionManager<M> {
    /// Passes the answer to a ping on to the process that sent the ping.
    pub(super) async fn forward_confirmation(
        &self,
        process: ProcessId,
        client: &ClientSession,
        ping: u128,
    ) -> Result<(), ManagerError<M::Error>> {
        Ok(self.shared.queue.announce_confirmation(process, client.session_id(), ping).await?)
    }

    /// Gives an answer to its worker, whichever process asked. The client gets its response only afterwards: its
    /// stream, and with it the future that asks, may end in the same moment.
    pub(super) async fn answer(
        &self,
        client: Arc<ClientSession>,
        request_id: String,
        answer: Answer,
    ) -> Result<(), ManagerError<M::Error>> {
        let subscribers = Arc::clone(&self.shared.subscribers);
        let given = async move { give(&*subscribers, &client, &request_id, answer).await };
        // Runs in a task of its own: a client that hangs up after its answer must not cancel the hand-over.
        match tokio::spawn(given).await {
            Ok(given) => Ok(given?),
            // The process ends. Another process asks the question again.
            Err(_) => Ok(()),
        }
    }

    /// Cancels the question that got an unreadable answer, for the acting user. The session may be at another server.
    pub(crate) async fn cancel_question(&self, id: &str, json_rpc_id: &str, reason: String) {
        let Some(request_id) = Question::id_from_json_rpc(json_rpc_id).map(str::to_owned) else { return };
        // Read here and not in the task: only the request knows the acting user.
        let Ok(session) = session_of(id) else { return };
        let (client, subscribers) = (self.client(&id.into()).ok(), Arc::clone(&self.shared.subscribers));
        let cancelled = async move {
            let answer = Answer::cancelled(reason);
            let given = match client {
                Some(client) => give(&*subscribers, &client, &request_id, answer).await,
                None => subscribers.answer(&session, &request_id, answer).await.map(drop),
            };
            if let Err(error) = given {
                tracing::warn!(
                    ?session,
                    %error,
                    "cancelling a question with an unreadable answer failed; its worker waits until its timeout"
                );
            }
        };
        // Runs in a task of its own, as above. Where the process ends, the worker waits until its own time is over.
        let _ = tokio::spawn(cancelled).await;
    }
}

/// Gives an answer to its worker, or to the future that asks in this process.
async fn give(
    subscribers: &dyn Subscribers,
    client: &ClientSession,
    request_id: &str,
    answer: Answer,
) -> Result<(), QueueError> {
    let (session, action) = (client.session_id(), answer.action());
    match subscribers.answer(session, request_id, answer.clone()).await {
        Ok(Settled::Done) => {
            story::answered(session, request_id, action);
            client.settled(request_id);
        }
        // A future that asks in this process knows the question even where the queue does not, and retries for longer.
        _ if client.hand_in(request_id, answer) => {}
        // No error response, as the client can mend nothing: its user answered twice, or too late.
        Ok(settled) => {
            tracing::info!(?session, ?settled, "an answer comes too late; it is dropped")
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
