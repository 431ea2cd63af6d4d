use std::time::Duration;

use serde_json::json;

use super::*;
use crate::subscription::batch::Item;

const TTL: Duration = Duration::from_secs(300);
/// Moment of the queue's clock. Any moment would do, because the tests read no clock.
const NOW: Timestamp = Timestamp(1_000_000_000_000);

fn envelope_of(notification: &serde_json::Value) -> Envelope {
    let at = NOW.to_string();
    let raw = json!({"notification": notification, "attempt": 1, "enqueued_at": at}).to_string();
    Item::decode("q", raw.into_bytes(), TTL).envelope.unwrap()
}

fn envelope(n: u32) -> Envelope {
    envelope_of(&json!({"method": "notifications/x", "params": {"n": n}}))
}

fn status(task: &str, status: &str) -> Envelope {
    envelope_of(&json!({"method": "notifications/tasks/status", "params": {"taskId": task, "status": status}}))
}

fn n(envelope: &Envelope) -> u64 {
    envelope.parse_params::<serde_json::Value>().unwrap()["n"].as_u64().unwrap()
}

/// Delivery under test, with its surroundings.
struct Rig {
    delivery: Delivery,
    ended: EndedTasks,
    now: Instant,
}

/// Next step, in a form that tests can compare.
#[derive(Debug, PartialEq)]
enum Next {
    HandOver,
    Done { accepted: usize, end: String },
}

impl Rig {
    fn new(batch: Vec<Envelope>) -> Self {
        let (now, permit) = (Instant::now(), Arc::new(Permit::unlimited()));
        Self { delivery: Delivery::new(batch, (NOW, now), permit), ended: EndedTasks::default(), now }
    }

    fn next(&mut self) -> Next {
        match self.delivery.next(self.now, &self.ended) {
            Step::HandOver(_) => Next::HandOver,
            Step::Done(DeliveryOutcome { accepted, end, .. }) => {
                let end = format!("{end:?}");
                let end = end.split([' ', '{']).next().unwrap_or_default().to_owned();
                Next::Done { accepted, end }
            }
        }
    }

    fn answer(&mut self, answer: Result<(), HandOverError>) {
        let config = Config::builder().max_attempts(3).build().unwrap();
        self.delivery.handed_over(answer, &config, &self.ended, || 0.5);
    }

    /// Hands the next notification over, and has the session accept it.
    fn accept(&mut self) {
        assert_eq!(self.next(), Next::HandOver);
        self.answer(Ok(()));
    }
}

fn done(accepted: usize, end: &str) -> Next {
    Next::Done { accepted, end: end.to_owned() }
}

#[test]
fn all_are_handed_over_in_order() {
    let mut rig = Rig::new(vec![envelope(1), envelope(2)]);
    for expected in [1, 2] {
        let Step::HandOver(next) = rig.delivery.next(rig.now, &rig.ended) else { panic!("{expected} comes next") };
        assert_eq!(n(next), expected);
        rig.answer(Ok(()));
    }
    assert_eq!(rig.next(), done(2, "AllAccepted"));
}

#[test]
fn where_nothing_was_handed_over_nothing_is_accepted() {
    assert_eq!(Rig::new(Vec::new()).next(), done(0, "AllAccepted"));
    let mut rig = Rig::new(vec![envelope(1), envelope(2)]);
    rig.next();
    rig.answer(Err(HandOverError::NotReady("no stream".to_owned())));
    assert_eq!(rig.next(), done(0, "NotReady(\"no"));
}

#[test]
fn without_the_permit_nothing_more_is_handed_over() {
    let (now, permit) = (Instant::now(), Arc::new(Permit::new()));
    permit.renewed(now, TTL, permit.mark());
    let delivery = Delivery::new(vec![envelope(1), envelope(2)], (NOW, now), Arc::clone(&permit));
    let mut rig = Rig { delivery, ended: EndedTasks::default(), now };
    rig.accept();
    permit.revoke();
    assert_eq!(rig.next(), done(1, "NotPermitted"));
}

#[test]
fn what_expires_before_its_turn_is_discarded() {
    let mut rig = Rig::new(vec![envelope(1), envelope(2), envelope(3)]);
    rig.now += TTL - Duration::from_millis(1);
    rig.accept();
    rig.now += Duration::from_millis(1);
    assert_eq!(rig.next(), done(1, "Discarded([Expired,"));
}

#[test]
fn a_run_of_discards_ends_before_the_next_that_could_be_handed_over() {
    let mut rig = Rig::new(vec![status("a", "working"), status("a", "working"), envelope(1), status("a", "working")]);
    rig.ended.insert("a");
    assert_eq!(rig.next(), done(0, "Discarded([Superseded,"));
    assert_eq!(rig.delivery.waiting.len(), 2, "what could be handed over, and all behind it, stays");
}

#[test]
fn a_status_of_a_task_whose_end_was_delivered_is_discarded() {
    let batch = vec![status("a", "completed"), status("b", "working"), status("a", "failed"), status("a", "working")];
    let mut rig = Rig::new(batch);
    for _ in 0..3 {
        rig.accept();
    }
    assert_eq!(rig.next(), done(3, "Discarded([Superseded])"));
}

#[test]
fn a_refusal_says_what_follows() {
    for (error, end) in [
        (HandOverError::Closed, "Closed"),
        (HandOverError::NotReady("it".to_owned()), "NotReady(\"it\")"),
        (HandOverError::Rejected("it".to_owned()), "Discarded([Rejected(\"it\")])"),
        (HandOverError::Transient("it".to_owned()), "Failed"),
    ] {
        let mut rig = Rig::new(vec![envelope(1), envelope(2), envelope(3)]);
        rig.accept();
        assert_eq!(rig.next(), Next::HandOver);
        rig.answer(Err(error));
        assert_eq!(rig.next(), done(1, end));
    }
}

#[test]
fn the_last_attempt_that_fails_is_a_discard() {
    let twice_failed = envelope(1).after_failure("before");
    let mut rig = Rig::new(vec![Item::decode("q", twice_failed, TTL).envelope.unwrap()]);
    rig.next();
    rig.answer(Err(HandOverError::Transient("again".to_owned())));
    let Step::Done(DeliveryOutcome { end, .. }) = rig.delivery.next(rig.now, &rig.ended) else { panic!("it is over") };
    let BatchEnd::Discarded(reasons) = end else { panic!("{end:?}") };
    assert_eq!(reasons, [DiscardReason::AttemptsExhausted { attempts: 3, last_error: "again".to_owned() }]);
}
