//! Life around the service: presence, stops, pauses, leases and waits.

use super::*;

fn pauses(rig: &Rig) -> Duration {
    assert_eq!(rig.machine.state(), SubscriberState::BackingOff);
    rig.machine.deadline().expect("a deadline").saturating_duration_since(rig.now)
}

/// Returns the pause after this number of failures, with the tests' jitter.
fn backoff(failures: u32) -> Duration {
    Config::default().backoff().pause(failures, 0.5)
}

fn stops_asking(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::StopAsking))
}

fn permit(rig: &Rig) {
    let permit = rig.machine.permit();
    permit.renewed(rig.now, 1000 * TTL, permit.mark());
    assert!(permit.holds(rig.now));
}

/// Returns a subscriber whose connection broke once.
fn backing_off() -> Rig {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    permit(&rig);
    let actions = rig.feed(Event::Failed(failure()));
    assert!(closes(&actions) && !rig.machine.permit().holds(rig.now));
    assert!(notes(&actions).any(|note| matches!(note, Note::QueueFailed { failures: 1, .. })));
    rig
}

#[test]
fn failures_of_the_queue_in_a_row_have_growing_pauses() {
    let mut rig = backing_off();
    assert_eq!(pauses(&rig), backoff(0));
    for failures in 1..4 {
        assert_eq!(begun(&rig.timer()), Operation::Open);
        let actions = rig.feed(Event::Failed(failure()));
        assert!(
            notes(&actions).any(|note| matches!(note, Note::QueueFailed { failures: n, .. } if *n == failures + 1))
        );
        assert_eq!(pauses(&rig), backoff(failures));
    }
}

#[test]
fn a_stop_ends_each_state_that_waits() {
    let mut parked = Rig::new(Delivery::AtLeastOnce);
    assert_eq!(exit(&parked.feed(Event::Stop)), Some(ExitReason::Stopped));
    let mut connecting = Rig::new(Delivery::AtLeastOnce);
    connecting.feed(Event::Presence(FIRST));
    let actions = connecting.feed(Event::Stop);
    assert!(closes(&actions), "the opening is dropped");
    assert_eq!(exit(&actions), Some(ExitReason::Stopped), "nothing is to be released");
    let mut waiting = Rig::waiting(Delivery::AtLeastOnce);
    permit(&waiting);
    let actions = waiting.feed(Event::Stop);
    assert!(closes(&actions) && stops_asking(&actions));
    assert_eq!(begun(&actions), Operation::Release);
    assert_eq!(begun(&backing_off().feed(Event::Stop)), Operation::Release);
    let mut standing_by = Rig::waiting(Delivery::AtLeastOnce);
    standing_by.feed(taken(LeaseState::Lost, Vec::new()));
    assert_eq!(begun(&standing_by.feed(Event::Stop)), Operation::Release);
}

#[test]
fn a_presence_that_is_told_twice_changes_nothing() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    assert!(rig.feed(Event::Presence(FIRST)).is_empty(), "the wait goes on");
    assert_eq!(rig.machine.state(), SubscriberState::Waiting);
}

#[test]
fn a_stop_during_a_read_ends_after_it() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    rig.feed(taken(LeaseState::Held, Vec::new()));
    assert!(rig.feed(Event::Stop).is_empty());
    assert_eq!(begun(&rig.feed(taken(LeaseState::Held, Vec::new()))), Operation::Release);
    assert_eq!(exit(&rig.feed(Event::Released)), Some(ExitReason::Stopped));
}

#[test]
fn a_client_that_goes_on_elsewhere_keeps_its_questions() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    permit(&rig);
    assert_eq!(begun(&rig.feed(Event::Presence(SessionState::Detached))), Operation::Release);
    assert!(!rig.machine.permit().holds(rig.now));
    assert_eq!(exit(&rig.feed(Event::Released)), Some(ExitReason::Detached));
}

#[test]
fn a_newer_stream_is_claimed_over_a_new_connection() {
    for mut rig in [Rig::waiting(Delivery::AtLeastOnce), backing_off()] {
        assert_eq!(begun(&rig.feed(Event::Presence(SECOND))), Operation::Open);
        assert_eq!(begun(&rig.feed(Event::Opened)), Operation::Claim);
    }
    let mut rig = Rig::delivering(&[1]);
    assert!(rig.feed(Event::Presence(SECOND)).is_empty(), "the delivery ends first");
    assert_eq!(acknowledged(&rig.outcome(1, BatchEnd::AllAccepted)).unwrap().count, 1);
    assert_eq!(begun(&rig.feed(taken(LeaseState::Held, items(&[2])))), Operation::Open);
}

#[test]
fn a_client_that_comes_back_while_its_subscriber_parks_is_served_again() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    let actions = rig.feed(Event::Presence(SessionState::Disconnected));
    assert!(stops_asking(&actions));
    assert!(rig.feed(Event::Presence(SECOND)).is_empty(), "the release ends first");
    assert_eq!(begun(&rig.feed(Event::Released)), Operation::Open);
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    rig.feed(Event::Presence(SessionState::Disconnected));
    rig.feed(Event::Released);
    let actions = rig.feed(Event::Presence(SECOND));
    assert!(closes(&actions), "it settles no longer");
    assert_eq!(begun(&actions), Operation::Open);
    assert_eq!(begun(&rig.feed(Event::Opened)), Operation::Claim);
}

#[test]
fn who_stands_by_looks_at_the_lease_once_a_heartbeat() {
    let heartbeat = Config::default().heartbeat();
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    let actions = rig.feed(taken(LeaseState::Lost, Vec::new()));
    assert!(stops_asking(&actions) && notes(&actions).any(|note| matches!(note, Note::TakenOver)));
    for answer in [Event::Failed(failure()), Event::Renewed(LeaseState::Lost)] {
        assert_eq!(rig.machine.deadline(), Some(rig.now + heartbeat));
        assert_eq!(begun(&rig.timer()), Operation::ClaimIfAbsent);
        assert_eq!(rig.machine.deadline(), None, "the look is under way");
        let failed = matches!(answer, Event::Failed(_));
        let actions = rig.feed(answer);
        assert_eq!(notes(&actions).any(|note| matches!(note, Note::LeaseUnread(_))), failed);
    }
    rig.timer();
    rig.feed(Event::Renewed(LeaseState::Held));
    assert_eq!(rig.machine.state(), SubscriberState::Connecting);
}

#[test]
fn a_lease_that_had_gone_is_told_of_and_one_that_another_has_is_not_taken() {
    for (lease, state) in [
        (LeaseState::Reclaimed, SubscriberState::Reading),
        (LeaseState::Held, SubscriberState::Reading),
        (LeaseState::Lost, SubscriberState::StandingBy),
    ] {
        let mut rig = backing_off();
        rig.timer();
        assert_eq!(begun(&rig.feed(Event::Opened)), Operation::Renew);
        let actions = rig.feed(Event::Renewed(lease));
        assert_eq!(rig.machine.state(), state);
        assert_eq!(notes(&actions).any(|note| matches!(note, Note::Reclaimed)), lease == LeaseState::Reclaimed);
    }
}

#[test]
fn waits_end_for_the_renewal_and_are_not_short() {
    let heartbeat = Config::default().heartbeat();
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    let claimed = rig.now;
    for (at, wait) in [
        (Duration::ZERO, heartbeat),
        (heartbeat - Duration::from_secs(3), Duration::from_secs(3)),
        (heartbeat - Duration::from_millis(1), Duration::from_millis(10)),
    ] {
        rig.now = claimed + at;
        assert_eq!(begun(&rig.feed(taken(LeaseState::Held, Vec::new()))), TAKE);
        assert_eq!(begun(&rig.feed(taken(LeaseState::Held, Vec::new()))), Operation::Wait(wait));
    }
    rig.now = claimed + heartbeat;
    assert_eq!(begun(&rig.feed(taken(LeaseState::Held, Vec::new()))), Operation::Renew);
    assert_eq!(begun(&rig.feed(Event::Renewed(LeaseState::Held))), TAKE);
}

#[test]
fn renewals_that_take_a_heartbeat_alternate_with_reads() {
    let heartbeat = Config::default().heartbeat();
    for delivery in [Delivery::AtLeastOnce, Delivery::AtMostOnce] {
        let mut rig = Rig::waiting(delivery);
        for _ in 0..3 {
            rig.pass(heartbeat);
            assert_eq!(begun(&rig.feed(taken(LeaseState::Held, Vec::new()))), Operation::Renew);
            rig.pass(heartbeat);
            assert_eq!(begun(&rig.feed(Event::Renewed(LeaseState::Held))), TAKE);
            assert!(matches!(begun(&rig.feed(taken(LeaseState::Held, Vec::new()))), Operation::Wait(_)));
        }
        // The claim of a new connection takes a heartbeat too.
        rig.feed(Event::Presence(SECOND));
        rig.feed(Event::Opened);
        rig.pass(heartbeat);
        assert_eq!(begun(&rig.feed(Event::Claimed)), TAKE);
    }
}

#[test]
fn a_long_wait_before_a_suspension_ends_the_backoff() {
    let longest = Config::default().backoff_max();
    for (waited, is_over) in [(longest, false), (longest + Duration::from_millis(1), true)] {
        let mut rig = Rig::waiting(Delivery::AtLeastOnce);
        rig.feed(Event::PermitSuspended);
        rig.feed(Event::Opened);
        rig.feed(Event::Renewed(LeaseState::Held));
        rig.feed(taken(LeaseState::Held, Vec::new()));
        rig.feed(Event::Questions(Vec::new()));
        rig.pass(waited);
        let actions = rig.feed(Event::PermitSuspended);
        assert!(closes(&actions));
        assert_eq!(notes(&actions).any(|note| matches!(note, Note::Recovered(1))), is_over);
        if !is_over {
            assert_eq!(pauses(&rig), backoff(0));
        }
    }
}

#[test]
fn a_wait_that_finds_no_lease_looks_again_and_a_taken_one_stands_by() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    assert_eq!(begun(&rig.feed(taken(LeaseState::Absent, Vec::new()))), Operation::Open);
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    rig.feed(taken(LeaseState::Held, Vec::new()));
    rig.feed(taken(LeaseState::Lost, Vec::new()));
    assert_eq!(rig.machine.state(), SubscriberState::StandingBy);
}

#[test]
fn a_new_connection_that_finds_another_owner_reads_no_questions() {
    let mut rig = Rig::new(Delivery::AtLeastOnce);
    rig.feed(Event::Presence(FIRST));
    rig.feed(Event::Opened);
    rig.feed(Event::Claimed);
    rig.feed(taken(LeaseState::Lost, Vec::new()));
    assert_eq!(rig.machine.state(), SubscriberState::StandingBy);
}

#[test]
fn a_lease_lost_during_a_delivery_is_not_renewed_and_receipts_tell_the_truth() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    rig.feed(taken(LeaseState::Held, vec![asking(1)]));
    rig.timer();
    rig.feed(Event::Renewed(LeaseState::Lost));
    assert_eq!(rig.machine.deadline(), None);
    assert_eq!(begun(&rig.outcome(1, BatchEnd::NotPermitted)), Operation::Renew);
    let actions = rig.feed(Event::Renewed(LeaseState::Lost));
    assert_eq!(acknowledged(&actions).unwrap().outcomes.len(), 1);
    rig.feed(taken(LeaseState::Lost, Vec::new()));
    assert_eq!(rig.machine.state(), SubscriberState::StandingBy);
    let mut rig = Rig::delivering(&[1]);
    rig.outcome(1, BatchEnd::NotPermitted);
    rig.feed(Event::Renewed(LeaseState::Lost));
    assert_eq!(rig.machine.state(), SubscriberState::StandingBy, "nothing is to be told");
}

#[test]
fn a_pause_with_a_whole_connection_keeps_the_lease_and_ends_for_the_client() {
    let mut rig = Rig::delivering(&[1]);
    let envelope = Box::new(items(&[1]).remove(0).envelope.unwrap());
    rig.outcome(0, BatchEnd::Failed { envelope, error: "no".to_owned(), pause: TTL });
    rig.feed(Event::Rewritten(Replaced::Done));
    assert_eq!(begun(&rig.timer()), Operation::Renew);
    assert!(rig.feed(Event::Presence(SECOND)).is_empty(), "the renewal ends first");
    assert_eq!(begun(&rig.feed(Event::Renewed(LeaseState::Held))), Operation::Open);
    let mut rig = Rig::delivering(&[1]);
    let envelope = Box::new(items(&[1]).remove(0).envelope.unwrap());
    rig.outcome(0, BatchEnd::Failed { envelope, error: "no".to_owned(), pause: TTL });
    rig.feed(Event::Rewritten(Replaced::Done));
    let until = rig.now + TTL;
    rig.timer();
    rig.feed(Event::Renewed(LeaseState::Lost));
    assert_eq!(rig.machine.deadline(), Some(until), "a lost lease is not renewed");
    assert_eq!(begun(&rig.timer()), Operation::Renew, "before the next read");
}

#[test]
fn a_queue_that_changed_and_a_wrong_clock_are_told_of() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    rig.feed(taken(LeaseState::Held, Vec::new()));
    let message = json!({"notification": {"method": "notifications/x"}, "enqueued_at": NOW.plus(TTL).to_string()});
    let foreign = Item::decode("q", message.to_string().into_bytes(), TTL);
    let changed = Taken { lease: LeaseState::Held, changed: true, has_more: false, now: NOW, items: vec![foreign] };
    let actions = rig.feed(Event::Taken(changed));
    assert!(notes(&actions).any(|note| matches!(note, Note::Changed)));
    assert!(notes(&actions).any(|note| matches!(note, Note::WrongClock(off) if *off == TTL)));
}

#[test]
fn open_questions_of_an_earlier_owner_are_asked_by_a_new_connection() {
    let mut rig = Rig::new(Delivery::AtLeastOnce);
    rig.feed(Event::Presence(FIRST));
    rig.feed(Event::Opened);
    rig.feed(Event::Claimed);
    rig.feed(taken(LeaseState::Held, items(&[1])));
    let question = asking(7).envelope.unwrap().question.map(|question| *question).unwrap();
    let actions = rig.feed(Event::Questions(vec![question]));
    assert_eq!((asked(&actions), delivered_ids(&actions)), (vec!["q7".to_owned()], vec![1]));
    let mut rig = Rig::new(Delivery::AtMostOnce);
    rig.feed(Event::Presence(FIRST));
    rig.feed(Event::Opened);
    rig.feed(Event::Claimed);
    assert!(matches!(begun(&rig.feed(taken(LeaseState::Held, Vec::new()))), Operation::Wait(_)), "not at most once");
}

fn foreign_items(count: usize) -> Vec<Item> {
    let raw = json!({"notification": {"method": "notifications/x"}, "attempt": 0}).to_string().into_bytes();
    (0..count).map(|_| Item::decode("q", raw.clone(), TTL)).collect()
}

#[test]
fn what_was_counted_is_not_acknowledged_over_another_connection() {
    // Equal messages have no ids of their own. The same mark at the same position may belong to another message by
    // then.
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    rig.feed(taken(LeaseState::Held, foreign_items(2)));
    assert_eq!(begun(&rig.outcome(1, BatchEnd::NotPermitted)), Operation::Renew);
    rig.feed(Event::Failed(failure()));
    rig.timer();
    rig.feed(Event::Opened);
    assert_eq!(begun(&rig.feed(Event::Renewed(LeaseState::Held))), TAKE);
    rig.feed(taken(LeaseState::Held, foreign_items(2)));
    let actions = rig.feed(Event::Questions(Vec::new()));
    let batch = actions.iter().find_map(|action| match action {
        Action::Deliver { batch, .. } => Some(batch.len()),
        _ => None,
    });
    assert_eq!(batch, Some(1), "the first was delivered before, the second was not");
    assert_eq!(acknowledged(&rig.outcome(1, BatchEnd::AllAccepted)).unwrap().count, 2);
}

#[test]
fn a_failure_in_the_pause_after_a_failed_attempt_does_not_shorten_the_pause() {
    let mut rig = Rig::delivering(&[1]);
    let (begin, pause) = (rig.now, Duration::from_secs(50));
    let envelope = Box::new(items(&[1]).remove(0).envelope.unwrap());
    rig.outcome(0, BatchEnd::Failed { envelope, error: "not now".to_owned(), pause });
    rig.feed(Event::Rewritten(Replaced::Done));
    assert_eq!(begun(&rig.timer()), Operation::Renew);
    rig.feed(Event::Failed(failure()));
    assert_eq!(rig.machine.deadline(), Some(begin + pause));
}
