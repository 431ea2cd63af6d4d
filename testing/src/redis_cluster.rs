//! Real Redis Cluster of three masters on loopback ports, with replicas where a test wants them.

use std::collections::HashMap;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, cmd};

use crate::eventually::eventually;
use crate::redis_server::RedisServer;

/// Number of masters.
const MASTERS: u16 = 3;

/// Number of slots of a cluster.
const SLOTS: u16 = 16384;

/// Options of each node. A dead master is noticed after a second, so that a test need not wait for the usual 15.
const NODE: [&str; 6] =
    ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-announce-ip", "127.0.0.1"];

/// Time limit of each change of the cluster, which its nodes tell each other by gossip.
const SOON: Duration = Duration::from_secs(30);

/// Cluster whose nodes are killed when this is dropped.
#[derive(Debug)]
pub struct RedisCluster {
    /// Masters, each with a third of the slots at first, and behind them their replicas in the same order.
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts three masters.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts three masters with further options of `redis-server`.
    pub async fn with(options: &[&str]) -> Self {
        let options = [&NODE, options].concat();
        Self::of((0..MASTERS).map(|_| RedisServer::with(&options)).collect()).await
    }

    /// Starts three masters that speak TLS, also with each other, with the options that name their certificates.
    #[cfg(feature = "tls")]
    pub async fn with_tls(options: &[&str]) -> Self {
        let options = [&NODE, ["--tls-cluster", "yes"].as_slice(), options].concat();
        Self::of((0..MASTERS).map(|_| RedisServer::with_tls(&options)).collect()).await
    }

    /// Makes a cluster of these masters.
    async fn of(nodes: Vec<RedisServer>) -> Self {
        let cluster = Self { nodes };
        for (node, number) in cluster.nodes.iter().zip(0..) {
            let slots: Vec<u16> = (SLOTS * number / MASTERS..SLOTS * (number + 1) / MASTERS).collect();
            let () = ask(node, cmd("CLUSTER").arg("ADDSLOTS").arg(slots)).await;
            let () = ask(node, cmd("CLUSTER").arg("SET-CONFIG-EPOCH").arg(number + 1)).await;
        }
        cluster.introduce(1..cluster.nodes.len()).await;
        cluster
    }

    /// Starts three masters with a replica each.
    pub async fn with_replicas() -> Self {
        let mut cluster = Self::start().await;
        let masters = cluster.nodes.len();
        cluster.nodes.extend((0..masters).map(|_| RedisServer::with(&NODE)));
        cluster.introduce(masters..2 * masters).await;
        for (master, replica) in cluster.nodes[..masters].iter().zip(&cluster.nodes[masters..]) {
            let id: String = ask(master, cmd("CLUSTER").arg("MYID")).await;
            let () = ask(replica, cmd("CLUSTER").arg(&["REPLICATE", &id])).await;
            eventually("a replica in step", SOON, async || {
                let info: String = ask(replica, cmd("INFO").arg("replication")).await;
                info.contains("master_link_status:up")
            })
            .await;
        }
        // Only a master whose replica all know is followed by that replica.
        for node in &cluster.nodes {
            eventually("a cluster that knows its replicas", SOON, async || {
                let nodes: String = ask(node, cmd("CLUSTER").arg("NODES")).await;
                nodes.matches("slave").count() == masters
            })
            .await;
        }
        cluster
    }

    /// Has these nodes meet the first one, and waits until all know all slots.
    async fn introduce(&self, range: std::ops::Range<usize>) {
        for node in &self.nodes[range] {
            let () = ask(node, cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(self.nodes[0].port())).await;
        }
        for node in &self.nodes {
            let known = format!("cluster_known_nodes:{}\r", self.nodes.len());
            eventually("a whole cluster", SOON, async || {
                let info: String = ask(node, cmd("CLUSTER").arg("INFO")).await;
                info.contains("cluster_state:ok")
                    && info.contains(&format!("cluster_slots_assigned:{SLOTS}\r"))
                    && info.contains(&known)
            })
            .await;
            // A message to the channel of another node is lost while the nodes are not connected to each other.
            eventually("connected nodes", SOON, async || {
                let nodes: String = ask(node, cmd("CLUSTER").arg("NODES")).await;
                !nodes.contains("handshake") && nodes.matches(" connected").count() == self.nodes.len()
            })
            .await;
        }
    }

    /// Returns the URL, which names all nodes.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("{}+cluster://{}", if self.nodes[0].speaks_tls() { "rediss" } else { "redis" }, hosts.join(","))
    }

    /// Returns the URL that names one node alone.
    pub fn url_of(&self, node: usize) -> String {
        format!("redis+cluster://127.0.0.1:{}", self.nodes[node].port())
    }

    /// Returns all nodes: the masters, and behind them their replicas.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// Kills a node, as a crash would.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Returns the number of the node that serves a slot, as the nodes that run say.
    pub async fn owner_of(&self, slot: u16) -> usize {
        let asked = self.nodes.iter().find(|node| node.pid().is_some()).expect("a node that runs");
        type Range = (u16, u16, redis::Value);
        let ranges: Vec<redis::Value> = ask(asked, cmd("CLUSTER").arg("SLOTS")).await;
        for range in ranges {
            let mut parts: Vec<redis::Value> = redis::from_redis_value(range).expect("a range");
            parts.truncate(3);
            let [first, last, master]: [redis::Value; 3] = parts.try_into().expect("a range with its master");
            let (first, last, mut master): Range = (number(first), number(last), master);
            if (first..=last).contains(&slot) {
                if let redis::Value::Array(parts) = &mut master {
                    parts.truncate(2);
                }
                let (_, port): (String, u16) = redis::from_redis_value(master).expect("a master");
                return self.nodes.iter().position(|node| node.port() == port).expect("one of our nodes");
            }
        }
        panic!("no node serves the slot {slot}");
    }

    /// Returns the slot of a key.
    pub async fn slot_of(&self, key: &str) -> u16 {
        let asked = self.nodes.iter().find(|node| node.pid().is_some()).expect("a node that runs");
        ask(asked, cmd("CLUSTER").arg(&["KEYSLOT", key])).await
    }

    /// Returns the number of the node that serves a key.
    pub async fn node_of(&self, key: &str) -> usize {
        self.owner_of(self.slot_of(key).await).await
    }

    /// Migrates a slot to another master, key by key as `redis-cli` does. `pause` is made while the slot is migrated:
    /// before the first key, and after each key.
    pub async fn migrate_slot(&self, slot: u16, to: usize, pause: Duration) {
        let from = self.owner_of(slot).await;
        if from == to {
            return;
        }
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let mut ids: Vec<String> = Vec::new();
        for node in [source, target] {
            ids.push(ask(node, cmd("CLUSTER").arg("MYID")).await);
        }
        let () = ask(target, cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(&["IMPORTING", &ids[0]])).await;
        let () = ask(source, cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(&["MIGRATING", &ids[1]])).await;
        tokio::time::sleep(pause).await;
        loop {
            let keys: Vec<Vec<u8>> = ask(source, cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(1)).await;
            if keys.is_empty() {
                break;
            }
            let mut migrate = cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(target.port()).arg("").arg(0).arg(5000).arg("KEYS").arg(keys);
            let _: String = ask(source, &mut migrate).await;
            tokio::time::sleep(pause).await;
        }
        // The target first: until it says that the slot is its own, the source passes commands on to it.
        let masters = [target, source].into_iter().chain(&self.nodes[..usize::from(MASTERS)]);
        for node in masters.filter(|node| node.pid().is_some()) {
            let () = ask(node, cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(&["NODE", &ids[1]])).await;
        }
    }

    /// Asserts that each key expires by itself.
    pub async fn assert_no_key_without_expiry(&self) {
        for node in self.nodes.iter().filter(|node| node.pid().is_some()) {
            node.assert_no_key_without_expiry().await;
        }
    }

    /// Returns the number of calls of each command at each node.
    pub async fn calls(&self) -> Vec<HashMap<String, u64>> {
        let mut calls = Vec::new();
        for node in &self.nodes {
            calls.push(node.calls().await);
        }
        calls
    }
}

fn number(value: redis::Value) -> u16 {
    redis::from_redis_value(value).expect("a slot")
}

/// Sends a command to one node.
async fn ask<T: FromRedisValue>(node: &RedisServer, command: &mut Cmd) -> T {
    command.query_async(&mut node.connection().await).await.expect("an answer of our own node")
}
