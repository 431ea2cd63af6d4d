//! Routes of commands in a cluster: the slots of a request's commands, and the split of a request by the nodes.
//!
//! Pure functions. All commands of a sequence share a slot.

use super::super::command_slot::slot_of;
use super::super::request::Request;

/// Returns the slot of each command of a request. A command without a key gets the slot of its sequence. In a sequence
/// without keys it travels with the request's first command that has one.
pub(super) fn slots(request: &Request) -> Vec<Option<u16>> {
    let own: Vec<Option<u16>> = request.commands().cmd_iter().map(slot_of).collect();
    let sequences = request.sequences();
    let first = own.iter().flatten().next().copied();
    let mut slots = Vec::with_capacity(own.len());
    let mut start = 0;
    while start < own.len() {
        let end = (start..own.len()).find(|&i| sequences[i] != sequences[start]).unwrap_or(own.len());
        let of_sequence = own[start..end].iter().flatten().next().copied();
        debug_assert!(
            own[start..end].iter().flatten().all(|slot| Some(*slot) == of_sequence),
            "a sequence has keys of several slots"
        );
        slots.resize(end, of_sequence.or(first));
        start = end;
    }
    slots
}

/// Splits commands by the nodes that perform them. Returns each node once, with the positions of its commands in their
/// order.
pub(super) fn split<N: PartialEq>(positions: &[usize], node_of: impl Fn(usize) -> N) -> Vec<(N, Vec<usize>)> {
    let mut parts: Vec<(N, Vec<usize>)> = Vec::new();
    for &position in positions {
        let node = node_of(position);
        match parts.iter_mut().find(|(known, _)| *known == node) {
            Some((_, part)) => part.push(position),
            None => parts.push((node, vec![position])),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backend::redis::link::command_slot::cmd;
    use crate::keys::slot::slot;

    #[test]
    fn a_command_without_a_key_goes_with_its_sequence_else_with_the_first_key() {
        let mut request = Request::of(cmd("TIME"));
        request.add_sequence([cmd("CLIENT CACHING NO").into(), cmd("GET a").into()]);
        request.add_sequence([cmd("GET b").into(), cmd("TIME").into()]);
        request.add(cmd("PING"));
        let [a, b] = [Some(slot(b"a")), Some(slot(b"b"))];
        assert_eq!(slots(&request), [a, a, a, b, b, a]);
        assert_eq!(slots(&Request::of(cmd("TIME"))), [None]);
    }

    proptest! {
        #[test]
        fn each_command_goes_to_one_node_once_and_in_order(nodes in prop::collection::vec(0..4_u8, 0..60)) {
            let positions: Vec<usize> = (0..nodes.len()).filter(|i| i % 3 != 1).collect();
            let parts = split(&positions, |position| nodes[position]);
            let mut all: Vec<usize> = parts.iter().flat_map(|(_, part)| part.iter().copied()).collect();
            all.sort_unstable();
            prop_assert_eq!(all, positions);
            for (node, part) in &parts {
                prop_assert!(part.is_sorted() && part.iter().all(|&position| nodes[position] == *node));
                prop_assert_eq!(parts.iter().filter(|(other, _)| other == node).count(), 1);
            }
        }
    }
}
