//! SSE event ids that say which process issued them.
//!
//! rmcp numbers the events of a session from 0 in every process. A `Last-Event-ID` from elsewhere would so be resumed
//! from another stream's events, or as an empty stream for ever.

use uuid::Uuid;

/// What marks the ids of this process.
#[derive(Debug, Clone)]
pub(super) struct Epoch(String);

impl Epoch {
    pub(super) fn new() -> Self {
        Self(format!("{}-", Uuid::now_v7().simple()))
    }

    /// Marks nothing: an event store's ids are the whole fleet's.
    pub(super) fn of_event_store() -> Self {
        Self(String::new())
    }

    /// An id of rmcp's as it goes out.
    pub(super) fn mark(&self, id: &str) -> String {
        format!("{}{id}", self.0)
    }

    /// An id as it came back: rmcp's own, if it was this process that issued it.
    pub(super) fn unmark<'a>(&self, id: &'a str) -> Option<&'a str> {
        id.strip_prefix(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_forged_id_is_none_of_ours(id in ".*|[0-9a-f]{32}-[0-9]{1,30}(/[0-9]{1,30})?") {
            let ours = Epoch::new();
            prop_assert_eq!(ours.unmark(&id), None);
            let marked = ours.mark(&id);
            prop_assert_eq!(ours.unmark(&marked), Some(id.as_str()));
        }
    }

    #[test]
    fn only_ids_of_this_process_are_recognised() {
        let (ours, other) = (Epoch::new(), Epoch::new());
        assert_eq!(ours.unmark(&ours.mark("3/7")), Some("3/7"));
        for foreign in [other.mark("3"), "3".to_owned(), String::new()] {
            assert_eq!(ours.unmark(&foreign), None);
        }
    }
}
