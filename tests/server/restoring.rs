//! Sessions that are restored at another server, under load and in trouble: real servers over one Redis, whose threads stall,
//! or whose sessions are held, at any step.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use mcp_courier::{ConfigBuilder, Courier, Notification, SessionId};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::mcp_server::McpServer;
use mcp_courier_testing::raw_client::RawClient;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::staged_manager::{Place, STEPS, StagedManager, Step};
use mcp_courier_testing::waiting;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

mod by_hand;
mod handlers;
mod streams;

/// Much longer than anything that a server does by itself meanwhile.
const STALL: Duration = Duration::from_millis(200);

fn config() -> ConfigBuilder {
    waiting::config().backoff_initial(Duration::from_millis(5)).backoff_max(Duration::from_millis(100))
}

async fn courier(redis: &RedisServer) -> Courier {
    Courier::start(&redis.url(), config().build().unwrap()).await.unwrap()
}

/// A server with two threads. With one, whatever stalls would stall alone.
async fn server(redis: &RedisServer, sessions: StagedManager) -> McpServer<StagedManager> {
    let courier = courier(redis).await;
    let manager = courier.decorate(sessions);
    McpServer::of_fleet_with(courier, manager, 2)
}

/// A server at which sessions begin.
async fn origin(redis: &RedisServer) -> McpServer {
    let courier = courier(redis).await;
    let manager = courier.session_manager();
    McpServer::of_fleet(courier, manager)
}

fn initialized<M>(server: &McpServer<M>) -> usize {
    server.initialized.load(Ordering::SeqCst)
}

fn ping() -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})
}

/// Many requests of one session, some at once and some while others are served.
async fn burst(client: &RawClient, requests: u64) -> Vec<StatusCode> {
    let message = &ping();
    join_all((0..requests).map(|n| async move {
        tokio::time::sleep(Duration::from_millis(20) * (n / 3) as u32).await;
        client.send(message).await
    }))
    .await
}

async fn stalled_at(redis: &RedisServer, origin: &McpServer, place: Place) {
    let (b, c) = futures_util::join!(
        server(redis, StagedManager::stalling(place, STALL)),
        server(redis, StagedManager::stalling(place, STALL))
    );
    for round in 1..=2 {
        let client = RawClient::connect(&origin.url).await;
        let (at_b, at_c) = (client.at(&b.url), client.at(&c.url));
        let streams = join_all([&at_b, &at_c, &at_b, &at_c].map(|client| client.open_stream_after(None)));
        let (of_b, of_c, streams) = futures_util::join!(burst(&at_b, 12), burst(&at_c, 12), streams);
        assert!(of_b.iter().chain(&of_c).all(StatusCode::is_success), "{place:?}, round {round}: {of_b:?}, {of_c:?}");
        let refused: Vec<_> = streams.iter().filter_map(|stream| stream.as_ref().err()).collect();
        assert!(refused.is_empty(), "{place:?}, round {round}: {refused:?}");
        // The notification comes to the handler after its session can be used.
        eventually("it is initialised", SOON, async || initialized(&b) == round && initialized(&c) == round).await;
    }
    assert_eq!((initialized(&b), initialized(&c)), (2, 2), "{place:?}");
}

#[actix::test]
async fn a_restore_is_right_wherever_its_thread_stalls() {
    let redis = RedisServer::start();
    let origin = origin(&redis).await;
    let places = STEPS.into_iter().flat_map(|step| [Place::Before(step), Place::After(step)]);
    join_all(places.map(|place| stalled_at(&redis, &origin, place))).await;
}

/// Closes a session for being idle, and comes back while the thread that closes it stalls.
async fn closed_at(redis: &RedisServer, origin: &McpServer, place: Place) {
    let (closing, mut closes) = mpsc::unbounded_channel();
    let sessions = StagedManager::new(move |at| {
        if at == place {
            closing.send(()).unwrap();
            std::thread::sleep(STALL);
        }
        Box::pin(std::future::ready(()))
    });
    let courier = courier(redis).await;
    let manager = courier.decorate(sessions).idle_timeout(STALL * 5);
    let b = McpServer::of_fleet_with(courier, manager, 2);
    let client = RawClient::connect(&origin.url).await.at(&b.url);
    for round in 1..=3 {
        let statuses = burst(&client, 12).await;
        assert!(statuses.iter().all(StatusCode::is_success), "{place:?}, round {round}: {statuses:?}");
        eventually("it is initialised", SOON, async || initialized(&b) >= round).await;
        assert_eq!(initialized(&b), round, "{place:?}");
        closes.recv().await.unwrap();
    }
}

#[actix::test]
async fn a_client_that_comes_back_as_its_session_is_closed_is_served() {
    let redis = RedisServer::start();
    let origin = origin(&redis).await;
    let places = [Place::Before(Step::Close), Place::After(Step::Close)];
    join_all(places.map(|place| closed_at(&redis, &origin, place))).await;
}

/// Holds sessions at a place until it is released.
struct Held {
    reached: Arc<Notify>,
    release: Arc<Notify>,
}

fn holding(place: Place) -> (StagedManager, Held) {
    let held = Held { reached: Arc::default(), release: Arc::default() };
    let (reached, release) = (Arc::clone(&held.reached), Arc::clone(&held.release));
    let sessions = StagedManager::new(move |at| {
        let (reached, release) = (Arc::clone(&reached), Arc::clone(&release));
        Box::pin(async move {
            if at == place {
                reached.notify_one();
                release.notified().await;
            }
        })
    });
    (sessions, held)
}

/// Returns how many servers listen to the news of the fleet.
async fn listeners(redis: &RedisServer) -> usize {
    let (mut command, mut connection) = (redis::cmd("PUBSUB"), redis.connection().await);
    let numbers: Vec<(String, usize)> =
        command.arg("NUMSUB").arg("mcp-courier:news").query_async(&mut connection).await.unwrap();
    numbers[0].1
}

#[actix::test]
async fn a_session_that_ends_while_it_is_restored_is_not_restored() {
    let redis = RedisServer::start();
    let origin = origin(&redis).await;
    // Kept, so that the number of those who listen only grows.
    let mut servers = Vec::new();
    for step in [Step::Restore, Step::Initialize, Step::Accept] {
        let (sessions, held) = holding(Place::Before(step));
        let (courier, ended) = (courier(&redis).await, Arc::new(Mutex::new(Vec::<SessionId>::new())));
        let heard = Arc::clone(&ended);
        let manager = courier.decorate(sessions).on_session_end(move |id| heard.lock().unwrap().push(id.clone()));
        let listening = listeners(&redis).await;
        let b = McpServer::of_fleet_with(courier, manager, 2);
        let client = RawClient::connect(&origin.url).await;
        assert_eq!(RawClient::attach(&b.url, "unknown").send(&ping()).await, StatusCode::NOT_FOUND);
        eventually("B listens", SOON, async || listeners(&redis).await > listening).await;
        let at_b = client.at(&b.url);
        let request = actix::spawn(async move { at_b.send(&ping()).await });
        held.reached.notified().await;
        client.delete().await;
        eventually("B hears of the end", SOON, async || !ended.lock().unwrap().is_empty()).await;
        held.release.notify_one();
        let status = request.await.unwrap();
        assert_eq!(status, StatusCode::NOT_FOUND, "{step:?}");
        assert_eq!(client.at(&b.url).open_stream_after(None).await.err(), Some(StatusCode::NOT_FOUND), "{step:?}");
        assert_eq!(ended.lock().unwrap().len(), 1);
        servers.push(b);
    }
}

#[actix::test]
async fn a_delete_at_the_server_that_restores_the_session_ends_it() {
    let redis = RedisServer::start();
    let origin = origin(&redis).await;
    let (sessions, held) = holding(Place::Before(Step::Initialize));
    let b = server(&redis, sessions).await;
    let client = RawClient::connect(&origin.url).await;
    let mut stream = client.open_stream().await;
    let at_b = client.at(&b.url);
    let request = actix::spawn({
        let at_b = at_b.clone();
        async move { at_b.send(&ping()).await }
    });
    held.reached.notified().await;
    assert_eq!(at_b.delete().await, StatusCode::NO_CONTENT);
    held.release.notify_one();
    assert_eq!(request.await.unwrap(), StatusCode::NOT_FOUND);
    stream.ended().await;
    assert_eq!(at_b.send(&ping()).await, StatusCode::NOT_FOUND);
}

#[actix::test]
async fn a_restore_goes_on_when_its_client_hangs_up() {
    let redis = RedisServer::start();
    let origin = origin(&redis).await;
    for step in [Step::Restore, Step::Initialize, Step::Accept] {
        let (sessions, held) = holding(Place::After(step));
        let b = server(&redis, sessions).await;
        let client = RawClient::connect(&origin.url).await.at(&b.url);
        let message = ping();
        {
            let request = client.send(&message);
            futures_util::future::select(Box::pin(request), Box::pin(held.reached.notified())).await;
        }
        held.release.notify_one();
        // Of a ping rmcp's manager is asked no step at which it would be held again.
        assert_eq!(client.send(&message).await, StatusCode::OK, "{step:?}");
        eventually("it is initialised", SOON, async || initialized(&b) == 1).await;
    }
}

#[actix::test]
async fn g2_a_restored_session_gets_what_was_pushed_while_it_was_restored() {
    let redis = RedisServer::start();
    let origin = origin(&redis).await;
    let b = server(&redis, StagedManager::stalling(Place::After(Step::Initialize), STALL)).await;
    let client = RawClient::connect(&origin.url).await;
    let at_b = client.at(&b.url);
    let opening = actix::spawn(async move { at_b.open_stream().await });
    let (publisher, session) = (origin.courier.publisher(), SessionId::new(client.session_id()).unwrap());
    for n in 0..20 {
        let notification = Notification::new("notifications/x").unwrap().with_params(json!({ "n": n })).unwrap();
        publisher.push(&session, notification).await.unwrap();
    }
    let numbers = opening.await.unwrap().notifications(20).await;
    let numbers: Vec<_> = numbers.iter().map(|notification| notification["params"]["n"].clone()).collect();
    assert_eq!(json!(numbers), json!((0..20).collect::<Vec<_>>()));
}

/// Counts what a factory was asked for.
#[derive(Clone, Default)]
struct Calls(Arc<AtomicUsize>);

impl Calls {
    /// Returns how many calls there were.
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Returns how many calls there were before this one.
    fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}
