//! Trouble that a user's own code makes: sessions that panic, never answer, or block their thread, in each of their
//! methods; and stops, replacements and shutdowns in the midst of it. On a real Redis. Each test counts the threads of
//! a process of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use mcp_courier::{
    Answer, AskError, ConfigBuilder, Courier, Elicitation, GetSubscriberCount, HandOverError, ListSubscribers,
    McpSession, Notification, Outbound, Presence, Question, SessionId, TaskKey, async_trait,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::in_own_process;
use mcp_courier_testing::process::Process;
use mcp_courier_testing::recorder::Recorder;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use serde_json::{Value, json};

/// Time that a shutdown may take beyond its drain: two seconds for leases, two for threads.
const REST: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Method {
    HandOver,
    Confirm,
    Elicit,
    Presence,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Trouble {
    Panics,
    NeverAnswers,
    BlocksItsThread,
    PanicsWhenDropped,
}

use Method::{Confirm, Elicit, HandOver};
use Trouble::{BlocksItsThread, NeverAnswers, Panics, PanicsWhenDropped};

const ALL: &[(Method, Trouble)] = &[
    (HandOver, Panics),
    (HandOver, NeverAnswers),
    (HandOver, BlocksItsThread),
    (HandOver, PanicsWhenDropped),
    (Confirm, Panics),
    (Confirm, NeverAnswers),
    (Confirm, BlocksItsThread),
    (Elicit, Panics),
    (Elicit, NeverAnswers),
    (Elicit, BlocksItsThread),
    (Method::Presence, Panics),
];

/// A session with one trouble. Everything else it does well.
struct Troubled {
    method: Method,
    trouble: Trouble,
    met: AtomicUsize,
    recorder: Arc<Recorder>,
    blocked: Mutex<bool>,
    freed: Condvar,
}

struct PanicOnDrop;

impl Drop for PanicOnDrop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("as it is dropped");
        }
    }
}

impl Troubled {
    fn new((method, trouble): (Method, Trouble)) -> Arc<Self> {
        let (met, blocked) = (AtomicUsize::new(0), Mutex::new(trouble == BlocksItsThread));
        Arc::new(Self { method, trouble, met, recorder: Recorder::new(), blocked, freed: Condvar::new() })
    }

    async fn at(&self, method: Method) {
        if method != self.method {
            return;
        }
        self.met.fetch_add(1, Ordering::Relaxed);
        match self.trouble {
            Panics => panic!("as it was told"),
            NeverAnswers => std::future::pending().await,
            BlocksItsThread => drop(self.freed.wait_while(self.blocked.lock().unwrap(), |blocked| *blocked).unwrap()),
            PanicsWhenDropped => {
                let _dropped = PanicOnDrop;
                std::future::pending().await
            }
        }
    }

    async fn until_met(&self) {
        eventually("it meets its trouble", SOON, || async { self.met.load(Ordering::Relaxed) > 0 }).await;
    }

    fn free(&self) {
        *self.blocked.lock().unwrap() = false;
        self.freed.notify_all();
    }

    /// Returns whether a stop must be enforced. A session that panics ends by itself.
    fn is_stuck(&self) -> bool {
        self.trouble != Panics && (self.method != Elicit || self.trouble == BlocksItsThread)
    }
}

#[async_trait]
impl McpSession for Troubled {
    async fn hand_over(&self, notification: &Outbound) -> Result<(), HandOverError> {
        self.at(HandOver).await;
        self.recorder.hand_over(notification).await
    }

    async fn confirm(&self) -> Result<(), HandOverError> {
        self.at(Confirm).await;
        Ok(())
    }

    async fn elicit(&self, _: &Question) -> Result<Answer, AskError> {
        self.at(Elicit).await;
        Ok(Answer::Decline)
    }

    fn presence(&self) -> Presence {
        if self.method == Method::Presence {
            self.met.fetch_add(1, Ordering::Relaxed);
            panic!("as it was told");
        }
        McpSession::presence(&*self.recorder)
    }
}

fn config() -> ConfigBuilder {
    waiting::config()
        .backoff_initial(Duration::from_millis(5))
        .backoff_max(Duration::from_millis(50))
        .hand_over_timeout(Duration::from_secs(60))
        .max_attempts(1000)
}

async fn courier(redis: &RedisServer) -> Courier {
    Courier::start(&redis.url(), config().build().unwrap()).await.unwrap()
}

async fn push(courier: &Courier, id: &SessionId, numbers: impl IntoIterator<Item = usize>) {
    let numbered = |n| Notification::new("notifications/x").unwrap().with_params(json!({"n": n})).unwrap();
    for result in courier.publisher().push_many(numbers.into_iter().map(|n| (id.clone(), numbered(n)))).await {
        result.unwrap();
    }
}

fn threads() -> u64 {
    Process::this().threads()
}

async fn until_threads(at_most: u64) {
    // Threads that served others end by themselves after a while of idleness.
    let patience = Duration::from_secs(20);
    eventually(&format!("{at_most} threads"), patience, || async { threads() <= at_most }).await;
}

/// The numbers, without a question's own notification.
fn numbers(recorder: &Recorder) -> Vec<i64> {
    recorder.outbound().iter().filter_map(|o| o.parse_params::<Value>().unwrap().get("n")?.as_i64()).collect()
}

async fn until_numbers(recorder: &Recorder, wanted: &[i64], what: &str) {
    eventually(what, SOON, || async { numbers(recorder).len() >= wanted.len() }).await;
    assert_eq!(numbers(recorder), wanted, "{what}");
}

/// A server whose session is in its trouble, beside one that does well.
struct Scene {
    server: Courier,
    other: Courier,
    troubled: Arc<Troubled>,
    neighbour: Arc<Recorder>,
    id: SessionId,
    neighbour_id: SessionId,
    pushed: usize,
}

impl Scene {
    async fn set(redis: &RedisServer, case: (Method, Trouble)) -> Self {
        Self::set_with(redis, case, config()).await
    }

    async fn set_with(redis: &RedisServer, case: (Method, Trouble), config: ConfigBuilder) -> Self {
        let server = Courier::start(&redis.url(), config.build().unwrap()).await.unwrap();
        let other = courier(redis).await;
        let id = SessionId::new(format!("{case:?}").replace(' ', "")).unwrap();
        let neighbour_id = SessionId::new(format!("neighbour-{}", id.as_str())).unwrap();
        let (troubled, neighbour) = (Troubled::new(case), Recorder::new());
        server.ensure_subscriber(&neighbour_id, neighbour.clone()).await.unwrap();
        server.ensure_subscriber(&id, troubled.clone()).await.unwrap();
        if case.0 == Elicit {
            ask(&server, &id);
        } else {
            push(&server, &id, 1..=3).await;
        }
        troubled.until_met().await;
        if case.0 == Elicit {
            push(&server, &id, 1..=3).await;
            if troubled.trouble != BlocksItsThread {
                until_numbers(&troubled.recorder, &[1, 2, 3], "a question holds nothing up").await;
            }
        }
        Self { server, other, troubled, neighbour, id, neighbour_id, pushed: 0 }
    }

    /// G7: the neighbour's next is not delayed.
    async fn neighbour_gets_its_own(&mut self) -> Duration {
        let begun = Instant::now();
        self.pushed += 1;
        push(&self.server, &self.neighbour_id, [self.pushed]).await;
        self.neighbour.until_taken(self.pushed).await;
        begun.elapsed()
    }

    /// The time that a shutdown gets. Who is not stuck ends by itself, sooner or later: printing a panic may take its time.
    fn drain(&self) -> Duration {
        if self.troubled.is_stuck() { Duration::from_millis(100) } else { SOON }
    }

    /// Returns the notifications that the troubled session has not delivered, so that another one must.
    fn owed(&self) -> &'static [i64] {
        if self.troubled.method == Elicit && self.troubled.trouble != BlocksItsThread { &[] } else { &[1, 2, 3] }
    }

    /// Another server has the client now: it delivers at once, all of it and in order.
    async fn another_takes_over(&self) -> Duration {
        let begun = Instant::now();
        let next = Recorder::new();
        self.other.ensure_subscriber(&self.id, next.clone()).await.unwrap();
        until_numbers(&next, self.owed(), "another server delivers").await;
        let took = begun.elapsed();
        self.other.stop_subscriber(&self.id, None).await;
        took
    }
}

fn ask(courier: &Courier, id: &SessionId) {
    let (elicitor, id) = (courier.publisher().elicitor(), id.clone());
    actix::spawn(async move {
        let form = Elicitation::form("?", json!({"type": "object", "properties": {}})).unwrap();
        let task = TaskKey::anonymous(id.as_str()).unwrap();
        let _ = elicitor.elicit(&id, &task, form, Duration::from_secs(60)).await;
    });
}

#[actix::test]
async fn g7_g8_a_shutdown_amid_any_trouble_is_in_time_tells_the_truth_and_another_server_takes_over_at_once() {
    in_own_process!();
    let redis = RedisServer::start();
    for &case in ALL {
        let before = threads();
        let mut scene = Scene::set(&redis, case).await;
        let neighbour = scene.neighbour_gets_its_own().await;
        let drain = scene.drain();
        let begun = Instant::now();
        let report = scene.server.shutdown(drain).await;
        let took = begun.elapsed();
        assert!(took < drain + REST + Duration::from_secs(1), "{case:?}: {took:?}");
        let forced = usize::from(scene.troubled.is_stuck());
        assert_eq!((report.stopped, report.forced), (2 - forced, forced), "{case:?}");
        let elicited = if case.0 == Elicit { 1 + 3 - scene.owed().len() as u64 } else { 0 };
        assert_eq!(report.delivered, 1 + elicited, "{case:?}");
        assert_eq!(report.discarded, 0, "{case:?}");
        let live = scene.other.publisher().broadcast(&Notification::tools_list_changed()).await.unwrap();
        assert_eq!(live.len(), 0, "{case:?}: all leases are released");
        let over = scene.another_takes_over().await;
        println!("{case:?}: neighbour {neighbour:?}, shutdown {took:?}, delivered elsewhere after {over:?}");
        let taken = scene.troubled.recorder.outbound().len();
        scene.troubled.free();
        scene.other.shutdown(SOON).await;
        until_threads(before).await;
        assert!(scene.troubled.recorder.outbound().len() <= taken + 1, "{case:?}: only what was under way");
    }
}

#[actix::test]
async fn g2_a_session_that_replaces_a_troubled_one_gets_what_that_did_not_deliver() {
    in_own_process!();
    let redis = RedisServer::start();
    for &case in ALL {
        let before = threads();
        let mut scene = Scene::set(&redis, case).await;
        let next = Recorder::new();
        scene.server.ensure_subscriber(&scene.id, next.clone()).await.unwrap();
        until_numbers(&next, scene.owed(), &format!("{case:?}: its successor delivers")).await;
        scene.neighbour_gets_its_own().await;
        assert_eq!(scene.server.supervisor().send(GetSubscriberCount).await.unwrap(), 2);
        let report = scene.server.shutdown(scene.drain()).await;
        // The troubled one is among those that had to end.
        let stuck = usize::from(scene.troubled.is_stuck());
        assert_eq!(report.forced, stuck, "{case:?}: {report:?}");
        scene.troubled.free();
        until_threads(before).await;
    }
}

#[actix::test]
async fn a_stop_amid_any_trouble_ends_in_time_and_the_session_can_be_served_again() {
    in_own_process!();
    let redis = RedisServer::start();
    let before = threads();
    let mut scenes = Vec::new();
    for &case in ALL {
        scenes.push(Scene::set_with(&redis, case, config().hand_over_timeout(Duration::from_millis(200))).await);
    }
    let begun = Instant::now();
    let stops = scenes.iter().map(|scene| scene.server.stop_subscriber(&scene.id, None));
    let stopped = futures_util::future::join_all(stops).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "a hand-over's time and five seconds: {took:?}");
    println!("stopped after {took:?}: {stopped:?}");
    for scene in &scenes {
        scene.another_takes_over().await;
        scene.troubled.free();
        scene.server.shutdown(Duration::from_secs(1)).await;
        scene.other.shutdown(SOON).await;
    }
    drop(scenes);
    until_threads(before).await;
}

#[actix::test]
async fn g8_a_system_that_ends_amid_any_trouble_leaves_nothing_running_and_loses_nothing() {
    in_own_process!();
    let redis = Arc::new(RedisServer::start());
    let other = courier(&redis).await;
    for &case in ALL {
        let before = threads();
        let there = Arc::clone(&redis);
        let ended = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let (id, troubled, owed, began_to_end) = actix::System::new().block_on(async move {
                let scene = Scene::set(&there, case).await;
                (scene.id.clone(), Arc::clone(&scene.troubled), scene.owed(), begun.elapsed())
                // The couriers are dropped here, and the system after them.
            });
            (id, troubled, owed, begun.elapsed() - began_to_end)
        });
        let (id, troubled, owed, took) = tokio::time::timeout(SOON * 2, ended).await.expect("it ends").unwrap();
        assert!(took < SOON, "{case:?}: {took:?}");
        let (begun, next) = (Instant::now(), Recorder::new());
        other.ensure_subscriber(&id, next.clone()).await.unwrap();
        until_numbers(&next, owed, &format!("{case:?}: another delivers")).await;
        println!("{case:?}: ended after {took:?}, delivered elsewhere after {:?}", begun.elapsed());
        other.stop_subscriber(&id, None).await;
        troubled.free();
        until_threads(before + 1).await;
    }
}

/// Nobody holds it but the courier.
struct PanicsAtItsEnd;

impl Drop for PanicsAtItsEnd {
    fn drop(&mut self) {
        panic!("at its end");
    }
}

#[async_trait]
impl McpSession for PanicsAtItsEnd {
    async fn hand_over(&self, _: &Outbound) -> Result<(), HandOverError> {
        Ok(())
    }
}

#[actix::test]
async fn g7_a_session_that_panics_when_it_is_dropped_harms_no_other() {
    in_own_process!();
    let config = config().dedicated_limit(2).shared_limit(0).build().unwrap();
    let courier = Courier::start("memory://own-trouble-drop", config).await.unwrap();
    let id = |n: usize| SessionId::new(format!("s-{n}")).unwrap();
    let well = Recorder::new();
    courier.ensure_subscriber(&id(0), well.clone()).await.unwrap();
    for _ in 0..3 {
        courier.ensure_subscriber(&id(1), Arc::new(PanicsAtItsEnd)).await.unwrap();
    }
    // Refused, and dropped by whoever refuses.
    courier.ensure_subscriber(&id(2), Arc::new(PanicsAtItsEnd)).await.unwrap_err();
    assert!(courier.stop_subscriber(&id(1), None).await);
    assert!(!courier.stop_subscriber(&id(1), Some(Arc::new(PanicsAtItsEnd))).await);
    push(&courier, &id(0), [1]).await;
    well.until_taken(1).await;
    let report = courier.shutdown(Duration::from_secs(2)).await;
    assert_eq!((report.stopped, report.forced), (1, 0));
}

#[actix::test]
async fn g4_what_was_blocked_hands_over_nothing_more_when_its_time_is_over() {
    in_own_process!();
    let redis = RedisServer::start();
    let (server, other) = (courier(&redis).await, courier(&redis).await);
    let id = SessionId::new("blocked").unwrap();
    let troubled = Troubled::new((HandOver, BlocksItsThread));
    push(&server, &id, 1..=100).await;
    server.ensure_subscriber(&id, troubled.clone()).await.unwrap();
    troubled.until_met().await;
    let report = server.shutdown(Duration::from_millis(50)).await;
    assert_eq!(report.forced, 1);
    let next = Recorder::new();
    other.ensure_subscriber(&id, next.clone()).await.unwrap();
    next.until_taken(50).await;
    let before = threads();
    troubled.free();
    next.until_taken(100).await;
    assert_eq!(next.taken(), (1..=100).collect::<Vec<_>>());
    until_threads(before - 1).await;
    assert_eq!(troubled.recorder.offered().len(), 1, "only what was under way");
}

#[actix::test]
async fn g2_a_hand_over_that_panics_as_it_is_dropped_is_a_failed_attempt_and_no_more() {
    in_own_process!();
    let config = config().hand_over_timeout(Duration::from_millis(100)).max_attempts(2).build().unwrap();
    let courier = Courier::start("memory://own-trouble-dropped", config).await.unwrap();
    let id = SessionId::new("s").unwrap();
    push(&courier, &id, [1]).await;
    courier.ensure_subscriber(&id, Troubled::new((HandOver, PanicsWhenDropped))).await.unwrap();
    eventually("it is given up", SOON, || async {
        let info = courier.supervisor().send(ListSubscribers).await.unwrap().pop().unwrap();
        info.discarded == 1 && info.last_error.is_some_and(|error| error.contains("all 2 attempts failed"))
    })
    .await;
}

#[actix::test]
async fn two_shutdowns_at_once_both_tell_the_truth() {
    in_own_process!();
    let courier = Courier::start("memory://own-trouble-twice", config().build().unwrap()).await.unwrap();
    let id = SessionId::new("s").unwrap();
    let stuck = Troubled::new((HandOver, NeverAnswers));
    push(&courier, &id, [1]).await;
    courier.ensure_subscriber(&id, stuck.clone()).await.unwrap();
    stuck.until_met().await;
    let (short, long) =
        tokio::join!(courier.shutdown(Duration::from_millis(100)), courier.shutdown(Duration::from_secs(20)));
    assert_eq!(((short.stopped, short.forced), (long.stopped, long.forced)), ((0, 1), (0, 1)));
}

#[actix::test]
async fn a_question_whose_sessions_presence_panics_is_cancelled_at_once() {
    in_own_process!();
    /// Session whose presence panics at each call except the first, which is the subscriber's own.
    struct Once(AtomicUsize);
    #[async_trait]
    impl McpSession for Once {
        async fn hand_over(&self, _: &Outbound) -> Result<(), HandOverError> {
            Ok(())
        }
        fn presence(&self) -> Presence {
            assert_eq!(self.0.fetch_add(1, Ordering::Relaxed), 0, "only once");
            Presence::always()
        }
    }
    let courier = Courier::start("memory://own-trouble-presence", config().build().unwrap()).await.unwrap();
    let id = SessionId::new("s").unwrap();
    courier.ensure_subscriber(&id, Arc::new(Once(AtomicUsize::new(0)))).await.unwrap();
    let form = Elicitation::form("?", json!({"type": "object", "properties": {}})).unwrap();
    let asked = courier.publisher().elicitor();
    let task = TaskKey::anonymous("t").unwrap();
    let answer = asked.elicit(&id, &task, form, SOON).await.unwrap();
    let Answer::Cancel { reason: Some(reason) } = answer else { panic!("{answer:?}") };
    assert!(reason.contains("panicked: ") && reason.contains("only once"), "{reason}");
}
