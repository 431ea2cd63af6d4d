//! [`PendingEnds`]: sessions that their clients ended while Redis could not store the end.

use crate::session_id::SessionId;

/// Largest number of ended sessions that wait until Redis knows their end.
const CAPACITY: usize = 10_000;

/// End that Redis does not know yet: the session, and whether this process knew the session.
pub(super) type PendingEnd = (SessionId, bool);

/// Ended sessions whose end must still be published. Anyone may ask to end a session that never existed. So sessions
/// that this process never knew make room for those that it knew.
#[derive(Debug, Default)]
pub(super) struct PendingEnds(Vec<PendingEnd>);

impl PendingEnds {
    /// Adds an end, if there is room or room can be made.
    pub(super) fn add(&mut self, (session, is_known): PendingEnd) {
        if self.0.len() >= CAPACITY {
            let unknown = if is_known { self.0.iter().position(|(_, is_known)| !is_known) } else { None };
            let Some(unknown) = unknown else {
                tracing::warn!(
                    ?session,
                    "too many ended sessions wait for Redis; other servers do not learn of this end"
                );
                return;
            };
            self.0.swap_remove(unknown);
        }
        self.0.push((session, is_known));
    }

    /// Takes all pending ends.
    pub(super) fn take(&mut self) -> Vec<PendingEnd> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_nobody_knew_make_room_for_those_that_were_served_here() {
        let session = |n: usize| SessionId::new(n.to_string()).unwrap();
        let mut ends = PendingEnds::default();
        (0..CAPACITY + 10).for_each(|n| ends.add((session(n), false)));
        ends.add((session(CAPACITY + 10), true));
        let all = ends.take();
        assert_eq!((all.len(), all.iter().filter(|(_, is_known)| *is_known).count()), (CAPACITY, 1));
        assert!(ends.is_empty());
    }
}
