//! [`MemoryRooms`]: rooms of this process alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mcp_courier::{SessionId, async_trait};
use tokio::sync::OwnedMutexGuard;

use super::{Member, Places, Result, Room, Rooms, Turn};

/// Rooms in the memory of one process.
#[derive(Default)]
pub(crate) struct MemoryRooms(Mutex<BTreeMap<String, Entry>>);

/// Room, and the lock of the session that speaks in it.
#[derive(Default)]
struct Entry {
    room: Room,
    speaking: Arc<tokio::sync::Mutex<()>>,
}

impl MemoryRooms {
    fn rooms(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // No change of the rooms can panic half-way, so the value of a poisoned lock is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies `act` to a room, and removes the room where it is empty afterwards.
    fn with<T>(&self, room: &str, act: impl FnOnce(&mut Room) -> T) -> T {
        let mut rooms = self.rooms();
        let entry = rooms.entry(room.to_owned()).or_default();
        let done = act(&mut entry.room);
        if entry.room.members.is_empty() {
            entry.room.seq = 0;
            // A session that waits for its turn holds the mutex and not the entry, and then finds that it is no member.
            if entry.room.watchers.is_empty() {
                rooms.remove(room);
            }
        }
        done
    }
}

#[async_trait]
impl Rooms for MemoryRooms {
    async fn turn(&self, room: &str) -> Result<Box<dyn Turn>> {
        let speaking = self.rooms().get(room).map(|entry| Arc::clone(&entry.speaking)).unwrap_or_default();
        Ok(Box::new(MemoryTurn(speaking.lock_owned().await)) as Box<dyn Turn>)
    }

    async fn speak(&self, room: &str, session: Option<&SessionId>) -> Result<Option<Room>> {
        Ok(self.with(room, |room| {
            let may_speak = session.map_or(!room.members.is_empty(), |session| room.name_of(session).is_some());
            may_speak.then(|| {
                room.seq += 1;
                room.clone()
            })
        }))
    }

    async fn join(&self, room: &str, session: &SessionId, name: &str) -> Result<Option<Room>> {
        Ok(self.with(room, |room| {
            if room.members.iter().any(|member| member.name == name && member.session != *session) {
                return None;
            }
            match room.members.iter_mut().find(|member| member.session == *session) {
                Some(member) => name.clone_into(&mut member.name),
                None => room.members.push(Member { session: session.clone(), name: name.to_owned() }),
            }
            Some(room.clone())
        }))
    }

    async fn leave(&self, room: &str, session: &SessionId) -> Result<bool> {
        Ok(self.with(room, |room| {
            let before = room.members.len();
            room.members.retain(|member| member.session != *session);
            room.members.len() < before
        }))
    }

    async fn read(&self, room: &str) -> Result<Room> {
        Ok(self.with(room, |room| room.clone()))
    }

    async fn list(&self) -> Result<Vec<String>> {
        let rooms = self.rooms();
        let with_members = rooms.iter().filter(|(_, entry)| !entry.room.members.is_empty());
        let names = with_members.map(|(name, _)| name.clone()).collect();
        Ok(names)
    }

    async fn watch(&self, room: &str, session: &SessionId) -> Result<()> {
        self.with(room, |room| {
            if !room.watchers.contains(session) {
                room.watchers.push(session.clone());
            }
        });
        Ok(())
    }

    async fn unwatch(&self, room: &str, session: &SessionId) -> Result<()> {
        self.with(room, |room| room.watchers.retain(|watcher| watcher != session));
        Ok(())
    }

    async fn places(&self, session: &SessionId) -> Result<Places> {
        let mut places = Places::default();
        for (name, Entry { room, .. }) in self.rooms().iter() {
            if room.name_of(session).is_some() {
                places.member_of.push(name.clone());
            }
            if room.watchers.contains(session) {
                places.watches.push(name.clone());
            }
        }
        Ok(places)
    }

    async fn renew(&self, _room: &str, _members: &[SessionId], _watchers: &[SessionId]) -> Result<bool> {
        // Members vanish with this process, and not before.
        Ok(false)
    }
}

/// Turn to speak, until its lock is dropped.
struct MemoryTurn(OwnedMutexGuard<()>);

#[async_trait]
impl Turn for MemoryTurn {
    async fn end(self: Box<Self>) {
        drop(self.0);
    }
}
