//! What operators see and remove, in words that do not depend on the world.

use std::collections::BTreeMap;
use std::time::Duration;

use mcp_courier::testing::backend::{LeaseFacts, Mark, SessionDetails, SessionFacts};
use mcp_courier::testing::envelope::{Timestamp, decode_with};
use mcp_courier::{NotificationId, SessionId};

use super::step::{Fault, Inspected};
use super::world::{World, message, sessions, with_fault};

/// More than all messages of a queue.
const BYTES: usize = 1 << 20;

impl World<'_> {
    pub(super) async fn inspect(&self, session: &SessionId, what: Inspected) -> String {
        // Expired letters count until a listing removes them, in Redis.
        for session in sessions() {
            self.backend.dead_letters(&session, 0, 0).await.unwrap();
        }
        match what {
            Inspected::Sessions(page) => self.all_sessions(page).await,
            Inspected::Facts => {
                let facts = self.backend.facts(std::slice::from_ref(session)).await.unwrap();
                facts.iter().map(|facts| self.facts(facts)).collect::<Vec<_>>().join(", ")
            }
            Inspected::Details => self.details(&self.backend.details(session).await.unwrap()),
            Inspected::Queue(limit) => {
                let peeked = self.backend.peek(session, limit, BYTES).await.unwrap();
                let messages: Vec<_> = peeked.messages.iter().map(|raw| message(raw)).collect();
                format!("[{}], more: {}", messages.join(", "), peeked.has_more)
            }
            Inspected::Receipts => {
                let found = self.backend.find_id(session).await.unwrap();
                // Other sessions with the id are those of other schedules.
                let now = self.backend.details(session).await.unwrap().now;
                let mut receipts: Vec<_> = found.receipts.into_iter().map(|one| self.receipt(one, now)).collect();
                receipts.sort();
                receipts.join(", ")
            }
            Inspected::Purge(count, fault) => {
                let peeked = self.backend.peek(session, count.max(1), BYTES).await.unwrap();
                let Some(newest) = peeked.messages.last() else { return "nothing to purge".to_owned() };
                let receipts: Vec<NotificationId> = peeked
                    .messages
                    .iter()
                    .filter_map(|message| decode_with("q", message.clone(), &self.setting.config).ok())
                    .filter_map(|envelope| envelope.receipt.then_some(envelope.id))
                    .collect();
                let (count, newest) = (peeked.messages.len(), with_fault(&Mark::of(newest), fault));
                let count = match fault {
                    Fault::CountTooHigh => count + 1,
                    Fault::CountZero => 0,
                    _ => count,
                };
                format!("{:?}", self.backend.purge_queue(session, count, &newest, &receipts).await)
            }
        }
    }

    /// The sessions of all pages, in the order of their ids. One of them may be on two pages.
    async fn all_sessions(&self, page: usize) -> String {
        let (mut found, mut cursor) = (BTreeMap::new(), None);
        loop {
            let (sessions, next) = self.backend.list_sessions(cursor.as_deref(), page).await.unwrap();
            found.extend(sessions.into_iter().map(|facts| (facts.session.clone(), facts)));
            cursor = next;
            if cursor.is_none() {
                return found.values().map(|facts| self.facts(facts)).collect::<Vec<_>>().join(", ");
            }
        }
    }

    fn facts(&self, facts: &SessionFacts) -> String {
        let SessionFacts { session, record, depth, lease, dead_letters, wrong_types } = facts;
        let lease = lease.map(|LeaseFacts { server, rest, life }| (server, self.rest(rest), life.as_millis()));
        format!("{session:?} {record:?} depth {depth} {lease:?} letters {dead_letters} {wrong_types:?}")
    }

    fn details(&self, details: &SessionDetails) -> String {
        let ends = [&details.oldest, &details.newest].map(|raw| raw.as_deref().map(message));
        // An owner in Redis extends the life of a queue with its next acknowledgement, and not with the read.
        let (has_end, rest) = (details.queue_rest.is_some(), details.record_rest.map(|rest| self.rest(rest)));
        let letter = details.newest_letter.as_ref().map(|letter| self.letter(letter, details.now));
        let questions = details.open_questions;
        format!(
            "{}, {ends:?} has end {has_end} forgotten {rest:?} questions {questions}, {letter:?}",
            self.facts(&details.facts)
        )
    }

    fn rest(&self, rest: Duration) -> i64 {
        self.units(Timestamp(0).plus(rest), Timestamp(0))
    }
}
