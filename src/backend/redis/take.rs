//! Arguments and answers of the scripts at the tail of a queue: the take, and the rewrite after a failed attempt.

use std::time::Duration;

use redis::Value;

use super::lease::{lease_state, lease_value};
use super::letters::{reason, settings};
use super::link::Command;
use super::lua::REPLACE;
use super::reply::{self, BadReply};
use crate::backend::{Delivered, Item, LeaseState, LineLimit, Mark, OwnerToken, Replaced};
use crate::config::Config;
use crate::envelope::Timestamp;
use crate::keys::QueueKeys;
use crate::notification::TIME_TO_LIVE_MAX;

/// Arguments of a take.
pub(super) struct Question<'a> {
    pub(super) owner: OwnerToken,
    pub(super) delivered: Option<&'a Delivered>,
    /// Takes an absent lease. Never set behind a wait: the take may run after its owner has gone.
    pub(super) reclaim: bool,
    pub(super) limit: LineLimit,
    /// Least life of the queue, for the messages that were read in it.
    pub(super) life: Duration,
}

pub(super) fn arguments(config: &Config, question: &Question<'_>) -> Vec<Vec<u8>> {
    let Question { owner, delivered, reclaim, limit, life } = question;
    let text = |n: u128| n.to_string().into_bytes();
    let (count, length, last) = match delivered {
        Some(d) => (d.count, d.last.length, d.last.last.clone()),
        None => (0, 0, Vec::new()),
    };
    let last_deadline =
        delivered.and_then(|delivered| delivered.questions.iter().map(|q| Timestamp::from_system(q.deadline)).max());
    let questions_until = last_deadline.map_or(0, |deadline| deadline.plus(config.expiry_grace()).0 / 1000);
    let mut arguments = vec![
        lease_value(*owner, config).into_bytes(),
        text(count as u128),
        text(length as u128),
        last,
        text(limit.messages() as u128),
        text(limit.bytes() as u128),
        text(u128::from(*reclaim)),
        text(config.lease().as_millis()),
        text(life.as_millis()),
        text((config.time_to_live() + config.expiry_grace()).as_millis()),
        questions_until.to_string().into_bytes(),
        text(2 * delivered.map_or(0, |delivered| delivered.questions.len()) as u128),
    ];
    let Some(delivered) = delivered else { return arguments };
    for question in &delivered.questions {
        arguments.push(question.request_id.clone().into_bytes());
        arguments.push(question.to_open().into_bytes());
    }
    if !delivered.fates.is_empty() {
        arguments.extend(settings(config));
    }
    for fate in &delivered.fates {
        arguments.push(text(fate.position as u128 + 1));
        arguments.push(reason(fate));
        arguments.push(text(u128::from(fate.receipt.is_some())));
    }
    arguments
}

/// Answer of the script, the messages not yet decoded.
pub(super) struct Answer {
    pub(super) lease: LeaseState,
    pub(super) changed: bool,
    pub(super) now: Timestamp,
    pub(super) messages: Vec<Vec<u8>>,
    /// Why discarded ones could not be kept, or nothing.
    pub(super) trouble: Vec<u8>,
}

pub(super) fn answer(value: Value) -> Result<Answer, BadReply> {
    let [lease, changed, now, messages, trouble] = reply::array(value)?;
    Ok(Answer {
        lease: lease_state(lease)?,
        changed: reply::number::<i64>(changed)? == 1,
        now: Timestamp(reply::number(now)?),
        messages: reply::list(messages)?.into_iter().map(reply::bytes).collect::<Result<_, _>>()?,
        trouble: reply::bytes(trouble)?,
    })
}

/// Decodes the messages that were read from a queue at `now`. Returns besides how long the queue must live for them.
pub(super) fn items(config: &Config, queue: &str, messages: Vec<Vec<u8>>, now: Timestamp) -> (Vec<Item>, Duration) {
    let items: Vec<Item> = messages.into_iter().map(|raw| Item::decode(queue, raw, config.time_to_live())).collect();
    let life = items
        .iter()
        .filter_map(|item| {
            let envelope = item.envelope.as_ref().ok()?;
            // Whatever time stands in it: a key is not kept for thousands of years.
            let longest = if envelope.is_stamped() { TIME_TO_LIVE_MAX } else { config.time_to_live() };
            Some(envelope.expires_at?.since(now).min(longest) + config.expiry_grace())
        })
        .max();
    (items, life.unwrap_or_default())
}

/// Returns the call that writes a failed attempt in the place of the oldest message. `keys` are the queue and its lease.
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
        oldest.last.clone(),
        replacement,
        (config.time_to_live() + config.expiry_grace()).as_millis().to_string().into_bytes(),
    ];
    Command::call(&REPLACE, &keys, &arguments)
}

/// Returns the keys of the take: the queue's, and those of the receipts that it settles.
pub(super) fn keys(keys: &QueueKeys, delivered: Option<&Delivered>) -> Vec<String> {
    let QueueKeys { queue, lease, questions, dead, .. } = keys;
    let settled = delivered.iter().flat_map(|delivered| &delivered.fates).filter_map(|fate| fate.receipt);
    let always = [queue, lease, questions, dead].into_iter().cloned();
    always.chain(settled.map(|id| keys.receipt(id))).collect()
}

/// Reads the answer to the rewrite of the oldest message.
pub(super) fn replaced(value: Value) -> Result<Replaced, BadReply> {
    Ok(match reply::bytes(value)?.as_slice() {
        b"done" => Replaced::Done,
        b"changed" => Replaced::Changed,
        _ => Replaced::NotOurs,
    })
}
