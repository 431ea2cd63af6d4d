//! The last ids that a subscriber delivered itself: what comes again after an unknown outcome is recognised by them.

use std::collections::{HashSet, VecDeque};

use crate::notification::NotificationId;

#[derive(Debug)]
pub(super) struct Recent {
    capacity: usize,
    order: VecDeque<NotificationId>,
    known: HashSet<NotificationId>,
}

impl Recent {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, order: VecDeque::new(), known: HashSet::new() }
    }

    pub(super) fn contains(&self, id: NotificationId) -> bool {
        self.known.contains(&id)
    }

    pub(super) fn insert(&mut self, id: NotificationId) {
        if self.known.insert(id) {
            self.order.push_back(id);
            if self.order.len() > self.capacity
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_last_ones_are_known_and_no_more() {
        let ids: Vec<_> = (0..5).map(|_| NotificationId(Uuid::now_v7())).collect();
        let mut recent = Recent::new(3);
        for &id in ids.iter().chain(&ids[2..]) {
            recent.insert(id);
        }
        let known: Vec<_> = ids.iter().map(|&id| recent.contains(id)).collect();
        assert_eq!(known, [false, false, true, true, true]);
    }
}
