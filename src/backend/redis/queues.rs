//! Queues in Redis, as the subscribers of a server open, claim and release them.

use std::sync::Arc;

use async_trait::async_trait;
use redis::Value;

use super::consumer::{self, RedisConsumer};
use super::dead_letters::settings;
use super::discards::{not_kept, reason};
use super::lease::{self, lease_value};
#[cfg(feature = "metrics")]
use super::link::{Command, Request, read};
use super::lua::{ANNOUNCE_SERVER, RECORD, RELEASE, RENEW};
use super::shared::SharedQueues;
use super::{RedisBackend, reply};
use crate::backend::sealing::read_open_question;
use crate::backend::{
    Consumer, LeaseState, MessageOutcome, OwnerToken, Permit, Queues, ServerId, ServerQueues, ServerRecord,
};
use crate::failure::QueueError;
use crate::keys::QueueKeys;
use crate::question::Question;
use crate::session_id::SessionId;

#[async_trait]
impl Queues for RedisBackend {
    async fn open(
        &self,
        session: &SessionId,
        owner: OwnerToken,
        permit: Arc<Permit>,
    ) -> Result<Box<dyn Consumer>, QueueError> {
        let consumer =
            RedisConsumer::open((&self.deployment, &self.link), Arc::clone(&self.config), session, owner, permit);
        Ok(Box::new(consumer.await?))
    }

    async fn claim_if_absent(&self, session: &SessionId, owner: OwnerToken) -> Result<LeaseState, QueueError> {
        const DOING: &str = "reading a lease";
        let QueueKeys { lease, queue, collapsible, .. } = self.keys.of(session);
        let answer: Value = self
            .call(DOING, &RENEW, &[lease, queue, collapsible], &lease::arguments(&self.config, owner, true))
            .await?;
        lease::renewed(answer).map(|(state, _)| state).map_err(|e| self.failed(DOING, e))
    }

    async fn release(&self, session: &SessionId, owner: OwnerToken) -> Result<bool, QueueError> {
        const DOING: &str = "releasing a lease";
        let lease = self.keys.of(session).lease;
        let released: i64 = self.call(DOING, &RELEASE, &[lease], &[lease_value(owner, &self.config)]).await?;
        let member = consumer::member(session, owner, &self.config);
        let () = self.query(DOING, redis::cmd("ZREM").arg(self.keys.sessions()).arg(member)).await?;
        Ok(released == 1)
    }

    async fn open_questions(&self, session: &SessionId) -> Result<Vec<Question>, QueueError> {
        let (queue, keys) = (self.keys.of(session), self.config.sealing_keys());
        let open: Vec<Vec<u8>> =
            self.query_large("reading open questions", redis::cmd("HVALS").arg(queue.questions)).await?;
        Ok(open.iter().filter_map(|text| read_open_question(keys, &queue.queue, text)).collect())
    }
}

#[async_trait]
impl ServerQueues for RedisBackend {
    async fn record(&self, session: &SessionId, outcome: &MessageOutcome, raw: &[u8]) -> Result<(), QueueError> {
        const DOING: &str = "recording the outcome of a notification";

        let keys = self.keys.of(session);
        let receipt = outcome.receipt.map(|id| keys.receipt(id));
        let keys: Vec<String> = [keys.dead].into_iter().chain(receipt).collect();
        let mut arguments = settings(&self.config).to_vec();
        arguments.push(reason(outcome));
        arguments.push(if outcome.discarded.is_some() { raw.to_vec() } else { Vec::new() });
        let answer = self.call(DOING, &RECORD, &keys, &arguments).await?;
        not_kept(session, &reply::bytes(answer).map_err(|e| self.failed(DOING, e))?);
        Ok(())
    }

    async fn announce_server(&self, record: &ServerRecord) -> Result<(), QueueError> {
        let keys = [self.keys.servers(), self.keys.server(record.id)];
        let life = record.life().as_millis().to_string().into_bytes();
        let arguments = [record.id.to_string().into_bytes(), record.encode(), life];
        self.call("writing the record of a server", &ANNOUNCE_SERVER, &keys, &arguments).await
    }

    async fn withdraw_server(&self, server: ServerId) -> Result<(), QueueError> {
        const DOING: &str = "removing the record of a server";
        let () = self.query(DOING, redis::cmd("DEL").arg(self.keys.server(server))).await?;
        self.query(DOING, redis::cmd("ZREM").arg(self.keys.servers()).arg(server.to_string())).await
    }

    #[cfg(feature = "metrics")]
    async fn lengths(&self, sessions: &[SessionId]) -> Result<Vec<usize>, QueueError> {
        const DOING: &str = "reading the lengths of queues";

        // Redis has no request without a command.
        if sessions.is_empty() {
            return Ok(Vec::new());
        }
        let mut request = Request::new();
        for session in sessions {
            request.add(Command::read(redis::cmd("LLEN").arg(self.keys.queue(session)).take()));
        }
        let answers = self.link.send(&request).await.map_err(|error| self.failed(DOING, error))?;
        // Another type under the key of one queue must not hide the others.
        Ok(answers.into_iter().map(|answer| answer.and_then(read).unwrap_or(0)).collect())
    }

    fn share(self: Arc<Self>) -> Arc<dyn Queues> {
        Arc::new(SharedQueues::new(&self.deployment, &self.shown_url, Arc::clone(&self.config)))
    }
}
