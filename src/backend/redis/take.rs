//! Steps at the tail of a queue: the acknowledgement, the read behind it, and the rewrite after a failed attempt.
//!
//! *Content guard*. An acknowledgement names the number of the messages to remove, and the length and last bytes of the
//! newest of them. The script removes them only where that message stands at that position. A repeated acknowledgement,
//! a list that was deleted or flushed, or a list from an older replica therefore removes nothing that nobody received
//! (`an_acknowledgement_whose_answer_was_lost_can_be_repeated`,
//! `a_queue_that_was_emptied_and_filled_again_is_not_acknowledged`).
//!
//! *Two scripts acknowledge*. `acknowledge` suffices for nearly all batches. `acknowledge_outcomes` also settles
//! receipts, keeps dead letters and opens questions, in the same step as the removal. Both begin with the same
//! arguments.
//!
//! *Life of the queue*. A foreign producer may shorten the life of the key: FastMCP sets 300 s with each push. Each
//! acknowledgement sets the life again, as long as the messages need that were read and not removed
//! (`a_queue_does_not_run_out_under_its_owner`).

use std::time::Duration;

use redis::Value;

use super::dead_letters::settings;
use super::discards::reason;
use super::lease::{lease_state, lease_value};
use super::link::Command;
use super::lua::{ACKNOWLEDGE, ACKNOWLEDGE_OUTCOMES, REPLACE};
use super::reply::{self, BadReply};
use super::tail::from_the_tail;
use crate::backend::sealing::open_question_text;
use crate::backend::{Delivered, Item, LeaseState, Mark, OwnerToken, Replaced};
use crate::config::Config;
use crate::envelope::Timestamp;
use crate::keys::QueueKeys;
use crate::notification::TIME_TO_LIVE_MAX;

mod reads;

pub(super) use self::reads::{Read, Reads, passed_over};

/// Acknowledgement of the delivered messages, if there are any, by an owner that keeps its lease.
pub(super) struct Acknowledgement<'a> {
    pub(super) queue: &'a str,
    /// Key of the lease.
    pub(super) lease_key: &'a str,
    /// Key of the messages that a push may replace.
    pub(super) collapsible: &'a str,
    /// Returns the other keys of the queue. A closure, as few acknowledgements need them.
    pub(super) keys: &'a dyn Fn() -> QueueKeys,
    /// Value of the owner's lease.
    pub(super) lease: &'a str,
    /// Delivered messages to remove; `None` only extends the life of the queue.
    pub(super) delivered: Option<&'a Delivered>,
    /// Set to take an absent lease. Never set behind a wait: the call may run after its owner has gone.
    pub(super) reclaim: bool,
    /// Least life of the queue, for the messages that were read from it.
    pub(super) life: Duration,
}

impl Acknowledgement<'_> {
    /// Returns the call whose answer [`acknowledged`] reads. Most deliveries need only the short script.
    pub(super) fn call(&self, config: &Config) -> Command {
        match self.delivered {
            Some(delivered) if delivered.count > 0 && has_more_than_a_count(delivered) => {
                self.call_with_outcomes(config, delivered)
            }
            _ => {
                let mut call = Command::begin(&ACKNOWLEDGE, &[self.queue, self.lease_key, self.collapsible]);
                self.add_what_all_have(config, &mut call);
                call
            }
        }
    }

    /// Makes the call of the long script. Its keys and arguments have the order of the script's header.
    fn call_with_outcomes(&self, config: &Config, delivered: &Delivered) -> Command {
        let all = (self.keys)();
        let receipts = delivered.outcomes.iter().filter_map(|outcome| outcome.receipt).map(|id| all.receipt(id));
        let always = [&all.queue, &all.lease, &all.questions, &all.dead, &all.collapsible].into_iter().cloned();
        let keys: Vec<String> = always.chain(receipts).collect();
        let mut call = Command::begin(&ACKNOWLEDGE_OUTCOMES, &keys);
        self.add_what_all_have(config, &mut call);
        let last_deadline = delivered.questions.iter().map(|question| Timestamp::from_system(question.deadline)).max();
        call.arg(last_deadline.map_or(0, |deadline| deadline.plus(config.expiry_grace()).0 / 1000));
        call.arg(2 * delivered.questions.len());
        for question in &delivered.questions {
            call.arg(&question.request_id).arg(open_question_text(config.sealing_keys(), self.queue, question));
        }
        if !delivered.outcomes.is_empty() {
            call.arg(&settings(config));
        }
        for outcome in &delivered.outcomes {
            call.arg(outcome.position + 1).arg(reason(outcome)).arg(u8::from(outcome.receipt.is_some()));
        }
        call
    }

    /// Adds the arguments with which both scripts begin.
    fn add_what_all_have(&self, config: &Config, call: &mut Command) {
        // After the reclaim of an absent lease no renewal follows for a heartbeat. The queue must outlive that lease.
        let life = self.life.max(config.lease() + config.expiry_grace());
        call.arg(self.lease);
        if self.reclaim {
            call.arg(millis(config.lease()))
        } else {
            call.arg("")
        };
        call.arg(millis(life)).arg(millis(life.max(config.time_to_live() + config.expiry_grace())));
        if let Some(Delivered { count, last, .. }) = self.delivered.filter(|delivered| delivered.count > 0) {
            call.arg(from_the_tail(*count)).arg(from_the_tail(count + 1)).arg(last.length).arg(last.last());
        }
    }
}

fn has_more_than_a_count(Delivered { questions, outcomes, .. }: &Delivered) -> bool {
    !outcomes.is_empty() || !questions.is_empty()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Answer to an acknowledgement.
pub(super) struct Acknowledged {
    pub(super) lease: LeaseState,
    /// Set where the message at the tail was another one, so that nothing was removed.
    pub(super) changed: bool,
    /// Time of the receipts and dead letters, where the call may have written any.
    pub(super) at: Option<Timestamp>,
    /// Reason for which discarded messages could not be kept; empty where they were kept.
    pub(super) trouble: Vec<u8>,
}

/// Reads the answer to an acknowledgement.
pub(super) fn acknowledged(value: Value) -> Result<Acknowledged, BadReply> {
    let (state, at, trouble) = match value {
        Value::Array(_) => {
            let [state, at, trouble] = reply::array(value)?;
            (reply::bytes(state)?, Some(Timestamp(reply::number(at)?)), reply::bytes(trouble)?)
        }
        state => (reply::bytes(state)?, None, Vec::new()),
    };
    let (state, changed) = match state.strip_suffix(b" changed") {
        Some(state) => (state, true),
        None => (&*state, false),
    };
    Ok(Acknowledged { lease: lease_state(state), changed, at, trouble })
}

/// Decodes the messages that were read from a queue at `now`. Returns them, and the time for which the queue must live
/// for them.
pub(super) fn items(config: &Config, queue: &str, messages: Vec<Vec<u8>>, now: Timestamp) -> (Vec<Item>, Duration) {
    let items = Item::decode_each(queue, messages, config.time_to_live(), config.sealing_keys());
    let life = items
        .iter()
        .filter_map(|item| {
            let envelope = item.envelope.as_ref().ok()?;
            // Bounded whatever time the message names: no key is kept for thousands of years.
            let longest = if envelope.is_stamped() { TIME_TO_LIVE_MAX } else { config.time_to_live() };
            Some(envelope.expires_at?.since(now).min(longest) + config.expiry_grace())
        })
        .max();
    (items, life.unwrap_or_default())
}

/// Returns the call that writes a failed attempt in the place of the oldest message. `keys` are the queue and its
/// lease.
pub(super) fn replacement(
    config: &Config,
    owner: OwnerToken,
    keys: [&String; 2],
    oldest: &Mark,
    replacement: Vec<u8>,
) -> Command {
    let arguments = [
        lease_value(owner, config).into_bytes(),
        oldest.length.to_string().into_bytes(),
        oldest.last().to_vec(),
        replacement,
        (config.time_to_live() + config.expiry_grace()).as_millis().to_string().into_bytes(),
    ];
    Command::call(&REPLACE, &keys, &arguments)
}

/// Reads the answer to the rewrite of the oldest message.
pub(super) fn replaced(value: Value) -> Result<Replaced, BadReply> {
    Ok(match reply::bytes(value)?.as_slice() {
        b"done" => Replaced::Done,
        b"changed" => Replaced::Changed,
        _ => Replaced::NotOwner,
    })
}
