//! Delivery at most once: outcome of the notification that was removed and is not delivered yet.

use super::*;
use crate::subscription::MessageOutcome;

/// Returns a subscriber that delivers message 1 and has read message 2. Message 1 asked for a receipt and brings a
/// question.
fn removed() -> Rig {
    let mut rig = Rig::waiting(Delivery::AtMostOnce);
    let actions = rig.feed(taken(LeaseState::Held, vec![asking(1)]));
    let Delivered { count, outcomes, questions, .. } = acknowledged(&actions).unwrap();
    assert_eq!((count, outcomes.len(), questions.len()), (1, 0, 0), "its outcome is not known yet");
    assert_eq!(delivered_ids(&rig.feed(taken(LeaseState::Held, items(&[2])))), [1]);
    rig
}

fn recorded(actions: &[Action]) -> Option<MessageOutcome> {
    actions.iter().find_map(|action| match action {
        Action::Record { outcome, raw } => {
            assert_eq!(*raw, asking_raw(1));
            Some(outcome.clone())
        }
        _ => None,
    })
}

fn lost(actions: &[Action]) -> Option<&'static str> {
    notes(actions).find_map(|note| match note {
        Note::Lost { why, .. } => Some(*why),
        _ => None,
    })
}

fn outcome(discarded: Option<DiscardReason>) -> Option<MessageOutcome> {
    Some(MessageOutcome { position: 0, discarded, receipt: Some(id_of(1)) })
}

#[test]
fn the_acknowledgement_comes_first() {
    let mut rig = Rig::waiting(Delivery::AtMostOnce);
    let actions = rig.feed(taken(LeaseState::Held, items(&[1, 2])));
    assert_eq!(acknowledged(&actions).unwrap().count, 1);
    assert_eq!(delivered_ids(&rig.feed(taken(LeaseState::Held, items(&[2])))), [1]);
    assert_eq!(acknowledged(&rig.outcome(1, BatchEnd::AllAccepted)).unwrap().last, Mark::of(&raw(2)));
}

#[test]
fn a_notification_whose_removal_is_unknown_is_not_delivered() {
    let mut rig = Rig::waiting(Delivery::AtMostOnce);
    rig.feed(taken(LeaseState::Held, items(&[1])));
    rig.feed(Event::Failed(failure()));
    rig.timer();
    rig.feed(Event::Opened);
    assert_eq!(begun(&rig.feed(Event::Renewed(LeaseState::Held))), TAKE);
    assert!(matches!(begun(&rig.feed(taken(LeaseState::Held, Vec::new()))), Operation::Wait(_)));
}

#[test]
fn an_accepted_one_has_its_receipt_recorded_and_its_question_asked() {
    let mut rig = removed();
    let actions = rig.outcome(1, BatchEnd::AllAccepted);
    assert_eq!(recorded(&actions), outcome(None));
    assert_eq!(asked(&actions), ["q1"]);
    assert_eq!(acknowledged(&actions).unwrap().last, Mark::of(&raw(2)), "the next one is removed");
    rig.feed(taken(LeaseState::Held, Vec::new()));
    let actions = rig.outcome(1, BatchEnd::AllAccepted);
    assert_eq!(recorded(&actions), None, "nobody asked for a receipt");
    assert!(asked(&actions).is_empty());
}

#[test]
fn a_discarded_one_is_recorded_with_the_reason() {
    let reason = DiscardReason::Rejected("no".to_owned());
    let actions = removed().outcome(0, BatchEnd::Discarded(vec![reason.clone()]));
    assert_eq!(recorded(&actions), outcome(Some(reason.clone())));
    assert_eq!(discarded(&actions), [(Some(id_of(1)), true, reason)]);
}

#[test]
fn one_that_failed_is_delivered_again_after_the_pause_with_the_attempt_counted() {
    let mut rig = removed();
    let (envelope, pause) = (Box::new(asking(1).envelope.unwrap()), Duration::from_secs(2));
    let actions = rig.outcome(0, BatchEnd::Failed { envelope, error: "not now".to_owned(), pause });
    assert!(notes(&actions).any(|note| matches!(note, Note::AttemptFailed { attempts: 1, .. })));
    assert_eq!(rig.machine.state(), SubscriberState::BackingOff);
    assert_eq!(rig.machine.deadline(), Some(rig.now + pause));
    let again = rig.timer();
    let [Action::Deliver { batch, permit, .. }] = &*again else { panic!("{again:?}") };
    assert_eq!((batch[0].id, batch[0].attempt), (id_of(1), 1));
    assert!(permit.holds(rig.now + 1000 * TTL), "no lease guards it");
}

#[test]
fn one_that_the_session_could_not_take_is_delivered_later() {
    let mut rig = removed();
    assert_eq!(delivered_ids(&rig.renewing_first(BatchEnd::NotPermitted)), [1]);
    let actions = rig.outcome(0, BatchEnd::NotReady("no stream".to_owned()));
    assert!(closes(&actions));
    assert_eq!(rig.machine.state(), SubscriberState::BackingOff);
    rig.timer();
    rig.feed(Event::Opened);
    assert_eq!(delivered_ids(&rig.feed(Event::Renewed(LeaseState::Held))), [1]);
}

#[test]
fn a_removed_notification_is_lost_at_the_end_and_the_reason_is_noted() {
    let actions = removed().outcome(0, BatchEnd::Closed);
    assert_eq!(begun(&actions), Operation::Release, "at most once no question is cancelled");
    for (end, why) in
        [(BatchEnd::Closed, "the session has closed"), (BatchEnd::NotPermitted, "the subscriber was stopped")]
    {
        let mut rig = removed();
        if why != "the session has closed" {
            rig.feed(Event::Stop);
        }
        rig.outcome(0, end);
        let actions = rig.feed(Event::Released);
        assert_eq!(lost(&actions), Some(why));
        assert!(exit(&actions).is_some());
    }
}

#[test]
fn a_removed_notification_without_a_session_actor_is_lost() {
    let mut rig = removed();
    assert_eq!(begun(&rig.feed(Event::Delivered(None))), Operation::Release);
    let actions = rig.feed(Event::Released);
    assert_eq!(lost(&actions), Some("the session actor is gone"));
    assert!(matches!(exit(&actions), Some(ExitReason::Panicked(_))));
}

#[test]
fn a_removed_notification_of_a_parked_subscriber_expires_at_its_time() {
    let mut rig = removed();
    let read = rig.now;
    rig.feed(Event::Presence(SessionState::Disconnected));
    assert_eq!(begun(&rig.outcome(0, BatchEnd::NotReady("away".to_owned()))), Operation::Release);
    rig.feed(Event::Released);
    assert_eq!(exit(&rig.feed(Event::Settled)), Some(ExitReason::Parked));
    assert_eq!(rig.machine.deadline(), Some(read + TTL));
    rig.now = read + TTL - Duration::from_millis(1);
    assert_eq!(rig.feed(Event::Timer).len(), 0, "too early");
    let actions = rig.timer();
    assert_eq!(recorded(&actions), outcome(Some(DiscardReason::Expired)));
    assert_eq!(discarded(&actions), [(Some(id_of(1)), true, DiscardReason::Expired)]);
    assert_eq!(rig.machine.deadline(), None);
}

#[test]
fn an_unreadable_message_is_discarded_and_acknowledged() {
    let mut rig = Rig::waiting(Delivery::AtMostOnce);
    let actions = rig.feed(taken(LeaseState::Held, vec![unreadable()]));
    assert_eq!(discarded(&actions).len(), 1);
    let delivered = acknowledged(&actions).unwrap();
    assert_eq!((delivered.count, delivered.outcomes.len()), (1, 1));
    assert!(matches!(begun(&rig.feed(taken(LeaseState::Held, Vec::new()))), Operation::Wait(_)));
}

#[test]
fn a_removal_that_did_not_happen_is_no_delivery() {
    let mut rig = Rig::waiting(Delivery::AtMostOnce);
    rig.feed(taken(LeaseState::Held, items(&[1])));
    let changed = Taken { lease: LeaseState::Held, changed: true, has_more: false, now: NOW, items: items(&[1]) };
    assert_eq!(begun(&rig.feed(Event::Taken(changed))), TAKE, "the queue is read again");
    rig.feed(taken(LeaseState::Held, items(&[1])));
    rig.feed(taken(LeaseState::Lost, Vec::new()));
    assert_eq!(rig.machine.state(), SubscriberState::StandingBy);
}

impl Rig {
    /// Feeds an outcome after which the lease is renewed first, and the renewal.
    fn renewing_first(&mut self, end: BatchEnd) -> Vec<Action> {
        let actions = self.outcome(0, end);
        if delivers(&actions) {
            return actions;
        }
        assert_eq!(begun(&actions), Operation::Renew);
        self.feed(Event::Renewed(LeaseState::Held))
    }
}

#[test]
fn a_removed_notification_expires_while_another_owner_serves() {
    let mut rig = Rig::waiting(Delivery::AtMostOnce);
    rig.feed(taken(LeaseState::Held, items(&[1])));
    rig.feed(taken(LeaseState::Held, Vec::new()));
    rig.outcome(0, BatchEnd::NotReady("away".to_owned()));
    rig.timer();
    rig.feed(Event::Opened);
    rig.feed(Event::Renewed(LeaseState::Lost));
    let mut is_discarded = false;
    while !is_discarded {
        assert_eq!(rig.machine.state(), SubscriberState::StandingBy);
        let actions = rig.timer();
        is_discarded = actions.iter().any(|action| matches!(action, Action::Note(Note::Discarded { .. })));
        if rig.machine.operation.is_some() {
            rig.feed(Event::Renewed(LeaseState::Lost));
        }
    }
    assert!(rig.machine.removed.is_none());
}
