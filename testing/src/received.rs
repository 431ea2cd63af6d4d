//! Notifications that a client received, judged: all, in order, and how many came twice.

use std::collections::HashSet;
use std::hash::Hash;
use std::ops::Range;

use mcp_courier::Outbound;
use serde_json::Value;

use crate::raw_client::EventStream;

/// Numbers of notifications in the order of their first arrival. A notification whose id came before is a repeat.
#[derive(Debug)]
pub struct Received<I> {
    ids: HashSet<I>,
    numbers: Vec<usize>,
    repeats: usize,
}

impl<I: Eq + Hash> Received<I> {
    /// Adds a notification that came.
    pub fn add(&mut self, number: usize, id: I) {
        if self.ids.insert(id) {
            self.numbers.push(number);
        } else {
            self.repeats += 1;
        }
    }

    /// Returns the numbers in the order of their first arrival.
    #[must_use]
    pub fn numbers(&self) -> &[usize] {
        &self.numbers
    }

    /// Returns the number that came first last.
    #[must_use]
    pub fn last(&self) -> Option<usize> {
        self.numbers.last().copied()
    }

    /// Returns how many notifications came with an id that came before.
    #[must_use]
    pub fn repeats(&self) -> usize {
        self.repeats
    }

    /// Asserts that each of the numbers came, in order, and nothing else.
    ///
    /// # Panics
    /// Where a notification is lost, out of order, or another one.
    #[track_caller]
    pub fn assert_is(&self, numbers: Range<usize>) {
        assert!(self.numbers.iter().copied().eq(numbers.clone()), "{:?} are not {numbers:?}", self.numbers);
    }
}

impl<I> Default for Received<I> {
    fn default() -> Self {
        Self { ids: HashSet::new(), numbers: Vec::new(), repeats: 0 }
    }
}

impl<I: Eq + Hash> Extend<(usize, I)> for Received<I> {
    fn extend<T: IntoIterator<Item = (usize, I)>>(&mut self, all: T) {
        all.into_iter().for_each(|(number, id)| self.add(number, id));
    }
}

/// Notifications of a [`RawClient`](crate::raw_client::RawClient), by their parameter `n` and their id.
impl Received<String> {
    /// Adds a notification.
    ///
    /// # Panics
    /// Where the notification has no number or no id.
    pub fn take(&mut self, notification: &Value) {
        let params = &notification["params"];
        let number = params["n"].as_u64().expect("a number");
        let id = params["_meta"][Outbound::ID_KEY].as_str().expect("an id");
        self.add(usize::try_from(number).expect("a small number"), id.to_owned());
    }

    /// Adds the notifications of a stream up to a number.
    ///
    /// # Panics
    /// Where the stream ends before.
    pub async fn until(&mut self, stream: &mut EventStream, last: usize) {
        while self.last().is_none_or(|number| number < last) {
            self.take(&stream.next_notification().await.expect("the stream goes on"));
        }
    }

    /// Closes a stream, and adds the notifications that had come down the stream.
    pub async fn rest_of(&mut self, mut stream: EventStream) {
        stream.close();
        while let Some(notification) = stream.next_notification().await {
            self.take(&notification);
        }
    }
}
