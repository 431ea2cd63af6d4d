//! [`Nodes`]: connections of a shared link to the nodes of a cluster, and the routes of its requests.
//!
//! A request is split by the slots of its commands. The parts go to their nodes at the same time, and the answers are
//! put in the order of the commands. A failure of one node fails the commands of its part only.
//!
//! # Repetitions
//! Each of these answers says that a command did nothing. The command is sent again, with all that follow in its
//! sequence, and with the commands without a key directly before it:
//! - `MOVED` names the node that serves the slot. The table is corrected, and the command goes there.
//! - `ASK` and `TRYAGAIN`: the slot is being migrated. A script with several keys cannot follow the keys one by one,
//!   so it is sent again after a pause, within the time of its request.
//! - No connection to the node could be made, and meanwhile another node serves the slot.
//!
//! As everywhere, a request whose answer is missing is never repeated.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use futures_util::future::join_all;
use redis::Value;

use self::repetition::{Attempts, again, finish};
use self::routing::{slots, split};
use super::Answer;
use super::endpoint::Endpoint;
use super::error::same;
use super::health::CHECK_EVERY;
use super::inner::{Common, Inner, Scope};
#[cfg(feature = "rmcp")]
use super::pushes::Pushes;
use super::request::Request;
use super::topology::{Follower, READ_EVERY, Redirect, Table, Topology};
use super::watches::LinkEvent;
use crate::backend::redis::url::Node;
use crate::failure::QueueErrorKind;
use crate::keys::slot::slot;
use crate::lock::lock;

mod repetition;
mod routing;

/// Connections of a shared link to the nodes of a cluster. Each is made when it is needed.
pub(super) struct Nodes {
    topology: Arc<Topology>,
    common: Common,
    lines: Mutex<HashMap<Node, Arc<Inner>>>,
    /// Time of the last regular check of all connections.
    checked: Mutex<Instant>,
    /// Connection of a link that listens to channels, and the number of connections before it.
    #[cfg(feature = "rmcp")]
    listening: Mutex<Option<(Arc<Inner>, Node, u64)>>,
}

impl Nodes {
    pub(super) fn new(topology: Arc<Topology>, common: Common) -> Arc<Self> {
        let nodes = Arc::new(Self {
            topology: Arc::clone(&topology),
            common: common.for_nodes(),
            lines: Mutex::default(),
            checked: Mutex::new(Instant::now()),
            #[cfg(feature = "rmcp")]
            listening: Mutex::default(),
        });
        let follower: Weak<Self> = Arc::downgrade(&nodes);
        topology.follow(follower);
        nodes
    }

    /// Makes a connection to be. What its node announces is decided by the table at the moment of the question.
    fn make(&self, node: &Node) -> Arc<Inner> {
        let scope: Scope = match &self.common.pushes {
            // Each node passes on what any node publishes.
            #[cfg(feature = "rmcp")]
            Pushes::Channels(_) => Box::new(|_| true),
            _ => {
                let (topology, node) = (Arc::downgrade(&self.topology), node.clone());
                Box::new(move |key| {
                    let table = topology.upgrade().map(|topology| topology.known());
                    table.is_none_or(|table| table.node_of(slot(key.as_bytes())).is_none_or(|known| *known == node))
                })
            }
        };
        Arc::new(Inner::new(Endpoint::Server(self.topology.server_at(node)), self.common.clone(), scope))
    }

    /// Returns the connection to a node.
    pub(super) fn line(&self, node: &Node) -> Arc<Inner> {
        Arc::clone(lock(&self.lines).entry(node.clone()).or_insert_with(|| self.make(node)))
    }

    /// Returns a connection to each master that serves slots, in the order of their addresses.
    ///
    /// # Errors
    /// Those of [`Topology::table`].
    pub(super) async fn masters(&self) -> Result<Vec<Arc<Inner>>, QueueErrorKind> {
        let mut nodes = self.topology.table().await?.nodes().to_vec();
        nodes.sort_unstable_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
        Ok(nodes.iter().map(|node| self.line(node)).collect())
    }

    /// Returns a number for the node that serves a slot, as the table is known now.
    #[cfg(feature = "server")]
    pub(super) fn number_of(&self, slot: u16) -> usize {
        self.topology.known().number_of_slot(slot)
    }

    /// Returns the node for a request without any key: one that did not fail last, if there is one.
    fn any(&self, table: &Table) -> Option<Node> {
        let (now, lines) = (Instant::now(), lock(&self.lines));
        let is_whole = |node: &&Node| lines.get(*node).is_none_or(|line| line.state().health.pause(now).is_zero());
        table.nodes().iter().find(is_whole).or_else(|| table.nodes().first()).cloned()
    }

    /// Sends a request, as [`Link::send`](super::Link::send) says. An answer is an error also where only the node of
    /// that command failed.
    pub(super) async fn send(self: &Arc<Self>, request: &Request, large: bool) -> Result<Vec<Answer>, QueueErrorKind> {
        self.check_beside();
        let mut attempts = Attempts::new(request);
        let mut table = self.topology.table().await?;
        let slots = slots(request);
        let mut answers: Vec<Answer> = slots.iter().map(|_| Ok(Value::Nil)).collect();
        let mut positions: Vec<usize> = (0..answers.len()).collect();
        loop {
            let any = self.any(&table);
            let node_of = |i: usize| slots[i].map_or(any.as_ref(), |slot| table.node_of(slot));
            let parts = split(&positions, node_of).into_iter().map(async |(node, part)| {
                let sent = self.send_part(node, request, &part, large).await;
                (node, part, sent)
            });
            let mut unreached = Vec::new();
            for (node, part, sent) in join_all(parts).await {
                match sent {
                    Ok(sent) => part.iter().zip(sent).for_each(|(&i, answer)| answers[i] = answer),
                    Err(error) => {
                        self.topology.refresh_after_loss();
                        part.iter().for_each(|&i| answers[i] = Err(same(&error)));
                        if matches!(error, QueueErrorKind::Unreachable(_)) {
                            unreached.extend(part.iter().map(|&i| (i, node.cloned())));
                        }
                        continue;
                    }
                }
                if let Some(node) = node {
                    part.iter().for_each(|&i| correct(&self.topology, &answers[i], node));
                }
            }
            table = if unreached.is_empty() { self.topology.known() } else { self.topology.refresh_now().await };
            let is_elsewhere = |i: usize| {
                let now = slots[i].and_then(|slot| table.node_of(slot));
                unreached.iter().any(|(at, node): &(usize, Option<Node>)| *at == i && now != node.as_ref())
            };
            let pause = attempts.next(positions.iter().map(|&i| Redirect::of(&answers[i])));
            let again = again(request, &positions, |i| {
                attempts.repeats(&answers[i]) || (slots[i].is_some() && is_elsewhere(i))
            });
            match pause {
                Some(pause) if !again.is_empty() => tokio::time::sleep(pause).await,
                _ => break,
            }
            (positions, table) = (again, self.topology.known());
        }
        finish(answers)
    }

    /// Sends the commands at these positions to their node.
    async fn send_part(
        &self,
        node: Option<&Node>,
        request: &Request,
        part: &[usize],
        large: bool,
    ) -> Result<Vec<Answer>, QueueErrorKind> {
        let Some(node) = node else {
            let unserved = "CLUSTERDOWN no node serves the slot";
            return Ok(part.iter().map(|_| Err(QueueErrorKind::Refused(unserved.to_owned()))).collect());
        };
        let line = self.line(node);
        // A request for one node travels as it is.
        if part.len() == request.len() {
            return line.send(request, large).await;
        }
        line.send(&request.only(part), large).await
    }

    /// Checks all connections, and reads the table of slots, in a task of its own where that is due.
    fn check_beside(self: &Arc<Self>) {
        {
            let mut checked = lock(&self.checked);
            if checked.elapsed() < CHECK_EVERY {
                return;
            }
            *checked = Instant::now();
        }
        let nodes = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = nodes.check_all().await {
                tracing::debug!(%error, "checking the connections to a cluster failed; the next request connects again");
            }
        });
    }

    /// Checks all connections. A node whose failure is recent is left out.
    ///
    /// # Errors
    /// The failure of a node where no node answered.
    async fn check_all(&self) -> Result<(), QueueErrorKind> {
        let table = self.topology.refresh(READ_EVERY).await?;
        let lines: Vec<Arc<Inner>> = {
            let mut lines = lock(&self.lines);
            // A node that serves no slot any more is neither asked nor listened to.
            lines.retain(|node, _| table.nodes().contains(node));
            if lines.is_empty() {
                // A link that has sent nothing yet: one node stands for all.
                table.nodes().first().into_iter().for_each(|node| {
                    lines.insert(node.clone(), self.make(node));
                });
            }
            lines.values().cloned().collect()
        };
        let now = Instant::now();
        let (whole, failed): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.state().health.pause(now).is_zero());
        let asked = if whole.is_empty() { failed } else { whole };
        let answers = join_all(asked.into_iter().map(|line| line.check())).await;
        if answers.iter().any(Result::is_err) {
            self.topology.refresh_now().await;
        }
        let is_any_whole = answers.iter().any(Result::is_ok);
        answers.into_iter().find_map(Result::err).filter(|_| !is_any_whole).map_or(Ok(()), Err)
    }

    /// Checks the link, as [`Link::check`](super::Link::check) says.
    pub(super) async fn check(&self) -> Result<u64, QueueErrorKind> {
        match &self.common.pushes {
            #[cfg(feature = "rmcp")]
            Pushes::Channels(channels) => self.check_listening(channels.first().map_or("", String::as_str)).await,
            _ => self.check_all().await.map(|()| 1),
        }
    }

    /// Checks the connection that listens to channels. It leads to the node of the first channel's slot: `PUBSUB NUMSUB`
    /// counts the listeners at one node, so all must listen at the same one.
    #[cfg(feature = "rmcp")]
    async fn check_listening(&self, channel: &str) -> Result<u64, QueueErrorKind> {
        self.topology.refresh(READ_EVERY).await?;
        let node = self.topology.node_of(slot(channel.as_bytes())).await?;
        let (line, before) = {
            let mut listening = lock(&self.listening);
            match &*listening {
                Some((line, at, before)) if *at == node => (Arc::clone(line), *before),
                old => {
                    let before = old.as_ref().map_or(0, |(line, _, before)| before + line.state().health.generation());
                    let line = self.make(&node);
                    *listening = Some((Arc::clone(&line), node, before));
                    (line, before)
                }
            }
        };
        let checked = line.check().await;
        if checked.is_err() {
            self.topology.refresh_after_loss();
        }
        Ok(before + checked?)
    }

    /// Drops all connections. The next request makes others.
    pub(super) fn disconnect(&self) {
        let lines: Vec<_> = lock(&self.lines).values().cloned().collect();
        lines.iter().for_each(|line| line.disconnect());
    }
}

impl Follower for Nodes {
    fn slots_moved(&self, is_moved: &dyn Fn(u16) -> bool) {
        // A moved key is announced by its old node no more, if it exists, and by its new node only after a read there.
        self.common.watches.notify_each(&|name| is_moved(slot(name.as_bytes())), LinkEvent::Lost);
    }
}

/// Corrects the table where an answer of `asked` says that a slot moved.
fn correct(topology: &Arc<Topology>, answer: &Answer, asked: &Node) {
    match Redirect::of(answer) {
        Some(Redirect::Moved { slot, host, port }) => {
            topology.correct(slot, Redirect::node(host.as_deref(), port, asked));
            topology.refresh_after_move();
        }
        Some(Redirect::Down) => topology.refresh_after_loss(),
        Some(Redirect::Migrating) | None => {}
    }
}

/// Sends a request of a dedicated link, which leads to the node of one slot. Waits for the end of a migration as a
/// shared link does. Where the slot has moved, the connection counts as broken: the owner opens another link.
#[cfg(feature = "server")]
pub(super) async fn send_to_slot(
    line: &Arc<Inner>,
    topology: &Arc<Topology>,
    request: &Request,
    large: bool,
) -> Result<Vec<Answer>, QueueErrorKind> {
    let mut attempts = Attempts::new(request);
    let mut answers = line.send(request, large).await?;
    let mut positions: Vec<usize> = (0..answers.len()).collect();
    loop {
        let redirects: Vec<Option<Redirect>> = positions.iter().map(|&i| Redirect::of(&answers[i])).collect();
        for redirect in redirects.iter().flatten() {
            match redirect {
                Redirect::Moved { slot, host, port } => {
                    // Without a host the node is at the host of the one that answered, which only the topology knows.
                    if let Some(host) = host {
                        topology.correct(*slot, Node { host: host.clone(), port: *port });
                    }
                    topology.refresh_now().await;
                    return Err(QueueErrorKind::Broken("the slot of the queue moved to another node".into()));
                }
                Redirect::Down => topology.refresh_after_loss(),
                Redirect::Migrating => {}
            }
        }
        let again = again(request, &positions, |i| Redirect::of(&answers[i]) == Some(Redirect::Migrating));
        if again.is_empty() {
            return finish(answers);
        }
        let Some(pause) = attempts.next(redirects) else { return finish(answers) };
        tokio::time::sleep(pause).await;
        let sent = line.send(&request.only(&again), large).await?;
        again.iter().zip(sent).for_each(|(&i, answer)| answers[i] = answer);
        positions = again;
    }
}
