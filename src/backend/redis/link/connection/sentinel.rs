//! Primary of a service, as its Sentinels name it.
//!
//! Each new connection asks anew, so a link follows a failover by connecting again. Nothing else of a link knows
//! Sentinel.
//!
//! *Why one Sentinel is asked every second*. After a planned failover the old primary stays one for some ten seconds,
//! until a Sentinel makes it a replica. It accepts writes meanwhile, which are lost then. It also holds blocking commands.
//! So a connection ends once a Sentinel names another server than that of the connection.
//!
//! redis-rs has a client for Sentinel, which does not fit. Its connections lack the TLS of this crate. It makes one more
//! connection for each check of a role, which needs the right to `ROLE`. It does not notice that a primary has changed.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{ErrorKind, Pipeline, RedisError, RedisResult, Value};
use tokio::sync::watch;

use super::{Connection, Opener};
use crate::backend::redis::link::error::{is_broken, said};
use crate::backend::redis::link::primary::refuses;
use crate::backend::redis::url::Node;

/// Longest time to connect to one Sentinel, and to get its answer. Also the longest time to connect to the server that
/// it names, and to check the server. All Sentinels together have the time of one attempt to connect.
const EACH: Duration = Duration::from_secs(1);

/// Time between two questions for the primary.
pub(super) const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// Sentinels of a service.
pub(super) struct Sentinels {
    nodes: Vec<Node>,
    service: String,
    /// Index of the Sentinel to ask first: the last that led to a primary.
    first: AtomicUsize,
    /// Primary that a Sentinel named last.
    primary: watch::Sender<Option<Node>>,
}

/// Office of the server of a connection: primary, until a Sentinel names another one.
#[derive(Clone)]
pub(super) struct Office {
    node: Node,
    primary: watch::Receiver<Option<Node>>,
}

impl Office {
    /// Waits for the answer of the server, or until a Sentinel names another primary.
    pub(super) async fn hold<T>(mut self, answer: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
        let Self { node, primary } = &mut self;
        let ended = primary.wait_for(|primary| primary.as_ref().is_some_and(|primary| primary != node));
        tokio::select! {
            biased;
            answer = answer => answer,
            Ok(_) = ended => {
                let text = format!("{node} is the primary no more");
                Err(io::Error::new(io::ErrorKind::ConnectionReset, text).into())
            }
        }
    }
}

impl Sentinels {
    pub(super) fn new(nodes: Vec<Node>, service: String) -> Self {
        Self { nodes, service, first: AtomicUsize::new(0), primary: watch::Sender::new(None) }
    }

    /// Asks the Sentinels in turn for the primary, and connects to the first server that is one.
    ///
    /// A Sentinel may name a server that is dead, or has become a replica. Therefore each server gets `probe`, a write
    /// that changes nothing. A server that refuses the probe for another reason, as by an ACL, counts as a primary.
    ///
    /// # Errors
    /// A server's refusal of the login; or a refused connection, whose text has the failure of each Sentinel. Nothing
    /// was done.
    pub(super) async fn connect(&self, opener: &Opener<'_>, probe: &Pipeline) -> RedisResult<Connection> {
        let first = self.first.load(Ordering::Relaxed);
        let (mut tried, mut failures): (Vec<Node>, Vec<String>) = Default::default();
        for at in (0..self.nodes.len()).map(|n| (first + n) % self.nodes.len()) {
            let sentinel = &self.nodes[at];
            let named = match within(self.ask(opener, sentinel)).await {
                Ok(Some(named)) if tried.contains(&named) => {
                    failures.push(format!("{sentinel} also names {named}"));
                    continue;
                }
                Ok(Some(named)) => named,
                Ok(None) => {
                    failures.push(format!("{sentinel} knows no service of this name"));
                    continue;
                }
                Err(error) if is_broken(&error) && error.kind() != ErrorKind::AuthenticationFailed => {
                    failures.push(format!("{sentinel} does not answer: {}", said(&error)));
                    continue;
                }
                Err(error) => {
                    failures.push(format!(
                        "{sentinel} refuses: {}; the options sentinel_user and sentinel_pass have the login of the \
                         Sentinels",
                        said(&error)
                    ));
                    continue;
                }
            };
            match within(opener.server(&named)).await {
                Ok(connection) => match within(connection.send(probe)).await {
                    Ok(answers) if !answers.iter().any(refuses) => {
                        self.first.store(at, Ordering::Relaxed);
                        self.note(&named);
                        return Ok(connection.in_office(Office { node: named, primary: self.primary.subscribe() }));
                    }
                    Ok(_) => failures.push(format!("{sentinel} names {named}, which is no primary")),
                    Err(error) => {
                        failures.push(format!("{sentinel} names {named}, which breaks off: {}", said(&error)))
                    }
                },
                // Every server of a service has the same users.
                Err(error) if !is_broken(&error) => return Err(error),
                Err(error) => {
                    failures.push(format!("{sentinel} names {named}, which cannot be reached: {}", said(&error)));
                }
            }
            tried.push(named);
        }
        let text = format!("no Sentinel leads to the primary of {}: {}", self.service, failures.join("; "));
        Err(io::Error::new(io::ErrorKind::ConnectionRefused, text).into())
    }

    /// Makes a connection to one Sentinel, and asks it for the primary; `None` where it does not know the service.
    async fn ask(&self, opener: &Opener<'_>, sentinel: &Node) -> RedisResult<Option<Node>> {
        self.ask_over(&opener.sentinel(sentinel).await?).await
    }

    async fn ask_over(&self, sentinel: &Connection) -> RedisResult<Option<Node>> {
        let mut pipe = redis::pipe();
        pipe.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.service);
        let answer = sentinel.send(&pipe).await?.into_iter().next().unwrap_or(Value::Nil);
        let named: Option<(String, u16)> = redis::from_redis_value(answer.extract_error()?)?;
        Ok(named.map(|(host, port)| Node { host, port }))
    }

    /// Notes the primary that a Sentinel names. Connections to any other server end.
    fn note(&self, named: &Node) {
        self.primary.send_if_modified(|primary| {
            let before = primary.replace(named.clone());
            if let Some(before) = before.as_ref().filter(|before| *before != named) {
                tracing::info!(service = %self.service, %before, primary = %named,
                    "a Sentinel names another primary; connecting to it");
            }
            before.as_ref() != Some(named)
        });
    }

    /// Asks the Sentinel that led to the primary once more, over a connection that is kept from one question to the
    /// next. A Sentinel that does not answer changes nothing: every new connection asks all of them.
    pub(super) async fn follow(&self, opener: &Opener<'_>, kept: &mut Option<(usize, Connection)>) {
        let at = self.first.load(Ordering::Relaxed);
        let connection = match kept.take() {
            Some((of, connection)) if of == at => Ok(connection),
            _ => within(opener.sentinel(&self.nodes[at])).await,
        };
        let Ok(connection) = connection else {
            return self.first.store((at + 1) % self.nodes.len(), Ordering::Relaxed);
        };
        if let Ok(Some(named)) = within(self.ask_over(&connection)).await {
            self.note(&named);
            *kept = Some((at, connection));
        }
    }
}

/// Waits no longer than one step may last.
async fn within<T>(step: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    let late = || RedisError::from(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {EACH:?}")));
    tokio::time::timeout(EACH, step).await.unwrap_or_else(|_| Err(late()))
}
