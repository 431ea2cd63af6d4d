//! Delivery at least once: batches, their outcomes and their acknowledgements.

use super::*;

#[test]
fn an_unreadable_message_is_discarded_in_its_turn() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    let mut batch = items(&[1]);
    batch.extend([unreadable(), unreadable()]);
    batch.extend(items(&[2]));
    let actions = rig.feed(taken(LeaseState::Held, batch));
    assert_eq!((delivered_ids(&actions), discarded(&actions).len()), (vec![1], 0));
    let actions = rig.outcome(1, BatchEnd::AllAccepted);
    let delivered = acknowledged(&actions).unwrap();
    assert_eq!((delivered.count, discarded(&actions).len()), (3, 2));
    assert_eq!(delivered.outcomes.iter().map(|outcome| outcome.position).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(delivered_ids(&rig.feed(taken(LeaseState::Held, items(&[2])))), [2], "behind what is recorded");
}

/// Returns a subscriber whose client has opened a stream. The client has named `received`, and the first read returns
/// `items`.
fn resumed(received: Option<MessageId>, items: Vec<Item>) -> (Rig, Vec<Action>) {
    let mut rig = Rig::new(Delivery::AtLeastOnce);
    rig.feed(Event::Presence(SessionState::Connected { generation: 1, received }));
    rig.feed(Event::Opened);
    rig.feed(Event::Claimed);
    rig.feed(taken(LeaseState::Held, items));
    let actions = rig.feed(Event::Questions(Vec::new()));
    (rig, actions)
}

fn queued(messages: &[u32]) -> Vec<Item> {
    messages.iter().map(|n| stamped(*n, 10 * i64::from(*n))).collect()
}

#[test]
fn what_the_client_says_it_has_is_acknowledged_and_not_delivered_again() {
    let has = |n: u32| queued(&[n])[0].message_id();
    let (mut rig, actions) = resumed(has(2), queued(&[1, 2, 3]));
    assert_eq!(delivered_ids(&actions), [3]);
    assert!(notes(&actions).any(|note| matches!(note, Note::Received(2))));
    assert_eq!(acknowledged(&rig.outcome(1, BatchEnd::AllAccepted)).unwrap().count, 3);
    let (_, actions) = resumed(has(3), queued(&[1, 2, 3]));
    let delivered = acknowledged(&actions).unwrap();
    assert_eq!((delivered.count, &delivered.last), (3, &queued(&[3])[0].mark));
    let (_, actions) = resumed(has(4), queued(&[1, 2, 3]));
    assert_eq!(delivered_ids(&actions), [1, 2, 3], "an id that is not there says nothing");
    let (_, actions) = resumed(None, queued(&[1, 2]));
    assert_eq!(delivered_ids(&actions), [1, 2]);
}

#[test]
fn a_letter_that_was_redriven_is_not_taken_for_the_message_that_the_client_has() {
    let received = stamped(3, 0).message_id();
    let (_, actions) = resumed(received, queued(&[1, 2, 3]));
    assert_eq!(delivered_ids(&actions), [1, 2, 3]);
}

#[test]
fn what_the_client_said_holds_for_the_first_read_only_and_over_broken_connections() {
    let received = queued(&[1])[0].message_id();
    let mut rig = Rig::new(Delivery::AtLeastOnce);
    rig.feed(Event::Presence(SessionState::Connected { generation: 1, received }));
    rig.feed(Event::Opened);
    rig.feed(Event::Claimed);
    rig.feed(Event::Failed(failure()));
    rig.timer();
    rig.feed(Event::Opened);
    rig.feed(Event::Renewed(LeaseState::Held));
    rig.feed(taken(LeaseState::Held, queued(&[1, 2])));
    assert_eq!(delivered_ids(&rig.feed(Event::Questions(Vec::new()))), [2]);
    rig.outcome(1, BatchEnd::AllAccepted);
    rig.feed(taken(LeaseState::Held, Vec::new()));
    let actions = rig.feed(taken(LeaseState::Held, queued(&[3, 1])));
    assert_eq!(delivered_ids(&actions), [3]);
}

#[test]
fn what_the_client_said_for_an_older_stream_holds_when_that_goes_on() {
    let received = queued(&[1])[0].message_id();
    let older = || Event::Presence(SessionState::Connected { generation: 1, received });
    let mut rig = Rig::new(Delivery::AtLeastOnce);
    rig.feed(older());
    // A newer stream, whose client names no message, claims the queue before the older one is served.
    rig.feed(Event::Presence(SECOND));
    rig.feed(Event::Opened);
    rig.feed(Event::Opened);
    rig.feed(Event::Claimed);
    rig.feed(taken(LeaseState::Held, Vec::new()));
    rig.feed(Event::Questions(Vec::new()));
    rig.feed(older());
    rig.feed(Event::Opened);
    rig.feed(Event::Renewed(LeaseState::Held));
    rig.feed(taken(LeaseState::Held, queued(&[1, 2])));
    assert_eq!(delivered_ids(&rig.feed(Event::Questions(Vec::new()))), [2]);
}

#[test]
fn questions_and_receipts_of_what_the_client_has_are_settled() {
    let mut asking: serde_json::Value = serde_json::from_slice(&asking_raw(1)).unwrap();
    (asking["ttl"], asking["at"]) = (json!(300_000_000), json!(NOW.0));
    let asking = Item::decode("q", asking.to_string().into_bytes(), TTL);
    let (_, actions) = resumed(queued(&[2])[0].message_id(), vec![asking, stamped(2, 20)]);
    let Delivered { count, questions, outcomes, .. } = acknowledged(&actions).unwrap();
    assert_eq!((count, questions.len(), outcomes.len()), (2, 1, 1));
    assert_eq!((outcomes[0].receipt, &outcomes[0].discarded), (Some(id_of(1)), &None));
}

#[test]
fn the_same_id_twice_in_one_batch_is_delivered_once() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    let actions = rig.feed(taken(LeaseState::Held, items(&[1, 2, 1, 3])));
    assert_eq!(delivered_ids(&actions), [1, 2]);
    let actions = rig.outcome(2, BatchEnd::AllAccepted);
    assert!(notes(&actions).any(|note| matches!(note, Note::Skipped(id) if *id == id_of(1))));
    assert_eq!(delivered_ids(&actions), [3]);
    assert_eq!(acknowledged(&rig.outcome(1, BatchEnd::AllAccepted)).unwrap().count, 4);
}

#[test]
fn questions_and_receipts_go_with_the_acknowledgement_and_are_asked_after_it() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    let actions = rig.feed(taken(LeaseState::Held, vec![asking(1)]));
    assert!(delivers(&actions) && asked(&actions).is_empty());
    let actions = rig.outcome(1, BatchEnd::AllAccepted);
    let Delivered { questions, outcomes, .. } = acknowledged(&actions).unwrap();
    assert_eq!((questions.len(), outcomes.len()), (1, 1));
    assert_eq!(outcomes[0].receipt, Some(id_of(1)));
    assert!(asked(&actions).is_empty(), "not before another process could ask them");
    assert_eq!(asked(&rig.feed(taken(LeaseState::Held, Vec::new()))), ["q1"]);
}

#[test]
fn questions_whose_acknowledgement_finds_another_owner_are_not_asked() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    rig.feed(taken(LeaseState::Held, vec![asking(1)]));
    rig.outcome(1, BatchEnd::AllAccepted);
    let actions = rig.feed(taken(LeaseState::Lost, Vec::new()));
    assert!(asked(&actions).is_empty(), "they are the other owner's");
    assert_eq!(rig.machine.state(), SubscriberState::StandingBy);
}

#[test]
fn a_repeat_brings_its_question_and_receipt_again() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    rig.feed(taken(LeaseState::Held, vec![asking(1)]));
    rig.outcome(1, BatchEnd::AllAccepted);
    let actions = rig.feed(taken(LeaseState::Held, vec![asking(1)]));
    let delivered = acknowledged(&actions).unwrap();
    assert_eq!((delivered.questions.len(), delivered.outcomes.len()), (1, 1));
}

#[test]
fn a_discard_tells_the_worker_of_its_question() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    rig.feed(taken(LeaseState::Held, vec![asking(1)]));
    let actions = rig.outcome(0, BatchEnd::Discarded(vec![DiscardReason::Expired]));
    assert_eq!(discarded(&actions), [(Some(id_of(1)), true, DiscardReason::Expired)]);
    assert_eq!(acknowledged(&actions).unwrap().outcomes[0].receipt, Some(id_of(1)));
}

#[test]
fn the_permit_of_a_delivery_is_the_machines() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    let actions = rig.feed(taken(LeaseState::Held, items(&[1])));
    let [Action::Deliver { permit, read_at, .. }] = &*actions else { panic!("{actions:?}") };
    assert!(Arc::ptr_eq(permit, rig.machine.permit()));
    assert_eq!(*read_at, (NOW, rig.now));
}

#[test]
fn a_delivery_that_is_not_permitted_is_followed_by_a_renewal() {
    let mut rig = Rig::delivering(&[1, 2]);
    assert_eq!(begun(&rig.outcome(1, BatchEnd::NotPermitted)), Operation::Renew);
    assert_eq!(acknowledged(&rig.feed(Event::Renewed(LeaseState::Held))).unwrap().count, 1);
}

#[test]
fn a_session_that_is_not_ready_is_offered_the_rest_later_over_a_new_connection() {
    let mut rig = Rig::delivering(&[1, 2]);
    let actions = rig.outcome(1, BatchEnd::NotReady("no stream".to_owned()));
    assert!(notes(&actions).any(|note| matches!(note, Note::NotReady(why) if why == "no stream")));
    assert_eq!(acknowledged(&actions).unwrap().count, 1);
    assert!(closes(&rig.feed(taken(LeaseState::Held, items(&[2])))));
    assert_eq!(rig.machine.state(), SubscriberState::BackingOff);
    assert!(rig.machine.deadline().unwrap() > rig.now);
    assert_eq!(begun(&rig.timer()), Operation::Open);
}

#[test]
fn a_session_that_is_over_acknowledges_then_cancels_its_questions() {
    let mut rig = Rig::delivering(&[1, 2]);
    assert_eq!(acknowledged(&rig.outcome(1, BatchEnd::Closed)).unwrap().count, 1);
    assert_eq!(begun(&rig.feed(taken(LeaseState::Held, items(&[2])))), Operation::CancelQuestions);
    rig.feed(Event::Cancelled);
    assert_eq!(exit(&rig.feed(Event::Released)), Some(ExitReason::Closed));
}

#[test]
fn a_session_actor_that_is_gone_is_a_panic() {
    let mut rig = Rig::delivering(&[1]);
    assert_eq!(begun(&rig.feed(Event::Delivered(None))), Operation::Release);
    assert!(matches!(exit(&rig.feed(Event::Released)), Some(ExitReason::Panicked(_))));
    let mut rig = Rig::delivering(&[1]);
    rig.timer();
    rig.feed(Event::Failed(failure()));
    assert_eq!(begun(&rig.feed(Event::Delivered(None))), Operation::Release, "also over a broken connection");
}

#[test]
fn an_outcome_about_a_message_that_was_not_sent_has_the_queue_read_again() {
    let mut rig = Rig::delivering(&[1]);
    let actions = rig.outcome(1, BatchEnd::Discarded(vec![DiscardReason::Expired]));
    assert_eq!(acknowledged(&actions).unwrap().count, 1);
    assert!(discarded(&actions).is_empty());
}

#[test]
fn progress_ends_the_backoff_and_is_counted() {
    let mut rig = Rig::delivering(&[1, 2]);
    let actions = rig.outcome(0, BatchEnd::NotReady("no stream".to_owned()));
    assert!(!notes(&actions).any(|note| matches!(note, Note::Delivered { .. })));
    rig.timer();
    rig.feed(Event::Opened);
    rig.feed(Event::Renewed(LeaseState::Held));
    rig.feed(taken(LeaseState::Held, items(&[1, 2])));
    assert_eq!(delivered_ids(&rig.feed(Event::Questions(Vec::new()))), [1, 2]);
    let actions = rig.outcome(2, BatchEnd::AllAccepted);
    assert!(notes(&actions).any(|note| matches!(note, Note::Delivered { count: 2, .. })));
    assert!(notes(&actions).any(|note| matches!(note, Note::Recovered(1))));
}

#[test]
fn an_attempt_whose_place_has_changed_is_not_written() {
    let mut rig = Rig::delivering(&[1, 2]);
    let envelope = Box::new(items(&[2]).remove(0).envelope.unwrap());
    let actions = rig.outcome(1, BatchEnd::Failed { envelope, error: "no".to_owned(), pause: TTL });
    assert!(notes(&actions).any(|note| matches!(note, Note::AttemptFailed { attempts: 1, .. })));
    let changed = Taken { lease: LeaseState::Held, changed: true, has_more: false, now: NOW, items: Vec::new() };
    assert_eq!(begun(&rig.feed(Event::Taken(changed))), TAKE);
    let mut rig = Rig::delivering(&[1]);
    let envelope = Box::new(items(&[1]).remove(0).envelope.unwrap());
    let actions = rig.outcome(0, BatchEnd::Failed { envelope, error: "no".to_owned(), pause: TTL });
    assert!(matches!(begun(&actions), Operation::Rewrite { .. }), "nothing is to be acknowledged before");
    assert_eq!(rig.machine.state(), SubscriberState::Rewriting);
    assert_eq!(begun(&rig.feed(Event::Rewritten(Replaced::Changed))), TAKE);
}
