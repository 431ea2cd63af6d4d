//! Clauses 1, 2 and 9: order, bounds, and how long things live.

use std::time::{Duration, SystemTime};

use mcp_courier::testing::backend::ProcessId;
use mcp_courier::{Notification, Principal, PushRefusal, QueueLimit, SessionId, SessionStatus};
use mcp_courier_testing::eventually::assert_about;

use super::place::{Place, config, delivered, envelopes, note, numbers, push, session};

pub(crate) async fn batches_come_in_the_order_of_the_pushes(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().batch_messages(40)).await;
    push(&publisher, 0..230).await;
    for n in 230..250 {
        push(&publisher, [n]).await;
    }
    let mut seen = Vec::new();
    let mut taken = owner.take().await;
    while !taken.items.is_empty() {
        seen.extend(numbers(&taken));
        taken = owner.take_after(&delivered(&taken, taken.items.len())).await;
        assert!(!taken.changed);
    }
    assert_eq!(seen, (0..250).collect::<Vec<_>>());
}

pub(crate) async fn sessions_that_are_pushed_to_together_get_each_their_own(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(config()).await;
    let other = SessionId::new("another").unwrap();
    let both = (0..20).map(|n| (if n % 3 == 0 { other.clone() } else { session() }, note(n)));
    let pushed = publisher.push_many(both).await;
    let waiting: Vec<_> = pushed.into_iter().map(|p| p.unwrap().waiting).collect();
    assert_eq!(waiting[..6], [1, 1, 2, 2, 3, 4], "each counts its own session");
    assert_eq!(numbers(&owner.take().await), (0..20).filter(|n| n % 3 != 0).collect::<Vec<_>>());
    owner.consumer = queue.open(&other, owner.token, owner.permit.clone()).await.unwrap();
    assert_eq!(numbers(&owner.take().await), (0..20).filter(|n| n % 3 == 0).collect::<Vec<_>>());
}

pub(crate) async fn session_ids_that_look_like_keys_do_not_collide(place: &Place) {
    let (publisher, queue, owner) = place.pair(config()).await;
    let ids = ["a", "a:lease", "{a}", "a%3Alease", "{mcp-courier:notifications:a}:lease", "*"]
        .map(|id| SessionId::new(id).unwrap());
    for (n, id) in ids.iter().enumerate() {
        publisher.push(id, note(n)).await.unwrap();
        assert!(queue.claim_if_absent(id, owner.token).await.unwrap().is_held());
    }
    for (n, id) in ids.iter().enumerate() {
        let mut consumer = queue.open(id, owner.token, owner.permit.clone()).await.unwrap();
        assert_eq!(numbers(&consumer.take(None).await.unwrap()), [n], "{id:?}");
    }
}

pub(crate) async fn what_is_queued_is_stamped_by_the_queues_clock(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().time_to_live(Duration::from_secs(7))).await;
    push(&publisher, [0]).await;
    let lives = [1, 999, 1_500, 86_400_000].map(Duration::from_millis);
    for life in lives {
        publisher.push(&session(), note(1).with_time_to_live(life).unwrap()).await.unwrap();
    }
    let taken = owner.take().await;
    for (envelope, life) in envelopes(&taken).iter().zip([Duration::from_secs(7)].into_iter().chain(lives)) {
        let enqueued_at = envelope.enqueued_at.unwrap();
        assert_eq!(envelope.expires_at.unwrap().since(enqueued_at), life);
        assert_eq!(envelope.attempt, 0);
        assert_about(enqueued_at.to_system(), taken.now.to_system());
    }
    assert_about(taken.now.to_system(), SystemTime::now());
}

pub(crate) async fn a_queue_full_of_messages_refuses_and_what_came_back_can_be_pushed_again_in_order(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().queue_max_messages(3)).await;
    let mut results = publisher.push_many((0..5).map(|n| (session(), note(n)))).await;
    let refused: Vec<_> = results.drain(3..).map(Result::unwrap_err).collect();
    let waiting: Vec<_> = results.into_iter().map(|r| r.unwrap().waiting).collect();
    assert_eq!(waiting, [1, 2, 3]);
    assert!(matches!(refused[0].reason, PushRefusal::QueueFull(QueueLimit::Messages(3))));
    assert!(matches!(refused[1].reason, PushRefusal::AfterRefused));
    let ids: Vec<_> = refused.iter().map(|e| e.notification.id().unwrap()).collect();

    let taken = owner.take().await;
    assert_eq!(numbers(&taken), [0, 1, 2]);
    owner.take_after(&delivered(&taken, 2)).await;
    for again in publisher.push_many(refused.into_iter().map(|e| (e.session, *e.notification))).await {
        again.unwrap();
    }
    let taken = owner.take().await;
    assert_eq!(numbers(&taken), [2, 3, 4]);
    assert_eq!(envelopes(&taken)[1..].iter().map(|e| e.id).collect::<Vec<_>>(), ids, "they keep their ids");
}

pub(crate) async fn after_a_refusal_nothing_more_of_a_call_is_queued_however_long_it_is(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().queue_max_messages(120).batch_messages(1000)).await;
    let results = publisher.push_many((0..350).map(|n| (session(), note(n)))).await;
    let reasons: Vec<_> = results.into_iter().map(|result| result.map_err(|e| e.reason)).collect();
    assert!(reasons[..120].iter().all(Result::is_ok));
    assert!(matches!(reasons[120], Err(PushRefusal::QueueFull(QueueLimit::Messages(120)))), "{:?}", reasons[120]);
    assert!(reasons[121..].iter().all(|reason| matches!(reason, Err(PushRefusal::AfterRefused))));
    assert_eq!(numbers(&owner.take().await), (0..120).collect::<Vec<_>>());
}

pub(crate) async fn a_queue_full_of_bytes_refuses_and_is_never_beyond_its_bound(place: &Place) {
    const BOUND: usize = 4096;
    let bounds = config().queue_max_bytes(BOUND).message_max_bytes(600).batch_messages(1000);
    let (publisher, _queue, mut owner) = place.pair(bounds).await;
    let mut queued = 0;
    let full = loop {
        match publisher.push(&session(), note(queued)).await {
            Ok(_) => queued += 1,
            Err(error) => break error.reason,
        }
    };
    assert!(matches!(full, PushRefusal::QueueFull(QueueLimit::Bytes(BOUND))), "{full}");
    let taken = owner.take().await;
    let bytes: usize = taken.items.iter().map(|item| item.mark.length).sum();
    assert_eq!(taken.items.len(), queued);
    assert!(bytes <= BOUND && bytes > BOUND / 2, "{bytes}");
    // What is removed makes room.
    owner.take_after(&delivered(&taken, queued)).await;
    push(&publisher, [0]).await;

    // In one call no more than one by one.
    let results = publisher.push_many((0..100).map(|n| (session(), note(n)))).await;
    let together = 1 + results.iter().filter(|r| r.is_ok()).count();
    // One by one the allocations of Redis count, which are up to a quarter larger than their content.
    let rounding = if place.is_sealed() { 2 } else { 1 };
    assert!(together.abs_diff(queued) <= rounding, "{together} {queued}");
    assert!(results[..together - 1].iter().all(Result::is_ok));
}

pub(crate) async fn a_message_that_is_too_large_stops_its_session_and_no_other(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().message_max_bytes(600)).await;
    let other = SessionId::new("another").unwrap();
    let large = note(1).with_meta(serde_json::json!({"x": "x".repeat(600)})).unwrap();
    let batch = vec![(session(), note(0)), (session(), large), (other.clone(), note(2)), (session(), note(3))];
    let results: Vec<_> = publisher.push_many(batch).await.into_iter().map(|r| r.map_err(|e| e.reason)).collect();
    assert!(results[0].is_ok() && results[2].is_ok());
    assert!(matches!(results[1], Err(PushRefusal::TooLarge { bytes, limit: 600 }) if bytes > 600), "{results:?}");
    assert!(matches!(results[3], Err(PushRefusal::AfterRefused)), "{results:?}");
    assert_eq!(numbers(&owner.take().await), [0]);
}

pub(crate) async fn a_notification_that_stands_twice_in_a_call_is_queued_once(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().queue_max_messages(3)).await;
    push(&publisher, 0..3).await;
    let refused = publisher.push(&session(), note(3)).await.unwrap_err().notification;
    // Each is refused as the first one is.
    let again = || (session(), (*refused).clone());
    let reasons: Vec<_> =
        publisher.push_many([again(), again()]).await.into_iter().map(|result| result.unwrap_err().reason).collect();
    assert!(matches!(reasons[..], [PushRefusal::QueueFull(_), PushRefusal::AfterRefused]), "{reasons:?}");

    let taken = owner.take().await;
    owner.take_after(&delivered(&taken, 3)).await;
    let other = SessionId::new("another").unwrap();
    let call = [again(), (session(), note(4)), again(), (other, (*refused).clone())];
    let pushed: Vec<_> = publisher.push_many(call).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(pushed[0], pushed[2], "it is answered like the first");
    assert_eq!((pushed[3].id, pushed[3].waiting), (pushed[0].id, 1), "another session gets its own");
    // Of two with one id and one time a client could not say which it has.
    assert_eq!(numbers(&owner.take().await), [3, 4]);
}

pub(crate) async fn a_probe_leaves_nothing_behind_and_lengths_count_what_is_queued(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..3).await;
    queue.probe().await.unwrap();
    assert_eq!(numbers(&owner.take().await), [0, 1, 2]);
    #[cfg(feature = "metrics")]
    {
        let other = mcp_courier::SessionId::new("other").unwrap();
        assert_eq!(queue.lengths(&[other, session()]).await.unwrap(), [0, 3]);
        assert!(queue.lengths(&[]).await.unwrap().is_empty());
    }
    owner.settle().await;
}

pub(crate) async fn pushing_nothing_gives_nothing(place: &Place) {
    assert!(place.publisher(config()).await.push_many([]).await.is_empty());
}

pub(crate) async fn a_short_lived_message_does_not_cut_the_life_of_a_long_lived_one(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().expiry_grace(Duration::ZERO)).await;
    for (n, life) in [(0, Duration::from_secs(3600)), (1, Duration::from_millis(200))] {
        publisher.push(&session(), note(n).with_time_to_live(life).unwrap()).await.unwrap();
    }
    // Looking must not be what keeps it alive: nobody looks before the time is over.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let taken = owner.take().await;
    assert_eq!(numbers(&taken), [0, 1]);
    let expired: Vec<_> = envelopes(&taken).iter().map(|e| e.is_expired(taken.now)).collect();
    assert_eq!(expired, [false, true]);
}

pub(crate) async fn what_nobody_takes_goes_when_the_last_of_it_has_expired(place: &Place) {
    let publisher = place.publisher(config().expiry_grace(Duration::ZERO)).await;
    for life in [50, 100] {
        publisher.push(&session(), note(0).with_time_to_live(Duration::from_millis(life)).unwrap()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let pushed = publisher.push(&session(), note(7)).await.unwrap();
    assert_eq!(pushed.waiting, 1, "nothing of it is left");
}

pub(crate) async fn a_push_says_whether_its_session_is_owned_known_or_unknown(place: &Place) {
    let (publisher, queue, owner) = place.pair(config()).await;
    let [parked, ended, never] = ["parked", "ended", "never"].map(|id| SessionId::new(id).unwrap());
    for session in [&parked, &ended] {
        queue.store_session(session, "{}").await.unwrap();
    }
    queue.end_session(&ended, ProcessId::new(), true).await.unwrap();
    let anothers = session().bound_to(Principal::new("mallory").unwrap());
    let expected = [
        (session(), SessionStatus::Owned),
        (parked.clone(), SessionStatus::Known),
        (ended, SessionStatus::Unknown),
        (never, SessionStatus::Unknown),
        (anothers, SessionStatus::Unknown),
        (parked.clone(), SessionStatus::Known),
    ];
    for (session, status) in &expected {
        let pushed = publisher.push(session, note(0)).await.unwrap();
        assert_eq!(pushed.session, *status, "{session}");
    }
    assert_eq!(publisher.pushed_to_unknown(), 3);
    let together = publisher.clone().push_many(expected.iter().map(|(session, _)| (session.clone(), note(1)))).await;
    let statuses: Vec<_> = together.into_iter().map(|pushed| pushed.unwrap().session).collect();
    assert_eq!(statuses, expected.map(|(_, status)| status));
    assert_eq!(publisher.pushed_to_unknown(), 6, "clones count together");
    let everyone = publisher.broadcast(&note(2)).await.unwrap();
    let statuses: Vec<_> = everyone.into_iter().map(|pushed| pushed.unwrap().session).collect();
    assert_eq!(statuses, [SessionStatus::Owned]);
    // The owner goes, and nothing remembers its session.
    assert!(queue.release(&session(), owner.token).await.unwrap());
    assert_eq!(publisher.push(&session(), note(3)).await.unwrap().session, SessionStatus::Unknown);
    // What was pushed in time is there for a session that begins later.
    assert!(queue.claim_if_absent(&parked, owner.token).await.unwrap().is_held());
    assert_eq!(publisher.push(&parked, note(3)).await.unwrap().session, SessionStatus::Owned);
    let mut consumer = queue.open(&parked, owner.token, owner.permit.clone()).await.unwrap();
    assert_eq!(numbers(&consumer.take(None).await.unwrap()), [0, 0, 1, 1, 3]);
}

pub(crate) async fn of_sessions_of_fastmcp_servers_nothing_is_said(place: &Place) {
    // FastMCP's servers open nothing, so the settings refuse the combination.
    if place.is_sealed() {
        return;
    }
    let publisher = place.publisher(config().fastmcp_servers(true)).await;
    let params = serde_json::json!({
        "taskId": "7", "status": "working", "createdAt": "1970-01-01T00:00:00Z", "lastUpdatedAt": "1970-01-01T00:00:00Z",
        "ttl": 1000,
    });
    let status = Notification::new("notifications/tasks/status").unwrap().with_params(params).unwrap();
    assert_eq!(publisher.push(&session(), status).await.unwrap().session, SessionStatus::NotRead);
    assert_eq!(publisher.pushed_to_unknown(), 0);
}
