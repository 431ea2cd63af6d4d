//! [`Topology`]: the masters of a cluster and their slots, which all links of a backend share.
//!
//! *Sources*. A node that does not serve a slot names the node that does (`MOVED`); the table is corrected at once. The
//! whole table is read by `CLUSTER SLOTS`: before the first request, every few seconds, after a correction, and where a
//! node cannot be reached.
//!
//! *Why followers*. A key that does not exist is not announced when its slot moves. A subscriber that waits for the
//! queue at the old node would wait until its next renewal. So each change of the table tells every shared link which
//! slots moved. The table is changed first: a read that is composed afterwards goes to the new node.
//!
//! *Which answer counts*. A node that the others cannot reach still answers, with an old table. Therefore an answer
//! counts only where the node itself says that its cluster is whole, unless no node says so.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::Value;

use super::connection::Server;
use super::error::{kind, no_answer, read};
use crate::backend::redis::url::Node;
use crate::failure::QueueErrorKind;
use crate::lock::lock;

pub(super) use self::redirect::Redirect;
pub(super) use self::table::Table;

mod redirect;
mod table;

/// Age from which a regular check reads the table again.
pub(super) const READ_EVERY: Duration = Duration::from_secs(5);

/// Age from which the table is read again after a node sent a command elsewhere.
const AFTER_MOVE: Duration = Duration::from_secs(1);

/// Age from which the table is read again where a node cannot be reached.
const AFTER_LOSS: Duration = Duration::from_millis(200);

/// Longest time for the answer of one node, and time after which the next node is asked beside it.
const ANSWER_TIME: Duration = Duration::from_secs(3);
const NEXT_AFTER: Duration = Duration::from_millis(500);

/// Link that is told which slots have moved.
pub(super) trait Follower: Send + Sync {
    /// Notes that some slots are served by other nodes than before, as the table already says.
    fn slots_moved(&self, is_moved: &dyn Fn(u16) -> bool);
}

/// Masters of a cluster and their slots.
pub(in crate::backend::redis) struct Topology {
    /// Server as the URL names it, of which the servers of all nodes are made.
    server: Server,
    /// Nodes that the URL names. They are asked where no other node answers.
    seeds: Vec<Node>,
    state: Mutex<State>,
    /// Held while the table is read, so that many requests read it once.
    reading: tokio::sync::Mutex<()>,
}

struct State {
    table: Arc<Table>,
    /// Time of the last reading, also of one that failed; `None` before the first.
    read: Option<Instant>,
    /// Number of corrections by redirections. A reading that was begun before a correction may not contain it.
    corrections: u64,
    /// Node that was named last by a redirection, which knows the newest table.
    newest: Option<Node>,
    followers: Vec<Weak<dyn Follower>>,
}

impl Topology {
    pub(super) fn new(server: Server, seeds: Vec<Node>) -> Self {
        let state =
            State { table: Arc::new(Table::empty()), read: None, corrections: 0, newest: None, followers: Vec::new() };
        Self { server, seeds, state: Mutex::new(state), reading: tokio::sync::Mutex::default() }
    }

    /// Registers a link, which is told of every change until it is dropped.
    pub(super) fn follow(&self, follower: Weak<dyn Follower>) {
        let mut state = self.state();
        state.followers.retain(|follower| follower.strong_count() > 0);
        state.followers.push(follower);
    }

    /// Returns the server at a node.
    pub(super) fn server_at(&self, node: &Node) -> Server {
        self.server.at(node.clone())
    }

    /// Returns the table as it is known now, which may be empty.
    pub(super) fn known(&self) -> Arc<Table> {
        Arc::clone(&self.state().table)
    }

    /// Returns the table, and reads it first where none is known.
    ///
    /// # Errors
    /// The failure of the last node that was asked, where no node answered and no table is known.
    pub(super) async fn table(&self) -> Result<Arc<Table>, QueueErrorKind> {
        let known = self.known();
        if known.nodes().is_empty() { self.refresh(Duration::ZERO).await } else { Ok(known) }
    }

    /// Returns the node that serves a slot.
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "only a server has links to one slot"))]
    ///
    /// # Errors
    /// Those of [`table`](Self::table), and a slot that no node serves.
    pub(super) async fn node_of(&self, slot: u16) -> Result<Node, QueueErrorKind> {
        let unserved = || QueueErrorKind::Refused("no node of the cluster serves the slot of the key".to_owned());
        self.table().await?.node_of(slot).cloned().ok_or_else(unserved)
    }

    /// Corrects the table: `node` serves the slot.
    pub(super) fn correct(&self, slot: u16, node: Node) {
        let table = {
            let mut state = self.state();
            state.corrections += 1;
            state.newest = Some(node.clone());
            state.table.with(slot, node)
        };
        self.replace(table);
    }

    /// Reads the table again, unless a reading within the last `age` was as good.
    ///
    /// # Errors
    /// Those of [`table`](Self::table). A table that is known is returned also where no node answers.
    ///
    /// # Cancellation
    /// Nothing is lost: another caller reads the table.
    pub(super) async fn refresh(&self, age: Duration) -> Result<Arc<Table>, QueueErrorKind> {
        let is_fresh = |began: Option<Instant>| {
            let state = self.state();
            let read = state.read.filter(|read| read.elapsed() < age || began.is_some_and(|began| *read >= began));
            read.filter(|_| !state.table.nodes().is_empty()).map(|_| Arc::clone(&state.table))
        };
        if let Some(table) = is_fresh(None) {
            return Ok(table);
        }
        let began = Instant::now();
        // A reading whose runtime stands still must not hold up the others for ever.
        let _turn = tokio::time::timeout(2 * ANSWER_TIME, self.reading.lock()).await;
        if let Some(table) = is_fresh(Some(began)) {
            return Ok(table);
        }
        let mut failure = None;
        // A second time where a redirection corrected the table meanwhile.
        for _ in 0..2 {
            let corrections = self.state().corrections;
            let read = self.read().await;
            let mut state = self.state();
            state.read = Some(Instant::now());
            match read {
                Ok(_) if state.corrections != corrections => {}
                Ok(table) => {
                    drop(state);
                    return Ok(self.replace(table));
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let known = self.known();
        match failure {
            Some(error) if known.nodes().is_empty() => Err(error),
            _ => Ok(known),
        }
    }

    /// Reads the table soon, in a task of its own, because a node sent a command elsewhere.
    pub(super) fn refresh_after_move(self: &Arc<Self>) {
        self.refresh_beside(AFTER_MOVE);
    }

    /// Reads the table soon, in a task of its own, because a connection was lost.
    pub(super) fn refresh_after_loss(self: &Arc<Self>) {
        self.refresh_beside(AFTER_LOSS);
    }

    /// Reads the table again, because a node cannot be reached.
    pub(super) async fn refresh_now(&self) -> Arc<Table> {
        // Without a table no node would have been tried.
        self.refresh(AFTER_LOSS).await.unwrap_or_else(|_| self.known())
    }

    fn refresh_beside(self: &Arc<Self>, age: Duration) {
        if self.state().read.is_some_and(|read| read.elapsed() < age) {
            return;
        }
        let topology = Arc::clone(self);
        tokio::spawn(async move {
            let _ = topology.refresh(age).await;
        });
    }

    /// Asks nodes for the table: the newest one, the known ones and those of the URL, each next one where the one
    /// before failed or hesitates.
    async fn read(&self) -> Result<Table, QueueErrorKind> {
        let mut candidates: Vec<Node> = {
            let state = self.state();
            let mut known = state.table.nodes().to_vec();
            // Another one each time, so that no single node is believed for ever.
            fastrand::shuffle(&mut known);
            state.newest.iter().chain(&known).chain(&self.seeds).cloned().collect()
        };
        let mut unique: Vec<Node> = Vec::with_capacity(candidates.len());
        candidates.drain(..).for_each(|node| {
            if !unique.contains(&node) {
                unique.push(node);
            }
        });
        let (mut left, mut asked) = (unique.into_iter(), FuturesUnordered::new());
        let (mut failure, mut unsure) = (None, None);
        loop {
            if let Some(node) = left.next() {
                asked.push(self.ask(node));
            } else if asked.is_empty() {
                break;
            }
            match tokio::time::timeout(NEXT_AFTER, asked.next()).await {
                Ok(Some(Ok((table, true)))) => return Ok(table),
                Ok(Some(Ok((table, false)))) => unsure = unsure.or(Some(table)),
                Ok(Some(Err(error))) => failure = Some(error),
                Ok(None) | Err(_) => {}
            }
        }
        unsure.ok_or_else(|| failure.unwrap_or_else(|| no_answer(ANSWER_TIME)))
    }

    /// Asks one node for the table. Returns it, and whether the node says that the cluster is whole.
    async fn ask(&self, node: Node) -> Result<(Table, bool), QueueErrorKind> {
        let server = self.server_at(&node);
        let asked = async {
            let connection = server.connect(&redis::Pipeline::new(), |_| ()).await.map_err(kind)?;
            let questions = redis::pipe().cmd("CLUSTER").arg("SLOTS").cmd("CLUSTER").arg("INFO").clone();
            connection.send(&questions).await.map_err(kind)
        };
        let answered = tokio::time::timeout(ANSWER_TIME, asked).await.map_err(|_| no_answer(ANSWER_TIME))?;
        let mut answers = answered?.into_iter();
        let slots = read::<Value>(answers.next().unwrap_or(Value::Nil)).map_err(|error| explained(&node, error))?;
        let table = Table::read(slots, &node)?;
        if table.nodes().is_empty() {
            let Node { host, port } = &node;
            let why = format!("the cluster of the node {host}:{port} serves no slots; assign its slots to nodes");
            return Err(QueueErrorKind::Refused(why));
        }
        // A user without the right to ask must believe the node.
        let info: Result<String, _> = read(answers.next().unwrap_or(Value::Nil));
        Ok((table, !info.is_ok_and(|info| info.contains("cluster_state:fail"))))
    }

    /// Replaces the table, and tells the links which slots moved.
    fn replace(&self, table: Table) -> Arc<Table> {
        let table = Arc::new(table);
        let (earlier, followers) = {
            let mut state = self.state();
            let earlier = std::mem::replace(&mut state.table, Arc::clone(&table));
            (earlier, state.followers.clone())
        };
        if *earlier != *table {
            let moved = table.moved_since(&earlier);
            if moved.contains(&true) {
                let is_moved = |slot: u16| moved.get(usize::from(slot)).copied().unwrap_or_default();
                followers.iter().filter_map(Weak::upgrade).for_each(|follower| follower.slots_moved(&is_moved));
            }
        }
        table
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Adds to a refusal of `CLUSTER SLOTS` what it means.
fn explained(Node { host, port }: &Node, error: QueueErrorKind) -> QueueErrorKind {
    match error {
        QueueErrorKind::Refused(text) if text.contains("cluster support disabled") => QueueErrorKind::Refused(format!(
            "the server at {host}:{port} is no node of a cluster; use redis:// in place of redis+cluster:// ({text})"
        )),
        other => other,
    }
}
