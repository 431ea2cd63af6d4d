//! Who wants to hear of which key or channel of a link.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::lock::lock;

/// What a link tells those who registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend::redis) enum Heard<'a> {
    /// The key has changed, or may have. Redis tells of the next change only once the key was read again.
    Changed,
    /// A message came over the channel.
    Message(&'a [u8]),
    /// The connection is lost: whatever happens to any key or channel now is not told.
    Lost,
}

/// Called in the task that reads the connection: before any answer that comes behind the news, and never for long.
type Ear = Arc<dyn Fn(Heard<'_>) + Send + Sync>;

/// Registered ears, by the keys and channels that they hear of.
#[derive(Default)]
pub(super) struct Watches {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ears: HashMap<String, Vec<(u64, Ear)>>,
    next: u64,
}

/// A registration, until it is dropped.
pub(in crate::backend::redis) struct Watch {
    watches: Arc<Watches>,
    name: String,
    number: u64,
}

impl Watches {
    /// Registers for a key or a channel.
    pub(super) fn register(self: &Arc<Self>, name: String, ear: impl Fn(Heard<'_>) + Send + Sync + 'static) -> Watch {
        let mut state = lock(&self.state);
        let number = state.next;
        state.next += 1;
        state.ears.entry(name.clone()).or_default().push((number, Arc::new(ear)));
        Watch { watches: Arc::clone(self), name, number }
    }

    /// Tells those who registered for a key or a channel.
    pub(super) fn tell(&self, name: &[u8], heard: Heard<'_>) {
        let Ok(name) = std::str::from_utf8(name) else { return };
        let ears: Vec<Ear> = match lock(&self.state).ears.get(name) {
            Some(ears) => ears.iter().map(|(_, ear)| Arc::clone(ear)).collect(),
            None => return,
        };
        // Without the lock: an ear may register, or drop a registration.
        ears.iter().for_each(|ear| ear(heard));
    }

    /// Tells all.
    pub(super) fn tell_all(&self, heard: Heard<'_>) {
        let ears: Vec<Ear> = lock(&self.state).ears.values().flatten().map(|(_, ear)| Arc::clone(ear)).collect();
        ears.iter().for_each(|ear| ear(heard));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = lock(&self.watches.state);
        if let Some(ears) = state.ears.get_mut(&self.name) {
            let place = ears.iter().position(|(number, _)| *number == self.number);
            // Dropped behind the lock: an ear may own whatever drops another registration.
            let _ear = place.map(|place| ears.swap_remove(place));
            if ears.is_empty() {
                state.ears.remove(&self.name);
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
        watches.tell(b"x", Heard::Changed);
        assert_eq!(take(), ["a: Changed", "b: Changed"]);
        watches.tell(b"z", Heard::Changed);
        watches.tell(b"\xff", Heard::Changed);
        drop(b);
        watches.tell(b"x", Heard::Message(b"1"));
        assert_eq!(take(), ["a: Message([49])"]);
        watches.tell_all(Heard::Lost);
        assert_eq!(take(), ["a: Lost", "c: Lost"]);
    }

    #[test]
    fn an_ear_may_drop_registrations() {
        let watches = Arc::new(Watches::default());
        let other: Arc<Mutex<Option<Watch>>> = Arc::default();
        let _watch = {
            let other = Arc::clone(&other);
            watches.register("x".to_owned(), move |_| drop(lock(&other).take()))
        };
        *lock(&other) = Some(watches.register("y".to_owned(), |_| ()));
        watches.tell_all(Heard::Lost);
        assert!(lock(&other).is_none());
        assert!(!lock(&watches.state).ears.contains_key("y"), "no key is left");
    }
}
