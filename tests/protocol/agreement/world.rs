//! [`World`]: one backend, its owners, and foreign hands on its keys.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_courier::testing::backend::{
    Backend, Behind, Consumer, Delivered, Mark, MemoryBackend, MessageOutcome, Moment, News, NewsReceiver, Outgoing,
    OwnerToken, Permit, Posed, ProcessId, Queues, StoredLetter, Taken, connect,
};
use mcp_courier::testing::envelope::{Draft, Timestamp};
use mcp_courier::testing::notification_id;
use mcp_courier::{
    Answer, Config, DiscardReason, Elicitation, Notification, NotificationId, Question, Receipt, SessionId, TaskKey,
};
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use redis::aio::MultiplexedConnection;
use serde_json::{Map, json};

use super::step::{Ack, At, Fault, Message, OWNERS, PassedOver, Raw, SESSIONS, Size, Step};

/// Long enough for a busy machine; whoever is right ends much sooner.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// Settings that both worlds of a schedule share.
pub(crate) struct Setting {
    pub(crate) config: Arc<Config>,
    /// Times to live of messages.
    pub(crate) lives: [Duration; 2],
    /// Differences of time count in these.
    pub(crate) unit: Duration,
    tokens: Vec<OwnerToken>,
    process: ProcessId,
    deadline: Timestamp,
}

impl Setting {
    pub(crate) fn new(config: Config, lives: [Duration; 2], unit: Duration) -> Self {
        let deadline = Timestamp::of_this_host().plus(Duration::from_secs(1000));
        let tokens = (0..OWNERS).map(|_| OwnerToken::new()).collect();
        Self { config: Arc::new(config), lives, unit, tokens, process: ProcessId::new(), deadline }
    }
}

pub(crate) fn session(number: usize) -> SessionId {
    SessionId::new(format!("s{number}")).unwrap()
}

pub(super) fn sessions() -> Vec<SessionId> {
    (0..SESSIONS).map(session).collect()
}

fn task(number: usize) -> TaskKey {
    TaskKey::anonymous(format!("t{number}")).unwrap()
}

fn draft(setting: &Setting, message: &Message) -> Draft {
    let text = "x".repeat(match message.size {
        Size::Small => 1,
        Size::Large => 1200,
        Size::TooLarge => 3000,
    });
    let notification = Notification::new("notifications/test").unwrap();
    let notification = notification.with_params(json!({"n": message.number, "text": text})).unwrap();
    let notification = notification.with_time_to_live(setting.lives[message.life]).unwrap();
    let notification = if message.has_receipt { notification.with_receipt() } else { notification };
    let notification = match message.key {
        Some(key) => notification.with_deduplication_key(key.to_string()).unwrap(),
        None => notification,
    };
    let notification = match message.collapse_key {
        Some(key) => notification.with_collapse_key(key.to_string()).unwrap(),
        None => notification,
    };
    Draft::new(&notification, id_of(message.number), setting.config.time_to_live())
}

fn id_of(number: u32) -> NotificationId {
    notification_id(number.into())
}

fn raw(raw: &Raw, now: Timestamp) -> Vec<u8> {
    match raw {
        Raw::FastMcp(n) => {
            let notification = json!({"method": "notifications/test", "params": {"n": n}});
            json!({"notification": notification, "attempt": 0, "enqueued_at": now.to_string()}).to_string().into_bytes()
        }
        Raw::Garbage(n) => vec![b'{', 0, 0xff, *n as u8],
        Raw::Empty => Vec::new(),
    }
}

fn reason(position: usize) -> DiscardReason {
    match position % 3 {
        0 => DiscardReason::Expired,
        1 => DiscardReason::Rejected("no\n".repeat(400)),
        _ => DiscardReason::AttemptsExhausted { attempts: 3, last_error: "é".to_owned() },
    }
}

enum Hands {
    Memory(MemoryBackend),
    Redis(MultiplexedConnection),
}

/// Owner that has opened the queue of a session.
struct Open {
    permit: Arc<Permit>,
    consumer: Box<dyn Consumer>,
    last: Vec<Seen>,
    before: Vec<Seen>,
}

/// A message that an owner read.
#[derive(Clone)]
struct Seen {
    mark: Mark,
    receipt: Option<NotificationId>,
    after_failure: Vec<u8>,
}

pub(crate) struct World<'a> {
    pub(super) setting: &'a Setting,
    pub(super) backend: Arc<dyn Backend>,
    /// The queues as each owner reaches them. An owner's sessions may share a connection; owners are in processes of their own.
    queues: Vec<Arc<dyn Queues>>,
    hands: Hands,
    open: HashMap<At, Open>,
    news: Option<NewsReceiver>,
    heard: u128,
}

impl<'a> World<'a> {
    pub(crate) async fn memory(setting: &'a Setting, name: &str) -> Self {
        let backend = connect(&format!("memory://{name}"), Arc::clone(&setting.config)).await.unwrap();
        Self::new(setting, backend, Hands::Memory(MemoryBackend::new(name, Arc::clone(&setting.config))))
    }

    pub(crate) async fn redis(setting: &'a Setting, server: &RedisServer) -> Self {
        let backend = connect(&server.url(), Arc::clone(&setting.config)).await.unwrap();
        Self::new(setting, backend, Hands::Redis(server.connection().await))
    }

    fn new(setting: &'a Setting, backend: Arc<dyn Backend>, hands: Hands) -> Self {
        let queues = || {
            if waiting::is_shared() { Arc::clone(&backend).share() } else { Arc::clone(&backend) as Arc<dyn Queues> }
        };
        let queues = (0..OWNERS).map(|_| queues()).collect();
        Self { setting, backend, queues, hands, open: HashMap::new(), news: None, heard: 0 }
    }

    async fn opened(&mut self, at: At) -> &mut Open {
        if !self.open.contains_key(&at) {
            let (permit, token) = (Arc::new(Permit::new()), self.setting.tokens[at.owner]);
            let consumer = self.queues[at.owner].open(&session(at.session), token, Arc::clone(&permit)).await.unwrap();
            self.open.insert(at, Open { permit, consumer, last: Vec::new(), before: Vec::new() });
        }
        self.open.get_mut(&at).unwrap()
    }

    /// Opens the queue over a new connection. The owner remembers what it read over the old one.
    async fn reopen(&mut self, at: At) {
        if let Some(Open { last, before, .. }) = self.open.remove(&at) {
            let open = self.opened(at).await;
            (open.last, open.before) = (last, before);
        }
    }

    /// Returns whether this owner may deliver to this session, as it knows by itself.
    pub(crate) fn is_permitted(&self, at: At) -> bool {
        self.open.get(&at).is_some_and(|open| open.permit.holds(Instant::now()))
    }

    /// Does a step, and returns the answer in words that do not depend on the world.
    ///
    /// `is_due` is false where the other world has no answer to something that is waited for.
    pub(crate) async fn play(&mut self, step: &Step, now: Timestamp, is_due: bool) -> String {
        let (backend, setting) = (Arc::clone(&self.backend), self.setting);
        let token = |at: &At| setting.tokens[at.owner];
        match step {
            Step::Push(messages) => {
                let outgoing =
                    |message: &Message| Outgoing { session: session(message.session), draft: draft(setting, message) };
                let answers = backend.push(messages.iter().map(outgoing).collect()).await;
                answers.iter().map(|answer| format!("{answer:?}")).collect::<Vec<_>>().join(", ")
            }
            Step::PushRaw { session, raw: kind } => self.push_raw(*session, &raw(kind, now)).await,
            Step::DeleteQueue { session } => self.delete(*session, "queue").await,
            Step::DeleteLease { session } => self.delete(*session, "lease").await,
            Step::Flush => self.flush().await,
            Step::Reopen(at) => {
                self.reopen(*at).await;
                String::new()
            }
            Step::Claim(at) => format!("{:?}", self.opened(*at).await.consumer.claim().await),
            Step::Renew(at) => format!("{:?}", self.opened(*at).await.consumer.renew().await),
            Step::ClaimIfAbsent(at) => {
                format!("{:?}", self.queues[at.owner].claim_if_absent(&session(at.session), token(at)).await)
            }
            Step::Release(at) => format!("{:?}", self.queues[at.owner].release(&session(at.session), token(at)).await),
            Step::Take { at, ack, behind } => self.take(*at, ack.as_ref(), behind.as_ref()).await,
            Step::Wait(at) => {
                let taken = self.opened(*at).await.consumer.wait(Duration::from_millis(1)).await;
                self.see(*at, taken.unwrap())
            }
            Step::WaitForPush { at, message } => {
                let outgoing = Outgoing { session: session(at.session), draft: draft(setting, message) };
                let pushed = async {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    backend.push(vec![outgoing]).await
                };
                // A push that is refused ends no wait.
                let block = if message.size == Size::TooLarge { Duration::from_millis(1) } else { SOON };
                let (taken, pushed) = tokio::join!(self.opened(*at).await.consumer.wait(block), pushed);
                // What was there before may be taken before the push or after it.
                let seen = if pushed[0].as_ref().is_ok_and(|queued| queued.waiting == 1) {
                    self.see(*at, taken.unwrap())
                } else {
                    format!("{:?}", taken.unwrap().lease)
                };
                format!("{seen}, {pushed:?}")
            }
            Step::Replace { at, position, fault } => self.replace(*at, *position, *fault).await,
            Step::Record { session: at, number, is_discarded } => {
                let discarded = is_discarded.then(|| reason(*number as usize));
                let outcome = MessageOutcome { position: 0, discarded, receipt: Some(id_of(*number)) };
                format!("{:?}", backend.record(&session(*at), &outcome, number.to_string().as_bytes()).await)
            }
            Step::Receipt { session: at, number } => {
                let (receipt, now) = backend.receipt(&session(*at), id_of(*number)).await.unwrap();
                self.receipt(receipt, now)
            }
            Step::UntilSettled { session: at, number } => {
                let at = session(*at);
                let settled = tokio::time::timeout(patience(is_due), backend.until_settled(&at, id_of(*number))).await;
                settled.map_or("nothing".to_owned(), |receipt| self.receipt(receipt, now))
            }
            Step::Letters { session: at, skip, limit } => {
                let (letters, now) = backend.dead_letters(&session(*at), *skip, *limit).await.unwrap();
                letters.iter().map(|letter| self.letter(letter, now)).collect::<Vec<_>>().join(", ")
            }
            Step::Redrive { session, position, fault, message } => {
                self.redrive(*session, *position, *fault, &draft(setting, message)).await
            }
            Step::Purge { session: at } => format!("{:?}", backend.purge(&session(*at)).await),
            Step::SessionsWithLetters => format!("{:?}", backend.sessions_with_dead_letters().await),
            Step::Pose { task: at, question } => {
                let request = json!({"request_id": question.to_string(), "message": "?"}).to_string();
                let patience = Duration::from_secs(1000);
                match backend.pose(&task(*at), &question.to_string(), request, patience).await.unwrap() {
                    Posed::Done(at) => format!("done {}", self.units(at, now)),
                    Posed::Busy => "busy".to_owned(),
                }
            }
            Step::IsWaiting { task: at, question } => {
                format!("{:?}", backend.is_waiting(&task(*at), &question.to_string()).await)
            }
            Step::Settle { task: at, question, answer } => {
                let answer = match answer {
                    0 => Answer::Accept(Map::from_iter([("n".to_owned(), json!(1.5))])),
                    1 => Answer::Decline,
                    _ => Answer::Cancel { reason: Some("away".to_owned()) },
                };
                format!("{:?}", backend.settle(&task(*at), &question.to_string(), &answer).await)
            }
            Step::Withdraw { task: at, question } => {
                format!("{:?}", backend.withdraw(&task(*at), &question.to_string()).await)
            }
            Step::AnswerTo { task: at, question } => {
                let (task, question) = (task(*at), question.to_string());
                let answer = tokio::time::timeout(patience(is_due), backend.answer_to(&task, &question)).await;
                answer.map_or("nothing".to_owned(), |answer| format!("{answer:?}"))
            }
            Step::OpenQuestions { session: at } => {
                let mut open = backend.open_questions(&session(*at)).await.unwrap();
                open.sort_by(|one, other| one.request_id.cmp(&other.request_id));
                format!("{open:?}")
            }
            Step::OpenQuestion { session: at, question } => {
                format!("{:?}", backend.open_question(&session(*at), &question.to_string()).await)
            }
            Step::CloseQuestion { session: at, question } => {
                format!("{:?}", backend.close_question(&session(*at), &question.to_string()).await)
            }
            Step::Remember { session: at, state } => {
                format!("{:?}", backend.store_session(&session(*at), &format!("state {state}")).await)
            }
            Step::Recall { session: at } => format!("{:?}", backend.load_session(&session(*at)).await),
            Step::Keep => format!("{:?}", backend.refresh_sessions(&sessions()).await),
            Step::LookUp => format!("{:?}", backend.look_up_sessions(&sessions()).await),
            Step::KnowsAll { sessions: count } => format!("{:?}", backend.knows_all(&sessions()[..*count]).await),
            Step::Forget { session: at, is_known } => {
                format!("{:?}", backend.end_session(&session(*at), setting.process, *is_known).await)
            }
            Step::Hear => self.hear().await,
            Step::Inspect { session: at, what } => self.inspect(&session(*at), *what).await,
            Step::Sleep => {
                // An old consumer in Redis renews a lease that is due beside each take.
                for at in self.open.keys().copied().collect::<Vec<_>>() {
                    self.reopen(at).await;
                }
                String::new()
            }
        }
    }

    async fn take(&mut self, at: At, ack: Option<&Ack>, passed_over: Option<&PassedOver>) -> String {
        let setting = self.setting;
        let open = self.opened(at).await;
        let delivered = ack.and_then(|ack| {
            let batch = if ack.is_stale { &open.before } else { &open.last };
            let count = ack.count.min(batch.len());
            let last = with_fault(&batch.get(count.checked_sub(1)?)?.mark, ack.fault);
            let outcome = |(position, seen): (usize, &Seen)| {
                let discarded = (ack.discarded & (1 << position) != 0).then(|| reason(position));
                let outcome = MessageOutcome { position, discarded, receipt: seen.receipt };
                (outcome.discarded.is_some() || outcome.receipt.is_some()).then_some(outcome)
            };
            let outcomes: Vec<_> = batch[..count].iter().enumerate().filter_map(outcome).collect();
            let questions = ack.questions.iter().map(|question| asked(*question, setting.deadline)).collect();
            match ack.fault {
                Fault::CountZero => Some(Delivered { count: 0, last, questions: Vec::new(), outcomes: Vec::new() }),
                Fault::CountTooHigh => Some(Delivered { count: count + 1, last, questions, outcomes }),
                _ => Some(Delivered { count, last, questions, outcomes }),
            }
        });
        // A stale acknowledgement is of another batch.
        let acknowledged = delivered.as_ref().map_or(0, |delivered| delivered.count);
        let kept = passed_over.and_then(|PassedOver { count, .. }| {
            let all = open.last.get(acknowledged..)?;
            Some(all[..(*count).min(all.len())].to_vec()).filter(|kept| !kept.is_empty())
        });
        let behind = kept.as_ref().zip(passed_over).map(|(kept, PassedOver { fault, .. })| {
            let last = with_fault(&kept[kept.len() - 1].mark, *fault);
            Behind { count: kept.len() + usize::from(*fault == Fault::CountTooHigh), last }
        });
        let taken = open.consumer.take_behind(delivered.as_ref(), behind.as_ref()).await.unwrap();
        let stays = kept.filter(|_| !taken.changed).unwrap_or_default();
        let (is_behind, text) = (behind.is_some(), self.see(at, taken));
        if let Some(open) = self.open.get_mut(&at).filter(|_| is_behind) {
            // The next acknowledgement counts from the oldest message.
            open.last.splice(..0, stays);
        }
        text
    }

    async fn replace(&mut self, at: At, position: usize, fault: Fault) -> String {
        let open = self.opened(at).await;
        let Some(Seen { mark, after_failure, .. }) = open.last.get(position).cloned() else {
            return "nothing to replace".to_owned();
        };
        format!("{:?}", open.consumer.replace_oldest(&with_fault(&mark, fault), after_failure).await)
    }

    async fn redrive(&mut self, at: usize, position: usize, fault: Fault, draft: &Draft) -> String {
        let at = session(at);
        let (letters, _) = self.backend.dead_letters(&at, 0, 100).await.unwrap();
        let Some(letter) = letters.get(position) else { return "no such letter".to_owned() };
        let skip = if fault == Fault::CountTooHigh { position + 1 } else { position };
        format!("{:?}", self.backend.redrive(&at, skip, &with_fault(&letter.mark, fault), draft).await)
    }

    async fn hear(&mut self) -> String {
        let (backend, process) = (Arc::clone(&self.backend), self.setting.process);
        let news = self.news.get_or_insert_with(|| backend.listen(process));
        self.heard += 1;
        let begun = Instant::now();
        let mut heard = Vec::new();
        // What was published before the ping comes before it; a ping before the subscription is lost.
        loop {
            backend.announce_confirmation(process, &session(0), self.heard).await.unwrap();
            while let Ok(Some(news)) = tokio::time::timeout(Duration::from_millis(20), news.recv()).await {
                match news {
                    News::Confirmed(_, ping) if ping == self.heard => return format!("{heard:?}"),
                    // Repeated for the subscription's sake.
                    News::Confirmed(..) => {}
                    News::Ended(session, by) => heard.push((session, by == process)),
                    News::Missed => heard.clear(),
                }
            }
            assert!(begun.elapsed() < SOON, "a ping is not heard");
        }
    }

    fn see(&mut self, at: At, taken: Taken) -> String {
        let items: Vec<_> = taken.items.iter().map(|item| self.item(item, taken.now)).collect();
        let changed = if taken.changed { ", changed" } else { "" };
        let text = format!("{:?}{changed}: [{}]", taken.lease, items.join(", "));
        if let (Some(open), true) = (self.open.get_mut(&at), taken.lease.is_held()) {
            let seen = taken.items.into_iter().map(|item| Seen {
                mark: item.mark,
                receipt: item.envelope.as_ref().ok().and_then(|envelope| envelope.receipt.then_some(envelope.id)),
                after_failure: item.envelope.map_or(b"unreadable".to_vec(), |envelope| envelope.after_failure("e")),
            });
            open.before = std::mem::replace(&mut open.last, seen.collect());
        }
        text
    }

    /// A difference of times, in units of the setting. Those that are compared lie up to a quarter of a unit before a whole
    /// number of them, or up to six tenths behind.
    pub(super) fn units(&self, at: Timestamp, now: Timestamp) -> i64 {
        let unit = self.setting.unit.as_micros() as i64;
        (at.0 - now.0 + unit * 3 / 10).div_euclid(unit)
    }

    fn item(&self, item: &mcp_courier::testing::backend::Item, now: Timestamp) -> String {
        match &item.envelope {
            Ok(e) => {
                let expires = e.expires_at.map(|at| self.units(at, now));
                let receipt = if e.receipt { " with receipt" } else { "" };
                let params = e.params();
                let params = if params.len() > 200 { &params[..80] } else { &*params };
                format!("{}{receipt} attempt {} expires {expires:?} {} B {params}", e.id, e.attempt, item.mark.length)
            }
            Err(error) => format!("{error}: {:?}", item.unreadable),
        }
    }

    pub(super) fn receipt(&self, receipt: Receipt, now: Timestamp) -> String {
        match receipt {
            Receipt::Queued { expires_at } => {
                format!("queued, expires {}", self.units(Timestamp::from_system(expires_at), now))
            }
            Receipt::Delivered { at } => format!("delivered {}", self.units(Timestamp::from_system(at), now)),
            Receipt::Discarded { reason, at } => {
                format!("discarded {reason:?} {}", self.units(Timestamp::from_system(at), now))
            }
            other => format!("{other:?}"),
        }
    }

    pub(super) fn letter(&self, letter: &StoredLetter, now: Timestamp) -> String {
        format!("{} {:?} {}", self.units(letter.at, now), letter.reason, message(&letter.raw))
    }

    async fn push_raw(&mut self, at: usize, message: &[u8]) -> String {
        self.by_hand(
            at,
            |moment, session| moment.push_raw(session, message),
            |[queue, _]| {
                let mut push = redis::cmd("LPUSH");
                push.arg(queue).arg(message);
                push
            },
        )
        .await
    }

    async fn delete(&mut self, at: usize, what: &str) -> String {
        let delete = |moment: &mut Moment<'_>, session: &SessionId| match what {
            "queue" => moment.delete_queue(session),
            _ => moment.delete_lease(session),
        };
        self.by_hand(at, delete, |[queue, lease]| {
            let mut delete = redis::cmd("DEL");
            delete.arg(if what == "queue" { queue } else { lease });
            delete
        })
        .await
    }

    async fn by_hand(
        &mut self,
        at: usize,
        in_memory: impl FnOnce(&mut Moment<'_>, &SessionId),
        in_redis: impl FnOnce([String; 2]) -> redis::Cmd,
    ) -> String {
        match &mut self.hands {
            Hands::Memory(memory) => memory.step(|moment| in_memory(moment, &session(at))),
            Hands::Redis(connection) => {
                let queue = format!("{}:notifications:s{at}", self.setting.config.prefix());
                let lease = format!("{{{queue}}}:lease");
                in_redis([queue, lease]).exec_async(connection).await.unwrap();
            }
        }
        String::new()
    }

    /// Deletes every key of this world.
    async fn flush(&mut self) -> String {
        match &mut self.hands {
            Hands::Memory(memory) => memory.step(|moment| moment.flush()),
            Hands::Redis(connection) => {
                let keys: Vec<String> = redis::cmd("KEYS")
                    .arg(format!("*{}:*", self.setting.config.prefix()))
                    .query_async(connection)
                    .await
                    .unwrap();
                if !keys.is_empty() {
                    redis::cmd("DEL").arg(keys).exec_async(connection).await.unwrap();
                }
            }
        }
        String::new()
    }
}

/// A message without the times before it: those who push have each their own clock.
pub(super) fn message(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    let text = &text[text.find("\"notification\"").unwrap_or_default()..];
    format!("{} B {}", raw.len(), text.chars().take(60).collect::<String>())
}

fn asked(number: u32, deadline: Timestamp) -> Question {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    let elicitation = Elicitation::form("?", schema).unwrap();
    Question::new(number.to_string(), task(0), elicitation, deadline.to_system())
}

pub(super) fn with_fault(mark: &Mark, fault: Fault) -> Mark {
    let mut mark = mark.clone();
    match fault {
        Fault::OtherLength => mark.length += 1,
        Fault::OtherBytes => {
            let mut last = mark.last().to_vec();
            match last.last_mut() {
                Some(byte) => *byte ^= 1,
                None => last.push(b'x'),
            }
            let length = mark.length;
            mark = Mark::of(&last);
            mark.length = length;
        }
        Fault::None | Fault::CountTooHigh | Fault::CountZero => {}
    }
    mark
}

/// Time within which something that is waited for has to come, or to be still missing.
fn patience(is_due: bool) -> Duration {
    if is_due { SOON } else { Duration::from_millis(20) }
}
