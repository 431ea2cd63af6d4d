//! Questions to a client's user, and answers of the client to requests of the courier.
//!
//! *Ids*. The JSON-RPC id of a request contains the id of its question or the nonce of its ping, behind a prefix. So
//! any server recognises an answer, also one to a request of another process. An id with the prefix of pings and
//! without a valid nonce is invented, and confirms nothing
//! (`forged_news_and_pings_of_earlier_versions_confirm_nothing`).
//!
//! *A question belongs to one stream*. Where that stream ends, or the client opens a newer one, the future that asks
//! gets [`AskError::NotReady`]. Its caller then asks again on the newest stream
//! (`a_question_follows_the_client_to_its_newest_stream`).

use std::collections::HashMap;
use std::sync::Arc;

use rmcp::model::{ClientJsonRpcMessage, RequestId};
use serde_json::json;
use tokio::sync::oneshot;

use super::ClientSession;
use super::pings::{self, PING};
use crate::backend::ProcessId;
use crate::question::{Answer, Elicitation, Question};
use crate::session::AskError;
use crate::session::rmcp::frames::Full;

/// Open questions to the client by their ids: the stream that each went down, and the receiver of its answer.
#[derive(Debug, Default)]
pub(super) struct Questions(HashMap<String, (u64, oneshot::Sender<Answer>)>);

impl Questions {
    /// Ends the waits for answers on a stream that has ended. With `None` it ends the waits on every stream, because
    /// the client has a newer one. Those who asked must ask again.
    pub(super) fn withdraw(&mut self, stream: Option<u64>) {
        self.0.retain(|_, (number, _)| stream.is_some_and(|stream| *number != stream));
    }

    fn remove(&mut self, question: &str) -> Option<oneshot::Sender<Answer>> {
        self.0.remove(question).map(|(_, waiting)| waiting)
    }
}

/// Request of the courier that an answer of the client belongs to.
pub(in crate::session::rmcp) enum Answered {
    /// No request of the courier.
    Other,
    /// A ping of this process, which is already confirmed.
    Ping,
    /// A ping of another process.
    PingOf(ProcessId, u128),
    /// A question with this id, asked here or by another process.
    Question(String, Answer),
}

impl ClientSession {
    /// Evaluates an answer of the client. An answer to the courier's own request must not reach rmcp.
    pub(in crate::session::rmcp) fn answered(&self, message: &ClientJsonRpcMessage) -> Answered {
        let (id, result) = match message {
            ClientJsonRpcMessage::Response(response) => (Some(&response.id), Ok(&response.result)),
            ClientJsonRpcMessage::Error(error) => (error.id.as_ref(), Err(&error.error)),
            _ => return Answered::Other,
        };
        let Some(RequestId::String(id)) = id else { return Answered::Other };
        let id: &str = id;
        if let Some(question) = Question::id_from_json_rpc(id) {
            let answer = match result {
                Ok(result) => Answer::from_result(&serde_json::to_value(result).unwrap_or_default()),
                Err(error) => Answer::cancelled(format!("the client refused: {}", error.message)),
            };
            return Answered::Question(question.to_owned(), answer);
        }
        // An error is an answer too: a client that does not know `ping` has read its stream nevertheless.
        match pings::read(id) {
            Some((process, n)) if process != self.process => Answered::PingOf(process, n),
            Some((_, n)) => {
                self.confirmed(n);
                Answered::Ping
            }
            // Such a ping was never sent: the answer is invented.
            None if id.starts_with(PING) => Answered::Ping,
            None => Answered::Other,
        }
    }

    /// Takes the answer to a ping, by its JSON-RPC id. Returns whether this process sent the ping.
    pub(in crate::session::rmcp) fn take_pong(&self, json_rpc_id: &str) -> bool {
        let own = pings::read(json_rpc_id).filter(|(process, _)| *process == self.process);
        own.inspect(|(_, nonce)| self.confirmed(*nonce)).is_some()
    }

    /// Ends the wait for the answer to a question that was answered elsewhere.
    pub(in crate::session::rmcp) fn settled(&self, question: &str) {
        // Dropping the sender ends the wait.
        drop(self.locked().questions.remove(question));
    }

    /// Passes an answer to the future that asks in this process. Returns whether there is one.
    pub(in crate::session::rmcp) fn hand_in(&self, question: &str, answer: Answer) -> bool {
        let waiting = self.locked().questions.remove(question);
        waiting.is_some_and(|waiting| waiting.send(answer).is_ok())
    }

    /// Asks on the newest stream, beside the batches. When the client opens a newer stream, the question must be asked
    /// there: the older stream may have been dead for long without a sign.
    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, AskError> {
        let away = || AskError::NotReady("no stream is open".to_owned());
        let id = &question.request_id;
        let modes = self.modes();
        let allowed = match question.elicitation {
            Elicitation::Form { .. } => modes.form,
            Elicitation::Url { .. } => modes.url,
        };
        if !allowed {
            let why = "the client has not declared this mode of elicitation";
            return Err(AskError::Impossible(why.to_owned()));
        }
        let (json_rpc_id, params) = (Question::json_rpc_id(id), question.to_params());
        let message = json!({"jsonrpc": "2.0", "id": json_rpc_id, "method": "elicitation/create", "params": params});
        let message = message.to_string();
        let answer = loop {
            let frames = {
                let state = &mut *self.locked();
                let newest = state.streams.newest().ok_or_else(away)?;
                match newest.frames.request(&message) {
                    Ok(()) => {
                        let (answered, answer) = oneshot::channel();
                        state.questions.0.insert(id.clone(), (newest.number, answered));
                        break answer;
                    }
                    Err(Full) => Arc::clone(&newest.frames),
                }
            };
            frames.until_room().await;
        };
        let _asked = Asked { session: self, id };
        // The sender is dropped where the stream is lost, and where the same question is asked again. The caller then
        // decides.
        answer.await.map_err(|_| {
            AskError::NotReady("its stream has ended, or the client has a newer one, or it is asked again".to_owned())
        })
    }
}

/// Removes the question when the future that asks is dropped.
struct Asked<'a> {
    session: &'a ClientSession,
    id: &'a str,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let questions = &mut self.session.locked().questions;
        // The same question may have been asked again meanwhile. Its entry then belongs to that later call.
        if questions.0.get(self.id).is_some_and(|(_, waiting)| waiting.is_closed()) {
            questions.remove(self.id);
        }
    }
}
