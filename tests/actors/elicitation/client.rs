//! A bare session whose client is the test.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mcp_courier::{
    Answer, AskError, HandOverError, McpSession, Outbound, Presence, PresenceSender, Question, async_trait,
};
use mcp_courier_testing::eventually::SOON;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

type Reply = Result<Answer, AskError>;
type Took = Result<(), HandOverError>;
/// Answers of a user that answers by itself; `None` passes the question to the test.
type Answers = Box<dyn Fn(&Question) -> Option<Reply> + Send + Sync>;

/// Question that the client was asked. A dropped question stays unanswered.
pub(crate) struct Asked {
    pub(crate) question: Question,
    reply: oneshot::Sender<Reply>,
}

impl Asked {
    /// Gives the answer. Returns whether the question was still open here.
    pub(crate) fn answer(self, answer: Answer) -> bool {
        self.reply.send(Ok(answer)).is_ok()
    }

    pub(crate) fn fail(self, error: AskError) {
        self.reply.send(Err(error)).unwrap();
    }

    /// Until this server does not want an answer any more.
    pub(crate) async fn until_unwanted(&mut self) {
        tokio::time::timeout(SOON * 2, self.reply.closed()).await.expect("given up in time");
    }
}

/// The session's side.
pub(crate) struct Bare {
    presence: PresenceSender,
    take: Box<dyn Fn(&Outbound) -> Took + Send + Sync>,
    answer: Answers,
    got: mpsc::UnboundedSender<Outbound>,
    asked: mpsc::UnboundedSender<Asked>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

/// The client's side.
pub(crate) struct Client {
    pub(crate) session: Arc<Bare>,
    got: Mutex<mpsc::UnboundedReceiver<Outbound>>,
    asked: Mutex<mpsc::UnboundedReceiver<Asked>>,
}

/// A client that takes everything, and whose user is the test.
pub(crate) fn client() -> Client {
    client_that(|_| Ok(()), |_| None)
}

/// A client whose user answers by itself.
pub(crate) fn client_who_answers(answer: impl Fn(&Question) -> Answer + Send + Sync + 'static) -> Client {
    client_that(|_| Ok(()), move |question| Some(Ok(answer(question))))
}

pub(crate) fn client_that(
    take: impl Fn(&Outbound) -> Took + Send + Sync + 'static,
    answer: impl Fn(&Question) -> Option<Reply> + Send + Sync + 'static,
) -> Client {
    let presence = PresenceSender::new();
    presence.connected(1);
    let (got_sender, got) = mpsc::unbounded_channel();
    let (asked_sender, asked) = mpsc::unbounded_channel();
    let session = Arc::new(Bare {
        presence,
        take: Box::new(take),
        answer: Box::new(answer),
        got: got_sender,
        asked: asked_sender,
        at_once: AtomicUsize::new(0),
        most_at_once: AtomicUsize::new(0),
    });
    Client { session, got: Mutex::new(got), asked: Mutex::new(asked) }
}

impl Client {
    pub(crate) fn presence(&self) -> &PresenceSender {
        &self.session.presence
    }

    /// Returns the largest number of questions that were open at the same time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.session.most_at_once.load(Ordering::SeqCst)
    }

    /// The next question.
    #[allow(clippy::await_holding_lock)] // one test waits, in one task
    pub(crate) async fn asked(&self) -> Asked {
        let next = async { self.asked.lock().unwrap().recv().await };
        tokio::time::timeout(SOON * 2, next).await.expect("a question in time").unwrap()
    }

    /// A question, if there is one now.
    pub(crate) fn asked_now(&self) -> Option<Asked> {
        self.asked.lock().unwrap().try_recv().ok()
    }

    /// The next notification that was taken.
    #[allow(clippy::await_holding_lock)] // one test waits, in one task
    pub(crate) async fn notification(&self) -> Outbound {
        let next = async { self.got.lock().unwrap().recv().await };
        tokio::time::timeout(SOON * 2, next).await.expect("a notification in time").unwrap()
    }

    /// The same, as the JSON-RPC message that a client would get.
    pub(crate) async fn message(&self) -> Value {
        serde_json::from_str(&self.notification().await.to_json()).unwrap()
    }
}

/// Counts a question as long as it is asked.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl McpSession for Bare {
    async fn hand_over(&self, outbound: &Outbound) -> Took {
        let took = (self.take)(outbound);
        if took.is_ok() {
            let _ = self.got.send(outbound.clone());
        }
        took
    }

    async fn elicit(&self, question: &Question) -> Reply {
        let count = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(count, Ordering::SeqCst);
        let _counted = Counted(&self.at_once);
        if let Some(answer) = (self.answer)(question) {
            return answer;
        }
        let (reply, answered) = oneshot::channel();
        let _ = self.asked.send(Asked { question: question.clone(), reply });
        match answered.await {
            Ok(answer) => answer,
            Err(_) => std::future::pending().await,
        }
    }

    fn presence(&self) -> Presence {
        self.presence.presence()
    }
}
