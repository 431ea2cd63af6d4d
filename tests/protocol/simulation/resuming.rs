//! Clients that return: the message that each of them names, and the messages that must not be repeated then.

use std::collections::{BTreeMap, HashMap, HashSet};

use fastrand::Rng;
use mcp_courier::MessageId;

use super::checker::Checker;
use super::messages::{Letter, Queued};
use super::settings::Guard;
use super::world::{StreamId, World};

/// Name that a client gives of the messages that it has, when it opens a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// The client names the message that it got last.
    Last,
    /// The client names nothing.
    Never,
    /// The client names any message that it has, the last one, or none.
    Any,
    /// The client also names messages that it does not have, and messages that do not exist.
    Forges,
}

impl Habit {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        [Self::Last, Self::Last, Self::Last, Self::Never, Self::Any, Self::Forges][rng.usize(..6)]
    }
}

/// Stream, as the checker knows it.
struct Opened {
    session: usize,
    /// Place of the message that the client named, in the order of all pushes.
    named: Option<u64>,
    /// Number of messages that had arrived anywhere by then.
    arrivals: u64,
    /// Messages that the stream has brought.
    brought: HashSet<Queued>,
}

/// Messages that clients have received, and the names that they have given of them.
#[derive(Default)]
pub(crate) struct Resuming {
    /// Place of each message in the order of all pushes.
    orders: HashMap<Queued, u64>,
    /// Number of each message by its first arrival.
    arrived: HashMap<Queued, u64>,
    arrivals: u64,
    /// Messages that each session's client has received.
    received: HashMap<usize, HashSet<Queued>>,
    streams: BTreeMap<StreamId, Opened>,
    /// Messages that are on their way, each with its session.
    on_their_way: HashMap<Queued, usize>,
    /// Messages that were received, or on their way, when their queue lost messages or got some back.
    older: HashSet<Queued>,
    /// Stream of each session that was opened or taken in last.
    newest: HashMap<usize, StreamId>,
    /// Newest message of each session that a client named and had not received.
    forged: HashMap<usize, u64>,
    /// Streams whose clients named a message that they had.
    pub(crate) resumed: u64,
}

impl Resuming {
    pub(crate) fn queued(&mut self, queued: Queued, order: u64) {
        self.orders.entry(queued).or_insert(order);
    }

    pub(crate) fn order(&self, queued: Queued) -> Option<u64> {
        self.orders.get(&queued).copied()
    }

    /// Sees a queue lose messages, or get some back. What was received before may come again: the one that its client names may
    /// be lost, or stand behind more than the next owner looks at.
    pub(crate) fn forgot(&mut self, session: usize) {
        self.older.extend(self.received.get(&session).into_iter().flatten());
        self.older.extend(self.on_their_way.iter().filter(|(_, of)| **of == session).map(|(queued, _)| queued));
    }

    /// Sees a message go out.
    pub(crate) fn sends(&mut self, session: usize, queued: Queued) {
        self.on_their_way.insert(queued, session);
    }

    /// Returns whether a client has said that it has a notification, which it may not have received. Copies of the notification
    /// count as delivered before then.
    pub(crate) fn is_forged(&self, session: usize, n: usize) -> bool {
        let Some(forged) = self.forged.get(&session) else { return false };
        self.orders.iter().any(|(queued, order)| queued.n == n && order <= forged)
    }

    /// Sees a client open a stream, and what it says that it has.
    fn opens(&mut self, session: usize, stream: StreamId, named: Option<Queued>) {
        let order = named.and_then(|named| Some((named, self.order(named)?)));
        let named = match order {
            Some((named, order)) if self.arrived.contains_key(&named) => {
                self.resumed += 1;
                // What the queue has lost since does not stand there.
                (!self.older.contains(&named)).then_some(order)
            }
            // What does not stand where the next owner looks says nothing, and what does may skip what never came.
            Some((_, order)) => {
                let forged = self.forged.entry(session).or_default();
                *forged = order.max(*forged);
                None
            }
            None => None,
        };
        let arrivals = self.arrivals;
        self.newest.insert(session, stream);
        self.streams.insert(stream, Opened { session, named, arrivals, brought: HashSet::new() });
    }

    /// Sees a server take a stream in: it is the newest there, whenever its client opened it.
    pub(crate) fn taken_in(&mut self, session: usize, stream: StreamId) {
        self.newest.insert(session, stream);
    }

    /// Sees a message arrive. Returns why it must not have come by that stream, if so. `may_repeat` is set where the session took
    /// it and said that the attempt failed.
    pub(crate) fn arrives(&mut self, stream: StreamId, queued: Queued, may_repeat: bool) -> Option<&'static str> {
        self.on_their_way.remove(&queued);
        let first = *self.arrived.entry(queued).or_insert(self.arrivals);
        self.arrivals += 1;
        let (order, opened) = (self.orders.get(&queued).copied(), self.streams.get_mut(&stream)?);
        let is_new = opened.brought.insert(queued);
        self.received.entry(opened.session).or_default().insert(queued);
        if self.older.contains(&queued) {
            return None;
        }
        if first < opened.arrivals && order.is_some() && order <= opened.named {
            return Some("its client had it, and said so when it opened the stream");
        }
        // An older stream that receives again begins with the messages that the newer one did not confirm.
        let is_newest = self.newest.get(&opened.session) == Some(&stream);
        (!is_new && is_newest && !may_repeat).then_some("the same stream brought it before")
    }
}

impl World {
    /// Returns what a client says that it has, when it opens a stream.
    pub(crate) fn says(&mut self, session: usize, stream: StreamId) -> Option<MessageId> {
        let client = &self.clients[session];
        let some = |rng: &mut Rng, received: &[MessageId]| {
            (!received.is_empty()).then(|| received[rng.usize(..received.len())])
        };
        let named = match client.habit {
            Habit::Never => None,
            Habit::Last => client.received.last().copied(),
            Habit::Forges if self.rng.bool() => self.forged(session),
            Habit::Any | Habit::Forges => match self.rng.usize(..4) {
                0 => None,
                1 => some(&mut self.rng, &client.received),
                // Few back: these may still be queued.
                2 => some(&mut self.rng, &client.received[client.received.len().saturating_sub(6)..]),
                _ => client.received.last().copied(),
            },
        };
        let known = named.and_then(|id| {
            let n = *self.ids.get(&id.notification)?;
            (self.checker.messages[n].session == session).then_some(Queued { n, at: Some(id.at) })
        });
        self.checker.resuming.opens(session, stream, known);
        named
    }

    /// Invents the name of a message: one that is queued, here or elsewhere, or one that never was.
    fn forged(&mut self, session: usize) -> Option<MessageId> {
        let of = if self.rng.usize(..4) == 0 { self.rng.usize(..self.names.len()) } else { session };
        let queue = &self.checker.queues[of];
        if queue.is_empty() {
            return None;
        }
        let Queued { n, at } = queue[self.rng.usize(..queue.len())];
        let Some(Letter::Draft { id, .. }) = self.letters.get(&n) else { return None };
        let off = if self.rng.usize(..4) == 0 { 1 } else { 0 };
        Some(MessageId { notification: *id, at: at? + off })
    }

    /// Shows the name of a message in a trace.
    pub(crate) fn shown(&self, MessageId { notification, at }: MessageId) -> String {
        let n = self.ids.get(&notification).map_or_else(|| "none".to_owned(), |n| format!("#{n}"));
        format!("{n} of {at}")
    }

    /// Returns what a server tells its owner that the client has, without the guards that are removed.
    pub(crate) fn heard(&self, session: usize, received: Option<MessageId>) -> Option<MessageId> {
        match self.settings.without {
            Some(Guard::Resume) => None,
            Some(Guard::ResumeByTime) => received.map(|named| self.same_notification(session, named)),
            _ => received,
        }
    }

    /// Returns the name of a queued message that brings the same notification, or the name itself.
    fn same_notification(&self, session: usize, named: MessageId) -> MessageId {
        let Some(n) = self.ids.get(&named.notification) else { return named };
        let queued = self.checker.queues[session].iter().find(|queued| queued.n == *n);
        MessageId { at: queued.and_then(|queued| queued.at).unwrap_or(named.at), ..named }
    }
}

impl Checker {
    /// Sees a message arrive at a client by a stream.
    pub(crate) fn arrives_by(&mut self, stream: StreamId, queued: Queued) {
        let may_repeat = self.messages[queued.n].failed_late;
        if let Some(why) = self.resuming.arrives(stream, queued, may_repeat) {
            let (session, Queued { n, .. }, s) = (self.messages[queued.n].session, queued, stream.0);
            self.fail("G3", session, format!("#{n} comes again by stream {s}: {why}"));
        }
    }
}
