//! Sessions that continue at another server of the fleet: real servers over one Redis, real HTTP.
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mcp_courier::testing::backend::SessionRecord;
use mcp_courier::{
    Answer, ConfigBuilder, Courier, Elicitation, Notification, Principal, Publisher, SessionId, TaskKey,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::mcp_server::McpServer;
use mcp_courier_testing::raw_client::{EventStream, RawClient};
use mcp_courier_testing::received::Received;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use reqwest::StatusCode;
use serde_json::{Value, json};

mod answers;
mod away;
mod bounds;
mod early_close;
mod pings;
mod resuming;

fn config() -> ConfigBuilder {
    waiting::config().backoff_initial(Duration::from_millis(5)).backoff_max(Duration::from_millis(100))
}

/// A server of the fleet, and the sessions that it heard have ended.
struct Member {
    server: McpServer,
    ended: Arc<Mutex<Vec<SessionId>>>,
}

impl std::ops::Deref for Member {
    type Target = McpServer;

    fn deref(&self) -> &McpServer {
        &self.server
    }
}

impl Member {
    async fn start(redis: &RedisServer) -> Self {
        Self::with(redis, config(), Duration::from_secs(300)).await
    }

    async fn with(redis: &RedisServer, config: ConfigBuilder, idle: Duration) -> Self {
        let courier = Courier::start(&redis.url(), config.build().unwrap()).await.unwrap();
        let ended = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&ended);
        let manager = courier.session_manager().idle_timeout(idle);
        let manager = manager.on_session_end(move |session| heard.lock().unwrap().push(session.clone()));
        Self { server: McpServer::of_fleet(courier, manager), ended }
    }

    fn initialized(&self) -> usize {
        self.server.initialized.load(Ordering::Relaxed)
    }
}

async fn length_of_queue(redis: &RedisServer, client: &RawClient) -> usize {
    length_of(redis, "", client).await
}

async fn length_of(redis: &RedisServer, principal: &str, client: &RawClient) -> usize {
    redis.command(&["LLEN", &format!("mcp-courier:notifications:{principal}{}", client.session_id())]).await
}

fn id(client: &RawClient) -> SessionId {
    SessionId::new(client.session_id()).unwrap()
}

async fn push(publisher: &Publisher, session: &SessionId, numbers: std::ops::Range<usize>) {
    let each = numbers.map(|n| Notification::new("notifications/x").unwrap().with_params(json!({ "n": n })).unwrap());
    for result in publisher.push_many(each.map(|notification| (session.clone(), notification))).await {
        result.unwrap();
    }
}

fn number(notification: &Value) -> usize {
    usize::try_from(notification["params"]["n"].as_u64().unwrap()).unwrap()
}

async fn numbers(stream: &mut EventStream, count: usize) -> Vec<usize> {
    stream.notifications(count).await.iter().map(number).collect()
}

async fn ping(client: &RawClient) -> Value {
    client.request("ping", json!({})).await
}

#[actix::test]
async fn g2_a_client_goes_on_at_another_server_with_its_session_and_what_it_had_not_confirmed() {
    let redis = RedisServer::start();
    let (a, b) = (Member::start(&redis).await, Member::start(&redis).await);
    let at_a = RawClient::connect(&a.url).await;
    let mut stream = at_a.open_stream().await;
    let publisher = a.courier.publisher();
    push(&publisher, &id(&at_a), 0..1000).await;
    let mut got = Received::default();
    got.until(&mut stream, 150).await;
    // What it had read, and perhaps confirmed.
    got.rest_of(stream).await;
    // Without a word it goes to B: no initialise, not even a request before the stream.
    let mut stream = at_a.at(&b.url).open_stream().await;
    push(&publisher, &id(&at_a), 1000..1500).await;
    got.until(&mut stream, 1499).await;
    got.assert_is(0..1500);
    eventually("rmcp serves the session at B too", SOON, async || b.initialized() == 1).await;
    assert_eq!(a.initialized(), 1);
    // And back again, where its session still is.
    drop(stream);
    let mut stream = at_a.open_stream().await;
    push(&publisher, &id(&at_a), 1500..1501).await;
    got.until(&mut stream, 1500).await;
    redis.assert_no_key_without_expiry().await;
}

#[actix::test]
async fn a_ping_may_be_answered_at_any_server() {
    let redis = RedisServer::start();
    let config = || config().hand_over_timeout(Duration::from_secs(2));
    let a = Member::with(&redis, config(), Duration::from_secs(300)).await;
    let b = Member::with(&redis, config(), Duration::from_secs(300)).await;
    let client = RawClient::connect(&a.url).await;
    let mut stream = client.open_stream_answering_at(&b.url).await;
    for round in 0..20 {
        push(&b.courier.publisher(), &id(&client), round * 50..(round + 1) * 50).await;
        assert_eq!(numbers(&mut stream, 50).await, (round * 50..(round + 1) * 50).collect::<Vec<_>>());
    }
    eventually("the last confirmation", SOON, async || length_of_queue(&redis, &client).await == 0).await;
}

#[actix::test]
async fn a_question_may_be_answered_at_any_server() {
    let redis = RedisServer::start();
    let (a, b) = (Member::start(&redis).await, Member::start(&redis).await);
    let client = RawClient::connect_with(&a.url, json!({"elicitation": {}})).await;
    let mut stream = client.open_stream().await;
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    let (elicitor, session) = (b.courier.publisher().elicitor(), id(&client));
    let asked = actix::spawn(async move {
        let task = TaskKey::anonymous("t").unwrap();
        elicitor.elicit(&session, &task, Elicitation::form("?", schema).unwrap(), Duration::from_secs(20)).await
    });
    let question = stream.next_request().await.unwrap();
    let answer = json!({"action": "accept", "content": {"n": 7}});
    assert_eq!(client.at(&b.url).answer(&question, answer).await, StatusCode::ACCEPTED);
    assert_eq!(asked.await.unwrap().unwrap(), Answer::Accept(json!({"n": 7}).as_object().unwrap().clone()));
}

#[actix::test]
async fn requests_balanced_over_the_servers_disturb_no_stream() {
    let redis = RedisServer::start();
    let servers = [Member::start(&redis).await, Member::start(&redis).await, Member::start(&redis).await];
    let client = RawClient::connect(&servers[0].url).await;
    let mut stream = client.open_stream().await;
    let requests = actix::spawn({
        let balanced: Vec<RawClient> = servers.iter().map(|server| client.at(&server.url)).collect();
        async move {
            for round in 0..60 {
                assert!(ping(&balanced[round % 3]).await["error"].is_null());
            }
        }
    });
    for n in 0..300 {
        push(&servers[1].courier.publisher(), &id(&client), n..n + 1).await;
    }
    assert_eq!(numbers(&mut stream, 300).await, (0..300).collect::<Vec<_>>());
    requests.await.unwrap();
    // Not even repeats: the session never moved.
    assert_eq!(stream.notification_within(Duration::from_millis(100)).await, None);
}

#[actix::test]
async fn a_delete_at_one_server_ends_the_session_at_all() {
    let redis = RedisServer::start();
    let (a, b) = (Member::start(&redis).await, Member::start(&redis).await);
    let client = RawClient::connect_with(&a.url, json!({"elicitation": {}})).await;
    let mut stream = client.open_stream().await;
    let (elicitor, session) = (b.courier.publisher().elicitor(), id(&client));
    let asked = actix::spawn(async move {
        let schema = json!({"type": "object", "properties": {}});
        let task = TaskKey::anonymous("t").unwrap();
        elicitor.elicit(&session, &task, Elicitation::form("?", schema).unwrap(), Duration::from_secs(30)).await
    });
    stream.next_request().await.unwrap();
    // B has never heard of it.
    let begun = Instant::now();
    assert_eq!(client.at(&b.url).delete().await, StatusCode::NO_CONTENT);
    stream.ended().await;
    let answer = asked.await.unwrap().unwrap();
    assert!(matches!(&answer, Answer::Cancel { .. }), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "the worker is told, and does not wait out its time");
    for url in [&a.url, &b.url] {
        assert_eq!(client.at(url).open_stream_after(None).await.unwrap_err(), StatusCode::NOT_FOUND);
    }
    for member in [&a, &b] {
        eventually("the end is told", SOON, async || *member.ended.lock().unwrap() == [id(&client)]).await;
    }
}

#[actix::test]
async fn an_idle_timeout_at_one_server_ends_nothing_at_others() {
    let redis = RedisServer::start();
    let idle = Duration::from_millis(200);
    let (a, b) = (Member::with(&redis, config(), idle).await, Member::with(&redis, config(), idle).await);
    let client = RawClient::connect(&a.url).await;
    let mut stream = client.open_stream().await;
    for round in 1..=3 {
        ping(&client.at(&b.url)).await;
        assert_eq!(b.initialized(), round, "it was idle there, and was restored");
        tokio::time::sleep(idle * 3).await;
    }
    push(&b.courier.publisher(), &id(&client), 0..1).await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
    // Nor does one at all of them.
    eventually("its confirmation", SOON, async || length_of_queue(&redis, &client).await == 0).await;
    drop(stream);
    tokio::time::sleep(idle * 3).await;
    push(&b.courier.publisher(), &id(&client), 1..2).await;
    let mut stream = client.open_stream().await;
    assert_eq!(numbers(&mut stream, 1).await, [1]);
    eventually("it is restored", SOON, async || a.initialized() == 2).await;
    assert_eq!(a.ended.lock().unwrap().len(), 0);
}

#[actix::test]
async fn g8_a_shutdown_of_one_server_ends_nothing_at_others() {
    let redis = RedisServer::start();
    let (a, b) = (Member::start(&redis).await, Member::start(&redis).await);
    let client = RawClient::connect(&a.url).await;
    let mut stream = client.open_stream().await;
    push(&b.courier.publisher(), &id(&client), 0..100).await;
    assert_eq!(numbers(&mut stream, 100).await.len(), 100);
    a.shut_down().await;
    stream.ended().await;
    let lease = format!("{{mcp-courier:notifications:{}}}:lease", client.session_id());
    assert_eq!(redis.command::<usize>(&["EXISTS", &lease]).await, 0, "it is released");
    push(&b.courier.publisher(), &id(&client), 100..200).await;
    let mut stream = client.at(&b.url).open_stream().await;
    assert_eq!(numbers(&mut stream, 100).await, (100..200).collect::<Vec<_>>());
}

#[actix::test]
async fn a_session_lives_as_long_as_any_server_holds_it_and_its_time_to_live_beyond() {
    let redis = RedisServer::start();
    let life = Duration::from_secs(1);
    let member = || Member::with(&redis, config().session_time_to_live(life), Duration::from_millis(100));
    let (a, b) = (member().await, member().await);
    let client = RawClient::connect(&a.url).await;
    let stream = client.open_stream().await;
    tokio::time::sleep(life * 3).await;
    ping(&client.at(&b.url)).await;
    // No server holds it any more.
    drop(stream);
    eventually("its end", SOON * 2, async || {
        tokio::time::sleep(life * 2).await;
        client.open_stream_after(None).await.is_err_and(|status| status == StatusCode::NOT_FOUND)
    })
    .await;
}

#[actix::test]
async fn what_redis_forgot_of_a_session_it_is_told_again() {
    let redis = RedisServer::start();
    let life = Duration::from_secs(2);
    let member = || Member::with(&redis, config().session_time_to_live(life), Duration::from_secs(300));
    let (a, b) = (member().await, member().await);
    let client = RawClient::connect(&a.url).await;
    let _stream = client.open_stream().await;
    redis.command::<String>(&["FLUSHALL"]).await;
    let at_b = client.at(&b.url);
    eventually("the session at B", SOON, async || at_b.open_stream_after(None).await.is_ok()).await;
}

#[actix::test]
async fn a_restore_is_safe_under_concurrent_requests() {
    let redis = RedisServer::start();
    let a = Member::start(&redis).await;
    for round in 0..10 {
        let b = Member::start(&redis).await;
        let client = RawClient::connect(&a.url).await;
        let at_b = client.at(&b.url);
        let pings = futures_util::future::join_all((0..30).map(|_| ping(&at_b)));
        let streams = futures_util::future::join_all((0..3).map(|_| at_b.open_stream_after(None)));
        let (pings, mut streams) = futures_util::future::join(pings, streams).await;
        assert!(pings.iter().all(|answer| answer["error"].is_null()), "{pings:?}");
        assert_eq!(b.initialized(), 1, "round {round}");
        push(&a.courier.publisher(), &id(&client), 0..3).await;
        let mut got = 0;
        for stream in streams.iter_mut().map(|stream| stream.as_mut().unwrap()) {
            while got < 3 && stream.notification_within(Duration::from_millis(200)).await.is_some() {
                got += 1;
            }
        }
        assert_eq!(got, 3);
    }
}

#[actix::test]
async fn a_restore_whose_client_hung_up_half_way_breaks_nothing() {
    let redis = RedisServer::start();
    let (a, b) = (Member::start(&redis).await, Member::start(&redis).await);
    for round in 0..40_u64 {
        let client = RawClient::connect(&a.url).await;
        let at_b = client.at(&b.url);
        // Hung up at another point each time.
        let _ = tokio::time::timeout(Duration::from_micros(150 * round), ping(&at_b)).await;
        let begun = Instant::now();
        assert!(ping(&at_b).await["error"].is_null());
        assert!(begun.elapsed() < Duration::from_secs(5), "round {round}: {:?}", begun.elapsed());
    }
}

#[actix::test]
async fn a_session_of_nobody_is_404_and_an_answer_for_it_too() {
    let redis = RedisServer::start();
    let a = Member::start(&redis).await;
    let client = RawClient::attach(&a.url, "no-such-session");
    assert_eq!(client.open_stream_after(None).await.unwrap_err(), StatusCode::NOT_FOUND);
    let pong = json!({"jsonrpc": "2.0", "id": "mcp-courier:ping:x:1", "result": {}});
    assert_eq!(client.send(&pong).await, StatusCode::NOT_FOUND);
}

#[actix::test]
async fn invented_confirmations_confirm_nothing() {
    let redis = RedisServer::start();
    let (a, b) = (Member::start(&redis).await, Member::start(&redis).await);
    let (victim, mallory) = (RawClient::connect(&a.url).await, RawClient::connect(&b.url).await);
    let mut stream = victim.open_stream().await;
    stream.answer_pings(false);
    push(&a.courier.publisher(), &id(&victim), 0..1).await;
    numbers(&mut stream, 1).await;
    eventually("a ping", SOON, async || stream.pings() > 0).await;
    let asked = stream.last_ping_id().unwrap();
    for id in [asked.as_str(), "mcp-courier:ping:", "mcp-courier:ping:x:1", "mcp-courier:ping:x", "mcp-courier:ping::"]
    {
        // Whoever knows the id of another session's ping does not confirm it by that.
        let pong = json!({"jsonrpc": "2.0", "id": id, "result": {}});
        assert_eq!(mallory.send(&pong).await, StatusCode::ACCEPTED);
    }
    let pong = json!({"jsonrpc": "2.0", "id": format!("{asked}0"), "result": {}});
    assert_eq!(victim.at(&b.url).send(&pong).await, StatusCode::ACCEPTED);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(length_of_queue(&redis, &victim).await, 1);
    let pong = json!({"jsonrpc": "2.0", "id": asked, "result": {}});
    assert_eq!(victim.at(&b.url).send(&pong).await, StatusCode::ACCEPTED);
    eventually("its confirmation", SOON, async || length_of_queue(&redis, &victim).await == 0).await;
}

mod principals {
    use super::*;

    fn bound(client: &RawClient, user: &str) -> SessionId {
        id(client).bound_to(Principal::new(user).unwrap())
    }

    #[actix::test]
    async fn a_session_is_its_users_at_every_server() {
        let redis = RedisServer::start();
        let (a, b) = (Member::start(&redis).await, Member::start(&redis).await);
        let alice = RawClient::connect_as(&a.url, "alice").await;
        let mut stream = alice.open_stream().await;
        for url in [&a.url, &b.url] {
            let anonymous = RawClient::attach(url, alice.session_id());
            for thief in [alice.at(url).with_token("mallory"), anonymous] {
                assert_eq!(thief.open_stream_after(None).await.unwrap_err(), StatusCode::NOT_FOUND);
                let request = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
                assert_eq!(thief.send(&request).await, StatusCode::NOT_FOUND);
                // Says nothing and does nothing.
                assert_eq!(thief.delete().await, StatusCode::NO_CONTENT);
            }
        }
        push(&b.courier.publisher(), &bound(&alice, "alice"), 0..1).await;
        assert_eq!(numbers(&mut stream, 1).await, [0]);
        eventually("its confirmation", SOON, async || length_of(&redis, "alice:", &alice).await == 0).await;
        drop(stream);
        let mut stream = alice.at(&b.url).open_stream().await;
        push(&a.courier.publisher(), &bound(&alice, "alice"), 1..2).await;
        assert_eq!(numbers(&mut stream, 1).await, [1]);
        let tools = alice.at(&b.url).request("tools/list", json!({})).await;
        assert_eq!(tools["result"]["tools"][0]["name"], bound(&alice, "alice").to_string(), "what a handler sees");
    }

    #[actix::test]
    async fn a_push_for_another_principal_does_not_reach_a_session() {
        let redis = RedisServer::start();
        let a = Member::start(&redis).await;
        let alice = RawClient::connect_as(&a.url, "alice").await;
        let mut stream = alice.open_stream().await;
        let publisher = a.courier.publisher();
        push(&publisher, &id(&alice), 0..1).await;
        push(&publisher, &bound(&alice, "mallory"), 1..2).await;
        push(&publisher, &bound(&alice, "alice"), 2..3).await;
        assert_eq!(numbers(&mut stream, 1).await, [2]);
        assert_eq!(stream.notification_within(Duration::from_millis(100)).await, None);
    }

    #[actix::test]
    async fn a_takeover_under_another_principal_takes_nothing() {
        let redis = RedisServer::start();
        let (a, b) = (Member::start(&redis).await, Member::start(&redis).await);
        let alice = RawClient::connect_as(&a.url, "alice").await;
        let mut stream = alice.open_stream().await;
        // A server that is wrong about whose session it is subscribes to another queue.
        let session = bound(&alice, "mallory");
        let (sender, mut stolen) = tokio::sync::mpsc::channel(1);
        struct Thief(tokio::sync::mpsc::Sender<()>);
        #[mcp_courier::async_trait]
        impl mcp_courier::McpSession for Thief {
            async fn hand_over(&self, _: &mcp_courier::Outbound) -> Result<(), mcp_courier::HandOverError> {
                self.0.send(()).await.map_err(|_| mcp_courier::HandOverError::Closed)
            }
        }
        b.courier.ensure_subscriber(&session, Arc::new(Thief(sender))).await.unwrap();
        push(&a.courier.publisher(), &bound(&alice, "alice"), 0..10).await;
        assert_eq!(numbers(&mut stream, 10).await.len(), 10);
        assert!(stolen.try_recv().is_err());
    }
}

#[actix::test]
async fn another_type_under_one_sessions_key_is_that_sessions_trouble_alone() {
    let redis = RedisServer::start();
    let queue =
        mcp_courier::testing::backend::connect(&redis.url(), Arc::new(config().build().unwrap())).await.unwrap();
    let sessions = ["odd", "known", "unknown"].map(|id| SessionId::new(id).unwrap());
    queue.store_session(&sessions[1], "{}").await.unwrap();
    redis.command::<usize>(&["RPUSH", "mcp-courier:session:odd", "x"]).await;
    let known = queue.refresh_sessions(&sessions).await.unwrap();
    assert_eq!(known, [SessionRecord::Known, SessionRecord::Known, SessionRecord::Unknown]);
    queue.store_session(&sessions[0], "{}").await.unwrap_err();
}
