//! Pushes of many notifications: the calls that go together in one round, and the outcome of each notification.
//!
//! A batch may hold any number of sessions and messages. One call of the script queues messages of one session, within
//! the bounds of a call. A round sends one call per session together, and the next round follows its answers. The order
//! within a session holds: once a call is refused, its session takes no part in later rounds.
//!
//! *Outcome of a failure*. Redis performs a script whole or not at all. Where no connection could be made nothing was
//! queued (`Unreachable`). Where an answer is missing the call may have been done (`Uncertain`). Redis's refusal queued
//! nothing. A caller that pushes the same notification again after `Uncertain` is safe, because owners skip its id.
//!
//! *Bounded time*. A round without any answer ends the push: each further round would wait as long. The remaining
//! messages were not sent, and are `Unreachable`
//! (`a_push_to_many_sessions_of_a_silent_redis_answers_after_one_timeout`).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use futures_util::future::maybe_done;

use super::grouped::{Call, Grouped};
use super::{Answer, Arguments, answer, keyed_answer};
use crate::backend::redis::RedisBackend;
use crate::backend::redis::link::{self, Command, Request};
use crate::backend::redis::lua::{PUSH, PUSH_KEYED};
use crate::backend::redis::session_status::status;
use crate::backend::{LineLimit, Outgoing, PushRefusal, Queued};
use crate::envelope::Timestamp;
use crate::failure::{QueueErrorKind, SharedCause};
use crate::session_id::SessionStatus;

/// Largest number of calls per request. Redis works on one request while the next is written.
const PIECE: usize = 64;

/// Outcome of one call, or of one request for the status of its session.
type Called = Result<Answer, PushRefusal>;

/// Outcomes of the messages of a push, by their places in the batch.
type Results = Vec<Result<Queued, PushRefusal>>;

impl RedisBackend {
    /// Pushes a batch in rounds. A round has at most one call per session, so that no later call overtakes a call that
    /// fails. The notifications of a session take as many calls as their size needs.
    pub(in crate::backend::redis) async fn push_all(&self, batch: Vec<Outgoing>) -> Results {
        // A message without a call was refused because an earlier one of its session was.
        let mut results: Results = batch.iter().map(|_| Err(PushRefusal::AfterRefused)).collect();
        let mut waiting = Grouped::new(&batch);
        let mut unowned: Vec<(usize, Option<SessionStatus>)> = Vec::new();
        let has_store = !self.config.fastmcp_servers();
        loop {
            let (calls, bytes) = self.next_calls(&batch, &mut waiting, self.link.limit(), &mut results);
            if calls.is_empty() {
                break;
            }
            let begun = Instant::now();
            // Where nothing else is pushed, the request also asks the session store: that saves a round trip
            // afterwards. In a cluster the push would then wait for a second node.
            let asks = has_store && !self.deployment.is_cluster() && waiting.len() == 1;
            let (answers, status) = self.push_round(&batch, &waiting, &calls, bytes, asks).await;
            if answers.iter().all(Result::is_ok) {
                let most = calls.iter().map(Call::len).max().unwrap_or_default();
                self.link.learn(most, bytes, begun.elapsed());
            }
            let lost = cause_of_loss(&answers);
            for (call, answer) in calls.iter().zip(answers) {
                if answer.as_ref().is_ok_and(|answer| !answer.owned && !answer.done.is_empty()) {
                    unowned.push((call.group, status));
                }
                if settle(waiting.places(call), answer, &mut results) {
                    waiting.take_rest(call.group);
                }
            }
            // Each further round would wait for an answer as long as this one did. None of the remaining messages was
            // sent.
            if let Some(cause) = lost {
                for group in 0..waiting.len() {
                    for &place in waiting.take_rest(group) {
                        results[place] = Err(PushRefusal::Unreachable(Arc::clone(&cause)));
                    }
                }
                return results;
            }
        }
        if has_store {
            self.read_statuses(&waiting, unowned, &mut results).await;
        }
        results
    }

    /// Takes the calls of the next round, and returns them with their bytes: for each session as many messages as fit
    /// into one call.
    fn next_calls(
        &self,
        batch: &[Outgoing],
        waiting: &mut Grouped<'_>,
        line: LineLimit,
        results: &mut Results,
    ) -> (Vec<Call>, usize) {
        let limit = self.config.message_max_bytes();
        let (mut calls, mut round_bytes) = (Vec::new(), 0);
        for group in 0..waiting.len() {
            // All calls of a round travel together, so they share the bound in bytes.
            if round_bytes >= line.bytes() {
                break;
            }
            let (mut count, mut bytes, mut too_large) = (0, 0, None);
            for &place in waiting.rest(group) {
                let size = batch[place].draft.size();
                if size > limit {
                    too_large = Some((place, size)).filter(|_| count == 0);
                    break;
                }
                if count >= line.messages() || (count > 0 && bytes + size > line.bytes()) {
                    break;
                }
                (count, bytes) = (count + 1, bytes + size);
            }
            if let Some((place, bytes)) = too_large {
                results[place] = Err(PushRefusal::TooLarge { bytes, limit });
                waiting.take_rest(group);
            } else if count > 0 {
                round_bytes += bytes;
                calls.push(waiting.take(group, count));
            }
        }
        (calls, round_bytes)
    }

    /// Sends a round of calls, each of another session, and returns their outcomes. With `asks` set there is only one
    /// session. Its status without a lease is then read and returned as well.
    async fn push_round(
        &self,
        batch: &[Outgoing],
        waiting: &Grouped<'_>,
        calls: &[Call],
        bytes: usize,
        asks: bool,
    ) -> (Vec<Called>, Option<SessionStatus>) {
        // Each request of the round has the time that the whole round needs.
        let _under_way = self.link.begin(bytes);
        let sent = Timestamp::of_this_host();
        let mut sending = Vec::with_capacity(calls.len().div_ceil(PIECE));
        for piece in calls.chunks(PIECE) {
            let mut request = Request::new();
            for call in piece {
                request.add(self.call_push(batch, waiting, call, sent));
            }
            if asks {
                request.add(Command::read(self.status_command(waiting.session(piece[0].group))));
            }
            let mut piece = Box::pin(maybe_done(async move { self.link.send(&request).await }));
            // A request leaves once its future was polled and the task of the connection has run. Therefore each is
            // polled here before the next is made.
            if calls.len() > PIECE {
                let _ = poll_fn(|context| Poll::Ready(piece.as_mut().poll(context))).await;
                tokio::task::yield_now().await;
            }
            sending.push(piece);
        }
        let (mut answers, mut found) = (Vec::with_capacity(calls.len()), None);
        for (mut sent_piece, piece) in sending.into_iter().zip(calls.chunks(PIECE)) {
            sent_piece.as_mut().await;
            match sent_piece.as_mut().take_output() {
                Some(Ok(mut values)) => {
                    if asks {
                        found = values.pop().map(status);
                    }
                    let read = |(call, value)| self.read(batch, waiting.places(call), value, sent);
                    answers.extend(piece.iter().zip(values).map(read));
                }
                Some(Err(error)) => {
                    let refusal = refusal(error);
                    answers.extend(piece.iter().map(|_| Err(refusal.clone())));
                }
                None => {}
            }
        }
        (answers, found)
    }

    /// Makes the script call that pushes these messages.
    fn call_push(&self, batch: &[Outgoing], waiting: &Grouped<'_>, call: &Call, sent: Timestamp) -> Command {
        let drafts = waiting.places(call).iter().map(|&place| &batch[place].draft);
        let session = waiting.session(call.group);
        let arguments = Arguments { config: &self.config, drafts: drafts.clone(), sent: self.clock.at(sent) };
        let (lease, is_keyed) = (arguments.usual_lease(), arguments.are_keyed());
        let (queue, lease_key) = self.keys.queue_and_lease(session);
        let mut keys = vec![queue, lease_key];
        if is_keyed || drafts.clone().any(|draft| draft.receipt.is_some()) {
            let all = self.keys.of(session);
            if is_keyed {
                keys.extend(all.deduplication.iter().chain([&all.collapsible]).cloned());
                keys.push(all.receipts().to_owned());
            }
            keys.extend(drafts.filter_map(|draft| draft.receipt).map(|id| all.receipt(id)));
        }
        let mut command = Command::begin(if is_keyed { &PUSH_KEYED } else { &PUSH }, &keys);
        command.arg(&arguments);
        if is_keyed {
            arguments.add_keys_to(&mut command);
        }
        command.arg(lease);
        command
    }

    /// Reads the answer to a call.
    fn read(&self, batch: &[Outgoing], places: &[usize], value: link::Answer, sent: Timestamp) -> Called {
        let value = value.map_err(refusal)?;
        let is_keyed = places.iter().any(|&place| batch[place].draft.is_keyed());
        let answer =
            if is_keyed { keyed_answer(&self.config, value) } else { answer(&self.config, places.len(), value) };
        let answer = answer.map_err(|error| PushRefusal::Uncertain(Arc::new(error)))?;
        self.clock.learn(sent, answer.now);
        Ok(answer)
    }

    /// Writes the status of sessions without a lease into the results. Reads the session store for those whose status
    /// is not known yet.
    async fn read_statuses(
        &self,
        waiting: &Grouped<'_>,
        unowned: Vec<(usize, Option<SessionStatus>)>,
        results: &mut Results,
    ) {
        let mut unknown: Vec<usize> =
            unowned.iter().filter(|(_, known)| known.is_none()).map(|(group, _)| *group).collect();
        unknown.sort_unstable();
        unknown.dedup();
        let sessions: Vec<_> = unknown.iter().map(|&group| waiting.session(group)).collect();
        let found = self.status_of_unowned(&sessions).await;
        let known = unowned.into_iter().filter_map(|(group, known)| Some((group, known?)));
        for (group, status) in known.chain(unknown.into_iter().zip(found)) {
            for &place in waiting.all(group) {
                if let Ok(queued) = &mut results[place] {
                    queued.session = status;
                }
            }
        }
    }
}

/// Returns the refusal that a failed call means for each of its messages.
fn refusal(kind: QueueErrorKind) -> PushRefusal {
    match kind {
        QueueErrorKind::Unreachable(cause) => PushRefusal::Unreachable(cause.into()),
        QueueErrorKind::Broken(cause) => PushRefusal::Uncertain(cause.into()),
        QueueErrorKind::Refused(text) if text.contains("WRONGTYPE") => {
            PushRefusal::Refused("WRONGTYPE: a key of the session's queue holds a value of another type".to_owned())
        }
        QueueErrorKind::Refused(text) | QueueErrorKind::Sealing(text) => PushRefusal::Refused(text),
    }
}

/// Writes the answer of one call into the results. Returns whether anything in it was refused.
fn settle(places: &[usize], answer: Called, results: &mut Results) -> bool {
    match answer {
        Ok(Answer { done, stopped, .. }) => {
            for (i, &place) in places.iter().enumerate() {
                results[place] = match (done.get(i), stopped) {
                    (Some(&queued), _) => Ok(queued),
                    (None, Some(limit)) if i == done.len() => Err(PushRefusal::QueueFull(limit)),
                    (None, _) => Err(PushRefusal::AfterRefused),
                };
            }
            stopped.is_some()
        }
        Err(refusal) => {
            for &place in places {
                results[place] = Err(refusal.clone());
            }
            true
        }
    }
}

/// Returns the cause for which a whole round had no answer, or `None` where any call was answered.
fn cause_of_loss(answers: &[Called]) -> Option<SharedCause> {
    let mut causes = answers.iter().map(|answer| match answer {
        Err(PushRefusal::Unreachable(cause) | PushRefusal::Uncertain(cause)) => Some(cause),
        _ => None,
    });
    let cause = causes.next()??;
    causes.all(|cause| cause.is_some()).then(|| Arc::clone(cause))
}
