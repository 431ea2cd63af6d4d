//! [`Chat`]: what can be done in rooms, and who is told of it.

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

/// What the URI of a room begins with.
const ROOMS: &str = "chat://rooms/";

/// RFC 3986's unreserved characters stand for themselves.
const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The longest name of a room or a member, in characters.
pub(crate) const MAX_NAME: usize = 64;

/// The longest text, in characters.
pub(crate) const MAX_TEXT: usize = 4096;

/// How long saying something may take once it is one's turn. Well within the time after which a turn runs out, so that
/// nobody else's begins meanwhile.
pub(crate) const SPEECH: Duration = Duration::from_secs(5);

pub(crate) struct Chat {
    rooms: Box<dyn Rooms>,
    publisher: Publisher,
    polls: Polls,
    /// The sessions of this server, and how many seats each has: one that comes back may have its next before it has let
    /// go of its last.
    here: Mutex<HashMap<SessionId, usize>>,
    gone: mpsc::UnboundedSender<Gone>,
    /// Whether a session may go on at another server, and so is over only when its client says so.
    is_fleet: bool,
}

/// What becomes of sessions.
pub(crate) enum Gone {
    /// It is no longer here.
    FromHere(SessionId),
    /// It is over.
    ForGood(SessionId),
}

/// One session's place in this server. When the last holder lets go, the session is gone from here: hence whoever is
/// still doing something for it holds one too.
pub(crate) struct Seat {
    chat: Arc<Chat>,
    session: OnceLock<SessionId>,
}

impl Seat {
    pub(crate) fn new(chat: Arc<Chat>) -> Self {
        Self { chat, session: OnceLock::new() }
    }

    /// The session is known from its first request on.
    pub(crate) fn take(&self, session: SessionId) -> &SessionId {
        self.session.get_or_init(|| {
            *self.chat.here().entry(session.clone()).or_default() += 1;
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
            let mut here = self.chat.here();
            if let Some(seats) = here.get_mut(&session) {
                *seats -= 1;
                if *seats > 0 {
                    return;
                }
                here.remove(&session);
            }
            drop(here);
            // When nobody listens any more, the server has stopped, and everyone has left.
            let _ = self.chat.gone.send(Gone::FromHere(session));
        }
    }
}

impl Chat {
    /// The chat, and what becomes of its sessions: for [`keep_house`](Self::keep_house).
    pub(crate) fn new(
        rooms: Box<dyn Rooms>,
        publisher: Publisher,
        poll_timeout: Duration,
        is_fleet: bool,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Gone>) {
        let (gone, receiver) = mpsc::unbounded_channel();
        let polls = Polls::new(&publisher, poll_timeout);
        (Arc::new(Self { rooms, publisher, polls, here: Mutex::default(), gone, is_fleet }), receiver)
    }

    /// A session is over, wherever it was.
    pub(crate) fn ended(&self, session: &SessionId) {
        // When nobody listens any more, the server has stopped.
        let _ = self.gone.send(Gone::ForGood(session.clone()));
    }

    pub(crate) fn polls(&self) -> &Polls {
        &self.polls
    }

    pub(crate) async fn join(&self, session: &SessionId, room: &str, name: &str) -> Result<Value> {
        check_name("room", room)?;
        check_name("name", name)?;
        if name == POLL {
            return Err(format!("name: {name:?} is whom the results of polls come from; choose another").into());
        }
        let Some(now) = self.rooms.join(room, session, name).await? else {
            return Err(format!("name: {name:?} is taken in room {room:?}; choose one that nobody has there").into());
        };
        self.tell_watchers(room, &now).await;
        Ok(describe(room, &now))
    }

    pub(crate) async fn leave(&self, session: &SessionId, room: &str) -> Result<Value> {
        check_name("room", room)?;
        let left = self.rooms.leave(room, session).await?;
        if !left {
            return Err(not_a_member(room));
        }
        let now = self.rooms.look(room).await?;
        self.tell_watchers(room, &now).await;
        Ok(json!({"room": room, "left": true}))
    }

    pub(crate) async fn who(&self, room: &str) -> Result<Value> {
        check_name("room", room)?;
        Ok(describe(room, &self.rooms.look(room).await?))
    }

    pub(crate) async fn say(&self, session: &SessionId, room: &str, text: &str) -> Result<Value> {
        check_name("room", room)?;
        check_length("text", text, MAX_TEXT)?;
        self.speak(Some(session), room, text).await
    }

    /// Says something to a room that no member says.
    pub(crate) async fn announce(&self, room: &str, text: &str) -> Result<Value> {
        self.speak(None, room, text).await
    }

    /// All members of a room, for one of them.
    pub(crate) async fn members_for(&self, session: &SessionId, room: &str) -> Result<Vec<Member>> {
        let now = self.rooms.look(room).await?;
        if now.name_of(session).is_some() { Ok(now.members) } else { Err(not_a_member(room)) }
    }

    async fn speak(&self, speaker: Option<&SessionId>, room: &str, text: &str) -> Result<Value> {
        let turn = self.rooms.turn(room).await?;
        let said = tokio::time::timeout(SPEECH, self.speak_now(speaker, room, text)).await;
        turn.done().await;
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
            // Who only watches is not the speaker's business; nor are others' session ids, which an error names.
            match now.members.get(n) {
                Some(member) => errors.push(json!({"name": member.name, "error": with_causes(&refused.reason)})),
                None => tracing::warn!(error = with_causes(&refused), "a watcher is not told"),
            }
        }
        let nobody = errors.len() == now.members.len();
        let mut said = json!({"seq": now.seq, "members": now.members.len()});
        if !errors.is_empty() {
            said["errors"] = Value::Array(errors);
        }
        if nobody { Err(format!("nobody was reached: {said}").into()) } else { Ok(said) }
    }

    /// The URIs and names of all rooms.
    pub(crate) async fn list(&self) -> Result<Vec<(String, String)>> {
        Ok(self.rooms.list().await?.into_iter().map(|room| (uri(&room), room)).collect())
    }

    /// `None` where there is no such room.
    pub(crate) async fn read(&self, uri: &str) -> Result<Option<Value>> {
        let Ok(room) = room_of(uri) else { return Ok(None) };
        let now = self.rooms.look(&room).await?;
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

    /// Lets ended sessions leave their rooms, and says of those that are here that they still are.
    pub(crate) async fn keep_house(
        self: Arc<Self>,
        mut gone: mpsc::UnboundedReceiver<Gone>,
        every: Duration,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(every);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(gone) = gone.recv() => self.settle(gone).await,
                _ = ticks.tick() => self.keep().await,
            }
        }
        let rest: Vec<_> = self.here().keys().cloned().collect();
        for session in rest {
            self.settle(Gone::FromHere(session)).await;
        }
    }

    async fn settle(&self, gone: Gone) {
        match gone {
            // It keeps its places for a while, so that it finds them at another server.
            Gone::FromHere(_) if self.is_fleet => {}
            Gone::FromHere(session) | Gone::ForGood(session) => {
                self.here().remove(&session);
                if let Err(error) = self.leave_all(&session).await {
                    tracing::warn!(?session, error, "a session has ended and keeps its places, until that runs out");
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
                self.tell_watchers(&room, &self.rooms.look(&room).await?).await;
            }
        }
        Ok(())
    }

    async fn keep(&self) {
        let mut kept: BTreeMap<String, (Vec<SessionId>, Vec<SessionId>)> = BTreeMap::new();
        let here: Vec<_> = self.here().keys().cloned().collect();
        for session in here {
            match self.rooms.places(&session).await {
                Ok(places) => {
                    for room in places.member_of {
                        kept.entry(room).or_default().0.push(session.clone());
                    }
                    for room in places.watches {
                        kept.entry(room).or_default().1.push(session.clone());
                    }
                }
                Err(error) => tracing::warn!(error, "members could not be kept; the next time comes"),
            }
        }
        for (room, (members, watchers)) in kept {
            match self.rooms.keep(&room, &members, &watchers).await {
                Ok(false) => {}
                Ok(true) => match self.rooms.look(&room).await {
                    Ok(now) => self.tell_watchers(&room, &now).await,
                    Err(error) => tracing::warn!(room, error, "watchers are not told that members have vanished"),
                },
                Err(error) => tracing::warn!(room, error, "members could not be kept; the next time comes"),
            }
        }
    }

    async fn tell_watchers(&self, room: &str, now: &Room) {
        let each = now.watchers.iter().map(|watcher| (watcher.clone(), Notification::resource_updated(uri(room))));
        for refused in self.publisher.push_many(each).await.into_iter().filter_map(std::result::Result::err) {
            tracing::warn!(error = with_causes(&refused), "a watcher is not told");
        }
    }

    fn here(&self) -> MutexGuard<'_, HashMap<SessionId, usize>> {
        // Nothing in here panics half-way, so what a poisoned lock holds is whole.
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
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

/// An error with its causes, but for those that it names itself.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| (*cause).source()).map(ToString::to_string) {
        if !said.ends_with(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}
