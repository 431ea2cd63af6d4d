//! Deliveries of a subscriber: order, attempts, discards, presence, ownership. The queue is in memory; `redis_queue`
//! has the tests that need a real Redis.

use std::sync::Arc;
use std::time::Duration;

use mcp_courier::{
    ConfigBuilder, Courier, GetSubscriberCount, HandOverError, ListSubscribers, McpSession, Notification, SessionId,
    SubscriberInfo, SubscriberState,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::paused;
use mcp_courier_testing::recorder::{Act, Recorder};
use mcp_courier_testing::waiting;
use serde_json::json;

const TRANSIENT: fn() -> Act = || Act::Fail(HandOverError::Transient("told to".to_owned()));

fn config() -> ConfigBuilder {
    waiting::config()
        .backoff_initial(Duration::from_millis(5))
        .backoff_max(Duration::from_millis(50))
        .hand_over_timeout(Duration::from_millis(200))
}

async fn courier(name: &str, config: ConfigBuilder) -> Courier {
    paused::start(&format!("memory://subscriber-{name}"), config.build().unwrap()).await
}

fn id() -> SessionId {
    SessionId::new("the-session").unwrap()
}

fn numbered(n: usize) -> Notification {
    Notification::new("notifications/x").unwrap().with_params(json!({"n": n})).unwrap()
}

async fn push(courier: &Courier, numbers: impl IntoIterator<Item = usize>) {
    for result in courier.publisher().push_many(numbers.into_iter().map(|n| (id(), numbered(n)))).await {
        result.unwrap();
    }
}

async fn ensure(courier: &Courier, session: &Arc<Recorder>) -> mcp_courier::Ensured {
    courier.ensure_subscriber(&id(), session.clone()).await.unwrap()
}

async fn info(courier: &Courier) -> Option<SubscriberInfo> {
    courier.supervisor().send(ListSubscribers).await.unwrap().pop()
}

/// Waits until what is shown of the subscriber is as wanted.
async fn until_info(courier: &Courier, wanted: impl Fn(&SubscriberInfo) -> bool) -> SubscriberInfo {
    let mut last = None;
    for _ in 0..3000 {
        last = info(courier).await;
        if let Some(info) = last.take_if(|info| wanted(info)) {
            return info;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never as wanted: {last:?}");
}

#[actix::test]
async fn g1_what_fails_twice_is_tried_a_third_time_before_what_follows() {
    let courier = courier("twice", config()).await;
    let session = Recorder::scripted([Act::Take, TRANSIENT(), TRANSIENT()]);
    push(&courier, 1..=4).await;
    ensure(&courier, &session).await;
    session.until_taken(4).await;
    assert_eq!(session.offered(), [1, 2, 2, 2, 3, 4]);
    assert_eq!(session.taken(), [1, 2, 3, 4]);
    let info = until_info(&courier, |i| i.delivered == 4).await;
    assert_eq!((info.discarded, info.last_error.as_deref()), (0, Some("told to")));
}

#[actix::test]
async fn g2_what_always_fails_is_discarded_after_three_attempts_and_counted() {
    let courier = courier("always", config()).await;
    let session = Recorder::scripted([TRANSIENT(), TRANSIENT(), TRANSIENT()]);
    push(&courier, 1..=2).await;
    ensure(&courier, &session).await;
    session.until_taken(1).await;
    assert_eq!(session.offered(), [1, 1, 1, 2]);
    let info = until_info(&courier, |i| i.delivered == 1).await;
    assert_eq!(info.discarded, 1);
    assert!(info.last_error.unwrap().contains("all 3 attempts failed"));
}

#[actix::test]
async fn attempts_survive_a_new_subscriber() {
    let courier = courier("survive", config().backoff_initial(Duration::from_millis(50))).await;
    let first = Recorder::scripted([TRANSIENT()]);
    push(&courier, 1..=1).await;
    ensure(&courier, &first).await;
    first.until_offered(1).await;
    until_info(&courier, |i| i.state == SubscriberState::BackingOff).await;
    let second = Recorder::scripted([TRANSIENT(), TRANSIENT()]);
    ensure(&courier, &second).await;
    let info = until_info(&courier, |i| i.discarded == 1).await;
    assert_eq!(info.delivered, 0);
    assert_eq!(second.outbound().len(), 0);
}

#[actix::test]
async fn g2_what_a_session_rejects_is_discarded_at_once() {
    let courier = courier("rejects", config()).await;
    let session = Recorder::scripted([Act::Fail(HandOverError::Rejected("no".to_owned()))]);
    push(&courier, 1..=2).await;
    ensure(&courier, &session).await;
    session.until_taken(1).await;
    assert_eq!(session.offered(), [1, 2]);
    assert_eq!(until_info(&courier, |i| i.delivered == 1).await.discarded, 1);
}

#[actix::test]
async fn a_panic_of_a_session_is_a_failed_attempt() {
    let courier = courier("panic", config()).await;
    let session = Recorder::scripted([Act::Panic]);
    push(&courier, 1..=2).await;
    ensure(&courier, &session).await;
    session.until_taken(2).await;
    assert_eq!(session.offered(), [1, 1, 2]);
    assert!(until_info(&courier, |i| i.delivered == 2).await.last_error.unwrap().contains("as the script says"));
}

#[actix::test]
async fn g7_a_session_that_never_answers_delays_no_other() {
    let courier = courier("hang", config()).await;
    let stuck = Recorder::new();
    stuck.always(Some(Act::Hang));
    push(&courier, 1..=1).await;
    ensure(&courier, &stuck).await;
    stuck.until_offered(1).await;
    let other_id = SessionId::new("other").unwrap();
    let other = Recorder::new();
    courier.ensure_subscriber(&other_id, other.clone()).await.unwrap();
    courier.publisher().push(&other_id, numbered(7)).await.unwrap();
    other.until_taken(1).await;
    // The stuck one has its three attempts, and the later ones are delivered.
    stuck.until_offered(2).await;
    stuck.always(None);
    stuck.until_taken(1).await;
}

#[actix::test]
async fn ensuring_the_same_object_again_changes_nothing() {
    use mcp_courier::Ensured;
    let courier = courier("same", config()).await;
    let session = Recorder::new();
    assert_eq!(ensure(&courier, &session).await, Ensured::Started);
    assert_eq!(ensure(&courier, &session).await, Ensured::Unchanged);
    assert_eq!(courier.supervisor().send(GetSubscriberCount).await.unwrap(), 1);
    assert_eq!(ensure(&courier, &Recorder::new()).await, Ensured::Replaced);
    assert_eq!(courier.supervisor().send(GetSubscriberCount).await.unwrap(), 1);
}

#[actix::test]
async fn g1_replacing_the_object_again_and_again_loses_and_reorders_nothing() {
    // With threads: each of the twenty ends on one while its successor begins on another.
    let config = config().build().unwrap();
    let courier = Courier::start("memory://subscriber-replace", config).await.unwrap();
    let mut sessions = vec![Recorder::new()];
    ensure(&courier, &sessions[0]).await;
    for round in 0..20 {
        push(&courier, round * 50..(round + 1) * 50).await;
        let next = Recorder::new();
        ensure(&courier, &next).await;
        sessions.push(next);
    }
    let all = || sessions.iter().flat_map(|s| s.taken()).collect::<Vec<_>>();
    eventually("all are taken", 4 * SOON, async || all().len() >= 1000).await;
    // Each is stopped cleanly before its successor begins: nothing is repeated either.
    assert_eq!(all(), (0..1000).collect::<Vec<_>>());
}

#[actix::test]
async fn the_end_of_an_old_object_does_not_stop_its_successor() {
    let courier = courier("identity", config()).await;
    let (old, new) = (Recorder::new(), Recorder::new());
    ensure(&courier, &old).await;
    ensure(&courier, &new).await;
    assert!(!courier.stop_subscriber(&id(), Some(old as Arc<dyn McpSession>)).await);
    push(&courier, 1..=1).await;
    new.until_taken(1).await;
    assert!(courier.stop_subscriber(&id(), Some(new.clone() as Arc<dyn McpSession>)).await);
    assert!(!courier.stop_subscriber(&id(), None).await);
    assert_eq!(courier.supervisor().send(GetSubscriberCount).await.unwrap(), 0);
}

#[actix::test]
async fn g8_what_is_pending_at_a_stop_stays_queued() {
    let courier = courier("stop", config()).await;
    let stuck = Recorder::scripted([Act::Take]);
    push(&courier, 1..=3).await;
    stuck.always(None);
    ensure(&courier, &stuck).await;
    stuck.until_taken(3).await;
    stuck.always(Some(Act::Hang));
    push(&courier, 4..=6).await;
    stuck.until_offered(4).await;
    courier.stop_subscriber(&id(), None).await;
    stuck.always(None);
    let next = Recorder::new();
    ensure(&courier, &next).await;
    next.until_taken(3).await;
    assert_eq!(next.taken(), [4, 5, 6]);
}

#[actix::test]
async fn g6_one_subscriber_more_than_the_limit_is_refused_with_the_limit() {
    let courier = courier("limit", config().dedicated_limit(1).shared_limit(0)).await;
    ensure(&courier, &Recorder::new()).await;
    let other = SessionId::new("other").unwrap();
    let error = courier.ensure_subscriber(&other, Recorder::new()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "as many subscribers run in this process as dedicated_limit (1) and shared_limit (0) allow"
    );
    // Replacing is no new one.
    ensure(&courier, &Recorder::new()).await;
    courier.stop_subscriber(&id(), None).await;
    courier.ensure_subscriber(&other, Recorder::new()).await.unwrap();
}

#[actix::test]
async fn a_session_that_ends_ends_its_subscriber_and_keeps_what_is_queued() {
    let courier = courier("ends", config()).await;
    let session = Recorder::scripted([Act::Fail(HandOverError::Closed)]);
    push(&courier, 1..=2).await;
    ensure(&courier, &session).await;
    session.until_offered(1).await;
    eventually("the subscriber ends", SOON, async || info(&courier).await.is_none()).await;
    let next = Recorder::new();
    ensure(&courier, &next).await;
    next.until_taken(2).await;
    next.presence().ended();
    eventually("the subscriber ends", SOON, async || info(&courier).await.is_none()).await;
}

#[actix::test]
async fn while_the_client_is_away_everything_waits_for_it() {
    let courier = courier("away", config()).await;
    let session = Recorder::new();
    session.presence().disconnected();
    ensure(&courier, &session).await;
    until_info(&courier, |i| i.state == SubscriberState::Parked).await;
    push(&courier, 1..=3).await;
    assert_eq!(courier.publisher().broadcast(&numbered(0)).await.unwrap().len(), 0, "nobody owns the session");
    session.presence().connected(2);
    session.until_taken(3).await;
    session.presence().disconnected();
    until_info(&courier, |i| i.state == SubscriberState::Parked).await;
    push(&courier, 4..=4).await;
    session.presence().connected(3);
    session.until_taken(4).await;
    assert_eq!(session.taken(), [1, 2, 3, 4]);
    assert_eq!(courier.publisher().broadcast(&numbered(5)).await.unwrap().len(), 1);
    session.until_taken(5).await;
}

#[actix::test]
async fn not_ready_is_no_failed_attempt() {
    let courier = courier("not-ready", config().max_attempts(1)).await;
    let session = Recorder::scripted(vec![Act::Fail(HandOverError::NotReady("busy".to_owned())); 5]);
    push(&courier, 1..=2).await;
    ensure(&courier, &session).await;
    session.until_taken(2).await;
    assert_eq!(session.taken(), [1, 2]);
    assert_eq!(until_info(&courier, |i| i.delivered == 2).await.discarded, 0);
}

#[actix::test]
async fn g5_only_what_is_younger_than_its_time_to_live_is_delivered() {
    let courier = courier("expiry", config()).await;
    let session = Recorder::new();
    session.presence().disconnected();
    ensure(&courier, &session).await;
    let short = Duration::from_millis(30);
    for n in 1..=6 {
        let notification = if n % 2 == 0 { numbered(n) } else { numbered(n).with_time_to_live(short).unwrap() };
        courier.publisher().push(&id(), notification).await.unwrap();
    }
    tokio::time::sleep(short * 2).await;
    session.presence().connected(2);
    session.until_taken(3).await;
    assert_eq!(session.taken(), [2, 4, 6]);
    assert_eq!(until_info(&courier, |i| i.delivered == 3).await.discarded, 3);
}

#[actix::test]
async fn g3_a_notification_pushed_again_under_its_id_is_not_delivered_again() {
    let courier = courier("again", config().queue_max_messages(1)).await;
    let session = Recorder::new();
    push(&courier, 1..=1).await;
    let refused = courier.publisher().push(&id(), numbered(2)).await.unwrap_err();
    assert!(refused.to_string().contains("the queue is full: it may hold 1 messages"), "{refused}");
    let twice = *refused.notification;
    ensure(&courier, &session).await;
    // Waiting comes after the acknowledgement: there is room again.
    until_info(&courier, |i| i.delivered == 1 && i.state == SubscriberState::Waiting).await;
    courier.publisher().push(&id(), twice.clone()).await.unwrap();
    session.until_taken(2).await;
    until_info(&courier, |i| i.delivered == 2 && i.state == SubscriberState::Waiting).await;
    courier.publisher().push(&id(), twice).await.unwrap();
    eventually("there is room", SOON, async || courier.publisher().push(&id(), numbered(3)).await.is_ok()).await;
    session.until_taken(3).await;
    assert_eq!(session.taken(), [1, 2, 3]);
}

#[actix::test]
async fn g4_the_newest_claim_owns_and_the_displaced_one_stands_by_until_nobody_does() {
    let config = config().heartbeat(Duration::from_millis(100));
    let (old_server, new_server) = (courier("owner", config.clone()).await, courier("owner", config).await);
    let (old, new) = (Recorder::new(), Recorder::new());
    ensure(&old_server, &old).await;
    push(&old_server, 1..=1).await;
    old.until_taken(1).await;
    // Acknowledged too: unacknowledged messages are repeated when their owner changes.
    until_info(&old_server, |i| i.delivered == 1 && i.state == SubscriberState::Waiting).await;
    ensure(&new_server, &new).await;
    until_info(&old_server, |i| i.state == SubscriberState::StandingBy).await;
    push(&old_server, 2..=5).await;
    new.until_taken(4).await;
    assert_eq!((old.taken(), new.taken()), (vec![1], vec![2, 3, 4, 5]));
    // The new owner leaves: the one that stands by takes over.
    new_server.stop_subscriber(&id(), None).await;
    push(&old_server, 6..=6).await;
    old.until_taken(2).await;
    until_info(&old_server, |i| i.delivered == 2 && i.state == SubscriberState::Waiting).await;
    // Its client opens a newer stream there: it claims.
    ensure(&new_server, &new).await;
    until_info(&old_server, |i| i.state == SubscriberState::StandingBy).await;
    old.presence().connected(2);
    until_info(&new_server, |i| i.state == SubscriberState::StandingBy).await;
    push(&old_server, 7..=7).await;
    old.until_taken(3).await;
    assert_eq!((old.taken(), new.taken()), (vec![1, 6, 7], vec![2, 3, 4, 5]));
}

#[actix::test]
async fn g4_a_displaced_owner_hands_over_at_most_what_is_under_way() {
    let (old_server, new_server) = (courier("under-way", config()).await, courier("under-way", config()).await);
    let (old, new) = (Recorder::new(), Recorder::new());
    old.always(Some(Act::Hang));
    push(&old_server, 1..=100).await;
    ensure(&old_server, &old).await;
    old.until_offered(1).await;
    ensure(&new_server, &new).await;
    new.until_taken(100).await;
    old.always(None);
    until_info(&old_server, |i| i.state == SubscriberState::StandingBy).await;
    assert_eq!(old.offered(), [1]);
    assert_eq!(new.taken(), (1..=100).collect::<Vec<_>>());
}

#[actix::test]
async fn a_subscriber_that_panics_is_started_again() {
    struct Broken(Arc<Recorder>, std::sync::atomic::AtomicUsize);
    #[mcp_courier::async_trait]
    impl McpSession for Broken {
        async fn hand_over(&self, notification: &mcp_courier::Outbound) -> Result<(), HandOverError> {
            self.0.hand_over(notification).await
        }
        fn presence(&self) -> mcp_courier::Presence {
            // The subscriber itself asks this, not the session actor: its panic ends the subscriber.
            let asked = self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            assert!(asked >= 2, "not yet");
            McpSession::presence(&*self.0)
        }
    }
    let courier = courier("panics", config()).await;
    let session = Recorder::new();
    let broken: Arc<dyn McpSession> = Arc::new(Broken(session.clone(), 0.into()));
    push(&courier, 1..=1).await;
    courier.ensure_subscriber(&id(), broken).await.unwrap();
    session.until_taken(1).await;
    assert!(info(&courier).await.unwrap().last_error.unwrap().contains("not yet"));
}

#[actix::test]
async fn a_subscriber_that_panics_for_ever_is_given_up() {
    struct Broken;
    #[mcp_courier::async_trait]
    impl McpSession for Broken {
        async fn hand_over(&self, _: &mcp_courier::Outbound) -> Result<(), HandOverError> {
            Ok(())
        }
        fn presence(&self) -> mcp_courier::Presence {
            panic!("always")
        }
    }
    let courier = courier("given-up", config()).await;
    courier.ensure_subscriber(&id(), Arc::new(Broken)).await.unwrap();
    let count = async || courier.supervisor().send(GetSubscriberCount).await.unwrap();
    eventually("the subscriber is given up", 4 * SOON, async || count().await == 0).await;
}

#[actix::test]
async fn a_shutdown_finishes_what_is_in_hand_starts_nothing_new_and_reports() {
    let courier = courier("shutdown", config()).await;
    let session = Recorder::new();
    push(&courier, 1..=3).await;
    ensure(&courier, &session).await;
    session.until_taken(3).await;
    let report = courier.shutdown(Duration::from_secs(5)).await;
    assert_eq!((report.stopped, report.forced, report.delivered, report.discarded), (1, 0, 3, 0));
    let error = courier.ensure_subscriber(&id(), session.clone()).await.unwrap_err();
    assert_eq!(error.to_string(), "the supervisor is shutting down");
    assert_eq!(courier.publisher().broadcast(&numbered(0)).await.unwrap().len(), 0, "the lease is released");
}

#[actix::test]
async fn a_shutdown_does_not_wait_for_a_stuck_session_and_releases_its_lease() {
    let courier = courier("forced", config().hand_over_timeout(Duration::from_secs(60))).await;
    let stuck = Recorder::new();
    stuck.always(Some(Act::Hang));
    push(&courier, 1..=2).await;
    ensure(&courier, &stuck).await;
    stuck.until_offered(1).await;
    let report = courier.shutdown(Duration::from_millis(50)).await;
    assert_eq!((report.stopped, report.forced, report.delivered), (0, 1, 0));
    assert_eq!(courier.publisher().broadcast(&numbered(0)).await.unwrap().len(), 0, "the lease is released");
}

#[actix::test]
async fn at_most_once_delivers_in_order_and_retries_in_place() {
    let courier = courier("at-most-once", config().delivery(mcp_courier::Delivery::AtMostOnce)).await;
    let session = Recorder::scripted([Act::Take, TRANSIENT(), Act::Take, TRANSIENT(), TRANSIENT(), TRANSIENT()]);
    push(&courier, 1..=4).await;
    ensure(&courier, &session).await;
    session.until_taken(3).await;
    assert_eq!(session.taken(), [1, 2, 4]);
    let info = until_info(&courier, |i| i.delivered == 3).await;
    assert_eq!(info.discarded, 1);
    assert!(courier.stop_subscriber(&id(), None).await);
}

#[actix::test]
async fn what_a_fastmcp_server_would_drop_is_refused_at_the_push_and_what_follows_it_too() {
    let courier = courier("fastmcp", config().fastmcp_servers(true)).await;
    let task = mcp_courier::Task {
        ttl: Some(Duration::from_secs(60)),
        ..mcp_courier::Task::new("t", mcp_courier::TaskStatus::Working, std::time::SystemTime::now())
    };
    let status = || (id(), Notification::task_status(&task));
    let results = courier.publisher().push_many([status(), (id(), numbered(1)), status()]).await;
    let said: Vec<String> =
        results.iter().map(|r| r.as_ref().map_or_else(ToString::to_string, |p| p.waiting.to_string())).collect();
    assert_eq!(said[0], "1");
    assert!(said[1].ends_with("ttl only, and this is notifications/x"), "{}", said[1]);
    assert!(said[2].ends_with("an earlier notification to the same session was refused"), "{}", said[2]);
}
