//! The queue in Redis, 6.2 or newer: FastMCP's list per session, a lease beside it, and scripts that guard both.
//!
//! Only here is `redis::` named. One file in `lua/` per script; [`consumer`] sends them over a connection of its own,
//! this file those that need no such connection.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use redis::{Client, RedisResult, Value};

use self::connection::kind;
use self::consumer::RedisConsumer;
use self::lease::lease_value;
use self::lua::{LIVE_SESSIONS, PUSH, RELEASE, RENEW};
use self::shared::SharedConnection;
use self::waits::Waits;
use super::{Backend, Consumer, LeaseState, Outgoing, OwnerToken, Permit, Queued, Refusal};
use crate::config::{Config, ConfigError};
use crate::failure::{Cause, QueueError, QueueErrorKind};
use crate::keys::Keys;
use crate::session_id::{SessionId, SessionStatus};

mod connection;
mod consumer;
mod fates;
mod fleet;
mod lease;
pub(crate) mod lua;
mod primary;
mod push;
mod questions;
mod reply;
mod shared;
mod standing;
mod take;
pub(crate) mod url;
mod waits;

/// How many bytes one script call may carry, so that it does not block Redis for long, and all that travel together. Less where
/// the line to Redis is narrow.
const CALL_BYTES: usize = 1024 * 1024;

/// How many notifications one script call may carry. Fewer where the line to Redis is narrow.
const CALL_MESSAGES: usize = 100;

/// The queues of a fleet in one Redis.
pub(crate) struct RedisBackend {
    client: Client,
    shown_url: String,
    shared: SharedConnection,
    config: Arc<Config>,
    keys: Keys,
    waits: Waits,
}

impl std::fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RedisBackend({})", self.shown_url)
    }
}

impl RedisBackend {
    /// Connects at the first command, not here.
    pub(crate) fn new(url: &str, config: Arc<Config>) -> Result<Self, ConfigError> {
        let client = connection::client(url)?;
        let shown_url = url::shown(url);
        let keys = Keys::new(config.prefix());
        let shared = {
            let largest = config.message_max_bytes();
            SharedConnection::new(client.clone(), primary::probe(&keys), config.backoff(), largest)
        };
        let waits = Waits::new(client.clone(), primary::probe(&keys));
        Ok(Self { client, shown_url, shared, config, keys, waits })
    }

    /// Pushes what can go together: for each session its notifications in as many calls as their size needs, one call
    /// per session and round, so that a call that fails cannot be overtaken by a later one.
    async fn push_all(&self, batch: Vec<Outgoing>) -> Vec<Result<Queued, Refusal>> {
        let limit = self.config.message_max_bytes();
        let mut results: Vec<Option<Result<Queued, Refusal>>> = Vec::with_capacity(batch.len());
        let mut sessions: HashMap<&SessionId, std::collections::VecDeque<usize>> = HashMap::new();
        let mut order: Vec<&SessionId> = Vec::new();
        let mut unowned: HashSet<SessionId> = HashSet::new();
        for (index, outgoing) in batch.iter().enumerate() {
            let waiting = sessions.entry(&outgoing.session).or_insert_with(|| {
                order.push(&outgoing.session);
                Default::default()
            });
            waiting.push_back(index);
            results.push(None);
        }
        let mut lost = None;
        while lost.is_none() && sessions.values().any(|waiting| !waiting.is_empty()) {
            let (line, mut round_bytes) = (self.shared.limit(), 0);
            let mut calls: Vec<(&SessionId, Vec<usize>)> = Vec::new();
            for session in &order {
                let Some(waiting) = sessions.get_mut(session) else { continue };
                // All calls of a round travel together.
                if round_bytes >= line.bytes() {
                    break;
                }
                let (mut call, mut bytes) = (Vec::new(), 0);
                while let Some(&index) = waiting.front() {
                    let size = batch[index].draft.size();
                    if size > limit {
                        if call.is_empty() {
                            results[index] = Some(Err(Refusal::TooLarge { bytes: size, limit }));
                            waiting.pop_front();
                            refuse_the_rest(waiting, &mut results);
                        }
                        break;
                    }
                    if call.len() >= line.messages() || (!call.is_empty() && bytes + size > line.bytes()) {
                        break;
                    }
                    bytes += size;
                    call.push(index);
                    waiting.pop_front();
                }
                if !call.is_empty() {
                    round_bytes += bytes;
                    calls.push((session, call));
                }
            }
            let sent = Instant::now();
            let answers = self.push_round(&batch, &calls).await;
            if answers.iter().all(Result::is_ok) {
                let most = calls.iter().map(|(_, call)| call.len()).max().unwrap_or_default();
                self.shared.learn(most, round_bytes, sent.elapsed());
            }
            lost = cause_of_loss(&answers);
            for ((session, call), answer) in calls.iter().zip(answers) {
                if answer.as_ref().is_ok_and(|answer| !answer.owned && answer.queued > 0) {
                    unowned.insert((*session).clone());
                }
                let failed = settle(call, answer, &mut results);
                if let (true, Some(waiting)) = (failed, sessions.get_mut(session)) {
                    refuse_the_rest(waiting, &mut results);
                }
            }
        }
        // Each round would wait for an answer as long as this one, and none of the rest was sent.
        if let Some(cause) = &lost {
            for index in sessions.into_values().flatten() {
                results[index] = Some(Err(Refusal::Unreachable(Arc::clone(cause))));
            }
        }
        if lost.is_none() && !unowned.is_empty() && !self.config.fastmcp_servers() {
            let status = self.status_of_unowned(unowned.into_iter().collect()).await;
            for (outgoing, result) in batch.iter().zip(&mut results) {
                if let (Some(Ok(queued)), Some(status)) = (result, status.get(&outgoing.session)) {
                    queued.session = *status;
                }
            }
        }
        results.into_iter().map(|result| result.unwrap_or(Err(Refusal::AfterRefused))).collect()
    }

    /// One pipeline of calls, each of another session.
    async fn push_round(
        &self,
        batch: &[Outgoing],
        calls: &[(&SessionId, Vec<usize>)],
    ) -> Vec<Result<push::Answer, Refusal>> {
        let mut answers = self.send_calls(batch, calls).await;
        // Redis has been restarted or its scripts flushed. Nothing of these calls was done.
        let unknown: Vec<usize> =
            answers.iter().enumerate().filter_map(|(i, a)| matches!(a, Err(Sent::NoScript)).then_some(i)).collect();
        if !unknown.is_empty() {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(PUSH.text());
            if let Err(error) = load.exec_async(&mut self.shared.clone()).await {
                tracing::warn!(script = PUSH.name(), %error, "loading a script into Redis failed; its calls fail");
            }
            let again: Vec<_> = unknown.iter().map(|&i| calls[i].clone()).collect();
            for (i, answer) in unknown.into_iter().zip(self.send_calls(batch, &again).await) {
                answers[i] = answer;
            }
        }
        answers
            .into_iter()
            .map(|answer| {
                answer.map_err(|e| match e {
                    Sent::NoScript => Refusal::Refused("it forgets our scripts".to_owned()),
                    Sent::Failed(refusal) => refusal,
                })
            })
            .collect()
    }

    async fn send_calls(
        &self,
        batch: &[Outgoing],
        calls: &[(&SessionId, Vec<usize>)],
    ) -> Vec<Result<push::Answer, Sent>> {
        if calls.is_empty() {
            return Vec::new();
        }
        let mut pipe = redis::pipe();
        for (session, call) in calls {
            let drafts = call.iter().map(|&index| &batch[index].draft);
            let keys = self.keys.of(session);
            let receipts: Vec<_> =
                drafts.clone().filter_map(|draft| draft.receipt).map(|id| keys.receipt(id)).collect();
            pipe.cmd("EVALSHA")
                .arg(PUSH.hash())
                .arg(2 + receipts.len())
                .arg(&keys.queue)
                .arg(receipts)
                .arg(&keys.lease)
                .arg(push::arguments(&self.config, drafts));
        }
        let answers: RedisResult<Vec<RedisResult<Value>>> =
            pipe.ignore_errors().query_async(&mut self.shared.clone()).await;
        match answers {
            Ok(answers) => answers
                .into_iter()
                .map(|answer| match answer {
                    Ok(value) => push::answer(&self.config, value)
                        .map_err(|e| Sent::Failed(Refusal::Uncertain(Arc::new(Box::new(e))))),
                    Err(e) if e.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoScript) => {
                        Err(Sent::NoScript)
                    }
                    Err(e) => Err(Sent::Failed(refusal(kind(e)))),
                })
                .collect(),
            Err(e) => {
                let refusal = refusal(kind(e));
                calls.iter().map(|_| Err(Sent::Failed(refusal.clone()))).collect()
            }
        }
    }

    fn failed(&self, doing: &str, error: redis::RedisError) -> QueueError {
        QueueError::new(format!("{doing} at {}", self.shown_url), kind(error))
    }
}

enum Sent {
    NoScript,
    Failed(Refusal),
}

fn refusal(kind: QueueErrorKind) -> Refusal {
    match kind {
        QueueErrorKind::Unreachable(cause) => Refusal::Unreachable(Arc::new(cause)),
        QueueErrorKind::Broken(cause) => Refusal::Uncertain(Arc::new(cause)),
        QueueErrorKind::Refused(text) if text.contains("WRONGTYPE") => {
            Refusal::Refused("WRONGTYPE: the key of the session's queue holds something else than a list".to_owned())
        }
        QueueErrorKind::Refused(text) => Refusal::Refused(text),
    }
}

/// Writes one call's answer into the results, and says whether anything in it was refused.
fn settle(
    call: &[usize],
    answer: Result<push::Answer, Refusal>,
    results: &mut [Option<Result<Queued, Refusal>>],
) -> bool {
    match answer {
        Ok(push::Answer { queued, length, stopped, owned }) => {
            let session = if owned { SessionStatus::Owned } else { SessionStatus::NotRead };
            for (i, &index) in call.iter().enumerate() {
                results[index] = Some(match stopped {
                    _ if i < queued => Ok(Queued { waiting: length - (queued - 1 - i), session }),
                    Some(limit) if i == queued => Err(Refusal::Full(limit)),
                    _ => Err(Refusal::AfterRefused),
                });
            }
            stopped.is_some()
        }
        Err(refusal) => {
            for &index in call {
                results[index] = Some(Err(refusal.clone()));
            }
            true
        }
    }
}

/// Returns why a round had no answer at all, or `None` where it had one.
fn cause_of_loss(answers: &[Result<push::Answer, Refusal>]) -> Option<Arc<Cause>> {
    let mut causes = answers.iter().map(|answer| match answer {
        Err(Refusal::Unreachable(cause) | Refusal::Uncertain(cause)) => Some(cause),
        _ => None,
    });
    let cause = causes.next()??;
    causes.all(|cause| cause.is_some()).then(|| Arc::clone(cause))
}

fn refuse_the_rest(waiting: &mut std::collections::VecDeque<usize>, results: &mut [Option<Result<Queued, Refusal>>]) {
    for index in waiting.drain(..) {
        results[index] = Some(Err(Refusal::AfterRefused));
    }
}

#[async_trait]
impl Backend for RedisBackend {
    async fn push(&self, batch: Vec<Outgoing>) -> Vec<Result<Queued, Refusal>> {
        self.push_all(batch).await
    }

    async fn live_sessions(&self) -> Result<Vec<SessionId>, QueueError> {
        let failed = |e| self.failed("reading the live sessions", e);
        let mut connection = self.shared.clone();
        // As bytes: one that is no text must not hide the others.
        let members: Vec<Vec<u8>> = LIVE_SESSIONS
            .prepare_invoke()
            .key(self.keys.sessions())
            .invoke_async(&mut connection)
            .await
            .map_err(failed)?;
        let session = |member: &Vec<u8>| std::str::from_utf8(member).ok()?.rsplit_once(':')?.0.parse().ok();
        let mut sessions: Vec<SessionId> = members.iter().filter_map(session).collect();
        // While a session moves it has two owners here.
        sessions.sort_unstable();
        sessions.dedup();
        Ok(sessions)
    }

    async fn open(
        &self,
        session: &SessionId,
        owner: OwnerToken,
        permit: Arc<Permit>,
    ) -> Result<Box<dyn Consumer>, QueueError> {
        let consumer = RedisConsumer::open(&self.client, Arc::clone(&self.config), session, owner, permit).await?;
        Ok(Box::new(consumer))
    }

    async fn claim_if_absent(&self, session: &SessionId, owner: OwnerToken) -> Result<LeaseState, QueueError> {
        let keys = self.keys.of(session);
        let failed = |e| self.failed("looking at a lease", e);
        let answer: Value = RENEW
            .prepare_invoke()
            .key(&[keys.lease, keys.queue])
            .arg(lease::arguments(&self.config, owner, true))
            .invoke_async(&mut self.shared.clone())
            .await
            .map_err(failed)?;
        lease::renewed(answer)
            .map(|(state, _)| state)
            .map_err(|e| QueueError::new("looking at a lease", QueueErrorKind::Refused(e.to_string())))
    }

    async fn release(&self, session: &SessionId, owner: OwnerToken) -> Result<bool, QueueError> {
        let lease = self.keys.of(session).lease;
        let member = consumer::member(session, owner, &self.config);
        let failed = |e| self.failed("releasing a lease", e);
        let mut connection = self.shared.clone();
        let released: i64 = RELEASE
            .prepare_invoke()
            .key(lease)
            .arg(lease_value(owner, &self.config))
            .invoke_async(&mut connection)
            .await
            .map_err(failed)?;
        redis::cmd("ZREM").arg(self.keys.sessions()).arg(member).exec_async(&mut connection).await.map_err(failed)?;
        Ok(released == 1)
    }

    async fn check(&self) -> Result<(), QueueError> {
        let mut connection = self.shared.clone();
        redis::cmd("PING").exec_async(&mut connection).await.map_err(|e| self.failed("connecting", e))?;
        let settings: RedisResult<HashMap<String, String>> =
            redis::cmd("CONFIG").arg(&["GET", "maxmemory-policy"]).query_async(&mut connection).await;
        // Many hosted Redis refuse CONFIG: then nothing is known, and nothing said.
        if let Some(policy) = settings.ok().and_then(|mut settings| settings.remove("maxmemory-policy"))
            && policy != "noeviction"
        {
            tracing::warn!(%policy, url = %self.shown_url,
                    "Redis may evict queues when its memory is full: set maxmemory-policy to noeviction");
        }
        Ok(())
    }
}
