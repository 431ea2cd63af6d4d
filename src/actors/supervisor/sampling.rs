//! Gauges of a supervisor's subscribers, sampled: their states, and the lengths and ages of the queues that they own.
//!
//! *Undisturbed*. A sample reads what subscribers have noted by themselves, and sends no message to any. A subscriber
//! that waits for a message owns an empty queue, and one that is parked owns none. So only the queues of the others are
//! measured, at most [`MEASURED`] in a sample, by one request of reads over the shared link.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use actix::prelude::*;

use super::SupervisorActor;
use crate::actors::clock;
use crate::metrics::{OLDEST_SECONDS, QUEUED, QUEUED_MAX, SUBSCRIBERS, Share};
use crate::subscription::SubscriberState;

/// Time between two samples. Shorter than the usual time between two scrapes.
const EVERY: Duration = Duration::from_secs(5);

/// Largest number of queues whose lengths one sample reads. Of more queues a random choice is read, and the sum is
/// estimated from it.
const MEASURED: usize = 1000;

/// Begins to take samples, until the supervisor ends.
pub(super) fn begin(ctx: &mut Context<SupervisorActor>) {
    let mut states = SubscriberState::LABELS.map(|(state, label)| (state, Share::of(&SUBSCRIBERS, label)));
    // Taken while lengths are read, so that a slow Redis gets one request at a time.
    let queued = Rc::new(Cell::new(Some(Share::of(&QUEUED, ""))));
    ctx.run_interval(EVERY, move |supervisor, _| {
        let (now, mut oldest, mut counts) = (clock::now(), Duration::ZERO, [0_u32; SubscriberState::LABELS.len()]);
        let mut filled = Vec::new();
        for (session, child) in &supervisor.children {
            let (state, oldest_since) = child.context.stats.state_and_oldest();
            oldest = oldest.max(oldest_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)));
            if let Some(at) = states.iter().position(|(known, _)| *known == state) {
                counts[at] += 1;
            }
            if !matches!(state, SubscriberState::Waiting | SubscriberState::StandingBy | SubscriberState::Parked) {
                filled.push(session);
            }
        }
        for ((_, share), count) in states.iter_mut().zip(counts) {
            share.set(count.into());
        }
        OLDEST_SECONDS.set(oldest.as_secs_f64());
        let all = filled.len();
        let sessions: Vec<_> = fastrand::choose_multiple(filled, MEASURED).into_iter().cloned().collect();
        let (queue, queued) = (supervisor.queue.clone(), Rc::clone(&queued));
        actix_rt::spawn(async move {
            let Some(mut share) = queued.take() else { return };
            let measured = if sessions.is_empty() { Ok(Vec::new()) } else { queue.lengths(&sessions).await };
            match measured {
                Ok(lengths) => {
                    let sum = lengths.iter().sum::<usize>() as f64;
                    let scale = all as f64 / lengths.len().max(1) as f64;
                    share.set(sum * scale.max(1.0));
                    QUEUED_MAX.set(lengths.iter().max().copied().unwrap_or(0) as f64);
                }
                Err(error) => {
                    tracing::debug!(%error, "reading the lengths of queues failed; their metrics stay as they are")
                }
            }
            queued.set(Some(share));
        });
    });
}
