//! Scan of all keys, over one server or several, in steps: [`Position`] is the place of the next step.

use std::fmt;
use std::str::FromStr;

use super::RedisBackend;
use super::link::{Command, Link};
use crate::failure::QueueError;

/// Largest number of keys per step of a scan.
pub(super) const SCANNED: usize = 1000;

impl RedisBackend {
    /// Makes one step of a scan of all servers, one after the other. Returns the keys that are text, and moves the
    /// position to the next step, or to `None` at the end.
    ///
    /// `SCAN` finds every key that exists during the whole scan, some of them more than once. Keys are read as bytes: a
    /// key that is no text must not hide the others.
    pub(super) async fn scan(
        &self,
        doing: &str,
        servers: &[Link],
        position: &mut Option<Position>,
        pattern: &str,
        count: usize,
    ) -> Result<Vec<String>, QueueError> {
        let Some((at, server)) = position.and_then(|at| Some((at, servers.get(at.server)?))) else {
            *position = None;
            return Ok(Vec::new());
        };
        let mut scan = redis::cmd("SCAN");
        scan.arg(at.cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(count);
        let scanned = server.query(Command::read(scan)).await.map_err(|error| self.failed(doing, error));
        let (next, keys): (u64, Vec<Vec<u8>>) = scanned?;
        *position = at.next(next, servers.len());
        Ok(keys.into_iter().filter_map(|key| String::from_utf8(key).ok()).collect())
    }

    /// Returns a link to each server that holds a part of the keys.
    pub(super) async fn servers_of_keys(&self, doing: &str) -> Result<Vec<Link>, QueueError> {
        self.link.to_each_server().await.map_err(|error| self.failed(doing, error))
    }
}

/// Place in a scan: the number of the server, and the cursor of its `SCAN`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) server: usize,
    pub(super) cursor: u64,
}

/// Rejection of a text that is no position.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoPosition;

impl Position {
    /// Returns the place of the next step, after this step has returned the cursor `next`; `None` at the end.
    pub(super) fn next(self, next: u64, servers: usize) -> Option<Self> {
        match next {
            0 => Some(Self { server: self.server + 1, cursor: 0 }).filter(|place| place.server < servers),
            cursor => Some(Self { cursor, ..self }),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.server, self.cursor)
    }
}

impl FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let (server, cursor) = text.split_once('-').ok_or(NoPosition)?;
        let server: u16 = server.parse().map_err(|_| NoPosition)?;
        Ok(Self { server: server.into(), cursor: cursor.parse().map_err(|_| NoPosition)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_goes_from_server_to_server_and_ends_behind_the_last() {
        let first = Position::default();
        let second = first.next(7, 2).unwrap();
        assert_eq!(second, Position { server: 0, cursor: 7 });
        assert_eq!(second.to_string().parse(), Ok(second));
        let other = second.next(0, 2).unwrap();
        assert_eq!(other, Position { server: 1, cursor: 0 });
        assert_eq!(other.next(0, 2), None);
        for text in ["", "7", "-", "a-1", "1-a", "-1-1", "1-99999999999999999999", "70000-1"] {
            assert_eq!(text.parse::<Position>(), Err(NoPosition), "{text}");
        }
    }
}
