//! Handing over to a client: a batch down one stream, and its confirmation on that same one.

use std::future::Future;
use std::time::{Duration, Instant};

use rmcp::model::{
    CustomNotification, PingRequest, RequestId, ServerJsonRpcMessage, ServerNotification, ServerRequest,
};
use rmcp::transport::streamable_http_server::session::ServerSseMessage;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use super::ClientSession;
use crate::config::DeliveryLevel;
use crate::error::{AskError, HandOverError};
use crate::question::{Answer, Question};
use crate::queue::BoxFuture;
use crate::session::{McpSession, Outbound, Presence};

/// What the JSON-RPC ids of our pings begin with. The process follows, and a number.
pub(super) const PING: &str = "mcp-courier:ping:";

/// How often a client is asked to confirm a batch before its stream is cut: an answer that went to another server may get
/// lost on its way here.
const PINGS: u32 = 3;

#[derive(Clone)]
pub(super) struct Batch {
    number: u64,
    sender: mpsc::Sender<ServerSseMessage>,
    /// How many were sent.
    sent: u64,
    open: watch::Receiver<()>,
}

impl Batch {
    /// Does something with the stream, within a time, and while it is open.
    async fn within<T>(&self, limit: Duration, what: impl Future<Output = T>) -> Waited<T> {
        let mut open = self.open.clone();
        tokio::select! {
            biased;
            done = tokio::time::timeout(limit, what) => done.map_or(Waited::TooLong, Waited::Done),
            // Nothing is ever sent: it ends when the stream does.
            _ = open.changed() => Waited::Closed,
        }
    }
}

enum Waited<T> {
    Done(T),
    TooLong,
    Closed,
}

impl ClientSession {
    /// Where the next message goes: the stream of the batch, or the newest if this is its first.
    fn batch(&self) -> Result<Batch, HandOverError> {
        let mut state = self.state();
        let Some(newest) = state.streams.last() else {
            return Err(HandOverError::NotReady("no stream is open".to_owned()));
        };
        match &state.batch {
            _ if state.broken => Err(self.gone()),
            Some(batch) if batch.number != newest.number => {
                Err(HandOverError::NotReady("the client goes on with another stream".to_owned()))
            }
            Some(batch) => Ok(batch.clone()),
            None => {
                let batch = Batch {
                    number: newest.number,
                    sender: newest.sender.clone(),
                    sent: 0,
                    open: newest.open.subscribe(),
                };
                state.batch = Some(batch.clone());
                Ok(batch)
            }
        }
    }

    async fn send(&self, message: ServerJsonRpcMessage, limit: Duration) -> Result<Batch, HandOverError> {
        let batch = self.batch()?;
        let message = ServerSseMessage::from_message(message);
        match batch.within(limit, batch.sender.send(message)).await {
            Waited::Done(Ok(())) => {
                if let Some(batch) = &mut self.state().batch {
                    batch.sent += 1;
                }
                Ok(batch)
            }
            Waited::Done(Err(_)) | Waited::Closed => Err(self.gone()),
            Waited::TooLong => Err(self.cut(batch.number, "does not read its stream")),
        }
    }

    async fn ping(&self) -> Result<(), HandOverError> {
        let (confirmed, mut confirmation) = oneshot::channel();
        // All of it has the time of one call, behind which the caller would drop this half-way.
        let begun = Instant::now();
        let left = || self.limit.saturating_sub(begun.elapsed());
        let first = {
            let mut state = self.state();
            state.confirming = Some((state.pings + 1, confirmed));
            state.pings + 1
        };
        for n in first..first + u64::from(PINGS) {
            self.state().pings = n;
            let id = RequestId::String(format!("{PING}{}:{n}", self.process).into());
            let request = ServerRequest::PingRequest(PingRequest::default());
            let batch = self.send(ServerJsonRpcMessage::request(request, id), left()).await?;
            let is_last = n + 1 == first + u64::from(PINGS);
            let patience = if is_last { left() } else { left().min(self.limit / PINGS) };
            match batch.within(patience, &mut confirmation).await {
                Waited::Done(Ok(())) => return Ok(()),
                Waited::Done(Err(_)) | Waited::Closed => return Err(self.gone()),
                Waited::TooLong if is_last => return Err(self.cut(batch.number, "does not answer a ping")),
                Waited::TooLong => {}
            }
        }
        Err(self.gone())
    }

    /// The client has answered this ping. Late, repeated or invented, it confirms nothing.
    pub(in crate::session::rmcp) fn confirmed(&self, ping: u64) {
        let mut state = self.state();
        match state.confirming.take() {
            Some((first, confirmed)) if (first..=state.pings).contains(&ping) => {
                // Whoever asked may have given up just now.
                let _ = confirmed.send(());
            }
            other => state.confirming = other,
        }
    }

    async fn pulled(&self) -> Result<(), HandOverError> {
        let Some(batch) = self.state().batch.clone() else {
            return Err(self.gone());
        };
        // Room in a channel of capacity 1 says that the last one is out.
        match batch.within(self.limit, batch.sender.reserve()).await {
            Waited::Done(Ok(_)) => Ok(()),
            Waited::Done(Err(_)) | Waited::Closed => Err(self.gone()),
            Waited::TooLong => Err(self.cut(batch.number, "does not read its stream")),
        }
    }

    fn gone(&self) -> HandOverError {
        HandOverError::NotReady("the stream has ended".to_owned())
    }

    /// Ends a stream whose reader is stalled: the session's other calls must not wait for it.
    fn cut(&self, number: u64, why: &str) -> HandOverError {
        self.close(number);
        HandOverError::NotReady(format!("the client {why} within {:?}; its stream is cut", self.limit))
    }
}

impl McpSession for ClientSession {
    fn elicit<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Result<Answer, AskError>> {
        Box::pin(self.ask(question))
    }

    fn hand_over<'a>(&'a self, notification: &'a Outbound) -> BoxFuture<'a, Result<(), HandOverError>> {
        Box::pin(async move {
            let Outbound { method, params, .. } = notification;
            // As a custom notification, whatever its method: typed, rmcp would drop the fields that it does not know.
            let custom = CustomNotification::new(method.clone(), Some(Value::Object(params.clone())));
            let message = ServerJsonRpcMessage::notification(ServerNotification::CustomNotification(custom));
            let sent = self.send(message, self.limit).await;
            if sent.is_err() {
                let mut state = self.state();
                // Without this a confirmation would be asked of, and given by, the client's next stream.
                state.broken = state.batch.take().is_some_and(|batch| batch.sent > 0);
            }
            sent.map(drop)
        })
    }

    fn confirm(&self) -> BoxFuture<'_, Result<(), HandOverError>> {
        Box::pin(async move {
            let confirmed = match self.level {
                DeliveryLevel::Confirmed => self.ping().await,
                DeliveryLevel::Pulled => self.pulled().await,
            };
            let mut state = self.state();
            (state.batch, state.broken, state.confirming) = (None, false, None);
            confirmed
        })
    }

    fn presence(&self) -> Presence {
        self.presence.presence()
    }
}
