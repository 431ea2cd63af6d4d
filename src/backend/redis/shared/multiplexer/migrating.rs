//! Jobs of a slot that a cluster migrates, repeated one by one.
//!
//! While a slot is migrated, a script whose keys are at two nodes is refused (`TRYAGAIN`). So is a command whose key has
//! moved already (`ASK`). Such a command did nothing. A round does not wait for the end of a migration, as its other
//! sessions would wait too. Therefore each job waits by itself, and joins a later round.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::registration::Registration;
use super::super::round::{Answered, Reply};
use super::Multiplexer;
use crate::backend::redis::link::{Command, MIGRATION_PAUSES};

impl Multiplexer {
    /// Queues a job. Where the slot of its keys is being migrated, queues the rest of the job again, for `time` at
    /// most.
    ///
    /// # Cancellation
    /// That of [`call`](Multiplexer::call).
    pub(super) async fn queue_patiently(
        &self,
        commands: Vec<Command>,
        time: Duration,
        registration: Option<Arc<Registration>>,
    ) -> Reply {
        if !self.link.is_cluster() {
            return self.queue(commands, time, registration).await;
        }
        // Boxed because few jobs are in a cluster, and every job has a future of this size.
        Box::pin(async {
            let (end, mut rest) = (Instant::now() + time, commands);
            let (mut done, mut attempts) = (Vec::new(), 0);
            loop {
                let mut answered = self.queue(rest.clone(), time, registration.clone()).await?;
                let pause = pause(attempts);
                match answered.first_migrating(&rest) {
                    Some(first) if Instant::now() + pause < end => {
                        answered.keep_until(first, &mut done);
                        rest.drain(..first);
                    }
                    _ => return Ok(answered.behind(done)),
                }
                attempts += 1;
                tokio::time::sleep(pause).await;
            }
        })
        .await
    }

    /// Waits as [`wait_once`](Multiplexer::wait_once) does. Where the slot of the queue is being migrated, the wait goes
    /// on until `end`.
    pub(in super::super) async fn wait(
        &self,
        registration: &Arc<Registration>,
        (most, time): (usize, Duration),
        end: Instant,
    ) -> Reply {
        let mut attempts = 0;
        loop {
            let reply = self.wait_once(registration, (most, time), end).await;
            let pause = pause(attempts);
            if !reply.as_ref().is_ok_and(Answered::is_migrating) || Instant::now() + pause >= end {
                return reply;
            }
            attempts += 1;
            registration.set_stale();
            tokio::time::sleep(pause).await;
        }
    }
}

fn pause(attempts: u32) -> Duration {
    MIGRATION_PAUSES.pause(attempts, fastrand::f64())
}
