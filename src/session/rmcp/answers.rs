//! Answers of clients that belong to another process or to a worker, and answers that cannot be read.

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

impl<M: SessionManager> CourierSessionManager<M> {
    /// A client has answered a ping that another process sent it.
    pub(super) async fn confirmed(
        &self,
        process: ProcessId,
        client: &ClientSession,
        ping: u128,
    ) -> Result<(), ManagerError<M::Error>> {
        Ok(self.shared.queue.confirmed(process, client.session_id(), ping).await?)
    }

    /// Gives an answer to its worker, whichever process asked. The client hears that it was accepted only after that: its
    /// stream, and with it whoever asked, may be gone in the same moment.
    pub(super) async fn answer(
        &self,
        client: Arc<ClientSession>,
        request_id: String,
        answer: Answer,
    ) -> Result<(), ManagerError<M::Error>> {
        let subscribers = Arc::clone(&self.shared.subscribers);
        let given = async move { give(&*subscribers, &client, &request_id, answer).await };
        // A task of its own: a client that hangs up after its answer must not take it back.
        match tokio::spawn(given).await {
            Ok(given) => Ok(given?),
            // The process ends. Another asks again.
            Err(_) => Ok(()),
        }
    }

    /// Cancels the question to which an unreadable answer came, for the acting user. The session may be at another server.
    pub(crate) async fn cancel_question(&self, id: &str, json_rpc_id: &str, reason: String) {
        let Some(request_id) = Question::id_from_json_rpc(json_rpc_id).map(str::to_owned) else { return };
        // Here, and not in the task: only the request knows who acts.
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
                    "cancelling a question with an unreadable answer failed; its worker waits out its time"
                );
            }
        };
        // A task of its own, as above. Where the process ends the worker waits out its time.
        let _ = tokio::spawn(cancelled).await;
    }
}

/// Gives an answer to its worker, or to whoever asks in this process.
async fn give(
    subscribers: &dyn Subscribers,
    client: &ClientSession,
    request_id: &str,
    answer: Answer,
) -> Result<(), QueueError> {
    let session = client.session_id();
    match subscribers.answer(session, request_id, answer.clone()).await {
        Ok(Settled::Done) => client.settled(request_id),
        // Whoever asks here knows the question even where the queue does not, and tries for longer.
        _ if client.hand_in(request_id, answer) => {}
        // The client did nothing wrong that an error would mend: the user answered twice, or late.
        Ok(settled) => {
            tracing::info!(?session, ?settled, "an answer comes too late; it is dropped")
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
