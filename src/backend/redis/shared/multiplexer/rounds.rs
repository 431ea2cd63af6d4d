//! Rounds of a [`Multiplexer`]: their composition, and the lessons from their answers.
//!
//! *Width of a round*. All sessions of a round wait for its slowest answer. After a large or slow answer the next round
//! has half as many jobs, and after a failure one job. After a quick full round it has twice as many.
//!
//! *Lanes*. A round goes to one server. Each node of a cluster has rounds of its own, one at a time. So a node without an
//! answer holds up no session of another node.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Multiplexer, State};
use crate::backend::redis::link::{ANSWER_TIMEOUT, CHECK_EVERY, Link, same};
use crate::backend::redis::shared::round::{Done, Round};
use crate::failure::QueueErrorKind;
use crate::lock::lock;

/// Largest number of jobs in one round. In a wider round each job would wait for longer than its own answer takes.
const WIDEST: usize = 256;

/// Smallest number of jobs in one round.
pub(super) const NARROWEST: usize = 1;

/// Number of bytes of answers from which the next rounds are narrower.
const LARGE: usize = 1024 * 1024;

/// Number of bytes of answers from which the time of a round says something about the line.
const MEASURABLE: usize = 16 * 1024;

/// Lane of a round without any key.
const NO_LANE: usize = usize::MAX;

impl Multiplexer {
    /// Returns the next round with its lane, which is none of the `busy` ones; else the time until which none is due.
    fn next_round(&self, busy: &[usize]) -> Result<(usize, Round), Instant> {
        let (now, mut state) = (Instant::now(), lock(&self.state));
        while let Some((&(end, _), registration)) = state.ends.first_key_value() {
            if end > now {
                break;
            }
            let registration = Arc::clone(registration);
            self.end_wait(&mut state, &registration);
        }
        let State { jobs, announcements, registrations, width, check, ends, .. } = &mut *state;
        let (mut round, mut lane, mut others) = (Round::new(), None, Vec::new());
        while round.jobs() < *width {
            let Some((job, registration)) = jobs.pop_front() else { break };
            // Nobody waits for this answer any more, so the abandoned job is not done.
            if job.answer.is_closed() {
                continue;
            }
            let its = self.link.lane(job.slot);
            if lane.is_some_and(|lane| lane != its) || busy.contains(&its) {
                others.push((job, registration));
                continue;
            }
            lane = Some(its);
            if let Some(registration) = registration {
                // Cleared before the read is sent: a change from now on may not be in the answer, and sets the flag
                // again.
                lock(&registration.reading).is_stale = false;
            }
            round.add(job);
        }
        others.into_iter().rev().for_each(|job| jobs.push_front(job));
        let of_sessions = self.link.lane(self.sessions_slot);
        if !announcements.is_empty() && lane.unwrap_or(of_sessions) == of_sessions && !busy.contains(&of_sessions) {
            lane = Some(of_sessions);
            let announcements = announcements.drain(..announcements.len().min(WIDEST)).collect();
            round.announce(&self.config, &self.keys.sessions(), announcements);
        }
        if round.is_empty() && (*check > now || registrations.is_empty()) {
            let check = if registrations.is_empty() { now + CHECK_EVERY } else { *check };
            return Err(ends.first_key_value().map_or(check, |(end, _)| end.0.min(check)));
        }
        *check = now + CHECK_EVERY;
        Ok((lane.unwrap_or(NO_LANE), round))
    }

    /// Learns from a round of so many jobs, above all the width of the next rounds.
    fn learn(&self, jobs: usize, Done { bytes, took, unannounced }: Done) {
        let mut state = lock(&self.state);
        state.unannounced = if unannounced.is_some() { state.unannounced.saturating_add(1) } else { 0 };
        if let Some(error) = unannounced.filter(|_| state.unannounced.is_power_of_two()) {
            // An owner delivers without an announcement too.
            let consequence = "broadcasts miss them, and they are not listed as live";
            tracing::warn!(%error, consequence, rounds = state.unannounced,
                "announcing shared sessions as live failed");
        }
        let width = &mut state.width;
        // Fewer bytes pass any line in time, so a slow answer of so few says nothing about the line.
        let slower_than = |time: Duration| bytes >= MEASURABLE && took > time;
        if bytes > LARGE || slower_than(ANSWER_TIMEOUT / 2) {
            *width = (jobs / 2).max(NARROWEST);
        } else if jobs >= *width && bytes < LARGE / 2 && !slower_than(ANSWER_TIMEOUT / 4) {
            *width = (*width * 2).min(WIDEST);
        }
    }

    /// Learns from a failed round: its answers may have been too large for the line.
    ///
    /// Where no connection comes about, all jobs of the lane that came meanwhile fail too. Each of their rounds would
    /// otherwise try for as long again.
    fn failed(&self, lane: usize, error: &QueueErrorKind) {
        let mut state = lock(&self.state);
        state.width = NARROWEST;
        if matches!(error, QueueErrorKind::Unreachable(_)) {
            if self.link.lane(self.sessions_slot) == lane {
                state.announcements.clear();
            }
            for (job, registration) in std::mem::take(&mut state.jobs) {
                if self.link.lane(job.slot) == lane {
                    let _ = job.answer.send(Err(same(error)));
                } else {
                    state.jobs.push_back((job, registration));
                }
            }
        }
    }
}

/// Sends round after round, one at a time in each lane, until the line is dropped.
pub(super) async fn run(mux: Weak<Multiplexer>, link: Link, work: Arc<Notify>) {
    let (mut sent, mut busy) = (FuturesUnordered::new(), Vec::new());
    loop {
        // A single server has one lane, so while a round is on its way nobody looks at the jobs.
        let has_lane = busy.is_empty() || link.is_cluster();
        let mut until = None;
        if has_lane {
            // No reference is held while the rounds sleep, so the line ends with its last user.
            let Some(next) = mux.upgrade().map(|mux| mux.next_round(&busy)) else { return };
            match next {
                Ok((lane, round)) => {
                    busy.push(lane);
                    let (jobs, link) = (round.jobs(), &link);
                    sent.push(async move { (lane, jobs, round.send(link).await) });
                    continue;
                }
                Err(at) => until = Some(at),
            }
        }
        let until = until.unwrap_or_else(Instant::now);
        tokio::select! {
            Some((lane, jobs, done)) = sent.next() => {
                busy.retain(|other| *other != lane);
                let Some(mux) = mux.upgrade() else { return };
                match done {
                    Ok(done) => mux.learn(jobs, done),
                    Err(error) => mux.failed(lane, &error),
                }
            }
            _ = tokio::time::timeout_at(until, work.notified()), if has_lane => {}
        }
    }
}
