//! [`Chat`]: operations on rooms, and the notifications that they cause.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use mcp_courier::{LoggingLevel, Notification, Publisher, SessionId};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::poll::{POLL, Polls};
use crate::rooms::{Member, Result, Room, Rooms};

/// Beginning of the URI of a room.
const ROOMS: &str = "chat://rooms/";

/// Characters that are encoded in a URI: all but the unreserved ones of RFC 3986.
const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Length of the longest name of a room or a member, in characters.
pub(crate) const MAX_NAME: usize = 64;

/// Length of the longest text, in characters.
pub(crate) const MAX_TEXT: usize = 4096;

/// Time that a message may take from the begin of its turn on. It is shorter than the time after which a turn runs out,
/// so no other turn begins meanwhile.
pub(crate) const SPEECH: Duration = Duration::from_secs(5);

/// Chat, as one server of the fleet has it.
pub(crate) struct Chat {
    rooms: Box<dyn Rooms>,
    publisher: Publisher,
    polls: Polls,
    /// Sessions of this server, each with the number of its seats. A session that returns may have a new seat before
    /// the old one is dropped.
    seats: Mutex<HashMap<SessionId, usize>>,
    departures: mpsc::UnboundedSender<Departure>,
    /// Set where a session may continue at another server. Such a session ends only when its client ends it.
    is_fleet: bool,
}

/// Departure of a session from this server.
pub(crate) enum Departure {
    /// The session is no longer at this server, and may continue at another.
    Left(SessionId),
    /// The session has ended.
    Ended(SessionId),
}

/// Seat of one session at this server. The session departs when its last seat is dropped, so each task that works for
/// the session holds the seat too.
pub(crate) struct Seat {
    chat: Arc<Chat>,
    session: OnceLock<SessionId>,
}

impl Seat {
    pub(crate) fn new(chat: Arc<Chat>) -> Self {
        Self { chat, session: OnceLock::new() }
    }

    /// Takes the seat for a session, at its first request. Returns the session that has the seat.
    pub(crate) fn take(&self, session: SessionId) -> &SessionId {
        self.session.get_or_init(|| {
            *self.chat.seats().entry(session.clone()).or_default() += 1;
            session
        })
    }

    pub(crate) fn chat(&self) -> &Arc<Chat> {
        &self.chat
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let mut seats = self.chat.seats();
            if let Some(count) = seats.get_mut(&session) {
                *count -= 1;
                if *count > 0 {
                    return;
                }
                seats.remove(&session);
            }
            drop(seats);
            // Sending fails only after the server has stopped, when all sessions have left their rooms.
            let _ = self.chat.departures.send(Departure::Left(session));
        }
    }
}

impl Chat {
    /// Creates the chat. The second value has the departures of its sessions, for [`housekeeping`](Self::housekeeping).
    pub(crate) fn new(
        rooms: Box<dyn Rooms>,
        publisher: Publisher,
        poll_timeout: Duration,
        is_fleet: bool,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Departure>) {
        let (departures, receiver) = mpsc::unbounded_channel();
        let polls = Polls::new(&publisher, poll_timeout);
        (Arc::new(Self { rooms, publisher, polls, seats: Mutex::default(), departures, is_fleet }), receiver)
    }

    /// Notes that a session has ended, at whatever server.
    pub(crate) fn session_ended(&self, session: &SessionId) {
        // Sending fails only after the server has stopped.
        let _ = self.departures.send(Departure::Ended(session.clone()));
    }

    pub(crate) fn polls(&self) -> &Polls {
        &self.polls
    }

    pub(crate) async fn join(&self, session: &SessionId, room: &str, name: &str) -> Result<Value> {
        check_name("room", room)?;
        check_name("name", name)?;
        if name == POLL {
            return Err(format!("name: {name:?} is the sender of the results of polls; choose another").into());
        }
        let Some(now) = self.rooms.join(room, session, name).await? else {
            return Err(format!("name: {name:?} is taken in room {room:?}; choose one that nobody has there").into());
        };
        self.notify_watchers(room, &now).await;
        Ok(describe(room, &now))
    }

    pub(crate) async fn leave(&self, session: &SessionId, room: &str) -> Result<Value> {
        check_name("room", room)?;
        let left = self.rooms.leave(room, session).await?;
        if !left {
            return Err(not_a_member(room));
        }
        let now = self.rooms.read(room).await?;
        self.notify_watchers(room, &now).await;
        Ok(json!({"room": room, "left": true}))
    }

    pub(crate) async fn who(&self, room: &str) -> Result<Value> {
        check_name("room", room)?;
        Ok(describe(room, &self.rooms.read(room).await?))
    }

    pub(crate) async fn say(&self, session: &SessionId, room: &str, text: &str) -> Result<Value> {
        check_name("room", room)?;
        check_length("text", text, MAX_TEXT)?;
        self.speak(Some(session), room, text).await
    }

    /// Says something in a room in the name of the chat itself.
    pub(crate) async fn announce(&self, room: &str, text: &str) -> Result<Value> {
        self.speak(None, room, text).await
    }

    /// Returns all members of a room, where the session is a member.
    pub(crate) async fn members_for(&self, session: &SessionId, room: &str) -> Result<Vec<Member>> {
        let now = self.rooms.read(room).await?;
        if now.name_of(session).is_some() { Ok(now.members) } else { Err(not_a_member(room)) }
    }

    async fn speak(&self, speaker: Option<&SessionId>, room: &str, text: &str) -> Result<Value> {
        let turn = self.rooms.turn(room).await?;
        let said = tokio::time::timeout(SPEECH, self.speak_now(speaker, room, text)).await;
        turn.end().await;
        said.unwrap_or_else(|_| Err(format!("no answer within {SPEECH:?}: some members may have been reached").into()))
    }

    async fn speak_now(&self, speaker: Option<&SessionId>, room: &str, text: &str) -> Result<Value> {
        let Some(now) = self.rooms.speak(room, speaker).await? else { return Err(not_a_member(room)) };
        let from = speaker.map_or(POLL, |session| now.name_of(session).unwrap_or_default());
        let data = json!({"room": room, "from": from, "text": text, "seq": now.seq});
        let to_members = now.members.iter().map(|member| {
            (member.session.clone(), Notification::message(LoggingLevel::Info, Some("chat"), data.clone()))
        });
        let to_watchers =
            now.watchers.iter().map(|watcher| (watcher.clone(), Notification::resource_updated(uri(room))));
        let pushed = self.publisher.push_many(to_members.chain(to_watchers)).await;
        let mut errors = Vec::new();
        for (n, refused) in pushed.into_iter().enumerate().filter_map(|(n, result)| Some((n, result.err()?))) {
            // The speaker learns of members only. It must not learn session ids, which the text of the error contains.
            match now.members.get(n) {
                Some(member) => errors.push(json!({"name": member.name, "error": with_causes(&refused.reason)})),
                None => {
                    tracing::warn!(error = with_causes(&refused), "notifying a watcher failed; it misses the change")
                }
            }
        }
        let nobody = errors.len() == now.members.len();
        let mut said = json!({"seq": now.seq, "members": now.members.len()});
        if !errors.is_empty() {
            said["errors"] = Value::Array(errors);
        }
        if nobody { Err(format!("nobody was reached: {said}").into()) } else { Ok(said) }
    }

    /// Returns the URIs and names of all rooms.
    pub(crate) async fn list(&self) -> Result<Vec<(String, String)>> {
        Ok(self.rooms.list().await?.into_iter().map(|room| (uri(&room), room)).collect())
    }

    /// Returns the room of a URI; `None` where there is no such room.
    pub(crate) async fn read(&self, uri: &str) -> Result<Option<Value>> {
        let Ok(room) = room_of(uri) else { return Ok(None) };
        let now = self.rooms.read(&room).await?;
        Ok((!now.members.is_empty()).then(|| describe(&room, &now)))
    }

    pub(crate) async fn watch(&self, session: &SessionId, uri: &str) -> Result<()> {
        let room = room_of(uri)?;
        self.rooms.watch(&room, session).await
    }

    pub(crate) async fn unwatch(&self, session: &SessionId, uri: &str) -> Result<()> {
        let room = room_of(uri)?;
        self.rooms.unwatch(&room, session).await
    }

    /// Has sessions that departed leave their rooms, and renews the places of the others. Runs until `stop`.
    pub(crate) async fn housekeeping(
        self: Arc<Self>,
        mut departures: mpsc::UnboundedReceiver<Departure>,
        every: Duration,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(every);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(departure) = departures.recv() => self.depart(departure).await,
                _ = ticks.tick() => self.renew().await,
            }
        }
        let rest: Vec<_> = self.seats().keys().cloned().collect();
        for session in rest {
            self.depart(Departure::Left(session)).await;
        }
    }

    async fn depart(&self, departure: Departure) {
        match departure {
            // The session keeps its places for a time, and finds them at another server.
            Departure::Left(_) if self.is_fleet => {}
            Departure::Left(session) | Departure::Ended(session) => {
                self.seats().remove(&session);
                if let Err(error) = self.leave_all(&session).await {
                    tracing::warn!(?session, error, "leaving the rooms of an ended session failed; its places expire");
                }
            }
        }
    }

    async fn leave_all(&self, session: &SessionId) -> Result<()> {
        let places = self.rooms.places(session).await?;
        for room in places.watches {
            self.rooms.unwatch(&room, session).await?;
        }
        for room in places.member_of {
            if self.rooms.leave(&room, session).await? {
                self.notify_watchers(&room, &self.rooms.read(&room).await?).await;
            }
        }
        Ok(())
    }

    /// Renews the places of all sessions of this server.
    async fn renew(&self) {
        let mut renewed: BTreeMap<String, (Vec<SessionId>, Vec<SessionId>)> = BTreeMap::new();
        let sessions: Vec<_> = self.seats().keys().cloned().collect();
        for session in sessions {
            match self.rooms.places(&session).await {
                Ok(places) => {
                    for room in places.member_of {
                        renewed.entry(room).or_default().0.push(session.clone());
                    }
                    for room in places.watches {
                        renewed.entry(room).or_default().1.push(session.clone());
                    }
                }
                Err(error) => tracing::warn!(?session, error, "reading the places of a session failed; will retry"),
            }
        }
        for (room, (members, watchers)) in renewed {
            match self.rooms.renew(&room, &members, &watchers).await {
                Ok(false) => {}
                Ok(true) => match self.rooms.read(&room).await {
                    Ok(now) => self.notify_watchers(&room, &now).await,
                    Err(error) => {
                        tracing::warn!(room, error, "reading a room failed; its watchers miss that members vanished")
                    }
                },
                Err(error) => tracing::warn!(room, error, "renewing the members of a room failed; will retry"),
            }
        }
    }

    async fn notify_watchers(&self, room: &str, now: &Room) {
        let each = now.watchers.iter().map(|watcher| (watcher.clone(), Notification::resource_updated(uri(room))));
        for refused in self.publisher.push_many(each).await.into_iter().filter_map(std::result::Result::err) {
            tracing::warn!(error = with_causes(&refused), "notifying a watcher failed; it misses the change");
        }
    }

    fn seats(&self) -> MutexGuard<'_, HashMap<SessionId, usize>> {
        // No change of the seats can panic half-way, so the value of a poisoned lock is whole.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn describe(room: &str, now: &Room) -> Value {
    let members: Vec<_> = now.members.iter().map(|member| &member.name).collect();
    json!({"room": room, "members": members, "seq": now.seq})
}

fn uri(room: &str) -> String {
    format!("{ROOMS}{}", utf8_percent_encode(room, &ENCODED))
}

fn room_of(uri: &str) -> Result<String> {
    let encoded = uri.strip_prefix(ROOMS).ok_or_else(|| format!("uri: {uri:?} is no room; one is {ROOMS}{{room}}"))?;
    let room = percent_decode_str(encoded).decode_utf8().map_err(|_| format!("uri: {uri:?} is not UTF-8"))?;
    check_name("room", &room)?;
    Ok(room.into_owned())
}

fn not_a_member(room: &str) -> mcp_courier::Cause {
    format!("room: you are not a member of {room:?}; join it first").into()
}

pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let length = name.chars().count();
    if !(1..=MAX_NAME).contains(&length) {
        return Err(format!("{what}: it must have 1 to {MAX_NAME} characters, and this one has {length}").into());
    }
    if let Some(control) = name.chars().find(|c| c.is_control()) {
        return Err(format!("{what}: it must have no control characters, and this one has {control:?}").into());
    }
    Ok(())
}

pub(crate) fn check_length(what: &str, text: &str, max: usize) -> Result<()> {
    let length = text.chars().count();
    if !(1..=max).contains(&length) {
        return Err(format!("{what}: it must have 1 to {max} characters, and this one has {length}").into());
    }
    Ok(())
}

/// Returns the text of an error with those of its causes, except where the error's own text contains them.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| (*cause).source()).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
