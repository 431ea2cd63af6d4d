//! Questions to a client's user, and what the client answers to anything of ours.

use rmcp::model::{ClientJsonRpcMessage, RequestId};
use serde_json::json;
use tokio::sync::oneshot;

use super::{ClientSession, PING};
use crate::backend::ProcessId;
use crate::question::{Answer, Elicitation, Question};
use crate::session::{AskError, SessionState};

/// Modes of elicitation.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Modes {
    pub(super) form: bool,
    pub(super) url: bool,
}

/// What an answer of the client's is to.
pub(in crate::session::rmcp) enum Answered {
    /// Nothing of ours.
    Other,
    /// A ping of this process, and that is dealt with.
    Ping,
    /// A ping of another process.
    PingOf(ProcessId, u128),
    /// A question with this id, asked here or by another process.
    Question(String, Answer),
}

impl ClientSession {
    /// An answer to a request. What is ours nobody else is to see.
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
        let Some(ping) = id.strip_prefix(PING) else { return Answered::Other };
        // An error is an answer too: a client that does not know `ping` has read its stream all the same.
        match ping.split_once(':').and_then(|(process, n)| Some((ProcessId::parse(process)?, n.parse().ok()?))) {
            Some((process, n)) if process != self.process => Answered::PingOf(process, n),
            Some((_, n)) => {
                self.confirmed(n);
                Answered::Ping
            }
            // Invented.
            None => Answered::Ping,
        }
    }

    /// The question has its answer: whoever asks it here need not go on.
    pub(in crate::session::rmcp) fn settled(&self, question: &str) {
        // Its sender is dropped, which says so.
        self.state().asked.remove(question);
    }

    /// Gives an answer to whoever asks here; whether anybody does.
    pub(in crate::session::rmcp) fn hand_in(&self, question: &str, answer: Answer) -> bool {
        let waiting = self.state().asked.remove(question);
        waiting.is_some_and(|waiting| waiting.send(answer).is_ok())
    }

    /// Asks on the newest stream, beside the batches. Where the client opens a newer one it is to be asked there: the older
    /// one may be long dead, and nothing say so.
    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, AskError> {
        let away = || AskError::NotReady("no stream is open".to_owned());
        let id = &question.request_id;
        let (answered, answer) = oneshot::channel();
        let (number, sender, mut open) = {
            let mut state = self.state();
            let allowed = match question.elicitation {
                Elicitation::Form { .. } => state.modes.form,
                Elicitation::Url { .. } => state.modes.url,
            };
            if !allowed {
                let why = "the client has not declared this mode of elicitation";
                return Err(AskError::Impossible(why.to_owned()));
            }
            let newest = state.streams.last().ok_or_else(away)?;
            let stream = (newest.number, newest.sender.clone(), newest.open.subscribe());
            state.asked.insert(id.clone(), answered);
            stream
        };
        let _asked = Asked { session: self, id };
        let (json_rpc_id, params) = (Question::json_rpc_id(id), question.to_params());
        let message = json!({"jsonrpc": "2.0", "id": json_rpc_id, "method": "elicitation/create", "params": params});
        let ask = async {
            sender.send(message.to_string()).await.map_err(|_| away())?;
            // The sender is dropped where the same question is asked again, or has been answered: whoever asks looks.
            answer.await.map_err(|_| away())
        };
        tokio::select! {
            // A client may well leave behind its answer.
            biased;
            answer = ask => answer,
            _ = open.changed() => Err(AskError::NotReady("its stream has ended".to_owned())),
            () = self.newer_than(number) => Err(AskError::NotReady("the client has a newer stream".to_owned())),
        }
    }

    /// Ends when the client has a stream that is newer than this.
    pub(super) async fn newer_than(&self, number: u64) {
        let mut presence = self.presence.presence();
        loop {
            let seen = presence.now();
            if matches!(seen, SessionState::Ready { opened, .. } if opened > number) {
                return;
            }
            presence.changed_from(seen).await;
        }
    }
}

/// Nobody waits for the answer here any more.
struct Asked<'a> {
    session: &'a ClientSession,
    id: &'a str,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut state = self.session.state();
        // The same question may have been asked again meanwhile, and then this place is another's.
        if state.asked.get(self.id).is_some_and(oneshot::Sender::is_closed) {
            state.asked.remove(self.id);
        }
    }
}
