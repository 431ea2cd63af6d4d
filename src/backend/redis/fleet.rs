//! Sessions in Redis: one string each, empty after the end of the session, and channels for the news.
//!
//! *Sessions* are remembered as a string under a key of their own. An empty string marks a session that has ended, so
//! it is distinguished from one that never existed (`a_session_that_never_was_is_not_remembered_as_ended`).
//!
//! *News* travel by `PUBLISH` and may be lost. They save time only: a server that receives the news of an end asks
//! Redis, and a server that lost news looks all its sessions up (`News::Missed`).

use async_trait::async_trait;
use redis::Cmd;

use super::RedisBackend;
use super::link::{Link, Pushes, Request, read};
use super::lua::{END_SESSION, STORE_SESSION};
use crate::backend::SessionRecord;
use crate::backend::fleet::{Fleet, News, NewsReceiver, ProcessId, news_channel};
use crate::failure::{QueueError, QueueErrorKind};
use crate::session_id::SessionId;

mod news;

/// Number of sessions per pipeline.
const PIPELINE: usize = 500;

impl RedisBackend {
    fn session_life(&self) -> String {
        self.config.session_time_to_live().as_millis().to_string()
    }

    /// Reads for each session whether its key exists, and the length of its value. `exists` makes the command for the
    /// first question, which answers 0 where there is no key.
    async fn known(
        &self,
        sessions: &[SessionId],
        doing: &'static str,
        exists: impl Fn(&str) -> Cmd + Send + Sync,
    ) -> Result<Vec<SessionRecord>, QueueError> {
        let mut known = Vec::with_capacity(sessions.len());
        for some in sessions.chunks(PIPELINE) {
            let mut request = Request::new();
            for session in some {
                let key = self.keys.session(session);
                request.add(exists(&key)).add(redis::cmd("STRLEN").arg(&key));
            }
            let answers = self.link.send(&request).await.map_err(|e| self.failed(doing, e))?;
            let mut answers = answers.into_iter().map(|answer| answer.and_then(read::<i64>));
            while let (Some(exists), Some(length)) = (answers.next(), answers.next()) {
                known.push(match (exists, length) {
                    (Ok(0), _) => SessionRecord::Unknown,
                    (Ok(_), Ok(0)) => SessionRecord::Ended,
                    // Another type lies under this session's key. The other sessions must not suffer for it.
                    (Ok(_), Err(QueueErrorKind::Refused(why))) if why.starts_with("WRONGTYPE") => SessionRecord::Known,
                    (Err(error), _) | (_, Err(error)) => return Err(self.failed(doing, error)),
                    _ => SessionRecord::Known,
                });
            }
        }
        Ok(known)
    }
}

#[async_trait]
impl Fleet for RedisBackend {
    async fn store_session(&self, session: &SessionId, state: &str) -> Result<bool, QueueError> {
        let (key, life) = (self.keys.session(session), self.session_life());
        self.call("storing a session", &STORE_SESSION, &[key], &[state, &life]).await
    }

    async fn load_session(&self, session: &SessionId) -> Result<Option<String>, QueueError> {
        let mut get = redis::cmd("GETEX");
        get.arg(self.keys.session(session)).arg("PX").arg(self.session_life());
        let state: Option<String> = self.query_large("loading a session", get).await?;
        Ok(state.filter(|state| !state.is_empty()))
    }

    async fn refresh_sessions(&self, sessions: &[SessionId]) -> Result<Vec<SessionRecord>, QueueError> {
        let life = self.session_life();
        let expire = |key: &str| redis::cmd("PEXPIRE").arg(key).arg(&life).take();
        self.known(sessions, "refreshing sessions", expire).await
    }

    async fn look_up_sessions(&self, sessions: &[SessionId]) -> Result<Vec<SessionRecord>, QueueError> {
        self.known(sessions, "looking up sessions", |key| redis::cmd("EXISTS").arg(key).take()).await
    }

    async fn knows_all(&self, sessions: &[SessionId]) -> Result<bool, QueueError> {
        if self.deployment.is_cluster() {
            // Each session's key has a slot of its own, so one command cannot read several.
            let known = self.look_up_sessions(sessions).await?;
            return Ok(known.iter().all(|record| *record != SessionRecord::Unknown));
        }
        for some in sessions.chunks(PIPELINE) {
            let mut exists = redis::cmd("EXISTS");
            for session in some {
                exists.arg(self.keys.session(session));
            }
            let known: usize = self.query("looking up sessions", exists).await?;
            if known < some.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn end_session(&self, session: &SessionId, by: ProcessId, is_known: bool) -> Result<bool, QueueError> {
        let news = News::Ended(session.clone(), by).encode();
        let arguments = [self.session_life(), self.keys.news(), news, u8::from(is_known).to_string()];
        self.call("ending a session", &END_SESSION, &[self.keys.session(session)], &arguments).await
    }

    async fn announce_confirmation(
        &self,
        process: ProcessId,
        session: &SessionId,
        ping: u128,
    ) -> Result<(), QueueError> {
        let news = News::Confirmed(session.clone(), ping).encode();
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.keys.news_for(process)).arg(news);
        self.query("telling another process", publish).await
    }

    async fn has_others(&self) -> Result<bool, QueueError> {
        let mut count = redis::cmd("PUBSUB");
        count.arg("NUMSUB").arg(self.keys.news());
        let (_, listeners): (String, usize) = self.query("counting the servers of the fleet", count).await?;
        Ok(listeners > 1)
    }

    fn listen(&self, process: ProcessId) -> NewsReceiver {
        let (sender, receiver) = news_channel();
        let channels = [self.keys.news(), self.keys.news_for(process)];
        let link = Link::shared(&self.deployment, &self.config, Pushes::Channels(channels.to_vec()));
        tokio::spawn(news::listen(link, channels, sender));
        receiver
    }
}
