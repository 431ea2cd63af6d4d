//! Pushing many notifications: what goes together in one round, and what became of each.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::Answer;
use crate::backend::redis::RedisBackend;
use crate::backend::redis::link::{Command, Request};
use crate::backend::redis::lua::PUSH;
use crate::backend::{Outgoing, PushRefusal, Queued};
use crate::envelope::Timestamp;
use crate::failure::{QueueErrorKind, SharedCause};
use crate::session_id::{SessionId, SessionStatus};

impl RedisBackend {
    /// Pushes what can go together: for each session its notifications in as many calls as their size needs, one call
    /// per session and round, so that a call that fails cannot be overtaken by a later one.
    pub(in crate::backend::redis) async fn push_all(&self, batch: Vec<Outgoing>) -> Vec<Result<Queued, PushRefusal>> {
        let limit = self.config.message_max_bytes();
        let mut results: Vec<Option<Result<Queued, PushRefusal>>> = Vec::with_capacity(batch.len());
        let mut sessions: HashMap<&SessionId, VecDeque<usize>> = HashMap::new();
        let mut order: Vec<&SessionId> = Vec::new();
        let mut unowned: HashSet<SessionId> = HashSet::new();
        for (index, outgoing) in batch.iter().enumerate() {
            let waiting = sessions.entry(&outgoing.session).or_insert_with(|| {
                order.push(&outgoing.session);
                Default::default()
            });
            waiting.push_back(index);
            results.push(None);
        }
        let mut lost = None;
        while lost.is_none() && sessions.values().any(|waiting| !waiting.is_empty()) {
            let (line, mut round_bytes) = (self.link.limit(), 0);
            let mut calls: Vec<(&SessionId, Vec<usize>)> = Vec::new();
            for session in &order {
                let Some(waiting) = sessions.get_mut(session) else { continue };
                // All calls of a round travel together.
                if round_bytes >= line.bytes() {
                    break;
                }
                let (mut call, mut bytes) = (Vec::new(), 0);
                while let Some(&index) = waiting.front() {
                    let size = batch[index].draft.size();
                    if size > limit {
                        if call.is_empty() {
                            results[index] = Some(Err(PushRefusal::TooLarge { bytes: size, limit }));
                            waiting.pop_front();
                            refuse_the_rest(waiting, &mut results);
                        }
                        break;
                    }
                    if call.len() >= line.messages() || (!call.is_empty() && bytes + size > line.bytes()) {
                        break;
                    }
                    bytes += size;
                    call.push(index);
                    waiting.pop_front();
                }
                if !call.is_empty() {
                    round_bytes += bytes;
                    calls.push((session, call));
                }
            }
            let sent = Instant::now();
            let answers = self.push_round(&batch, &calls).await;
            if answers.iter().all(Result::is_ok) {
                let most = calls.iter().map(|(_, call)| call.len()).max().unwrap_or_default();
                self.link.learn(most, round_bytes, sent.elapsed());
            }
            lost = cause_of_loss(&answers);
            for ((session, call), answer) in calls.iter().zip(answers) {
                if answer.as_ref().is_ok_and(|answer| !answer.owned && answer.queued > 0) {
                    unowned.insert((*session).clone());
                }
                let failed = settle(call, answer, &mut results);
                if let (true, Some(waiting)) = (failed, sessions.get_mut(session)) {
                    refuse_the_rest(waiting, &mut results);
                }
            }
        }
        // Each round would wait for an answer as long as this one, and none of the rest was sent.
        if let Some(cause) = &lost {
            for index in sessions.into_values().flatten() {
                results[index] = Some(Err(PushRefusal::Unreachable(Arc::clone(cause))));
            }
        }
        if lost.is_none() && !unowned.is_empty() && !self.config.fastmcp_servers() {
            let status = self.status_of_unowned(unowned.into_iter().collect()).await;
            for (outgoing, result) in batch.iter().zip(&mut results) {
                if let (Some(Ok(queued)), Some(status)) = (result, status.get(&outgoing.session)) {
                    queued.session = *status;
                }
            }
        }
        results.into_iter().map(|result| result.unwrap_or(Err(PushRefusal::AfterRefused))).collect()
    }

    /// Sends a round of calls, each of another session, and returns what became of each.
    async fn push_round(
        &self,
        batch: &[Outgoing],
        calls: &[(&SessionId, Vec<usize>)],
    ) -> Vec<Result<Answer, PushRefusal>> {
        if calls.is_empty() {
            return Vec::new();
        }
        let (mut request, sent) = (Request::new(), Timestamp::of_this_host());
        for (session, call) in calls {
            let drafts = call.iter().map(|&index| &batch[index].draft);
            let keys = self.keys.of(session);
            let receipts = drafts.clone().filter_map(|draft| draft.receipt).map(|id| keys.receipt(id));
            let all: Vec<String> =
                [keys.queue.clone()].into_iter().chain(receipts).chain([keys.lease.clone()]).collect();
            request.add(Command::call(&PUSH, &all, &super::arguments(&self.config, drafts, self.clock.at(sent))));
        }
        match self.link.send(&request).await {
            Ok(answers) => answers
                .into_iter()
                .map(|answer| {
                    super::answer(&self.config, answer.map_err(refusal)?)
                        .inspect(|answer| self.clock.learn(sent, answer.now))
                        .map_err(|e| PushRefusal::Uncertain(Arc::new(e)))
                })
                .collect(),
            Err(error) => {
                let refusal = refusal(error);
                calls.iter().map(|_| Err(refusal.clone())).collect()
            }
        }
    }
}

fn refusal(kind: QueueErrorKind) -> PushRefusal {
    match kind {
        QueueErrorKind::Unreachable(cause) => PushRefusal::Unreachable(cause.into()),
        QueueErrorKind::Broken(cause) => PushRefusal::Uncertain(cause.into()),
        QueueErrorKind::Refused(text) if text.contains("WRONGTYPE") => PushRefusal::Refused(
            "WRONGTYPE: the key of the session's queue holds something else than a list".to_owned(),
        ),
        QueueErrorKind::Refused(text) => PushRefusal::Refused(text),
    }
}

/// Writes one call's answer into the results, and says whether anything in it was refused.
fn settle(
    call: &[usize],
    answer: Result<Answer, PushRefusal>,
    results: &mut [Option<Result<Queued, PushRefusal>>],
) -> bool {
    match answer {
        Ok(Answer { queued, length, stopped, owned, now: _ }) => {
            let session = if owned { SessionStatus::Owned } else { SessionStatus::NotRead };
            for (i, &index) in call.iter().enumerate() {
                results[index] = Some(match stopped {
                    _ if i < queued => Ok(Queued { waiting: length - (queued - 1 - i), session }),
                    Some(limit) if i == queued => Err(PushRefusal::QueueFull(limit)),
                    _ => Err(PushRefusal::AfterRefused),
                });
            }
            stopped.is_some()
        }
        Err(refusal) => {
            for &index in call {
                results[index] = Some(Err(refusal.clone()));
            }
            true
        }
    }
}

/// Returns why a round had no answer at all, or `None` where it had one.
fn cause_of_loss(answers: &[Result<Answer, PushRefusal>]) -> Option<SharedCause> {
    let mut causes = answers.iter().map(|answer| match answer {
        Err(PushRefusal::Unreachable(cause) | PushRefusal::Uncertain(cause)) => Some(cause),
        _ => None,
    });
    let cause = causes.next()??;
    causes.all(|cause| cause.is_some()).then(|| Arc::clone(cause))
}

fn refuse_the_rest(waiting: &mut VecDeque<usize>, results: &mut [Option<Result<Queued, PushRefusal>>]) {
    for index in waiting.drain(..) {
        results[index] = Some(Err(PushRefusal::AfterRefused));
    }
}
