//! Supervision of subscribers that are stopped, replaced and restarted at awkward moments, also where the machine has
//! no thread left. The queue is in memory.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mcp_courier::{
    ConfigBuilder, Courier, EnsureError, GetSubscriberCount, HandOverError, ListSubscribers, McpSession, Notification,
    Outbound, Presence, SessionId, SubscriberState, async_trait,
};
use mcp_courier_testing::child;
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::in_own_process;
use mcp_courier_testing::log;
use mcp_courier_testing::paused;
use mcp_courier_testing::recorder::{Act, Recorder};
use mcp_courier_testing::waiting;
use serde_json::json;
use tokio::time::Instant;

fn config() -> ConfigBuilder {
    waiting::config().backoff_initial(Duration::from_millis(5)).backoff_max(Duration::from_millis(50))
}

async fn courier(name: &str, config: ConfigBuilder) -> Courier {
    paused::start(&format!("memory://supervision-{name}"), config.build().unwrap()).await
}

/// A courier whose subscribers have threads of their own, in the time of the world.
async fn courier_with_threads(name: &str) -> Courier {
    let config = config().dedicated_limit(1000).shared_limit(0).build().unwrap();
    Courier::start(&format!("memory://supervision-{name}"), config).await.unwrap()
}

fn id() -> SessionId {
    SessionId::new("the-session").unwrap()
}

async fn push(courier: &Courier, numbers: impl IntoIterator<Item = usize>) {
    let numbered = |n| Notification::new("notifications/x").unwrap().with_params(json!({"n": n})).unwrap();
    for result in courier.publisher().push_many(numbers.into_iter().map(|n| (id(), numbered(n)))).await {
        result.unwrap();
    }
}

async fn count(courier: &Courier) -> usize {
    courier.supervisor().send(GetSubscriberCount).await.unwrap()
}

async fn state(courier: &Courier) -> Option<SubscriberState> {
    courier.supervisor().send(ListSubscribers).await.unwrap().pop().map(|info| info.state)
}

/// A session that takes its time with each, as one that writes to a slow client does.
struct Slow(Arc<Recorder>, Duration);

#[async_trait]
impl McpSession for Slow {
    async fn hand_over(&self, notification: &Outbound) -> Result<(), HandOverError> {
        self.0.hand_over(notification).await?;
        tokio::time::sleep(self.1).await;
        Ok(())
    }
}

#[actix::test]
async fn g8_a_stop_waits_for_what_is_in_hand_only_though_the_lease_is_renewed_meanwhile() {
    let courier = courier("in-hand", config().heartbeat(Duration::from_millis(100))).await;
    let session = Recorder::new();
    push(&courier, 0..20).await;
    let slow = Arc::new(Slow(session.clone(), Duration::from_millis(400)));
    courier.ensure_subscriber(&id(), slow).await.unwrap();
    session.until_taken(1).await;
    assert!(courier.stop_subscriber(&id(), None).await);
    assert_eq!(session.taken(), [0]);
    let next = Recorder::new();
    courier.ensure_subscriber(&id(), next.clone()).await.unwrap();
    next.until_taken(19).await;
    assert_eq!(next.taken(), (1..20).collect::<Vec<_>>());
}

#[actix::test]
async fn a_client_that_came_back_many_times_waits_for_all_its_stuck_predecessors_at_once() {
    let courier = courier("predecessors", config()).await;
    push(&courier, [1]).await;
    for _ in 0..4 {
        let stuck = Recorder::new();
        stuck.always(Some(Act::Hang));
        courier.ensure_subscriber(&id(), stuck.clone()).await.unwrap();
        stuck.until_offered(1).await;
    }
    let begun = Instant::now();
    let last = Recorder::new();
    courier.ensure_subscriber(&id(), last.clone()).await.unwrap();
    last.until_taken(1).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[actix::test]
async fn a_session_that_is_never_ready_is_asked_ever_less_often() {
    let backoff = config().backoff_initial(Duration::from_millis(5)).backoff_max(Duration::from_millis(500));
    let courier = courier("never-ready", backoff).await;
    let session = Recorder::new();
    session.always(Some(Act::Fail(HandOverError::NotReady("busy".to_owned()))));
    push(&courier, [1]).await;
    courier.ensure_subscriber(&id(), session.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let offered = session.offered().len();
    assert!(offered <= 15, "offered {offered} times in a second");
    session.always(None);
    session.until_taken(1).await;
}

/// Session whose subscriber panics while a flag is set.
struct Broken(Arc<Recorder>, AtomicBool);

#[async_trait]
impl McpSession for Broken {
    async fn hand_over(&self, notification: &Outbound) -> Result<(), HandOverError> {
        self.0.hand_over(notification).await
    }

    fn presence(&self) -> Presence {
        assert!(!self.1.load(Ordering::Relaxed), "not yet");
        McpSession::presence(&*self.0)
    }
}

/// A subscriber that has panicked and pauses before it is started again.
async fn pausing(name: &str, pause: Duration) -> (Courier, Arc<Broken>) {
    let courier = courier(name, config().backoff_initial(pause).backoff_max(pause)).await;
    let broken = Arc::new(Broken(Recorder::new(), true.into()));
    courier.ensure_subscriber(&id(), broken.clone()).await.unwrap();
    eventually("it has panicked", SOON, || async {
        let infos = courier.supervisor().send(ListSubscribers).await.unwrap();
        infos.first().is_some_and(|info| info.last_error.is_some())
    })
    .await;
    broken.1.store(false, Ordering::Relaxed);
    (courier, broken)
}

#[actix::test]
async fn a_subscriber_that_is_stopped_while_it_pauses_before_a_restart_stays_stopped() {
    let pause = Duration::from_millis(300);
    let (courier, _broken) = pausing("stopped-in-pause", pause).await;
    assert_eq!(count(&courier).await, 1, "it runs, if with a pause");
    assert!(courier.stop_subscriber(&id(), None).await);
    tokio::time::sleep(pause * 2).await;
    assert_eq!(count(&courier).await, 0);
}

#[actix::test]
async fn a_subscriber_that_is_replaced_while_it_pauses_before_a_restart_does_not_come_back() {
    let pause = Duration::from_millis(300);
    let (courier, broken) = pausing("replaced-in-pause", pause).await;
    let next = Recorder::new();
    courier.ensure_subscriber(&id(), next.clone()).await.unwrap();
    push(&courier, [1]).await;
    next.until_taken(1).await;
    assert!(courier.stop_subscriber(&id(), None).await);
    push(&courier, [2]).await;
    tokio::time::sleep(pause * 2).await;
    assert_eq!(count(&courier).await, 0);
    assert_eq!(broken.0.offered(), [] as [i64; 0]);
}

#[actix::test]
async fn a_subscriber_that_pauses_before_a_restart_counts_against_the_limit_and_is_restarted() {
    let pause = Duration::from_millis(300);
    let (courier, broken) = pausing("counted-in-pause", pause).await;
    push(&courier, [1]).await;
    broken.0.until_taken(1).await;
    assert_eq!(count(&courier).await, 1);
    assert_eq!(courier.shutdown(SOON).await.stopped, 1);
}

#[actix::test]
async fn a_fault_of_many_shared_subscribers_is_logged_a_few_times() {
    in_own_process!();
    log::begin_with("mcp_courier=warn");
    let pause = Duration::from_millis(100);
    let config = config().dedicated_limit(0).shared_limit(1000).backoff_initial(pause).backoff_max(pause);
    let courier = courier("many-faults", config).await;
    let broken: Vec<_> = (0..100).map(|_| Arc::new(Broken(Recorder::new(), true.into()))).collect();
    for (n, session) in broken.iter().enumerate() {
        let id = SessionId::new(format!("many-{n}")).unwrap();
        courier.ensure_subscriber(&id, session.clone()).await.unwrap();
    }
    eventually("all have failed", SOON, async || {
        let infos = courier.supervisor().send(ListSubscribers).await.unwrap();
        infos.iter().all(|info| info.last_error.is_some())
    })
    .await;
    broken.iter().for_each(|session| session.1.store(false, Ordering::Relaxed));
    let logged = log::lines(&["a subscriber failed; it is started again"]).len();
    assert!((1..=10).contains(&logged), "{logged} lines");
    eventually("all are started again", SOON, async || {
        let infos = courier.supervisor().send(ListSubscribers).await.unwrap();
        infos.iter().all(|info| info.state == SubscriberState::Waiting)
    })
    .await;
}

/// Session that blocks its thread for a given time.
struct Blocking(Arc<AtomicBool>);

#[async_trait]
impl McpSession for Blocking {
    async fn hand_over(&self, _: &Outbound) -> Result<(), HandOverError> {
        while self.0.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

#[test]
fn a_process_ends_after_a_shutdown_though_a_session_blocks_its_thread_for_ever() {
    let blocks = Arc::new(AtomicBool::new(true));
    let session = Arc::new(Blocking(Arc::clone(&blocks)));
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        actix::System::new().block_on(async {
            let courier = courier_with_threads("blocks").await;
            push(&courier, [1]).await;
            courier.ensure_subscriber(&id(), session).await.unwrap();
            eventually("it delivers", SOON, || async { state(&courier).await == Some(SubscriberState::Delivering) })
                .await;
            assert_eq!(courier.shutdown(Duration::from_millis(50)).await.forced, 1);
        });
        ended.send(()).unwrap();
    });
    let end = end.recv_timeout(Duration::from_secs(10));
    blocks.store(false, Ordering::Relaxed);
    end.expect("the system ends");
}

/// Not a test: what runs with few descriptors.
#[actix::test]
#[ignore = "the program of a child process"]
async fn process_with_few_descriptors() {
    let courier = courier_with_threads("few").await;
    let first = Recorder::new();
    courier.ensure_subscriber(&id(), first.clone()).await.unwrap();
    let mut refused = 0;
    for n in 0..100 {
        let other = SessionId::new(format!("other-{n}")).unwrap();
        if let Err(error) = courier.ensure_subscriber(&other, Recorder::new()).await {
            assert!(matches!(error, EnsureError::NoArbiter(_)), "{error}");
            refused += 1;
        }
    }
    assert!(refused > 0, "there were enough descriptors");
    assert_eq!(count(&courier).await, 101 - refused);
    push(&courier, [1]).await;
    first.until_taken(1).await;
}

#[test]
fn g6_where_no_thread_can_be_had_the_caller_is_told_and_the_others_go_on() {
    succeeds_with_few_descriptors("process_with_few_descriptors");
}

/// Not a test: what runs with few descriptors.
#[actix::test]
#[ignore = "the program of a child process"]
async fn process_whose_client_returns_with_few_descriptors() {
    log::begin_with("mcp_courier=debug");
    let courier = courier_with_threads("returns").await;
    let back = Recorder::new();
    courier.ensure_subscriber(&id(), back.clone()).await.unwrap();
    eventually("it waits", SOON, async || state(&courier).await == Some(SubscriberState::Waiting)).await;
    back.presence().disconnected();
    eventually("it is parked", SOON, async || state(&courier).await == Some(SubscriberState::Parked)).await;
    let others: Vec<_> = (0..100).map(|n| SessionId::new(format!("other-{n}")).unwrap()).collect();
    let mut refused = 0;
    for other in &others {
        refused += usize::from(courier.ensure_subscriber(other, Recorder::new()).await.is_err());
    }
    assert!(refused > 0, "there were enough descriptors");
    // It comes back many times, and there is no thread for it.
    for opened in 2..60 {
        back.presence().connected(opened);
        tokio::time::sleep(Duration::from_millis(1)).await;
        back.presence().disconnected();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    back.presence().connected(60);
    let tries = || log::lines(&["starting a parked subscriber failed"]).len();
    eventually("it is tried", SOON, async || tries() > 0).await;
    let (before, begun) = (tries(), Instant::now());
    eventually("it is tried again", SOON, async || tries() > before + 3).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (tried, pauses) = (tries() - before, begun.elapsed().as_millis() as usize / 50);
    assert!(tried <= pauses + 2, "{tried} tries in {pauses} pauses");
    push(&courier, [1]).await;
    courier.stop_subscriber(&others[0], None).await;
    back.until_taken(1).await;
}

#[test]
fn a_client_that_returns_many_times_where_no_thread_can_be_had_is_tried_once_a_pause() {
    succeeds_with_few_descriptors("process_whose_client_returns_with_few_descriptors");
}

fn succeeds_with_few_descriptors(program: &str) {
    let program = child::program(module_path!(), program);
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 100; exec \"$0\" \"$@\""])
        .arg(program.get_program())
        .args(program.get_args())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&output.stdout);
    assert!(output.contains("1 passed"), "{output}");
}
