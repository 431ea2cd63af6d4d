//! [`Keys`]: names of the keys in Redis, those of FastMCP and those of this crate. All names are built in this file.

use std::fmt::Write;

use crate::notification::NotificationId;
use crate::question::TaskKey;
use crate::session_id::SessionId;

mod session_key;
#[cfg(any(test, feature = "cluster"))]
pub(crate) mod slot;

pub(crate) use self::session_key::{SessionKey, SessionKeyKind};

/// Names of all keys of one fleet, which share a prefix.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
    /// Set in a cluster where the prefix has no hash tag. Keys that belong together then have a tag each.
    has_tags: bool,
}

/// Keys of one session's queue. They are in one slot of a Redis Cluster, so one script can use all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueKeys {
    /// List of the queue, called Q in the documentation.
    pub(crate) queue: String,
    /// Lease of the queue, which holds the owner's token.
    pub(crate) lease: String,
    /// Hash of the open questions.
    pub(crate) questions: String,
    /// List of the dead letters, the newest first.
    pub(crate) dead: String,
    /// Both key sets: hashes in which the deduplication keys are kept.
    pub(crate) deduplication: [String; 2],
    /// Hash of the messages that a push may replace, by their collapse keys.
    pub(crate) collapsible: String,
    /// Prefix of the receipts' keys. The notification's id follows.
    receipts: String,
}

impl QueueKeys {
    /// Returns the beginning of the keys of receipts. The notification's id follows.
    pub(crate) fn receipts(&self) -> &str {
        &self.receipts
    }

    /// Returns the key of a notification's receipt.
    pub(crate) fn receipt(&self, id: NotificationId) -> String {
        format!("{}{id}", self.receipts)
    }
}

/// Keys of one task's question: three of FastMCP's and one of this crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ElicitKeys {
    /// Open question of the task.
    pub(crate) request: String,
    /// Answer to the question.
    pub(crate) response: String,
    /// Status of the question: `waiting` or `responded`.
    pub(crate) status: String,
    /// Id of the question whose worker waits for the answer. The key expires soon after the worker's process has died.
    pub(crate) asker: String,
}

impl Keys {
    pub(crate) fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), has_tags: false }
    }

    /// Makes names for Redis Cluster. One script uses the four keys of a question, so they must share a slot. FastMCP's
    /// names do so only by a hash tag in the prefix. Without one the keys get names of this crate, with a tag. So do
    /// the channels of the processes.
    #[cfg(any(test, feature = "cluster"))]
    pub(crate) fn in_cluster(self) -> Self {
        Self { has_tags: !self.prefix.contains('{'), ..self }
    }

    /// Returns the keys of a queue and of its lease. Most pushes need no others.
    pub(crate) fn queue_and_lease(&self, session: &SessionId) -> (String, String) {
        let queue = self.queue(session);
        let lease = self.companion(&queue, "lease");
        (queue, lease)
    }

    /// Returns the key of a queue.
    pub(crate) fn queue(&self, session: &SessionId) -> String {
        let mut queue = self.of_all();
        // Writing to a string does not fail.
        let _ = write!(queue, "{session}");
        queue
    }

    /// Returns all keys of a session's queue.
    pub(crate) fn of(&self, session: &SessionId) -> QueueKeys {
        let (queue, lease) = self.queue_and_lease(session);
        QueueKeys {
            lease,
            questions: self.companion(&queue, "questions"),
            dead: self.companion(&queue, "dead"),
            deduplication: ["dedup:0", "dedup:1"].map(|name| self.companion(&queue, name)),
            collapsible: self.collapsible_of(&queue),
            receipts: self.companion(&queue, "receipt:"),
            queue,
        }
    }

    /// Returns the key of a queue's lease.
    #[cfg(any(test, feature = "server"))]
    pub(crate) fn lease_of(&self, queue: &str) -> String {
        self.companion(queue, "lease")
    }

    /// Returns the key of the messages that a push may replace.
    pub(crate) fn collapsible_of(&self, queue: &str) -> String {
        self.companion(queue, "collapsible")
    }

    /// Returns the queue of a lease's key, or `None` where the key is not that of a lease.
    #[cfg(any(test, feature = "server"))]
    pub(crate) fn queue_of_lease<'a>(&self, key: &'a str) -> Option<&'a str> {
        if self.prefix.contains('{') {
            key.strip_suffix("::lease")
        } else {
            key.strip_prefix('{')?.strip_suffix("}:lease")
        }
    }

    /// Returns the glob pattern that matches all lists of dead letters.
    pub(crate) fn all_dead(&self) -> String {
        let queues = literally(&self.of_all());
        if self.prefix.contains('{') { format!("{queues}*::dead") } else { format!("{{{queues}*}}:dead") }
    }

    /// Returns the glob pattern that matches the stored sessions, queues, leases and dead letters. Some other keys
    /// match too, which [`Self::session_key`] tells apart.
    pub(crate) fn all_of_sessions(&self) -> String {
        format!("*{}:[ns]*", literally(&self.prefix))
    }

    /// Returns the glob pattern that matches the keys of all sessions with this id, under any principal and prefix.
    /// Keys of longer ids match too. [`SessionKey::read`] tells them apart.
    pub(crate) fn all_with_id(session: &SessionId) -> String {
        let whole = session.to_string();
        let id = whole.rsplit(':').next().unwrap_or_default();
        format!("*:{}*", literally(id))
    }

    /// Returns the prefix of these keys.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the key of the sorted set of server processes.
    pub(crate) fn servers(&self) -> String {
        format!("{}:servers", self.prefix)
    }

    /// Returns the key of a server's record, which is in the slot of the set of servers.
    pub(crate) fn server(&self, server: impl std::fmt::Display) -> String {
        self.companion(&self.servers(), &server.to_string())
    }

    /// Returns the session of a list of dead letters, or `None` where the key is not that of such a list.
    pub(crate) fn session_of_dead(&self, key: &str) -> Option<SessionId> {
        let (session, kind) = self.session_key(key)?;
        (kind == SessionKeyKind::DeadLetters).then_some(session)
    }

    /// Returns the prefix of the keys of all queues.
    pub(crate) fn of_all(&self) -> String {
        [&self.prefix, ":notifications:"].concat()
    }

    /// Returns the key of the sorted set of sessions that have an owner.
    pub(crate) fn sessions(&self) -> String {
        format!("{}:sessions", self.prefix)
    }

    /// Returns the key of a stored session.
    pub(crate) fn session(&self, session: &SessionId) -> String {
        format!("{}{session}", self.session_prefix())
    }

    /// Returns the prefix of the keys of all stored sessions.
    fn session_prefix(&self) -> String {
        format!("{}:session:", self.prefix)
    }

    /// Returns the name of the channel for messages to all processes.
    pub(crate) fn news(&self) -> String {
        format!("{}:news", self.prefix)
    }

    /// Returns the name of the channel for messages to one process.
    #[cfg(any(test, feature = "rmcp"))]
    pub(crate) fn news_for(&self, process: impl std::fmt::Display) -> String {
        let news = self.news();
        // In the slot of the first channel: the same node then has all listeners, and no message crosses the cluster.
        if self.has_tags { format!("{{{news}}}:{process}") } else { format!("{news}:{process}") }
    }

    /// Returns a key that never exists, for a write that changes nothing.
    pub(crate) fn probe(&self) -> String {
        format!("{}:probe", self.prefix)
    }

    /// Returns the keys of a task's question.
    pub(crate) fn elicit(&self, task: &TaskKey) -> ElicitKeys {
        let mut stem = format!("{}:task:{}:elicit", self.prefix, task.in_key());
        if self.has_tags {
            stem = format!("{{{stem}}}");
        }
        ElicitKeys {
            request: format!("{stem}:request"),
            response: format!("{stem}:response"),
            status: format!("{stem}:status"),
            asker: format!("{stem}:asker"),
        }
    }

    /// Returns a key that is in the slot of its queue. A hash tag in the prefix decides the slot alone. Without one the
    /// whole name of the queue becomes the tag.
    ///
    /// With a hash tag two colons separate the parts. After a single colon, `lease` could be the session of a
    /// principal.
    fn companion(&self, queue: &str, what: &str) -> String {
        if self.prefix.contains('{') { [queue, "::", what].concat() } else { ["{", queue, "}:", what].concat() }
    }
}

/// Returns a text as a glob pattern that matches this text alone.
fn literally(text: &str) -> String {
    text.chars().flat_map(|c| "*?[]^-\\".contains(c).then_some('\\').into_iter().chain([c])).collect()
}

/// Returns whether a prefix can be used: it has no braces, or one hash tag that is not empty. Otherwise a queue and its
/// lease could be in different slots.
pub(crate) fn prefix_is_possible(prefix: &str) -> bool {
    if prefix.is_empty() {
        return false;
    }
    match (prefix.find('{'), prefix.find('}')) {
        (None, None) => true,
        (Some(open), Some(close)) => {
            close > open + 1 && prefix.matches('{').count() == 1 && prefix.matches('}').count() == 1
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::principal::Principal;

    fn slot(key: &str) -> u16 {
        super::slot::slot(key.as_bytes())
    }

    fn session_id() -> impl Strategy<Value = SessionId> {
        let id = "[!-~]{1,256}|[a-c:]{1,4}|lease".prop_map(|id| SessionId::new(id).unwrap());
        let principal = prop::option::of("\\PC{1,40}|[a-c:]{1,4}".prop_map(|p| Principal::new(p).unwrap()));
        (id, principal).prop_map(|(id, principal)| match principal {
            Some(principal) => id.bound_to(principal),
            None => id,
        })
    }

    #[test]
    fn a_uuid_gives_fastmcps_key() {
        let id = SessionId::new("1f0c2f6e-7a52-4c5e-9a3c-2f0f4a0c9a11").unwrap();
        assert_eq!(
            Keys::new("docket:fastmcp").of(&id).queue,
            "docket:fastmcp:notifications:1f0c2f6e-7a52-4c5e-9a3c-2f0f4a0c9a11"
        );
    }

    #[test]
    fn a_prefix_with_half_a_hash_tag_is_refused() {
        for prefix in ["", "{", "}", "{}", "a{}b", "}{", "a}b", "{a}{b}", "{a}}"] {
            assert!(!prefix_is_possible(prefix), "{prefix}");
        }
        for prefix in ["mcp-courier", "{docket}:fastmcp", "docket:fastmcp"] {
            assert!(prefix_is_possible(prefix), "{prefix}");
        }
    }

    proptest! {
        #[test]
        fn a_queue_and_its_lease_share_a_slot(id in session_id(), prefix in "[a-z:]{1,5}|[a-z:]{0,5}\\{[a-z:]{1,5}\\}[a-z:]{0,5}") {
            prop_assert!(prefix_is_possible(&prefix));
            let keys = Keys::new(prefix).of(&id);
            prop_assert_eq!(slot(&keys.queue), slot(&keys.lease));
            prop_assert_eq!(slot(&keys.queue), slot(&keys.questions));
            prop_assert_eq!(slot(&keys.queue), slot(&keys.dead));
            for key in keys.deduplication.iter().chain([&keys.collapsible]) {
                prop_assert_eq!(slot(&keys.queue), slot(key));
            }
            prop_assert_eq!(slot(&keys.queue), slot(&keys.receipt(NotificationId(uuid::Uuid::nil()))));
        }

        #[test]
        fn the_keys_of_a_question_share_a_slot_in_a_cluster(
            task in ".{1,20}", prefix in "[a-z:]{1,5}|[a-z:]{0,5}\\{[a-z:]{1,5}\\}[a-z:]{0,5}",
        ) {
            if let Ok(task) = TaskKey::anonymous(task) {
                let (plain, clustered) = (Keys::new(&prefix), Keys::new(&prefix).in_cluster());
                let ElicitKeys { request, response, status, asker } = clustered.elicit(&task);
                for other in [response, status, asker] {
                    prop_assert_eq!(slot(&request), slot(&other));
                }
                prop_assert_eq!(plain.elicit(&task) == clustered.elicit(&task), prefix.contains('{'));
                prop_assert_eq!(slot(&clustered.news()), slot(&clustered.news_for("process")));
            }
        }

        #[test]
        fn a_lease_names_its_queue_and_no_other_key_does(id in session_id(), prefix in "[a-z:]{1,5}|[a-z:]{0,5}\\{[a-z:]{1,5}\\}[a-z:]{0,5}") {
            let keys = Keys::new(prefix);
            let own = keys.of(&id);
            prop_assert_eq!(keys.lease_of(&own.queue), own.lease.clone());
            prop_assert_eq!(keys.queue_of_lease(&own.lease), Some(&*own.queue));
            for other in [&own.queue, &own.questions, &own.dead, &keys.sessions(), &keys.session(&id), &keys.probe()] {
                prop_assert_eq!(keys.queue_of_lease(other), None);
            }
        }

        #[test]
        fn dead_letters_say_whose_they_are(id in session_id(), prefix in "[a-z*?:\\[]{1,5}|[a-z*:]{0,5}\\{[a-z?:]{1,5}\\}[a-z:]{0,5}") {
            let keys = Keys::new(prefix);
            let own = keys.of(&id);
            prop_assert_eq!(keys.session_of_dead(&own.dead), Some(id));
            for other in [&own.queue, &own.lease, &own.questions, &own.receipt(NotificationId(uuid::Uuid::nil()))] {
                prop_assert_eq!(keys.session_of_dead(other), None);
            }
        }

        #[test]
        fn no_two_sessions_share_a_key(a in session_id(), b in session_id()) {
            let keys = Keys::new("{p}");
            prop_assert_eq!(a.to_string().parse(), Ok(a.clone()));
            prop_assert_eq!(keys.of(&a).queue == keys.of(&b).queue, a == b);
            prop_assert_ne!(keys.of(&a).lease, keys.of(&b).queue);
        }

        #[test]
        fn no_key_of_a_session_is_any_other_key(
            a in session_id(), b in session_id(), task in ".{1,20}", prefix in "[a-z:]{1,5}|\\{[a-z:]{1,5}\\}",
        ) {
            let keys = Keys::new(prefix);
            let mut all = vec![keys.sessions(), keys.news(), keys.probe(), keys.servers(), keys.server("a")];
            for session in if a == b { vec![&a] } else { vec![&a, &b] } {
                let QueueKeys { queue, lease, questions, dead, deduplication, collapsible, receipts } = keys.of(session);
                all.extend(deduplication);
                all.push(collapsible);
                all.extend([queue, lease, questions, dead, receipts, keys.session(session)]);
            }
            if let Ok(task) = TaskKey::anonymous(task) {
                let ElicitKeys { request, response, status, asker } = keys.elicit(&task);
                all.extend([request, response, status, asker]);
            }
            let distinct: std::collections::HashSet<_> = all.iter().collect();
            prop_assert_eq!(distinct.len(), all.len(), "{:?}", all);
        }

        #[test]
        fn no_member_of_the_live_sessions_makes_its_reader_panic(text in ".*|[!-~]*|[a-z%:0-9A-F]{0,9}") {
            if let Ok(id) = text.parse::<SessionId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
