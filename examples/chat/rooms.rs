//! [`Rooms`]: members and watchers of rooms. One port has two backends: the memory of this process, and Redis for a
//! fleet.

use mcp_courier::{Cause, SessionId, async_trait};

pub(crate) mod memory;
pub(crate) mod redis;

pub(crate) type Result<T> = std::result::Result<T, Cause>;

/// Rooms of the whole fleet.
///
/// A room exists while it has members. With its last member its count of messages ends too. Sessions may watch a room
/// that does not exist yet. Each server regularly [renews](Self::renew) the places of its sessions, so the members and
/// watchers of a server that died vanish after a time. A session that continues at another server before that keeps
/// its places.
#[async_trait]
pub(crate) trait Rooms: Send + Sync {
    /// Waits until no other session of the fleet speaks in the room. From the count of a message to its last push no
    /// other message may be pushed, or members would see the numbers out of order.
    async fn turn(&self, room: &str) -> Result<Box<dyn Turn>>;

    /// Counts one message, and returns the room; `None` where the session is not a member. Without a session the
    /// message is the chat's own; `None` then means that the room has no members.
    async fn speak(&self, room: &str, session: Option<&SessionId>) -> Result<Option<Room>>;

    /// Makes the session a member, or renames the member. Returns `None` where another session has that name.
    async fn join(&self, room: &str, session: &SessionId, name: &str) -> Result<Option<Room>>;

    /// Ends the membership of a session. Returns whether the session was a member.
    async fn leave(&self, room: &str, session: &SessionId) -> Result<bool>;

    /// Returns the room as it is now.
    async fn read(&self, room: &str) -> Result<Room>;

    /// Returns the names of the rooms with members, in order.
    async fn list(&self) -> Result<Vec<String>>;

    /// Makes the session a watcher.
    async fn watch(&self, room: &str, session: &SessionId) -> Result<()>;

    /// Ends the watching of a session.
    async fn unwatch(&self, room: &str, session: &SessionId) -> Result<()>;

    /// Returns the rooms in which a session is a member or a watcher.
    async fn places(&self, session: &SessionId) -> Result<Places>;

    /// Renews the places of sessions that this server still serves, as members or watchers of the room. Returns whether
    /// other members have vanished meanwhile.
    async fn renew(&self, room: &str, members: &[SessionId], watchers: &[SessionId]) -> Result<bool>;
}

/// Rooms of one session.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    pub(crate) member_of: Vec<String>,
    pub(crate) watches: Vec<String>,
}

/// Right to speak in a room.
#[async_trait]
pub(crate) trait Turn: Send {
    /// Ends the turn, so that another session may speak.
    async fn end(self: Box<Self>);
}

/// Room at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room {
    pub(crate) members: Vec<Member>,
    pub(crate) watchers: Vec<SessionId>,
    /// Number of the last message; 0 before the first.
    pub(crate) seq: u64,
}

/// Session in a room, and its name there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) session: SessionId,
    pub(crate) name: String,
}

impl Room {
    pub(crate) fn name_of(&self, session: &SessionId) -> Option<&str> {
        self.members.iter().find(|member| member.session == *session).map(|member| member.name.as_str())
    }
}
