//! [`RecentSet`]: a set that remembers its newest elements up to a capacity.
//!
//! Its users are the ids that a subscriber has delivered, the tasks whose end was delivered, and the sessions whose end
//! was announced.

use std::borrow::Borrow;
use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

use foldhash::fast::RandomState;

/// Set of the newest elements. An insertion beyond the capacity removes the oldest element.
#[derive(Debug)]
pub(crate) struct RecentSet<T> {
    /// Number of elements to remember.
    capacity: usize,
    /// Elements in the order of their insertion, the oldest first.
    order: VecDeque<T>,
    /// Elements by hash. The hasher has a random key, because foreign producers choose ids. It is a fast one, because
    /// each notification is looked up and inserted.
    known: HashSet<T, RandomState>,
}

impl<T: Clone + Eq + Hash> RecentSet<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, order: VecDeque::new(), known: HashSet::default() }
    }

    pub(crate) fn contains<Q: Eq + Hash + ?Sized>(&self, one: &Q) -> bool
    where
        T: Borrow<Q>,
    {
        self.known.contains(one)
    }

    /// Inserts an element. Returns whether the element was not in the set.
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
        let mut recent = RecentSet::new(3);
        for one in [0, 1, 2, 3, 4, 2, 3, 4] {
            recent.insert(one);
        }
        let known: Vec<_> = (0..5).map(|one| recent.contains(&one)).collect();
        assert_eq!(known, [false, false, true, true, true]);
    }
}
