//! The last ones of a kind: the ids that a subscriber delivered itself, by which it recognises what comes again after an
//! unknown outcome; the tasks whose end was delivered; the sessions whose end was told.

use std::borrow::Borrow;
use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

use foldhash::fast::RandomState;

#[derive(Debug)]
pub(crate) struct Recent<T> {
    capacity: usize,
    order: VecDeque<T>,
    /// Under a random key: foreign producers choose ids. A quick one, as each notification is looked up and remembered.
    known: HashSet<T, RandomState>,
}

impl<T: Clone + Eq + Hash> Recent<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, order: VecDeque::new(), known: HashSet::default() }
    }

    pub(crate) fn contains<Q: Eq + Hash + ?Sized>(&self, one: &Q) -> bool
    where
        T: Borrow<Q>,
    {
        self.known.contains(one)
    }

    /// Whether it was not known.
    pub(crate) fn insert(&mut self, one: T) -> bool {
        let is_new = self.known.insert(one.clone());
        if is_new {
            self.order.push_back(one);
            if self.order.len() > self.capacity
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_known_and_no_more() {
        let mut recent = Recent::new(3);
        for one in [0, 1, 2, 3, 4, 2, 3, 4] {
            recent.insert(one);
        }
        let known: Vec<_> = (0..5).map(|one| recent.contains(&one)).collect();
        assert_eq!(known, [false, false, true, true, true]);
    }
}
