//! Deliveries that follow each other while earlier ones await their confirmation.

use super::*;

impl Rig {
    /// Returns a subscriber that owns its queue, with these settings, and has read these messages. Further messages are
    /// queued.
    fn reading(config: crate::config::ConfigBuilder, messages: &[u32]) -> (Self, Vec<Action>) {
        let mut rig = Self::waiting(Delivery::AtLeastOnce);
        rig.machine.config = Arc::new(config.build().unwrap());
        let actions = rig.feed(more(queued(messages)));
        (rig, actions)
    }

    /// Ends the hand-overs of the running delivery. The session has accepted all and confirmed none.
    fn handed(&mut self, accepted: usize) -> Vec<Action> {
        self.handed_until(accepted, BatchEnd::AllAccepted)
    }

    fn handed_until(&mut self, accepted: usize, end: BatchEnd) -> Vec<Action> {
        self.feed(Event::Delivered(Some(DeliveryOutcome { accepted, end, confirmed: None })))
    }

    fn confirmed(&mut self, delivery: u64) -> Vec<Action> {
        self.feed(Event::Confirmed { delivery, answer: Ok(()) })
    }

    fn unconfirmed(&mut self, delivery: u64) -> Vec<Action> {
        let answer = Err(HandOverError::NotReady("the stream has ended".to_owned()));
        self.feed(Event::Confirmed { delivery, answer })
    }
}

fn queued(messages: &[u32]) -> Vec<Item> {
    messages.iter().map(|n| stamped(*n, i64::from(*n))).collect()
}

/// Returns the answer to a read behind which further messages are queued.
fn more(items: Vec<Item>) -> Event {
    Event::Taken(Taken { lease: LeaseState::Held, changed: false, has_more: true, now: NOW, items })
}

fn behind(actions: &[Action]) -> (Option<usize>, Option<(usize, Mark)>) {
    match begun(actions) {
        Operation::Take { delivered, behind } => {
            (delivered.map(|delivered| delivered.count), behind.map(|Behind { count, last }| (count, last)))
        }
        other => panic!("{other:?}"),
    }
}

fn mark(n: u32) -> Mark {
    queued(&[n]).remove(0).mark
}

fn settings() -> crate::config::ConfigBuilder {
    Config::builder().window_messages(5)
}

fn begins_nothing(actions: &[Action]) -> bool {
    !actions.iter().any(|action| matches!(action, Action::Begin(_) | Action::Deliver { .. }))
}

#[test]
fn the_next_batch_goes_out_before_the_one_before_is_confirmed() {
    let (mut rig, actions) = Rig::reading(settings(), &[1, 2]);
    assert_eq!(delivered_ids(&actions), [1, 2]);
    assert_eq!(behind(&rig.handed(2)), (None, Some((2, mark(2)))));
    assert_eq!(delivered_ids(&rig.feed(more(queued(&[3, 4])))), [3, 4]);
    assert_eq!(behind(&rig.handed(2)), (None, Some((4, mark(4)))));
    // The confirmation comes during the read, and is acknowledged with the next one.
    assert!(begins_nothing(&rig.confirmed(1)));
    assert_eq!(delivered_ids(&rig.feed(more(queued(&[5])))), [5]);
    assert_eq!(behind(&rig.handed(1)), (Some(2), Some((3, mark(5)))));
    assert!(begins_nothing(&rig.feed(taken(LeaseState::Held, Vec::new()))));
    // A confirmation is cumulative: the third delivery's answer confirms the second one too.
    let actions = rig.confirmed(3);
    assert!(notes(&actions).any(|note| matches!(note, Note::Delivered { count: 3, .. })));
    assert_eq!(behind(&actions), (Some(3), None));
    assert_eq!(rig.machine.state(), SubscriberState::Reading);
}

#[test]
fn a_window_that_is_full_waits_for_a_confirmation() {
    let (mut rig, _) = Rig::reading(Config::builder().window_messages(3), &[1, 2]);
    rig.handed(2);
    assert_eq!(delivered_ids(&rig.feed(more(queued(&[3, 4, 5])))), [3], "as far as the window goes");
    assert!(begins_nothing(&rig.handed(1)));
    let actions = rig.confirmed(1);
    assert_eq!(behind(&actions), (Some(2), Some((1, mark(3)))), "what is confirmed counts until it is acknowledged");
    assert_eq!(delivered_ids(&rig.feed(more(queued(&[4, 5, 6])))), [4, 5]);
    let (mut rig, _) = Rig::reading(Config::builder().window_bytes(1), &[1]);
    assert!(begins_nothing(&rig.handed(1)), "one batch always goes out");
    assert_eq!(behind(&rig.confirmed(1)), (Some(1), None));
}

#[test]
fn nothing_is_read_ahead_where_nothing_more_is_queued() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    rig.feed(taken(LeaseState::Held, queued(&[1])));
    assert!(begins_nothing(&rig.handed(1)));
    assert_eq!(behind(&rig.confirmed(1)), (Some(1), None));
}

#[test]
fn what_is_pushed_while_a_confirmation_takes_long_goes_out_before_it() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    rig.feed(taken(LeaseState::Held, queued(&[1])));
    rig.handed(1);
    let begun = rig.now;
    let mut reads_ahead = Vec::new();
    while rig.now < begun + Duration::from_secs(8) {
        let before = rig.now;
        assert_eq!(behind(&rig.timer()), (None, Some((1, mark(1)))));
        reads_ahead.push(rig.now - before);
        rig.feed(taken(LeaseState::Held, Vec::new()));
    }
    assert!(reads_ahead.is_sorted() && reads_ahead[0] >= Duration::from_millis(37), "{reads_ahead:?}");
    assert!((10..20).contains(&reads_ahead.len()), "less and less often: {reads_ahead:?}");
    rig.timer();
    assert_eq!(delivered_ids(&rig.feed(taken(LeaseState::Held, queued(&[2])))), [2]);
    assert_eq!(rig.machine.reads_ahead, 0);
    // No look happens beside a delivery, nor behind a full window.
    let renewal = rig.machine.deadline();
    rig.machine.config = Arc::new(Config::builder().window_messages(2).build().unwrap());
    rig.handed(1);
    assert_eq!(rig.machine.deadline(), renewal);
    assert_eq!(behind(&rig.confirmed(1)), (Some(1), Some((1, mark(2)))));
}

#[test]
fn what_is_not_confirmed_comes_again_with_all_behind_it() {
    let (mut rig, _) = Rig::reading(settings(), &[1, 2]);
    rig.handed(2);
    rig.feed(more(queued(&[3])));
    rig.handed(1);
    rig.confirmed(1);
    rig.feed(more(queued(&[4])));
    // The running delivery fails with the same stream.
    assert!(begins_nothing(&rig.unconfirmed(2)));
    let actions = rig.handed_until(0, BatchEnd::NotReady("the stream has ended".to_owned()));
    assert_eq!(behind(&actions), (Some(2), None), "what was confirmed is acknowledged");
    assert!(begins_nothing(&rig.confirmed(3)), "too late");
    assert!(closes(&rig.feed(taken(LeaseState::Held, queued(&[3])))));
    rig.timer();
    rig.feed(Event::Opened);
    rig.feed(Event::Renewed(LeaseState::Held));
    rig.feed(more(queued(&[3, 4])));
    assert_eq!(delivered_ids(&rig.feed(Event::Questions(Vec::new()))), [3, 4]);
    let actions = rig.handed_until(2, BatchEnd::AllAccepted);
    assert!(notes(&actions).any(|note| matches!(note, Note::Repeated(1))), "4 was not handed over before");
}

#[test]
fn a_delivery_that_was_given_up_confirms_nothing_by_its_outcome() {
    let (mut rig, _) = Rig::reading(settings(), &[1]);
    rig.handed(1);
    rig.feed(more(queued(&[2])));
    rig.unconfirmed(1);
    let outcome = DeliveryOutcome { accepted: 1, end: BatchEnd::AllAccepted, confirmed: Some(Ok(())) };
    let actions = rig.feed(Event::Delivered(Some(outcome)));
    assert!(closes(&actions) && !notes(&actions).any(|note| matches!(note, Note::Delivered { .. })));
    assert_eq!(rig.machine.state(), SubscriberState::BackingOff);
    rig.timer();
    rig.feed(Event::Opened);
    rig.feed(Event::Renewed(LeaseState::Held));
    rig.feed(more(queued(&[1, 2, 3])));
    rig.feed(Event::Questions(Vec::new()));
    let actions = rig.handed_until(3, BatchEnd::AllAccepted);
    assert!(
        notes(&actions).any(|note| matches!(note, Note::Repeated(2))),
        "1, and 2 of the delivery that was given up"
    );
}

#[test]
fn a_discard_waits_until_it_is_the_oldest() {
    let (mut rig, _) = Rig::reading(settings(), &[1]);
    rig.handed(1);
    rig.feed(more(queued(&[2, 3, 4])));
    let actions = rig.handed_until(1, BatchEnd::Discarded(vec![DiscardReason::Expired]));
    assert!(begins_nothing(&actions) && discarded(&actions).is_empty());
    assert!(begins_nothing(&rig.confirmed(1)), "nothing is read meanwhile");
    let actions = rig.confirmed(2);
    assert_eq!(discarded(&actions).len(), 1);
    let delivered = acknowledged(&actions).unwrap();
    assert_eq!((delivered.count, delivered.outcomes[0].position), (3, 2));
}

#[test]
fn a_discard_behind_what_is_not_confirmed_is_none() {
    let (mut rig, _) = Rig::reading(settings(), &[1, 2]);
    rig.handed_until(1, BatchEnd::Discarded(vec![DiscardReason::Expired]));
    let actions = rig.unconfirmed(1);
    assert!(discarded(&actions).is_empty() && closes(&actions));
}

#[test]
fn a_failed_attempt_is_written_once_all_before_it_are_confirmed_and_removed() {
    let failed = || {
        let envelope = Box::new(queued(&[2]).remove(0).envelope.unwrap());
        BatchEnd::Failed { envelope, error: "no".to_owned(), pause: TTL }
    };
    let (mut rig, _) = Rig::reading(settings(), &[1, 2, 3]);
    assert!(begins_nothing(&rig.handed_until(1, failed())));
    assert_eq!(behind(&rig.confirmed(1)), (Some(1), None));
    assert!(matches!(begun(&rig.feed(taken(LeaseState::Held, queued(&[2])))), Operation::Rewrite { .. }));
    let (mut rig, _) = Rig::reading(settings(), &[1, 2, 3]);
    rig.handed_until(1, failed());
    assert!(closes(&rig.unconfirmed(1)), "it is not the oldest, so nothing is written");
    assert_eq!(rig.machine.state(), SubscriberState::BackingOff);
}

#[test]
fn unreadable_messages_and_repeats_behind_unconfirmed_ones_wait_for_them() {
    let (mut rig, _) = Rig::reading(settings(), &[1]);
    rig.handed(1);
    assert!(begins_nothing(&rig.feed(more(vec![unreadable()]))));
    assert_eq!(behind(&rig.confirmed(1)), (Some(1), None));
    let (mut rig, _) = Rig::reading(settings(), &[1]);
    rig.handed(1);
    // The same notification is pushed again.
    assert!(begins_nothing(&rig.feed(more(vec![stamped(1, 99)]))));
    assert_eq!(behind(&rig.confirmed(1)), (Some(1), None));
    let actions = rig.feed(taken(LeaseState::Held, vec![stamped(1, 99)]));
    assert!(notes(&actions).any(|note| matches!(note, Note::Skipped(_))));
}

#[test]
fn nothing_is_read_behind_messages_that_their_owner_alone_tells_apart() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    let message = json!({"notification": {"method": "notifications/x", "params": {"n": 1}}, "attempt": 0});
    rig.feed(more(vec![Item::decode("q", message.to_string().into_bytes(), TTL)]));
    assert!(begins_nothing(&rig.handed(1)));
    assert_eq!(behind(&rig.confirmed(1)), (Some(1), None));
}

#[test]
fn a_queue_that_changed_under_unconfirmed_messages_is_read_anew_once_they_are_confirmed() {
    let (mut rig, _) = Rig::reading(settings(), &[1, 2]);
    rig.handed(2);
    let changed = Taken { lease: LeaseState::Held, changed: true, has_more: false, now: NOW, items: Vec::new() };
    let actions = rig.feed(Event::Taken(changed));
    assert!(begins_nothing(&actions) && notes(&actions).any(|note| matches!(note, Note::Changed)));
    assert_eq!(behind(&rig.confirmed(1)), (Some(2), None));
    assert_eq!(delivered_ids(&rig.feed(taken(LeaseState::Held, queued(&[2, 3])))), [3]);
}

#[test]
fn a_lease_that_is_lost_ends_the_reads_ahead_and_is_looked_at_once_all_is_confirmed() {
    let (mut rig, _) = Rig::reading(settings(), &[1]);
    rig.handed(1);
    assert!(begins_nothing(&rig.feed(taken(LeaseState::Lost, Vec::new()))));
    assert_eq!(begun(&rig.confirmed(1)), Operation::Renew);
    rig.feed(Event::Renewed(LeaseState::Lost));
    assert_eq!(rig.machine.state(), SubscriberState::StandingBy);
}

#[test]
fn a_connection_that_breaks_while_confirmations_are_awaited_is_made_anew_behind_them() {
    let (mut rig, _) = Rig::reading(settings(), &[1, 2]);
    rig.handed(2);
    assert!(closes(&rig.feed(Event::Failed(failure()))));
    assert_eq!(rig.machine.deadline(), None, "nothing can be renewed");
    assert!(begins_nothing(&rig.confirmed(1)));
    assert_eq!(rig.machine.state(), SubscriberState::BackingOff);
    rig.timer();
    rig.feed(Event::Opened);
    rig.feed(Event::Renewed(LeaseState::Held));
    rig.feed(taken(LeaseState::Held, queued(&[1, 2, 3])));
    let actions = rig.feed(Event::Questions(Vec::new()));
    assert_eq!((notes(&actions).count(), delivered_ids(&actions)), (2, vec![3]), "what was confirmed is skipped");
}

#[test]
fn the_lease_is_renewed_while_confirmations_are_awaited() {
    let mut rig = Rig::waiting(Delivery::AtLeastOnce);
    rig.feed(taken(LeaseState::Held, queued(&[1])));
    rig.handed(1);
    rig.machine.timer = None;
    assert_eq!(begun(&rig.timer()), Operation::Renew);
    assert!(begins_nothing(&rig.confirmed(1)), "not beside the renewal");
    assert_eq!(behind(&rig.feed(Event::Renewed(LeaseState::Held))), (Some(1), None));
}

#[test]
fn a_stop_and_a_newer_stream_wait_for_confirmations_and_deliver_nothing_more() {
    for (event, then) in [(Event::Stop, Operation::Release), (Event::Presence(SECOND), Operation::Open)] {
        let (mut rig, _) = Rig::reading(settings(), &[1]);
        rig.handed(1);
        assert!(begins_nothing(&rig.feed(event)));
        assert!(begins_nothing(&rig.feed(more(queued(&[2])))));
        assert_eq!(behind(&rig.confirmed(1)), (Some(1), None));
        assert_eq!(begun(&rig.feed(taken(LeaseState::Held, queued(&[2])))), then);
    }
}

#[test]
fn a_session_that_is_over_says_so_by_its_confirmation_too() {
    let (mut rig, _) = Rig::reading(settings(), &[1]);
    rig.handed(1);
    rig.feed(taken(LeaseState::Held, Vec::new()));
    let actions = rig.feed(Event::Confirmed { delivery: 1, answer: Err(HandOverError::Closed) });
    assert_eq!(begun(&actions), Operation::CancelQuestions);
}

#[test]
fn an_actor_that_is_gone_ends_the_subscriber_though_confirmations_are_awaited() {
    let (mut rig, _) = Rig::reading(settings(), &[1]);
    rig.handed(1);
    rig.feed(more(queued(&[2])));
    assert_eq!(begun(&rig.feed(Event::Delivered(None))), Operation::Release);
}

#[test]
fn what_the_client_has_is_looked_for_as_far_as_one_window_goes() {
    let resumed = |received: u32| {
        let mut rig = Rig::new(Delivery::AtLeastOnce);
        rig.machine.config = Arc::new(Config::builder().window_messages(4).build().unwrap());
        let received = queued(&[received])[0].message_id();
        rig.feed(Event::Presence(SessionState::Connected { generation: 1, received }));
        rig.feed(Event::Opened);
        rig.feed(Event::Claimed);
        rig.feed(more(queued(&[1, 2])));
        let actions = rig.feed(Event::Questions(Vec::new()));
        assert_eq!(behind(&actions), (None, Some((2, mark(2)))));
        rig
    };
    assert_eq!(delivered_ids(&resumed(3).feed(more(queued(&[3, 4])))), [4]);
    assert_eq!(behind(&resumed(4).feed(more(queued(&[3, 4])))), (Some(4), None));
    assert_eq!(delivered_ids(&resumed(5).feed(more(queued(&[3, 4])))), [1, 2, 3, 4], "beyond the window");
    assert_eq!(delivered_ids(&resumed(3).feed(taken(LeaseState::Held, Vec::new()))), [1, 2]);
    let changed = Taken { lease: LeaseState::Held, changed: true, has_more: false, now: NOW, items: Vec::new() };
    assert_eq!(begun(&resumed(3).feed(Event::Taken(changed))), TAKE);
}
