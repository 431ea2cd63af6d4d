//! Answers by which a node of a cluster sends a command elsewhere. A command with such an answer did nothing.

use redis::Value;

use super::super::error::MIGRATING;
use crate::backend::redis::url::Node;
use crate::failure::QueueErrorKind;

/// Reason for which a node did not perform a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Redirect {
    /// Another node serves the slot. Its host is absent where it is that of the node that answered.
    Moved { slot: u16, host: Option<String>, port: u16 },
    /// The slot is being migrated, key by key. The keys of the command are at the other node, or at both (`ASK`,
    /// `TRYAGAIN`). A script with several keys can be served again once the migration of its slot ends.
    Migrating,
    /// The cluster serves no slots now, or not this one (`CLUSTERDOWN`).
    Down,
}

impl Redirect {
    /// Reads the redirection from an answer; `None` where the answer is none.
    pub(in super::super) fn of(answer: &Result<Value, QueueErrorKind>) -> Option<Self> {
        let Err(QueueErrorKind::Refused(text)) = answer else { return None };
        let mut words = text.split(' ');
        match words.next()? {
            "MOVED" => {
                let slot = words.next()?.parse().ok()?;
                let (host, port) = words.next()?.rsplit_once(':')?;
                let host = Some(host).filter(|host| !host.is_empty() && *host != "?").map(str::to_owned);
                Some(Self::Moved { slot, host, port: port.parse().ok()? })
            }
            "ASK" | "TRYAGAIN" => Some(Self::Migrating),
            "CLUSTERDOWN" => Some(Self::Down),
            _ => None,
        }
    }

    /// Returns the node that serves the slot, where the answer came from `asked`.
    pub(in super::super) fn node(host: Option<&str>, port: u16, asked: &Node) -> Node {
        Node { host: host.unwrap_or(&asked.host).to_owned(), port }
    }

    /// Returns the refusal in words for whoever gets the answer in the end.
    pub(in super::super) fn explained(&self, text: &str) -> String {
        match self {
            Self::Moved { .. } => format!("the slot of the key moved again and again ({text})"),
            Self::Migrating => format!("{MIGRATING}; try again when the migration has ended ({text})"),
            Self::Down => format!("the cluster does not serve the slot of the key now; try again ({text})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_redirection_is_read_and_nothing_else() {
        let of = |text: &str| Redirect::of(&Err(QueueErrorKind::Refused(text.to_owned())));
        let moved =
            |slot, host: Option<&str>, port| Some(Redirect::Moved { slot, host: host.map(str::to_owned), port });
        for (text, expected) in [
            ("MOVED 3999 127.0.0.1:6381", moved(3999, Some("127.0.0.1"), 6381)),
            ("MOVED 3999 ::1:6381", moved(3999, Some("::1"), 6381)),
            ("MOVED 1 :6381", moved(1, None, 6381)),
            ("MOVED 1 ?:6381", moved(1, None, 6381)),
            ("ASK 3999 127.0.0.1:6381", Some(Redirect::Migrating)),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Some(Redirect::Migrating)),
            ("CLUSTERDOWN The cluster is down", Some(Redirect::Down)),
            ("MOVED nonsense", None),
            ("MOVEDX 1 a:1", None),
            ("CROSSSLOT Keys in request don't hash to the same slot", None),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
        assert_eq!(Redirect::of(&Ok(Value::Nil)), None);
    }
}
