//! [`slot_of`]: slot of a command in a cluster.

use redis::{Arg, Cmd};

use crate::keys::slot::slot;

/// Returns the slot of a command's first key or channel. Returns `None` for a command without a key, which any node
/// performs. All keys of a script share a slot; Redis refuses a script that breaks this.
pub(super) fn slot_of(command: &Cmd) -> Option<u16> {
    let argument = |position: usize| match command.args_iter().nth(position)? {
        Arg::Simple(bytes) => Some(bytes),
        _ => None,
    };
    let position = match argument(0)?.to_ascii_uppercase().as_slice() {
        b"EVALSHA" if argument(2)? == b"0" => return None,
        b"EVALSHA" => 3,
        b"MEMORY" | b"OBJECT" | b"PUBSUB" => 2,
        b"ACL" | b"CLIENT" | b"CLUSTER" | b"CONFIG" | b"DBSIZE" | b"HELLO" | b"INFO" | b"LATENCY" | b"PING"
        | b"SCAN" | b"SCRIPT" | b"TIME" => return None,
        _ => 1,
    };
    argument(position).map(slot)
}

/// Returns the command of these words.
#[cfg(test)]
pub(super) fn cmd(text: &str) -> Cmd {
    let mut words = text.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        command.arg(word);
    });
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_belongs_to_the_slot_of_its_first_key() {
        assert_eq!(slot_of(&cmd("EVALSHA hash 2 {a}:1 {a}:2 b")), Some(slot(b"a")));
        for (text, expected) in [
            ("GET a", Some("a")),
            ("lrange a 0 -1", Some("a")),
            ("BLMOVE a a RIGHT RIGHT 1", Some("a")),
            ("PUBLISH a news", Some("a")),
            ("PUBSUB NUMSUB a", Some("a")),
            ("MEMORY USAGE a SAMPLES 0", Some("a")),
            ("PUBSUB CHANNELS", None),
            ("EVALSHA hash 1 a b", Some("a")),
            ("EVALSHA hash 0 b", None),
            ("TIME", None),
            ("CLIENT CACHING YES", None),
            ("CONFIG GET maxmemory-policy", None),
            ("SCRIPT LOAD text", None),
            ("SCAN 0 MATCH a", None),
        ] {
            assert_eq!(slot_of(&cmd(text)), expected.map(|key| slot(key.as_bytes())), "{text}");
        }
    }
}
