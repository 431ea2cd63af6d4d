//! Sessions in Redis: a string each, empty once it has ended, and a channel for the news.

use redis::{RedisResult, Value};
use tokio::sync::mpsc;

use super::RedisQueue;
use super::primary;
use crate::error::QueueError;
use crate::queue::BoxFuture;
use crate::queue::fleet::{Fleet, News, ProcessId, Remembered};
use crate::session_id::SessionId;

mod forget;
mod news;
mod remember;

/// How many sessions are kept in one pipeline.
const PIPELINE: usize = 500;

impl RedisQueue {
    fn session_life(&self) -> String {
        self.config.session_time_to_live().as_millis().to_string()
    }
}

impl Fleet for RedisQueue {
    fn remember<'a>(&'a self, session: &'a SessionId, state: &'a str) -> BoxFuture<'a, Result<bool, QueueError>> {
        Box::pin(async move {
            let mut call = remember::SCRIPT.key(self.keys.session(session));
            let remembered = call.arg(state).arg(self.session_life()).invoke_async(&mut self.shared.clone()).await;
            remembered.map_err(|e| self.failed("remembering a session", e))
        })
    }

    fn recall<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<Option<String>, QueueError>> {
        Box::pin(async move {
            let mut get = redis::cmd("GETEX");
            get.arg(self.keys.session(session)).arg("PX").arg(self.session_life());
            let state: Option<String> =
                get.query_async(&mut self.shared.clone()).await.map_err(|e| self.failed("recalling a session", e))?;
            Ok(state.filter(|state| !state.is_empty()))
        })
    }

    fn keep<'a>(&'a self, sessions: &'a [SessionId]) -> BoxFuture<'a, Result<Vec<Remembered>, QueueError>> {
        Box::pin(async move {
            let failed = |e| self.failed("keeping sessions", e);
            let mut known = Vec::with_capacity(sessions.len());
            for some in sessions.chunks(PIPELINE) {
                let mut pipe = redis::pipe();
                for session in some {
                    let key = self.keys.session(session);
                    pipe.cmd("PEXPIRE").arg(&key).arg(self.session_life());
                    pipe.cmd("STRLEN").arg(&key);
                }
                let answers: Vec<RedisResult<i64>> =
                    pipe.ignore_errors().query_async(&mut self.shared.clone()).await.map_err(failed)?;
                for answer in answers.chunks(2) {
                    known.push(match answer {
                        [Ok(0), _] => Remembered::Unknown,
                        [Ok(_), Ok(0)] => Remembered::Ended,
                        // Something else lies under this one's key. The others are not to suffer for it.
                        [Ok(_), Err(error)] if error.code() == Some("WRONGTYPE") => Remembered::Known,
                        [Err(error), _] | [_, Err(error)] => return Err(failed(error.clone())),
                        _ => Remembered::Known,
                    });
                }
            }
            Ok(known)
        })
    }

    fn forget<'a>(&'a self, session: &'a SessionId, by: ProcessId) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async move {
            let mut call = forget::SCRIPT.key(self.keys.session(session));
            call.arg(self.session_life()).arg(self.keys.news()).arg(News::Ended(session.clone(), by).encode());
            let done: Result<Value, _> = call.invoke_async(&mut self.shared.clone()).await;
            done.map(drop).map_err(|e| self.failed("forgetting a session", e))
        })
    }

    fn confirmed<'a>(
        &'a self,
        process: ProcessId,
        session: &'a SessionId,
        ping: u64,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async move {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(self.keys.news_for(process)).arg(News::Confirmed(session.clone(), ping).encode());
            let done = publish.exec_async(&mut self.shared.clone()).await;
            done.map_err(|e| self.failed("telling another process", e))
        })
    }

    fn listen(&self, process: ProcessId) -> mpsc::UnboundedReceiver<News> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let channels = [self.keys.news(), self.keys.news_for(process)];
        let probe = primary::probe(&self.keys);
        tokio::spawn(news::listen(self.client.clone(), channels, probe, self.config.backoff(), sender));
        receiver
    }
}
