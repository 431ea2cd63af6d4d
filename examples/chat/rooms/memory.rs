//! Rooms of this process alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mcp_courier::SessionId;
use mcp_courier::backend::BoxFuture;
use tokio::sync::OwnedMutexGuard;

use super::{Member, Places, Result, Room, Rooms, Turn};

#[derive(Default)]
pub(crate) struct MemoryRooms(Mutex<BTreeMap<String, Entry>>);

#[derive(Default)]
struct Entry {
    room: Room,
    speaking: Arc<tokio::sync::Mutex<()>>,
}

impl MemoryRooms {
    fn rooms(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Nothing in here panics half-way, so what a poisoned lock holds is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to a room, and forgets the room if nothing is in it then.
    fn with<T>(&self, room: &str, act: impl FnOnce(&mut Room) -> T) -> BoxFuture<'static, Result<T>>
    where
        T: Send + 'static,
    {
        let mut rooms = self.rooms();
        let entry = rooms.entry(room.to_owned()).or_default();
        let done = act(&mut entry.room);
        if entry.room.members.is_empty() {
            entry.room.seq = 0;
            // Whoever waits for a turn holds the mutex, not the entry, and finds itself no member.
            if entry.room.watchers.is_empty() {
                rooms.remove(room);
            }
        }
        Box::pin(std::future::ready(Ok(done)))
    }
}

impl Rooms for MemoryRooms {
    fn turn<'a>(&'a self, room: &'a str) -> BoxFuture<'a, Result<Box<dyn Turn>>> {
        let speaking = self.rooms().get(room).map(|entry| Arc::clone(&entry.speaking)).unwrap_or_default();
        Box::pin(async move { Ok(Box::new(MemoryTurn(speaking.lock_owned().await)) as Box<dyn Turn>) })
    }

    fn speak<'a>(&'a self, room: &'a str, session: Option<&'a SessionId>) -> BoxFuture<'a, Result<Option<Room>>> {
        self.with(room, |room| {
            let may = session.map_or(!room.members.is_empty(), |session| room.name_of(session).is_some());
            may.then(|| {
                room.seq += 1;
                room.clone()
            })
        })
    }

    fn join<'a>(&'a self, room: &'a str, session: &'a SessionId, name: &'a str) -> BoxFuture<'a, Result<Option<Room>>> {
        self.with(room, |room| {
            if room.members.iter().any(|member| member.name == name && member.session != *session) {
                return None;
            }
            match room.members.iter_mut().find(|member| member.session == *session) {
                Some(member) => name.clone_into(&mut member.name),
                None => room.members.push(Member { session: session.clone(), name: name.to_owned() }),
            }
            Some(room.clone())
        })
    }

    fn leave<'a>(&'a self, room: &'a str, session: &'a SessionId) -> BoxFuture<'a, Result<bool>> {
        self.with(room, |room| {
            let before = room.members.len();
            room.members.retain(|member| member.session != *session);
            room.members.len() < before
        })
    }

    fn look<'a>(&'a self, room: &'a str) -> BoxFuture<'a, Result<Room>> {
        self.with(room, |room| room.clone())
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        let rooms = self.rooms();
        let inhabited = rooms.iter().filter(|(_, entry)| !entry.room.members.is_empty());
        let names = inhabited.map(|(name, _)| name.clone()).collect();
        Box::pin(std::future::ready(Ok(names)))
    }

    fn watch<'a>(&'a self, room: &'a str, session: &'a SessionId) -> BoxFuture<'a, Result<()>> {
        self.with(room, |room| {
            if !room.watchers.contains(session) {
                room.watchers.push(session.clone());
            }
        })
    }

    fn unwatch<'a>(&'a self, room: &'a str, session: &'a SessionId) -> BoxFuture<'a, Result<()>> {
        self.with(room, |room| room.watchers.retain(|watcher| watcher != session))
    }

    fn places<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<Places>> {
        let mut places = Places::default();
        for (name, Entry { room, .. }) in self.rooms().iter() {
            if room.name_of(session).is_some() {
                places.member_of.push(name.clone());
            }
            if room.watchers.contains(session) {
                places.watches.push(name.clone());
            }
        }
        Box::pin(std::future::ready(Ok(places)))
    }

    fn keep<'a>(
        &'a self,
        _room: &'a str,
        _members: &'a [SessionId],
        _watchers: &'a [SessionId],
    ) -> BoxFuture<'a, Result<bool>> {
        // They vanish with this process, and not without it.
        Box::pin(std::future::ready(Ok(false)))
    }
}

struct MemoryTurn(OwnedMutexGuard<()>);

impl Turn for MemoryTurn {
    fn done(self: Box<Self>) -> BoxFuture<'static, ()> {
        drop(self.0);
        Box::pin(std::future::ready(()))
    }
}
