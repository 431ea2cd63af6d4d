//! [`Pushes`]: kinds of events that Redis sends over a link by itself.

use std::io;
use std::time::Duration;

use redis::{RedisError, RedisResult, Value};

use super::connection::{ANSWER_TIMEOUT, Connection, Server};
use super::primary::refuses;

/// Events that Redis sends over a link by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::backend::redis) enum Pushes {
    /// No events.
    Nothing,
    /// Next change of each key that is read over the link.
    Keys,
    /// Next change of each key that is read, except behind `CLIENT CACHING NO`.
    #[cfg(feature = "server")]
    KeysButThose,
    /// Next change of each key that is read behind `CLIENT CACHING YES`.
    #[cfg(feature = "server")]
    ChosenKeys,
    /// Messages of these channels.
    #[cfg(feature = "rmcp")]
    Channels(Vec<String>),
}

impl Pushes {
    /// Returns the longest time that [`ask`](Self::ask) lasts.
    pub(super) fn time(&self) -> Duration {
        if *self == Self::Nothing { Duration::ZERO } else { ANSWER_TIMEOUT }
    }

    /// Turns these events on over a new connection. Returns whether Redis will send them.
    ///
    /// # Errors
    /// A broken or silent connection, or refused channels. A refusal of tracking is no error: the users of the link
    /// then read again by themselves.
    pub(super) async fn ask(&self, server: &Server, connection: &Connection) -> RedisResult<bool> {
        let asked = async {
            match self {
                Self::Nothing => Ok(false),
                Self::Keys => track(server, connection, &["NOLOOP"]).await,
                #[cfg(feature = "server")]
                Self::KeysButThose => track(server, connection, &["OPTOUT", "NOLOOP"]).await,
                #[cfg(feature = "server")]
                Self::ChosenKeys => track(server, connection, &["OPTIN", "NOLOOP"]).await,
                #[cfg(feature = "rmcp")]
                Self::Channels(channels) => connection.subscribe(channels).await.map(|()| true),
            }
        };
        // The same error as where no connection was made: no command of ours was sent.
        let silent = |_| io::Error::new(io::ErrorKind::ConnectionRefused, "no answer on a new connection");
        tokio::time::timeout(self.time(), asked).await.map_err(silent)?
    }
}

/// Turns client tracking on. With `NOLOOP` Redis does not announce this connection's own writes.
async fn track(server: &Server, connection: &Connection, options: &[&str]) -> RedisResult<bool> {
    let mut pipe = redis::pipe();
    pipe.cmd("CLIENT").arg(&["TRACKING", "ON"]).arg(options);
    match connection.send(&pipe).await?.into_iter().next() {
        Some(Value::ServerError(error)) if refuses(&Value::ServerError(error.clone())) => Err(error.into()),
        Some(Value::ServerError(error)) => {
            let error = RedisError::from(error);
            let consequence = "takeovers, answers, receipts and the messages of shared subscribers are noticed late";
            if !server.note_tracking(true) {
                tracing::warn!(%error, consequence, "Redis refuses CLIENT TRACKING");
            }
            Ok(false)
        }
        _ => {
            server.note_tracking(false);
            Ok(true)
        }
    }
}
