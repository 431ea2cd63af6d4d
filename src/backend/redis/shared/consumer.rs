//! [`SharedConsumer`]: queue of one session, over a line that many share.
//!
//! The operations are those of a dedicated consumer, with two differences. They never block: a wait is a read that the
//! line sends when Redis announces a change of the queue. And most reads need no script: a plain read and a read of the
//! lease behind it travel as one job. Three cases need the script: there are messages to acknowledge, the lease is
//! absent, or a foreign producer may have cut the life of the queue.
//!
//! Redis does not announce to a connection what that connection wrote itself. Two owners of one session may share this
//! line, so each write of a lease informs the others directly ([`Multiplexer::wrote_lease`]).
//!
//! *The plain read* checks nothing before it reads. Its answer counts only where the lease behind it is this owner's,
//! and it lifts only suspensions from before its sending. Foreign messages make it insufficient: their producer may
//! have cut the life of the queue, which only the script extends.
//!
//! *Waits without messages*. A change may bring no message, as an acknowledgement of another owner does. A full
//! tracking table even announces changes that did not happen, and each read may evict a neighbour's key. Two sessions
//! would wake each other in a loop. Therefore such reads pause from the second on ([`FRUITLESS`]), and the wait
//! continues until its end.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use redis::Value;

use super::multiplexer::Multiplexer;
use super::registration::Registration;
use super::round::Reply;
use crate::backend::redis::consumer::member;
use crate::backend::redis::discards::not_kept;
use crate::backend::redis::lease::{self, is_owner, lease_then, lease_value};
use crate::backend::redis::link::{Answer, Command, is_timeout};
use crate::backend::redis::lua::{CLAIM, RENEW, Script};
use crate::backend::redis::take::{self, Acknowledged, Acknowledgement, Reads};
use crate::backend::redis::wrong_type;
use crate::backend::{Behind, Consumer, Delivered, LeaseState, LineLimit, Mark, OwnerToken, Permit, Replaced, Taken};
use crate::envelope::Timestamp;
use crate::failure::{QueueError, QueueErrorKind};
use crate::lock::lock;
use crate::retry::Backoff;
use crate::session_id::SessionId;
use crate::subscription::SuspensionMark;

/// Pauses between reads that find nothing although Redis announced a change. The first pause follows the second such
/// read.
const FRUITLESS: Backoff = Backoff { initial: Duration::from_millis(10), max: Duration::from_millis(250) };

/// Consumer of one session's queue over a shared line.
pub(super) struct SharedConsumer {
    mux: Arc<Multiplexer>,
    /// Registration on the line, with the permit.
    registration: Arc<Registration>,
    session: SessionId,
    owner: OwnerToken,
    reads: Reads,
    /// Bounds of the next batch, learned from the batches before.
    limit: Arc<Mutex<LineLimit>>,
    /// Least life of the queue, for the messages that were read from it.
    life: Duration,
}

impl SharedConsumer {
    pub(super) fn new(mux: Arc<Multiplexer>, session: &SessionId, owner: OwnerToken, permit: Arc<Permit>) -> Self {
        let registration = mux.enter(mux.keys.of(session).queue, permit);
        let limit = Arc::new(Mutex::new(LineLimit::of_batches(&mux.config)));
        Self { mux, registration, session: session.clone(), owner, reads: Reads::new(), limit, life: Duration::ZERO }
    }

    fn permit(&self) -> &Permit {
        &self.registration.permit
    }

    /// Returns the bounds of the next batch.
    fn limit(&self) -> LineLimit {
        *lock(&self.limit)
    }

    /// Teaches the limit where the answer did not come in time.
    fn learn_timeout(&self, reply: Reply) -> Reply {
        if reply.as_ref().is_err_and(is_timeout) {
            lock(&self.limit).timed_out();
        }
        reply
    }

    /// Sends commands whose last reads concern this queue and its lease.
    async fn read_by(&self, commands: Vec<Command>) -> Reply {
        self.learn_timeout(self.mux.read_by(&self.registration, commands, self.limit().time()).await)
    }

    /// Returns the commands of the next read.
    fn read(&self, behind: Option<&Behind>) -> Vec<Command> {
        self.mux.commands_to_read(&self.registration.queue, take::passed_over(behind), self.reads.count(self.limit()))
    }

    /// Takes by a plain read where nothing must be acknowledged and no life extended. Otherwise, or where that read
    /// does not suffice, calls the script.
    async fn do_take(
        &mut self,
        delivered: Option<&Delivered>,
        behind: Option<&Behind>,
    ) -> Result<Taken, QueueErrorKind> {
        // Messages that were read and not acknowledged may need a longer life than a foreign producer left the queue.
        // Only the script extends that life.
        if delivered.is_none() && self.life.is_zero() {
            let mark = self.permit().mark();
            let reply = self.read_by(self.read(behind)).await;
            if let Some(taken) = self.evaluate_read(reply, behind, mark).await? {
                return Ok(taken);
            }
        }
        self.acknowledge((delivered, behind), true).await
    }

    /// Evaluates the read that ended a wait. Returns `None` where the wait must continue until `end`.
    async fn evaluate_wait(
        &mut self,
        reply: Reply,
        mark: SuspensionMark,
        end: tokio::time::Instant,
    ) -> Result<Option<Taken>, QueueErrorKind> {
        let taken = match self.evaluate_read(reply, None, mark).await? {
            Some(taken) => taken,
            // The call may run after its owner has gone, so it takes no absent lease.
            None => self.acknowledge((None, None), false).await?,
        };
        // A change may bring no message, as another owner's acknowledgement does.
        let continues = taken.lease.is_held() && taken.items.is_empty() && tokio::time::Instant::now() < end;
        Ok((!continues).then_some(taken))
    }

    /// Evaluates a plain read. Returns `None` where the script must be called: the lease is absent, or a foreign
    /// producer may have cut the life of the queue.
    async fn evaluate_read(
        &mut self,
        reply: Reply,
        behind: Option<&Behind>,
        mark: SuspensionMark,
    ) -> Result<Option<Taken>, QueueErrorKind> {
        let answered = reply?;
        let (sent, now) = (answered.sent, answered.now());
        let [messages, lease] = answered.answers()?;
        if lease.as_ref().is_ok_and(|lease| *lease == Value::Nil) {
            return Ok(None);
        }
        let acknowledged = Taken { lease: LeaseState::Held, ..nothing(now) };
        let taken = self.complete(acknowledged, behind, sent, messages, &lease?).await?;
        if taken.lease.is_held() {
            self.permit().confirmed(mark);
        }
        // FastMCP sets a life of 300 s whatever else waits, and its retry can leave no life at all.
        let is_foreign = taken.items.iter().flat_map(|item| &item.envelope).any(|envelope| !envelope.is_stamped());
        Ok((!is_foreign).then_some(taken))
    }

    fn acknowledgement(&self, delivered: Option<&Delivered>, reclaim: bool) -> Command {
        let (config, queue) = (&self.mux.config, &*self.registration.queue);
        let acknowledgement = Acknowledgement {
            queue,
            lease_key: &self.mux.keys.lease_of(queue),
            collapsible: &self.mux.keys.collapsible_of(queue),
            keys: &|| self.mux.keys.of(&self.session),
            lease: &lease_value(self.owner, config),
            delivered,
            reclaim,
            life: self.life,
        };
        acknowledgement.call(config)
    }

    /// Calls the script that acknowledges, and reads behind it in the same job.
    async fn acknowledge(
        &mut self,
        (delivered, behind): (Option<&Delivered>, Option<&Behind>),
        reclaim: bool,
    ) -> Result<Taken, QueueErrorKind> {
        let (sent, mark) = (Instant::now(), self.permit().mark());
        let mut commands = self.read(behind);
        commands.insert(0, self.acknowledgement(delivered, reclaim));
        let answered = self.read_by(commands).await?;
        let (round_sent, read_at) = (answered.sent, answered.now());
        let [acknowledged, messages, owner] = answered.answers()?;
        let Acknowledged { lease, changed, at, trouble } = take::acknowledged(acknowledged?)?;
        let now = at.unwrap_or(read_at);
        not_kept(&self.session, &trouble);
        if !lease.is_held() {
            self.permit().revoke();
            return Ok(Taken { lease, changed, ..nothing(now) });
        }
        let acknowledged = Taken { lease, changed, ..nothing(now) };
        let taken = self.complete(acknowledged, behind, round_sent, messages, &owner?).await?;
        match taken.lease {
            LeaseState::Held => self.permit().confirmed(mark),
            LeaseState::Reclaimed => {
                self.mux.wrote_lease(&self.registration.queue, Some(&self.registration));
                if self.renewed(sent, mark).await? {
                    self.announce(now.0 / 1000).await;
                }
            }
            LeaseState::Absent | LeaseState::Lost => {}
        }
        Ok(taken)
    }

    /// Completes the answer to an acknowledgement by the messages that were read, and by the lease that was read behind
    /// them.
    async fn complete(
        &mut self,
        acknowledged: Taken,
        behind: Option<&Behind>,
        sent: Instant,
        mut messages: Answer,
        owner: &Value,
    ) -> Result<Taken, QueueErrorKind> {
        let limit = self.limit();
        let Taken { changed, now, .. } = acknowledged;
        let mut lease = lease_then(self.owner, acknowledged.lease, owner);
        let read = loop {
            if !lease.is_held() {
                self.permit().revoke();
                return Ok(Taken { lease, ..acknowledged });
            }
            if let Some(read) = self.reads.read(messages?, behind, limit)? {
                break read;
            }
            let [again, owner] = self.read_by(self.read(behind)).await?.answers()?;
            (messages, lease) = (again, lease_then(self.owner, lease, &owner?));
        };
        let (items, life) = take::items(&self.mux.config, &self.registration.queue, read.messages, now);
        // Messages that were passed over are still in the queue, so their life counts too.
        self.life = if behind.is_some() { life.max(self.life) } else { life };
        let bytes = items.iter().map(|item| item.mark.length).sum();
        lock(&self.limit).succeeded(items.len(), bytes, sent.elapsed());
        Ok(Taken { lease, changed: changed || read.changed, has_more: read.has_more, now, items })
    }

    /// Reads the lease, so that Redis announces its next change. Returns whether the lease is this owner's.
    async fn track(&self) -> Result<bool, QueueErrorKind> {
        let read = redis::cmd("GET").arg(self.mux.keys.lease_of(&self.registration.queue)).take();
        Ok(is_owner(self.owner, &self.mux.call(read.into()).await?))
    }

    /// Calls a script that writes the lease and reads it last.
    async fn write_lease(&self, script: &'static Script) -> Result<Value, QueueErrorKind> {
        let queue = &*self.registration.queue;
        let keys = [self.mux.keys.lease_of(queue), queue.to_owned(), self.mux.keys.collapsible_of(queue)];
        self.registration.set_stale();
        let arguments = lease::arguments(&self.mux.config, self.owner, true);
        self.mux.call(Command::call(script, &keys, &arguments)).await
    }

    /// Informs the permit that the lease was written. Returns whether the lease is still this owner's.
    async fn renewed(&self, sent: Instant, mark: SuspensionMark) -> Result<bool, QueueErrorKind> {
        self.permit().renewed(sent, self.mux.config.lease(), mark);
        if !self.permit().is_suspended() {
            return Ok(true);
        }
        // The suspension has one of two causes: a newer claim, or Redis before 6.2.6, which announces the writes of a
        // connection's own scripts to it.
        let mark = self.permit().mark();
        let is_held = self.track().await?;
        if is_held {
            self.permit().confirmed(mark);
        } else {
            // The next take says whether another owner has the lease, or nobody.
            self.permit().revoke();
        }
        Ok(is_held)
    }

    async fn do_claim(&mut self) -> Result<bool, QueueErrorKind> {
        let (sent, mark) = (Instant::now(), self.permit().mark());
        let claimed = self.write_lease(&CLAIM).await;
        self.mux.wrote_lease(&self.registration.queue, Some(&self.registration));
        let (displaced, now) = lease::claimed(claimed?)?;
        if self.renewed(sent, mark).await? {
            self.announce(now).await;
        }
        Ok(displaced)
    }

    async fn do_renew(&mut self) -> Result<LeaseState, QueueErrorKind> {
        let (sent, mark) = (Instant::now(), self.permit().mark());
        let (state, now) = lease::renewed(self.write_lease(&RENEW).await?)?;
        if state == LeaseState::Reclaimed {
            self.mux.wrote_lease(&self.registration.queue, Some(&self.registration));
        }
        if !state.is_held() {
            self.permit().revoke();
        } else if self.renewed(sent, mark).await? {
            self.announce(now).await;
        }
        Ok(state)
    }

    async fn announce(&self, now_ms: i64) {
        self.mux.announce(member(&self.session, self.owner, &self.mux.config), now_ms).await;
    }

    async fn do_replace(&self, oldest: &Mark, replacement: Vec<u8>) -> Result<Replaced, QueueErrorKind> {
        let (queue, lease) = (self.registration.queue.to_string(), self.mux.keys.lease_of(&self.registration.queue));
        let replace = take::replacement(&self.mux.config, self.owner, [&queue, &lease], oldest, replacement);
        self.registration.set_stale();
        Ok(take::replaced(self.mux.call(replace).await?)?)
    }

    /// Makes the next wait read at once, unless this read found the queue empty and this owner's.
    fn note_emptiness(&self, behind: Option<&Behind>, taken: &Result<Taken, QueueErrorKind>) {
        let found_nothing = taken.as_ref().is_ok_and(|taken| taken.lease.is_held() && taken.items.is_empty());
        if behind.is_some() || !found_nothing {
            self.registration.set_stale();
        }
    }

    async fn named<T>(&self, doing: &str, result: Result<T, QueueErrorKind>) -> Result<T, QueueError> {
        match result {
            Ok(done) => Ok(done),
            failed => {
                let keys = self.mux.keys.of(&self.session);
                // Boxed to keep the futures of all waiting operations of all sessions small.
                Box::pin(wrong_type::named(&self.mux.link, &keys, &self.session, doing, failed)).await
            }
        }
    }
}

impl Drop for SharedConsumer {
    fn drop(&mut self) {
        // From here on no invalidation reaches the permit, so a takeover would go unnoticed.
        self.permit().suspend();
        self.mux.leave(&self.registration);
    }
}

#[async_trait]
impl Consumer for SharedConsumer {
    fn share_limit(&mut self, limit: Arc<Mutex<LineLimit>>) {
        self.limit = limit;
    }

    async fn claim(&mut self) -> Result<bool, QueueError> {
        let claimed = self.do_claim().await;
        self.named("claiming the queue", claimed).await
    }

    async fn renew(&mut self) -> Result<LeaseState, QueueError> {
        let renewed = self.do_renew().await;
        self.named("renewing the lease", renewed).await
    }

    async fn take_behind(
        &mut self,
        delivered: Option<&Delivered>,
        behind: Option<&Behind>,
    ) -> Result<Taken, QueueError> {
        let taken = self.do_take(delivered, behind).await;
        self.note_emptiness(behind, &taken);
        self.named("reading the queue", taken).await
    }

    async fn wait(&mut self, block: Duration) -> Result<Taken, QueueError> {
        let end = tokio::time::Instant::now() + block;
        let mut fruitless = 0;
        loop {
            let mark = self.permit().mark();
            let limit = self.limit();
            let reply = self.mux.wait(&self.registration, (self.reads.count(limit), limit.time()), end).await;
            // Boxed because this part of the future is large, and each idle session keeps a wait for as long as it is
            // idle.
            let ended = Box::pin(async {
                let Some(waited) = self.evaluate_wait(self.learn_timeout(reply), mark, end).await.transpose() else {
                    // A full tracking table announces changes that did not happen, and each read may evict another key
                    // from it. Without a pause two sessions would wake each other in a loop.
                    if fruitless > 0 {
                        let pause = FRUITLESS.pause(fruitless - 1, 1.0);
                        tokio::time::sleep_until(end.min(tokio::time::Instant::now() + pause)).await;
                    }
                    return None;
                };
                self.note_emptiness(None, &waited);
                Some(self.named("waiting for the queue", waited).await)
            });
            if let Some(taken) = ended.await {
                return taken;
            }
            fruitless += 1;
        }
    }

    async fn replace_oldest(&mut self, oldest: &Mark, replacement: Vec<u8>) -> Result<Replaced, QueueError> {
        let replaced = self.do_replace(oldest, replacement).await;
        self.named("writing a failed attempt into the queue", replaced).await
    }
}

/// Returns an answer without content except its time.
fn nothing(now: Timestamp) -> Taken {
    Taken { lease: LeaseState::Absent, changed: false, has_more: false, now, items: Vec::new() }
}
