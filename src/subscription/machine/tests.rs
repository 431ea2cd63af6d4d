use serde_json::json;

use super::*;
use crate::config::Delivery;
use crate::failure::{Cause, QueueErrorKind};
use crate::outcome::DiscardReason;
use crate::subscription::delivery::{BatchEnd, DeliveryOutcome};
use crate::subscription::event::Note;
use crate::subscription::{Behind, Delivered, HandOverError, LeaseState, Operation, Replaced};

mod at_most_once;
mod batch;
mod delivering;
mod life;
mod refusals;

const TTL: Duration = Duration::from_secs(300);
/// Moment of the queue's clock. Any moment would do, because the tests read no clock.
const NOW: Timestamp = Timestamp(1_000_000_000_000);
/// Presence of a client with its first stream, and with its second one.
const FIRST: SessionState = SessionState::Connected { generation: 1, received: None };
const SECOND: SessionState = SessionState::Connected { generation: 2, received: None };

/// Read of the oldest messages, without an acknowledgement.
const TAKE: Operation = Operation::Take { delivered: None, behind: None };

/// Machine under test, with a clock that only the test moves.
struct Rig {
    machine: Subscription,
    now: Instant,
}

impl Rig {
    fn new(delivery: Delivery) -> Self {
        let config = Config::builder().delivery(delivery).build().unwrap();
        Self { machine: Subscription::new(Arc::new(config)), now: Instant::now() }
    }

    /// Feeds an event, and returns the actions that follow. Before that, each event that is illegal now is tried: the
    /// machine must refuse it and change nothing.
    fn feed(&mut self, event: Event) -> Vec<Action> {
        for other in samples() {
            if !self.machine.allows(&other) {
                let (before, name) = (format!("{:?}", self.machine), other.name());
                let error = self.machine.handle(other, self.now, 0.5).unwrap_err();
                assert_eq!((error.state, error.event), (self.machine.state(), name));
                assert_eq!(format!("{:?}", self.machine), before, "{name} was refused and changed something");
            }
        }
        self.machine.handle(event, self.now, 0.5).unwrap();
        std::iter::from_fn(|| self.machine.next_action()).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Lets the time pass until the machine's deadline, and feeds the timer.
    fn timer(&mut self) -> Vec<Action> {
        self.now = self.machine.deadline().expect("a deadline");
        self.feed(Event::Timer)
    }

    /// Returns a subscriber that owns its empty queue and waits.
    fn waiting(delivery: Delivery) -> Self {
        let mut rig = Self::new(delivery);
        assert_eq!(begun(&rig.feed(Event::Presence(FIRST))), Operation::Open);
        assert_eq!(begun(&rig.feed(Event::Opened)), Operation::Claim);
        assert_eq!(begun(&rig.feed(Event::Claimed)), TAKE);
        let mut actions = rig.feed(taken(LeaseState::Held, Vec::new()));
        if delivery == Delivery::AtLeastOnce {
            assert_eq!(begun(&actions), Operation::ReadQuestions);
            actions = rig.feed(Event::Questions(Vec::new()));
        }
        assert!(matches!(begun(&actions), Operation::Wait(_)));
        assert_eq!(rig.machine.state(), SubscriberState::Waiting);
        rig
    }

    /// Returns a subscriber that delivers these messages.
    fn delivering(messages: &[u32]) -> Self {
        let mut rig = Self::waiting(Delivery::AtLeastOnce);
        assert_eq!(delivered_ids(&rig.feed(taken(LeaseState::Held, items(messages)))), messages);
        assert_eq!(rig.machine.state(), SubscriberState::Delivering);
        rig
    }

    /// Ends the running delivery, which the session confirms at once.
    fn outcome(&mut self, accepted: usize, end: BatchEnd) -> Vec<Action> {
        self.feed(Event::Delivered(Some(DeliveryOutcome { accepted, end, confirmed: Some(Ok(())) })))
    }
}

/// Returns an event of each kind.
fn samples() -> Vec<Event> {
    vec![
        Event::Timer,
        Event::PermitSuspended,
        Event::Delivered(None),
        Event::Confirmed { delivery: u64::MAX, answer: Ok(()) },
        Event::Opened,
        Event::Claimed,
        Event::Renewed(LeaseState::Held),
        taken(LeaseState::Held, Vec::new()),
        Event::Questions(Vec::new()),
        Event::Rewritten(Replaced::Done),
        Event::Cancelled,
        Event::Released,
        Event::Settled,
        Event::Failed(failure()),
    ]
}

fn failure() -> QueueError {
    QueueError::new("trying", QueueErrorKind::Broken(Cause::from("it broke")))
}

fn raw(n: u32) -> Vec<u8> {
    let id = NotificationId::derived(&n.to_be_bytes()).to_string();
    let (at, until) = (NOW.to_string(), NOW.plus(TTL).to_string());
    let notification = json!({"method": "notifications/x", "params": {"n": n}});
    json!({"notification": notification, "attempt": 0, "enqueued_at": at, "expires_at": until, "id": id})
        .to_string()
        .into_bytes()
}

/// Returns a message as this crate pushes it, with the queue's time.
fn stamped(n: u32, at: i64) -> Item {
    let notification = crate::Notification::new("notifications/x").unwrap().with_params(json!({"n": n})).unwrap();
    let id = NotificationId(uuid::Uuid::from_u128(n.into()));
    let draft = crate::envelope::Draft::new(&notification, id, TTL);
    Item::decode("q", draft.stamp(Timestamp(NOW.0 + at)), TTL)
}

fn items(messages: &[u32]) -> Vec<Item> {
    messages.iter().map(|n| Item::decode("q", raw(*n), TTL)).collect()
}

fn id_of(n: u32) -> NotificationId {
    NotificationId::derived(&n.to_be_bytes())
}

/// Returns a message whose producer asked for a receipt, and that brings the question `q<n>`.
fn asking_raw(n: u32) -> Vec<u8> {
    let mut message: serde_json::Value = serde_json::from_slice(&raw(n)).unwrap();
    let elicitation =
        json!({"requestId": format!("q{n}"), "requestedSchema": {}, "deadline": NOW.plus(TTL).to_string()});
    let related = json!({"taskId": "t", "task_scope": null, "elicitation": elicitation});
    message["notification"]["params"]["_meta"] = json!({"io.modelcontextprotocol/related-task": related});
    message["receipt"] = json!(true);
    message.to_string().into_bytes()
}

fn asking(n: u32) -> Item {
    Item::decode("q", asking_raw(n), TTL)
}

fn unreadable() -> Item {
    Item::decode("q", b"{".to_vec(), TTL)
}

fn taken(lease: LeaseState, items: Vec<Item>) -> Event {
    Event::Taken(Taken { lease, changed: false, has_more: false, now: NOW, items })
}

/// Returns the operation that the actions begin.
fn begun(actions: &[Action]) -> Operation {
    let mut begun = actions.iter().filter_map(|action| match action {
        Action::Begin(operation) => Some(operation.clone()),
        _ => None,
    });
    let operation = begun.next().unwrap_or_else(|| panic!("no operation in {actions:?}"));
    assert_eq!(begun.next(), None, "one operation at a time");
    operation
}

fn acknowledged(actions: &[Action]) -> Option<Delivered> {
    match begun(actions) {
        Operation::Take { delivered, .. } => delivered,
        other => panic!("{other:?}"),
    }
}

/// Returns the numbers of the messages that the actions deliver.
fn delivered_ids(actions: &[Action]) -> Vec<u32> {
    let batch = actions.iter().find_map(|action| match action {
        Action::Deliver { batch, .. } => Some(batch),
        _ => None,
    });
    let number = |envelope: &Envelope| envelope.parse_params::<serde_json::Value>().unwrap()["n"].as_u64().unwrap();
    batch.unwrap_or_else(|| panic!("no delivery in {actions:?}")).iter().map(|e| number(e) as u32).collect()
}

fn delivers(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Deliver { .. }))
}

fn notes(actions: &[Action]) -> impl Iterator<Item = &Note> {
    actions.iter().filter_map(|action| match action {
        Action::Note(note) => Some(note),
        _ => None,
    })
}

/// Returns the discards among the notes: the id, whether there was a question, and the reason.
fn discarded(actions: &[Action]) -> Vec<(Option<NotificationId>, bool, DiscardReason)> {
    let told = notes(actions).filter_map(|note| match note {
        Note::Discarded { id, question, reason } => Some((*id, question.is_some(), reason.clone())),
        _ => None,
    });
    told.collect()
}

/// Returns the ids of the questions that the actions ask.
fn asked(actions: &[Action]) -> Vec<String> {
    let asked = actions.iter().filter_map(|action| match action {
        Action::Ask { questions, .. } => Some(questions.iter().map(|question| question.request_id.clone())),
        _ => None,
    });
    asked.flatten().collect()
}

fn exit(actions: &[Action]) -> Option<ExitReason> {
    actions.iter().find_map(|action| match action {
        Action::Exit(reason) => Some(reason.clone()),
        _ => None,
    })
}

fn closes(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Close))
}

#[test]
fn a_batch_is_delivered_then_acknowledged_as_a_whole() {
    let mut rig = Rig::delivering(&[1, 2, 3]);
    let delivered = acknowledged(&rig.outcome(3, BatchEnd::AllAccepted)).unwrap();
    assert_eq!((delivered.count, delivered.last), (3, Mark::of(&raw(3))));
    let actions = rig.feed(taken(LeaseState::Held, Vec::new()));
    assert!(matches!(begun(&actions), Operation::Wait(_)));
}

#[test]
fn a_repeat_is_acknowledged_and_not_delivered_again() {
    let mut rig = Rig::delivering(&[1, 2]);
    rig.outcome(2, BatchEnd::AllAccepted);
    // The acknowledgement was lost with the connection.
    rig.feed(Event::Failed(failure()));
    rig.timer();
    rig.feed(Event::Opened);
    assert_eq!(begun(&rig.feed(Event::Renewed(LeaseState::Held))), TAKE);
    rig.feed(taken(LeaseState::Held, items(&[1, 2, 3])));
    assert_eq!(delivered_ids(&rig.feed(Event::Questions(Vec::new()))), [3]);
    assert_eq!(acknowledged(&rig.outcome(1, BatchEnd::AllAccepted)).unwrap().count, 3);
}

#[test]
fn discards_are_acknowledged_at_their_positions_before_the_rest_is_delivered() {
    let mut rig = Rig::delivering(&[1, 2, 3, 4]);
    let actions = rig.outcome(1, BatchEnd::Discarded(vec![DiscardReason::Expired, DiscardReason::Superseded]));
    let delivered = acknowledged(&actions).unwrap();
    assert_eq!((delivered.count, delivered.last), (3, Mark::of(&raw(3))));
    assert_eq!(delivered.outcomes.iter().map(|outcome| outcome.position).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(discarded(&actions).len(), 2);
    assert_eq!(delivered_ids(&rig.feed(taken(LeaseState::Held, items(&[4])))), [4]);
}

#[test]
fn a_failed_attempt_is_written_in_place_and_the_lease_kept_in_the_pause() {
    let mut rig = Rig::delivering(&[1, 2]);
    let envelope = Box::new(items(&[2]).remove(0).envelope.unwrap());
    let pause = Duration::from_secs(50);
    let actions = rig.outcome(1, BatchEnd::Failed { envelope, error: "not now".to_owned(), pause });
    assert_eq!(acknowledged(&actions).unwrap().count, 1, "what was delivered before it is removed first");
    let actions = rig.feed(taken(LeaseState::Held, items(&[2])));
    let Operation::Rewrite { oldest, replacement } = begun(&actions) else { panic!("{actions:?}") };
    assert_eq!(oldest, Mark::of(&raw(2)));
    assert_eq!(Item::decode("q", replacement, TTL).envelope.unwrap().attempt, 1);
    rig.feed(Event::Rewritten(Replaced::Done));
    assert_eq!(rig.machine.state(), SubscriberState::BackingOff);
    let written = rig.now;
    assert_eq!(begun(&rig.timer()), Operation::Renew);
    rig.feed(Event::Renewed(LeaseState::Held));
    assert!(rig.feed_timer_at(written + pause));
}

impl Rig {
    /// Feeds the timer at this moment, and returns whether the queue is read then.
    fn feed_timer_at(&mut self, at: Instant) -> bool {
        self.now = at;
        [TAKE, Operation::Renew].contains(&begun(&self.feed(Event::Timer)))
    }
}

#[test]
fn a_displaced_owner_stands_by_and_does_not_claim_again_by_itself() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    assert!(closes(&rig.feed(taken(LeaseState::Lost, Vec::new()))));
    assert_eq!(rig.machine.state(), SubscriberState::StandingBy);
    assert_eq!(begun(&rig.timer()), Operation::ClaimIfAbsent);
    rig.feed(Event::Renewed(LeaseState::Lost));
    assert_eq!(rig.machine.state(), SubscriberState::StandingBy);
    assert_eq!(begun(&rig.timer()), Operation::ClaimIfAbsent);
    assert_eq!(begun(&rig.feed(Event::Renewed(LeaseState::Reclaimed))), Operation::Open);
    assert_eq!(begun(&rig.feed(Event::Opened)), Operation::Renew);
}

#[test]
fn a_newer_stream_claims() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    rig.feed(taken(LeaseState::Lost, Vec::new()));
    assert_eq!(begun(&rig.feed(Event::Presence(SECOND))), Operation::Open);
    assert_eq!(begun(&rig.feed(Event::Opened)), Operation::Claim);
}

#[test]
fn a_client_that_left_during_the_opening_is_not_claimed() {
    let mut rig = Rig::new(Delivery::AtLeastOnce);
    rig.feed(Event::Presence(FIRST));
    rig.feed(Event::Presence(SessionState::Disconnected));
    let actions = rig.feed(Event::Opened);
    assert!(closes(&actions));
    assert_eq!(begun(&actions), Operation::Settle, "nothing is to be released");
    assert_eq!(exit(&rig.feed(Event::Settled)), Some(ExitReason::Parked));
}

#[test]
fn a_wait_that_finds_no_lease_opens_a_new_connection_and_pauses_from_the_second_time_on() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    assert_eq!(begun(&rig.feed(Event::PermitSuspended)), Operation::Open);
    rig.feed(Event::Opened);
    rig.feed(Event::Renewed(LeaseState::Reclaimed));
    rig.feed(taken(LeaseState::Held, Vec::new()));
    rig.feed(Event::Questions(Vec::new()));
    rig.feed(Event::PermitSuspended);
    assert_eq!(rig.machine.state(), SubscriberState::BackingOff);
    assert_eq!(begun(&rig.timer()), Operation::Open);
}

#[test]
fn a_client_that_leaves_parks_its_subscriber_which_releases_first() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    let actions = rig.feed(Event::Presence(SessionState::Disconnected));
    assert!(closes(&actions));
    assert_eq!(begun(&actions), Operation::Release);
    assert_eq!(begun(&rig.feed(Event::Released)), Operation::Settle);
    assert_eq!(exit(&rig.feed(Event::Settled)), Some(ExitReason::Parked));
    assert_eq!(begun(&rig.feed(Event::Presence(SECOND))), Operation::Open, "it goes on");
}

#[test]
fn a_stop_during_a_delivery_acknowledges_what_was_accepted_then_ends() {
    let mut rig = Rig::delivering(&[1, 2]);
    assert!(rig.feed(Event::Stop).is_empty(), "the delivery ends first");
    assert!(!rig.machine.permit().holds(rig.now));
    assert_eq!(acknowledged(&rig.outcome(1, BatchEnd::NotPermitted)).unwrap().count, 1);
    assert_eq!(begun(&rig.feed(taken(LeaseState::Held, items(&[2])))), Operation::Release);
    assert_eq!(exit(&rig.feed(Event::Released)), Some(ExitReason::Stopped));
    rig.pass(TTL);
    assert_eq!(rig.machine.deadline(), None);
}

#[test]
fn the_end_of_a_session_cancels_its_questions() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    assert_eq!(begun(&rig.feed(Event::Presence(SessionState::Ended))), Operation::CancelQuestions);
    assert_eq!(begun(&rig.feed(Event::Cancelled)), Operation::Release);
    assert_eq!(exit(&rig.feed(Event::Released)), Some(ExitReason::Closed));
}

#[test]
fn a_renewal_that_is_under_way_ends_before_the_outcome_is_acknowledged() {
    let mut rig = Rig::delivering(&[1]);
    assert_eq!(begun(&rig.timer()), Operation::Renew);
    assert!(rig.outcome(1, BatchEnd::AllAccepted).iter().all(|action| matches!(action, Action::Note(_))));
    assert_eq!(acknowledged(&rig.feed(Event::Renewed(LeaseState::Held))).unwrap().count, 1);
}

#[test]
fn what_is_delivered_over_a_broken_connection_is_skipped_when_it_comes_again() {
    let mut rig = Rig::delivering(&[1]);
    rig.timer();
    assert!(closes(&rig.feed(Event::Failed(failure()))));
    assert_eq!(rig.machine.state(), SubscriberState::Delivering);
    assert_eq!(rig.machine.deadline(), None, "nothing can be renewed");
    rig.outcome(1, BatchEnd::AllAccepted);
    assert_eq!(rig.machine.state(), SubscriberState::BackingOff);
    rig.timer();
    rig.feed(Event::Opened);
    rig.feed(Event::Renewed(LeaseState::Held));
    rig.feed(taken(LeaseState::Held, items(&[1])));
    assert_eq!(acknowledged(&rig.feed(Event::Questions(Vec::new()))).unwrap().count, 1);
}
