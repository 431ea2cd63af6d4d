//! [`Table`]: the node of each slot of a cluster.

use redis::Value;

use crate::backend::redis::reply::{self, BadReply};
use crate::backend::redis::url::Node;
use crate::keys::slot::SLOTS;

/// Number that stands for "no node".
const NONE: u16 = u16::MAX;

/// Node of each slot.
#[derive(Clone, PartialEq, Eq)]
pub(in super::super) struct Table {
    /// Masters that serve slots, each once.
    nodes: Vec<Node>,
    /// Position in `nodes` of the node of each slot, or [`NONE`].
    of_slot: Vec<u16>,
}

impl Table {
    /// Makes a table without nodes.
    pub(in super::super) fn empty() -> Self {
        Self { nodes: Vec::new(), of_slot: vec![NONE; usize::from(SLOTS)] }
    }

    /// Reads the answer of the node `asked` to `CLUSTER SLOTS`: for each range of slots its first and last slot, its
    /// master, and its replicas. A node without a host has the host of the node that answered.
    ///
    /// # Errors
    /// [`BadReply`] where the answer has another form.
    pub(in super::super) fn read(answer: Value, asked: &Node) -> Result<Self, BadReply> {
        let mut table = Self::empty();
        for range in reply::list(answer)? {
            let mut parts = reply::list(range)?.into_iter();
            let mut next = || parts.next().unwrap_or(Value::Nil);
            let (first, last): (u16, u16) = (reply::number(next())?, reply::number(next())?);
            let mut master = reply::list(next())?.into_iter();
            let host = match master.next() {
                None | Some(Value::Nil) => String::new(),
                Some(host) => String::from_utf8_lossy(&reply::bytes(host)?).into_owned(),
            };
            let port = reply::number(master.next().unwrap_or(Value::Nil))?;
            let host = if host.is_empty() || host == "?" { asked.host.clone() } else { host };
            let number = table.number_of(Node { host, port });
            for slot in first..=last.min(SLOTS - 1) {
                table.of_slot[usize::from(slot)] = number;
            }
        }
        Ok(table)
    }

    fn number_of(&mut self, node: Node) -> u16 {
        let known = self.nodes.iter().position(|known| *known == node);
        let number = known.unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        });
        u16::try_from(number).unwrap_or(NONE)
    }

    /// Returns the masters that serve slots.
    pub(in super::super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns the node of a slot, or `None` where no node serves the slot.
    pub(in super::super) fn node_of(&self, slot: u16) -> Option<&Node> {
        self.nodes.get(usize::from(*self.of_slot.get(usize::from(slot))?))
    }

    /// Returns the number of the node of a slot. Slots without a node share a number.
    #[cfg(feature = "server")]
    pub(in super::super) fn number_of_slot(&self, slot: u16) -> usize {
        self.of_slot.get(usize::from(slot)).copied().unwrap_or(NONE).into()
    }

    /// Returns the table in which this node serves the slot.
    pub(in super::super) fn with(&self, slot: u16, node: Node) -> Self {
        let mut table = self.clone();
        let number = table.number_of(node);
        if let Some(of_slot) = table.of_slot.get_mut(usize::from(slot)) {
            *of_slot = number;
        }
        table
    }

    /// Returns for each slot whether its node differs from that in an earlier table. A slot that had no node before
    /// has not moved.
    pub(in super::super) fn moved_since(&self, earlier: &Self) -> Vec<bool> {
        let moved = |slot| {
            let before = earlier.node_of(slot);
            before.is_some() && before != self.node_of(slot)
        };
        (0..SLOTS).map(moved).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: u16) -> Node {
        Node { host: host.to_owned(), port }
    }

    fn answer(text: &str) -> Value {
        redis::parse_redis_value(text.replace(' ', "\r\n").as_bytes()).unwrap()
    }

    #[test]
    fn the_answer_to_cluster_slots_is_read_with_absent_hosts_and_replicas() {
        let master = "*4 $9 127.0.0.1 :7001 $2 id *0 ";
        let replica = "*4 $9 127.0.0.1 :7009 $2 id *0 ";
        let ranges =
            format!("*3 *4 :0 :100 {master}{replica}*3 :200 :200 *3 $0  :7002 $2 id *3 :201 :16383 *3 _ :7003 $2 id ");
        let table = Table::read(answer(&ranges), &node("seed", 1)).unwrap();
        for (slot, expected) in [
            (0, Some(node("127.0.0.1", 7001))),
            (100, Some(node("127.0.0.1", 7001))),
            (101, None),
            (200, Some(node("seed", 7002))),
            (16383, Some(node("seed", 7003))),
            (16384, None),
        ] {
            assert_eq!(table.node_of(slot), expected.as_ref(), "{slot}");
        }
        assert_eq!(table.nodes().len(), 3);
        for bad in ["+OK ", "*1 +OK ", "*1 *3 :0 :x *0 ", "*1 *3 :0 :1 *2 $1 a :70000 "] {
            let read = redis::parse_redis_value(bad.replace(' ', "\r\n").as_bytes()).ok();
            assert!(read.is_none_or(|value| Table::read(value, &node("seed", 1)).is_err()), "{bad}");
        }
    }

    #[test]
    fn a_table_says_which_slots_moved_since_another() {
        let (a, b) = (node("a", 1), node("b", 1));
        let first = Table::empty().with(5, a.clone()).with(6, a);
        let then = first.with(6, b.clone()).with(7, b);
        let moved: Vec<usize> =
            then.moved_since(&first).iter().enumerate().filter_map(|(slot, moved)| moved.then_some(slot)).collect();
        assert_eq!(moved, [6], "slot 7 had no node before");
        assert!(!then.moved_since(&then).contains(&true));
    }
}
