//! [`Rooms`]: who is where. One port with two backends: this process's memory, and Redis for a fleet.

use mcp_courier::{Cause, SessionId, async_trait};

pub(crate) mod memory;
pub(crate) mod redis;

pub(crate) type Result<T> = std::result::Result<T, Cause>;

/// The rooms of the whole fleet.
///
/// A room lives as long as it has members; with its last member its count of messages ends too. Sessions may watch a
/// room that does not exist yet. Members and watchers of a server that died vanish by themselves: each server says again
/// and again ([`keep`](Self::keep)) which of them it holds. They come back as what they were at another server in time.
#[async_trait]
pub(crate) trait Rooms: Send + Sync {
    /// Waits until nobody else in the fleet speaks in the room. Between a number and its last push nobody else may push,
    /// or members would see numbers out of order.
    async fn turn(&self, room: &str) -> Result<Box<dyn Turn>>;

    /// Counts one message of a member: `None` for anyone else. Without a session it is the chat's own, and `None` where
    /// nobody is there.
    async fn speak(&self, room: &str, session: Option<&SessionId>) -> Result<Option<Room>>;

    /// Makes the session a member, or renames it. `None` if another one has that name.
    async fn join(&self, room: &str, session: &SessionId, name: &str) -> Result<Option<Room>>;

    /// Whether it was a member.
    async fn leave(&self, room: &str, session: &SessionId) -> Result<bool>;

    async fn look(&self, room: &str) -> Result<Room>;

    async fn list(&self) -> Result<Vec<String>>;

    async fn watch(&self, room: &str, session: &SessionId) -> Result<()>;

    async fn unwatch(&self, room: &str, session: &SessionId) -> Result<()>;

    /// Where a session is, and what it watches.
    async fn places(&self, session: &SessionId) -> Result<Places>;

    /// These sessions are still here, as members or watchers of the room. Whether members have vanished meanwhile.
    async fn keep(&self, room: &str, members: &[SessionId], watchers: &[SessionId]) -> Result<bool>;
}

/// The rooms of one session.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    pub(crate) member_of: Vec<String>,
    pub(crate) watches: Vec<String>,
}

/// The right to speak in a room.
#[async_trait]
pub(crate) trait Turn: Send {
    async fn done(self: Box<Self>);
}

/// A room at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room {
    pub(crate) members: Vec<Member>,
    pub(crate) watchers: Vec<SessionId>,
    /// The number of the last message; 0 before the first.
    pub(crate) seq: u64,
}

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
