//! Sessions in Redis: a string each, empty once it has ended, and a channel for the news.

use async_trait::async_trait;
use redis::{Pipeline, RedisResult};

use super::RedisBackend;
use super::lua::{FORGET, REMEMBER};
use super::primary;
use crate::backend::fleet::{Fleet, News, NewsReceiver, ProcessId, Remembered, news_channel};
use crate::failure::QueueError;
use crate::session_id::SessionId;

mod news;

/// Number of sessions that one pipeline asks for.
const PIPELINE: usize = 500;

impl RedisBackend {
    fn session_life(&self) -> String {
        self.config.session_time_to_live().as_millis().to_string()
    }

    /// Asks of each session whether its key exists, by a command that answers 0 where it does not, and what it holds.
    async fn known(
        &self,
        sessions: &[SessionId],
        doing: &'static str,
        exists: impl Fn(&mut Pipeline, &str) + Send + Sync,
    ) -> Result<Vec<Remembered>, QueueError> {
        let failed = |e| self.failed(doing, e);
        let mut known = Vec::with_capacity(sessions.len());
        for some in sessions.chunks(PIPELINE) {
            let mut pipe = redis::pipe();
            for session in some {
                let key = self.keys.session(session);
                exists(&mut pipe, &key);
                pipe.cmd("STRLEN").arg(&key);
            }
            let answers: Vec<RedisResult<i64>> =
                pipe.ignore_errors().query_async(&mut self.shared.clone()).await.map_err(failed)?;
            for answer in answers.chunks(2) {
                known.push(match answer {
                    [Ok(0), _] => Remembered::Unknown,
                    [Ok(_), Ok(0)] => Remembered::Ended,
                    // Something else lies under this session's key. The others are not to suffer for it.
                    [Ok(_), Err(error)] if error.code() == Some("WRONGTYPE") => Remembered::Known,
                    [Err(error), _] | [_, Err(error)] => return Err(failed(error.clone())),
                    _ => Remembered::Known,
                });
            }
        }
        Ok(known)
    }
}

#[async_trait]
impl Fleet for RedisBackend {
    async fn remember(&self, session: &SessionId, state: &str) -> Result<bool, QueueError> {
        let mut call = REMEMBER.prepare_invoke();
        call.key(self.keys.session(session));
        let remembered = call.arg(state).arg(self.session_life()).invoke_async(&mut self.shared.clone()).await;
        remembered.map_err(|e| self.failed("remembering a session", e))
    }

    async fn recall(&self, session: &SessionId) -> Result<Option<String>, QueueError> {
        let mut get = redis::cmd("GETEX");
        get.arg(self.keys.session(session)).arg("PX").arg(self.session_life());
        let state: Option<String> = get
            .query_async(&mut self.shared.for_large_answers())
            .await
            .map_err(|e| self.failed("recalling a session", e))?;
        Ok(state.filter(|state| !state.is_empty()))
    }

    async fn keep(&self, sessions: &[SessionId]) -> Result<Vec<Remembered>, QueueError> {
        let life = self.session_life();
        self.known(sessions, "refreshing sessions", |pipe, key| {
            pipe.cmd("PEXPIRE").arg(key).arg(&life);
        })
        .await
    }

    async fn look_up(&self, sessions: &[SessionId]) -> Result<Vec<Remembered>, QueueError> {
        self.known(sessions, "looking up sessions", |pipe, key| {
            pipe.cmd("EXISTS").arg(key);
        })
        .await
    }

    async fn knows_all(&self, sessions: &[SessionId]) -> Result<bool, QueueError> {
        for some in sessions.chunks(PIPELINE) {
            let mut exists = redis::cmd("EXISTS");
            for session in some {
                exists.arg(self.keys.session(session));
            }
            let known: usize = exists
                .query_async(&mut self.shared.clone())
                .await
                .map_err(|e| self.failed("looking up sessions", e))?;
            if known < some.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn forget(&self, session: &SessionId, by: ProcessId, is_known: bool) -> Result<bool, QueueError> {
        let mut call = FORGET.prepare_invoke();
        call.key(self.keys.session(session));
        call.arg(self.session_life()).arg(self.keys.news()).arg(News::Ended(session.clone(), by).encode());
        let done = call.arg(u8::from(is_known)).invoke_async(&mut self.shared.clone()).await;
        done.map_err(|e| self.failed("forgetting a session", e))
    }

    async fn confirmed(&self, process: ProcessId, session: &SessionId, ping: u128) -> Result<(), QueueError> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.keys.news_for(process)).arg(News::Confirmed(session.clone(), ping).encode());
        let done = publish.exec_async(&mut self.shared.clone()).await;
        done.map_err(|e| self.failed("telling another process", e))
    }

    fn listen(&self, process: ProcessId) -> NewsReceiver {
        let (sender, receiver) = news_channel();
        let channels = [self.keys.news(), self.keys.news_for(process)];
        let probe = primary::probe(&self.keys);
        tokio::spawn(news::listen(self.client.clone(), channels, probe, self.config.backoff(), sender));
        receiver
    }
}
