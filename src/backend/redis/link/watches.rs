//! Registrations at a link, for its keys and channels.
//!
//! *Order*. A listener runs in the task that reads the connection. Whoever reads a later answer therefore knows the
//! change already. This order makes plain reads of a queue safe: a takeover suspends the permit before the answer that
//! it concerns is used.
//!
//! *No lock is held* while a listener runs, because it may register or drop a registration itself
//! (`a_listener_may_drop_registrations`).

use std::collections::HashMap;
#[cfg(feature = "server")]
use std::sync::OnceLock;
use std::sync::{Arc, Mutex};

use crate::lock::lock;

/// Event that a link passes on to those who registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend::redis) enum LinkEvent<'a> {
    /// The key has changed, or may have. Redis announces the next change only after the key was read again.
    Changed,
    /// A message came over the channel.
    Message(&'a [u8]),
    /// The connection is lost: from now on no change of any key or channel is announced.
    Lost,
}

/// Callback in the task that reads the connection. It runs before any answer that comes behind the event, and must
/// return quickly.
type Listener = Arc<dyn Fn(LinkEvent<'_>) + Send + Sync>;

/// Keys and channels that an event concerns.
#[cfg(feature = "server")]
pub(in crate::backend::redis) enum Concerned<'a> {
    /// The one of this name.
    One(&'a [u8]),
    /// Each whose name fulfils the condition.
    Each(&'a dyn Fn(&str) -> bool),
}

/// Callback as [`Listener`], with the keys and channels that the event concerns.
#[cfg(feature = "server")]
type Observer = Box<dyn Fn(Concerned<'_>) + Send + Sync>;

/// Registered listeners, by their keys and channels.
#[derive(Default)]
pub(super) struct Watches {
    state: Mutex<State>,
    /// Listener of a link whose user keeps a register of its own.
    #[cfg(feature = "server")]
    observer: OnceLock<Observer>,
}

#[derive(Default)]
struct State {
    /// Listeners by their key or channel, each with the number of its registration.
    listeners: HashMap<String, Vec<(u64, Listener)>>,
    next: u64,
}

/// Registration, until it is dropped.
pub(in crate::backend::redis) struct Watch {
    watches: Arc<Watches>,
    name: String,
    number: u64,
}

impl Watches {
    /// Registers for a key or a channel.
    pub(super) fn register(
        self: &Arc<Self>,
        name: String,
        listener: impl Fn(LinkEvent<'_>) + Send + Sync + 'static,
    ) -> Watch {
        let mut state = lock(&self.state);
        let number = state.next;
        state.next += 1;
        state.listeners.entry(name.clone()).or_default().push((number, Arc::new(listener)));
        Watch { watches: Arc::clone(self), name, number }
    }

    /// Registers for everything. Only the first call has an effect.
    #[cfg(feature = "server")]
    pub(super) fn observe(&self, observer: impl Fn(Concerned<'_>) + Send + Sync + 'static) {
        let _ = self.observer.set(Box::new(observer));
    }

    /// Passes an event to those who registered for this key or channel.
    pub(super) fn notify(&self, name: &[u8], event: LinkEvent<'_>) {
        #[cfg(feature = "server")]
        if let Some(observer) = self.observer.get() {
            observer(Concerned::One(name));
        }
        let Ok(name) = std::str::from_utf8(name) else { return };
        let listeners: Vec<Listener> = match lock(&self.state).listeners.get(name) {
            Some(listeners) => listeners.iter().map(|(_, listener)| Arc::clone(listener)).collect(),
            None => return,
        };
        // Called without the lock: a listener may register, or drop a registration.
        listeners.iter().for_each(|listener| listener(event));
    }

    /// Passes an event to all who registered for a key or channel whose name fulfils the condition.
    pub(super) fn notify_each(&self, is_concerned: &dyn Fn(&str) -> bool, event: LinkEvent<'_>) {
        #[cfg(feature = "server")]
        if let Some(observer) = self.observer.get() {
            observer(Concerned::Each(is_concerned));
        }
        let listeners: Vec<Listener> = {
            let state = lock(&self.state);
            let concerned = state.listeners.iter().filter(|(name, _)| is_concerned(name));
            concerned.flat_map(|(_, listeners)| listeners).map(|(_, listener)| Arc::clone(listener)).collect()
        };
        listeners.iter().for_each(|listener| listener(event));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = lock(&self.watches.state);
        if let Some(listeners) = state.listeners.get_mut(&self.name) {
            let place = listeners.iter().position(|(number, _)| *number == self.number);
            // Dropped after the lock is released: a listener may own the last reference to another registration.
            let _listener = place.map(|place| listeners.swap_remove(place));
            if listeners.is_empty() {
                state.listeners.remove(&self.name);
            }
            drop(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hears_of_its_own_key_until_it_is_dropped_and_all_hear_of_the_end() {
        let watches = Arc::new(Watches::default());
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let watch = |name: &str, who: &'static str| {
            let heard = Arc::clone(&heard);
            watches.register(name.to_owned(), move |what| lock(&heard).push(format!("{who}: {what:?}")))
        };
        let take = || {
            let mut heard = std::mem::take(&mut *lock(&heard));
            heard.sort_unstable();
            heard
        };
        let (_a, b, _c) = (watch("x", "a"), watch("x", "b"), watch("y", "c"));
        watches.notify(b"x", LinkEvent::Changed);
        assert_eq!(take(), ["a: Changed", "b: Changed"]);
        watches.notify(b"z", LinkEvent::Changed);
        watches.notify(b"\xff", LinkEvent::Changed);
        drop(b);
        watches.notify(b"x", LinkEvent::Message(b"1"));
        assert_eq!(take(), ["a: Message([49])"]);
        watches.notify_each(&|_| true, LinkEvent::Lost);
        assert_eq!(take(), ["a: Lost", "c: Lost"]);
        watches.notify_each(&|name| name == "y", LinkEvent::Lost);
        assert_eq!(take(), ["c: Lost"]);
    }

    #[test]
    fn a_listener_may_drop_registrations() {
        let watches = Arc::new(Watches::default());
        let other: Arc<Mutex<Option<Watch>>> = Arc::default();
        let _watch = {
            let other = Arc::clone(&other);
            watches.register("x".to_owned(), move |_| drop(lock(&other).take()))
        };
        *lock(&other) = Some(watches.register("y".to_owned(), |_| ()));
        watches.notify_each(&|_| true, LinkEvent::Lost);
        assert!(lock(&other).is_none());
        assert!(!lock(&watches.state).listeners.contains_key("y"), "no key is left");
    }
}
