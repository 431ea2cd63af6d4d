//! Subscribers whose clients are away: what they hold, what they remember, and how they come back. On the queue in memory.

use std::sync::Arc;
use std::time::Duration;

use mcp_courier::{
    ConfigBuilder, Courier, Delivery, DiscardReason, EnsureError, Ensured, GetSubscriberCount, HandOverError,
    ListSubscribers, McpSession, Notification, Receipt, SessionId, SubscriberInfo, SubscriberState, TaskStatus,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::paused;
use mcp_courier_testing::recorder::{Act, Recorder};
use mcp_courier_testing::waiting;
use serde_json::json;

fn config() -> ConfigBuilder {
    waiting::config().backoff_initial(Duration::from_millis(5)).backoff_max(Duration::from_millis(50))
}

async fn courier(name: &str, config: ConfigBuilder) -> Courier {
    paused::start(&format!("memory://parking-{name}"), config.build().unwrap()).await
}

/// A courier whose subscribers have threads of their own, in the time of the world: what it tests is a race.
async fn courier_with_threads(name: &str, config: ConfigBuilder) -> Courier {
    Courier::start(&format!("memory://parking-{name}"), config.build().unwrap()).await.unwrap()
}

fn id(name: &str) -> SessionId {
    SessionId::new(name).unwrap()
}

fn numbered(n: usize) -> Notification {
    Notification::new("notifications/x").unwrap().with_params(json!({"n": n})).unwrap()
}

async fn push(courier: &Courier, session: &str, numbers: impl IntoIterator<Item = usize>) {
    for result in courier.publisher().push_many(numbers.into_iter().map(|n| (id(session), numbered(n)))).await {
        result.unwrap();
    }
}

async fn ensure(courier: &Courier, session: &str, object: &Arc<Recorder>) -> Result<Ensured, EnsureError> {
    courier.ensure_subscriber(&id(session), object.clone()).await
}

async fn count(courier: &Courier) -> usize {
    courier.supervisor().send(GetSubscriberCount).await.unwrap()
}

async fn info(courier: &Courier, session: &str) -> Option<SubscriberInfo> {
    let infos = courier.supervisor().send(ListSubscribers).await.unwrap();
    infos.into_iter().find(|info| info.session == id(session))
}

async fn until_state(courier: &Courier, session: &str, state: SubscriberState) {
    eventually(&format!("{session} is {state:?}"), SOON, async || {
        info(courier, session).await.is_some_and(|info| info.state == state)
    })
    .await;
}

/// A subscriber that has parked, and whose place is free for another.
async fn parked(courier: &Courier, session: &str) -> Arc<Recorder> {
    let object = Recorder::new();
    ensure(courier, session, &object).await.unwrap();
    until_state(courier, session, SubscriberState::Waiting).await;
    object.presence().disconnected();
    until_state(courier, session, SubscriberState::Parked).await;
    object
}

/// Runs another subscriber as soon as there is a place.
async fn ensured_soon(courier: &Courier, session: &str, object: &Arc<Recorder>) {
    eventually("there is a place", SOON, async || ensure(courier, session, object).await.is_ok()).await;
}

#[actix::test]
async fn g6_any_number_of_clients_that_left_leave_all_places_to_others() {
    let courier = courier("places", config().dedicated_limit(2).shared_limit(0)).await;
    let mut gone = Vec::new();
    for n in 0..100 {
        let (name, object) = (format!("gone-{n}"), Recorder::new());
        ensured_soon(&courier, &name, &object).await;
        object.presence().disconnected();
        gone.push(object);
    }
    let (first, second) = (Recorder::new(), Recorder::new());
    ensured_soon(&courier, "first", &first).await;
    ensured_soon(&courier, "second", &second).await;
    let error = ensure(&courier, "third", &Recorder::new()).await.unwrap_err();
    assert_eq!(error, EnsureError::LimitReached { dedicated: 2, shared: 0 });
    assert_eq!(count(&courier).await, 102, "the parked ones are known");
    push(&courier, "first", [1]).await;
    first.until_taken(1).await;
    // All of them are stopped by a shutdown, and counted.
    let report = courier.shutdown(SOON).await;
    assert_eq!((report.stopped, report.forced, report.delivered), (102, 0, 1));
    assert_eq!(count(&courier).await, 0);
}

#[actix::test]
async fn a_client_that_is_back_where_all_places_are_taken_is_refused_and_served_when_one_gets_free() {
    let courier = courier("waits", config().dedicated_limit(1).shared_limit(0)).await;
    let (back, other) = (parked(&courier, "back").await, Recorder::new());
    ensured_soon(&courier, "other", &other).await;
    push(&courier, "back", [1, 2]).await;
    back.presence().connected(2);
    // Its stream asks, and is refused as a newcomer's is.
    assert_eq!(ensure(&courier, "back", &back).await, Err(EnsureError::LimitReached { dedicated: 1, shared: 0 }));
    eventually("its error says so", SOON, async || {
        let info = info(&courier, "back").await.unwrap();
        info.state == SubscriberState::Parked && info.last_error.is_some_and(|e| e.contains("dedicated_limit"))
    })
    .await;
    assert_eq!(back.offered(), [] as [i64; 0]);
    // The other leaves. Nobody asks again.
    other.presence().disconnected();
    back.until_taken(2).await;
    // And the other way round, by a stop.
    push(&courier, "other", [3]).await;
    other.presence().connected(2);
    assert_eq!(ensure(&courier, "other", &other).await, Err(EnsureError::LimitReached { dedicated: 1, shared: 0 }));
    assert!(courier.stop_subscriber(&id("back"), None).await);
    other.until_taken(1).await;
}

#[actix::test]
async fn a_client_that_waited_for_a_place_and_left_again_takes_none() {
    let courier = courier("left-again", config().dedicated_limit(1).shared_limit(0)).await;
    let (back, other) = (parked(&courier, "back").await, Recorder::new());
    ensured_soon(&courier, "other", &other).await;
    for opened in 2..50 {
        back.presence().connected(opened);
        tokio::task::yield_now().await;
        back.presence().disconnected();
    }
    let third = Recorder::new();
    courier.stop_subscriber(&id("other"), None).await;
    ensured_soon(&courier, "third", &third).await;
    push(&courier, "third", [1]).await;
    third.until_taken(1).await;
    until_state(&courier, "back", SubscriberState::Parked).await;
}

#[actix::test]
async fn g1_g2_a_client_that_comes_and_goes_at_any_moment_gets_everything_in_order() {
    let courier = courier_with_threads("flaps", config().dedicated_limit(1).shared_limit(0)).await;
    let session = Recorder::new();
    ensure(&courier, "s", &session).await.unwrap();
    for round in 0..300_usize {
        push(&courier, "s", round * 3..round * 3 + 3).await;
        session.presence().disconnected();
        for _ in 0..fastrand::usize(..4) {
            tokio::task::yield_now().await;
        }
        if round % 7 == 0 {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(..4))).await;
        }
        session.presence().connected(round as u64 + 2);
        if round % 2 == 0 {
            // As its stream does. The place is its own: nobody else is there.
            assert_eq!(ensure(&courier, "s", &session).await, Ok(Ensured::Unchanged));
        }
    }
    session.until_taken(900).await;
    assert_eq!(session.taken(), (0..900).collect::<Vec<_>>());
}

#[actix::test]
async fn g1_a_subscriber_that_is_replaced_or_stopped_while_it_parks_loses_and_reorders_nothing() {
    let courier = courier_with_threads("replaced", config()).await;
    let mut sessions = vec![Recorder::new()];
    ensure(&courier, "s", &sessions[0]).await.unwrap();
    for round in 0..60_usize {
        push(&courier, "s", round * 5..round * 5 + 5).await;
        let old = sessions.last().unwrap();
        old.presence().disconnected();
        match round % 3 {
            0 => {}
            1 => tokio::task::yield_now().await,
            _ => until_state(&courier, "s", SubscriberState::Parked).await,
        }
        let next = Recorder::new();
        let expected = if round % 2 == 0 {
            Ensured::Replaced
        } else {
            assert!(courier.stop_subscriber(&id("s"), Some(old.clone() as Arc<dyn McpSession>)).await);
            Ensured::Started
        };
        assert_eq!(ensure(&courier, "s", &next).await, Ok(expected));
        // The old one comes back, and is nobody's any more.
        old.presence().connected(2);
        sessions.push(next);
    }
    let all = || sessions.iter().flat_map(|s| s.taken()).collect::<Vec<_>>();
    eventually("all are taken", SOON * 2, async || all().len() >= 300).await;
    assert_eq!(all(), (0..300).collect::<Vec<_>>());
    assert_eq!(count(&courier).await, 1);
}

#[actix::test]
async fn a_parked_subscriber_ends_with_its_session_and_by_a_stop() {
    let courier = courier("ends", config()).await;
    for name in ["ended", "left"] {
        let session = parked(&courier, name).await;
        match name {
            "ended" => session.presence().ended(),
            _ => session.presence().detached(),
        }
        eventually("it ends", SOON, async || info(&courier, name).await.is_none()).await;
    }
    let session = parked(&courier, "stopped").await;
    assert!(!courier.stop_subscriber(&id("stopped"), Some(Recorder::new() as Arc<dyn McpSession>)).await);
    assert!(courier.stop_subscriber(&id("stopped"), None).await);
    session.presence().connected(2);
    push(&courier, "stopped", [1]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((count(&courier).await, session.offered().len()), (0, 0));
}

#[actix::test]
async fn g3_what_was_delivered_before_is_known_after_the_client_was_away() {
    let courier = courier("remembers", config().queue_max_messages(1)).await;
    let session = Recorder::new();
    push(&courier, "s", [1]).await;
    // Pushed again by a producer that got no answer: the same id twice.
    let twice = *courier.publisher().push(&id("s"), numbered(2)).await.unwrap_err().notification;
    ensure(&courier, "s", &session).await.unwrap();
    let status = |status: TaskStatus| {
        let params = json!({"taskId": "t", "status": status.as_str(), "n": 3});
        Notification::new("notifications/tasks/status").unwrap().with_params(params).unwrap()
    };
    for (n, notification) in [twice.clone(), status(TaskStatus::Completed)].into_iter().enumerate() {
        until_state(&courier, "s", SubscriberState::Waiting).await;
        courier.publisher().push(&id("s"), notification).await.unwrap();
        session.until_taken(n + 2).await;
    }
    until_state(&courier, "s", SubscriberState::Waiting).await;
    for (opened, notification) in [(2, twice), (3, status(TaskStatus::Working)), (4, numbered(4))] {
        session.presence().disconnected();
        until_state(&courier, "s", SubscriberState::Parked).await;
        courier.publisher().push(&id("s"), notification).await.unwrap();
        session.presence().connected(opened);
        until_state(&courier, "s", SubscriberState::Waiting).await;
    }
    session.until_taken(4).await;
    assert_eq!(session.taken(), [1, 2, 3, 4]);
    let info = info(&courier, "s").await.unwrap();
    assert_eq!((info.delivered, info.discarded), (4, 1));
}

#[actix::test]
async fn g4_an_older_stream_that_receives_again_after_the_client_was_away_claims_nothing() {
    let config = config().heartbeat(Duration::from_millis(100));
    let (old_server, new_server) = (courier("older", config.clone()).await, courier("older", config).await);
    let (old, new) = (Recorder::new(), Recorder::new());
    ensure(&old_server, "s", &old).await.unwrap();
    until_state(&old_server, "s", SubscriberState::Waiting).await;
    ensure(&new_server, "s", &new).await.unwrap();
    until_state(&old_server, "s", SubscriberState::StandingBy).await;
    old.presence().disconnected();
    until_state(&old_server, "s", SubscriberState::Parked).await;
    old.presence().connected(1);
    until_state(&old_server, "s", SubscriberState::StandingBy).await;
    push(&new_server, "s", [1]).await;
    new.until_taken(1).await;
    // A newer one does.
    old.presence().disconnected();
    old.presence().connected(2);
    until_state(&new_server, "s", SubscriberState::StandingBy).await;
    push(&new_server, "s", [2]).await;
    old.until_taken(1).await;
}

#[actix::test]
async fn a_session_that_is_not_ready_though_its_client_is_there_backs_off_and_keeps_its_place() {
    for delivery in [Delivery::AtLeastOnce, Delivery::AtMostOnce] {
        let courier =
            courier(&format!("not-ready-{delivery:?}"), config().dedicated_limit(1).shared_limit(0).delivery(delivery))
                .await;
        let session = Recorder::new();
        session.always(Some(Act::Fail(HandOverError::NotReady("busy".to_owned()))));
        ensure(&courier, "s", &session).await.unwrap();
        push(&courier, "s", [1]).await;
        session.until_offered(2).await;
        until_state(&courier, "s", SubscriberState::BackingOff).await;
        for _ in 0..50 {
            assert_ne!(info(&courier, "s").await.unwrap().state, SubscriberState::Parked, "{delivery:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(
            ensure(&courier, "other", &Recorder::new()).await,
            Err(EnsureError::LimitReached { dedicated: 1, shared: 0 })
        );
        session.always(None);
        session.until_taken(1).await;
    }
}

#[actix::test]
async fn g6_what_is_in_hand_at_most_once_expires_while_the_client_is_away() {
    let life = Duration::from_millis(500);
    let config = config().delivery(Delivery::AtMostOnce).time_to_live(life).dead_letters(10);
    let courier = courier("in-hand-expires", config).await;
    let (session, publisher) = (Recorder::new(), courier.publisher());
    session.always(Some(Act::Fail(HandOverError::NotReady("its stream has ended".to_owned()))));
    ensure(&courier, "s", &session).await.unwrap();
    let pushed = publisher.push(&id("s"), numbered(1).with_receipt()).await.unwrap().id;
    session.until_offered(1).await;
    session.presence().disconnected();
    until_state(&courier, "s", SubscriberState::Parked).await;
    session.always(None);
    assert!(!publisher.receipt(&id("s"), pushed).await.unwrap().is_settled());
    eventually("it is discarded", SOON, async || info(&courier, "s").await.unwrap().discarded == 1).await;
    assert_eq!(info(&courier, "s").await.unwrap().state, SubscriberState::Parked);
    eventually("its receipt says so", SOON, async || {
        let receipt = publisher.receipt(&id("s"), pushed).await.unwrap();
        matches!(receipt, Receipt::Discarded { reason: DiscardReason::Expired, .. })
    })
    .await;
    assert_eq!(publisher.dead_letters().list(&id("s"), 0, 10).await.unwrap().len(), 1);
    session.presence().connected(2);
    push(&courier, "s", [2]).await;
    session.until_taken(1).await;
    assert_eq!(session.taken(), [2]);
}

#[actix::test]
async fn what_is_in_hand_at_most_once_waits_for_the_client_without_a_place() {
    let courier = courier("in-hand", config().dedicated_limit(1).shared_limit(0).delivery(Delivery::AtMostOnce)).await;
    let session = Recorder::new();
    session.always(Some(Act::Fail(HandOverError::NotReady("its stream has ended".to_owned()))));
    ensure(&courier, "s", &session).await.unwrap();
    push(&courier, "s", [1, 2]).await;
    session.until_offered(1).await;
    session.presence().disconnected();
    let other = Recorder::new();
    ensured_soon(&courier, "other", &other).await;
    session.always(None);
    assert!(courier.stop_subscriber(&id("other"), None).await);
    session.presence().connected(2);
    session.until_taken(2).await;
    assert_eq!(session.taken(), [1, 2]);
}
