//! Metrics beside what has happened, with real clients and a real Redis. Each test has a process of its own, because the
//! metrics are those of a process.
use std::time::Duration;

use mcp_courier::{
    Answer, Config, Courier, Elicitation, HandOverError, LoggingLevel, Notification, Publisher, SessionId, TaskKey,
};
use mcp_courier_testing::eventually::eventually;
use mcp_courier_testing::in_own_process;
use mcp_courier_testing::mcp_server::McpServer;
use mcp_courier_testing::raw_client::RawClient;
use mcp_courier_testing::recorder::{Act, Recorder};
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::scrape::Scrape;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::json;

/// Longer than the time between two samples.
const WAIT: Duration = Duration::from_secs(30);

/// Metrics of this process.
struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs a recorder, which must precede the first courier.
    fn install() -> Self {
        Self(PrometheusBuilder::new().install_recorder().unwrap())
    }

    fn now(&self) -> Scrape {
        Scrape::read(&self.0.render())
    }

    /// Waits until each of these series has its value. A metric with labels is named without `mcp_courier_`, and with
    /// one label as in `pushed_total{session="known"}`.
    async fn until(&self, wanted: &[(&str, f64)]) {
        let is_so = || {
            let now = self.now();
            wanted.iter().all(|(series, value)| now.value(&format!("mcp_courier_{series}")) == *value)
        };
        let what = format!("the metrics are {wanted:?}");
        eventually(&what, WAIT, async || is_so()).await;
    }
}

fn id(name: &str) -> SessionId {
    SessionId::new(name).unwrap()
}

fn numbered(n: usize) -> Notification {
    Notification::message(LoggingLevel::Info, None, json!({ "n": n }))
}

async fn push(publisher: &Publisher, session: &SessionId, count: usize) {
    for pushed in publisher.push_many((0..count).map(|n| (session.clone(), numbered(n)))).await {
        pushed.unwrap();
    }
}

async fn server(redis: &RedisServer) -> McpServer {
    let config = Config::builder().hand_over_timeout(Duration::from_millis(700)).build().unwrap();
    let courier = Courier::start(&redis.url(), config).await.unwrap();
    let manager = courier.session_manager();
    McpServer::of_fleet(courier, manager)
}

#[actix::test]
async fn what_is_not_confirmed_is_repeated_and_what_the_client_names_is_skipped() {
    in_own_process!();
    let (metrics, redis) = (Metrics::install(), RedisServer::start());
    let server = server(&redis).await;
    let client = RawClient::connect(&server.url).await;
    let session = id(client.session_id());
    let mut stream = client.open_stream().await;
    stream.answer_pings(false);
    push(&server.courier.publisher(), &session, 3).await;
    stream.notifications(3).await;
    stream.ended().await;
    metrics
        .until(&[
            ("delivered_total", 3.0),
            ("confirmed_total", 0.0),
            (r#"streams_closed_total{by="server",cause="unanswered"}"#, 1.0),
            ("streams_open", 0.0),
        ])
        .await;
    // The client names no event, so all come again.
    let mut stream = client.open_stream().await;
    stream.notifications(3).await;
    metrics
        .until(&[
            ("delivered_total", 6.0),
            ("repeated_total", 3.0),
            ("confirmed_total", 3.0),
            ("delivery_seconds_count", 3.0),
            (r#"streams_opened_total{kind="new"}"#, 2.0),
        ])
        .await;
    // The client has the next one, and says so when it comes back.
    stream.answer_pings(false);
    push(&server.courier.publisher(), &session, 1).await;
    stream.notifications(1).await;
    let last = stream.last_event_id().unwrap().to_owned();
    drop(stream);
    let _stream = client.come_back(&last).await;
    metrics
        .until(&[
            (r#"skipped_total{reason="named"}"#, 1.0),
            ("delivered_total", 7.0),
            ("repeated_total", 3.0),
            ("confirmed_total", 3.0),
            (r#"streams_closed_total{by="client",cause="hung_up"}"#, 1.0),
        ])
        .await;
    assert_eq!(metrics.now().sum("mcp_courier_pushed_total"), 4.0, "confirmed and named together");
    // An older stream that ends beside a newer one.
    let older = client.open_stream().await;
    let newer = client.open_stream().await;
    drop(older);
    metrics.until(&[(r#"streams_closed_total{by="client",cause="newer_stream"}"#, 1.0)]).await;
    drop(newer);
    let _last = client.open_stream().await;
    client.delete().await;
    metrics.until(&[("sessions", 0.0), ("streams_open", 0.0)]).await;
    assert!(metrics.now().value(r#"mcp_courier_streams_closed_total{by="server",cause="session_ended"}"#) >= 1.0);
}

#[actix::test]
async fn a_shutdown_closes_streams_and_is_named_as_their_cause() {
    in_own_process!();
    let (metrics, redis) = (Metrics::install(), RedisServer::start());
    let server = server(&redis).await;
    let client = RawClient::connect(&server.url).await;
    let mut stream = client.open_stream().await;
    metrics.until(&[("streams_open", 1.0)]).await;
    server.shut_down().await;
    stream.ended().await;
    let closed = r#"streams_closed_total{by="server",cause="shutdown"}"#;
    metrics.until(&[("streams_open", 0.0), (closed, 1.0)]).await;
}

#[actix::test]
async fn each_refusal_retry_and_discard_counts_under_its_reason() {
    in_own_process!();
    let metrics = Metrics::install();
    let config = Config::builder().queue_max_messages(3).backoff_initial(Duration::from_millis(1)).build().unwrap();
    let courier = Courier::start("memory://metrics-reasons", config).await.unwrap();
    let refused = courier.publisher().push_many((0..5).map(|n| (id("s"), numbered(n)))).await;
    assert_eq!(refused.iter().filter(|result| result.is_err()).count(), 2);
    metrics
        .until(&[
            (r#"pushed_total{session="unknown"}"#, 3.0),
            (r#"push_refused_total{reason="queue_full"}"#, 1.0),
            (r#"push_refused_total{reason="after_refused"}"#, 1.0),
        ])
        .await;
    let failed = |why: &str| Act::Fail(HandOverError::Transient(why.to_owned()));
    let rejected = Act::Fail(HandOverError::Rejected("never".to_owned()));
    let session = Recorder::scripted([failed("once"), Act::Take, rejected]);
    courier.ensure_subscriber(&id("s"), session).await.unwrap();
    metrics
        .until(&[
            ("retried_total", 1.0),
            (r#"discarded_total{reason="rejected"}"#, 1.0),
            ("delivered_total", 2.0),
            ("confirmed_total", 2.0),
        ])
        .await;
    push(&courier.publisher(), &id("s"), 1).await;
    metrics.until(&[(r#"pushed_total{session="owned"}"#, 1.0), ("confirmed_total", 3.0)]).await;
}

#[actix::test]
async fn a_session_that_changes_its_owner_is_one_takeover_won_and_one_lost() {
    in_own_process!();
    let (metrics, redis) = (Metrics::install(), RedisServer::start());
    let (a, b) = (server(&redis).await.courier.clone(), server(&redis).await.courier.clone());
    let won = r#"takeovers_total{side="won"}"#;
    a.ensure_subscriber(&id("s"), Recorder::new()).await.unwrap();
    push(&a.publisher(), &id("s"), 1).await;
    metrics.until(&[("confirmed_total", 1.0), (won, 0.0)]).await;
    b.ensure_subscriber(&id("s"), Recorder::new()).await.unwrap();
    metrics.until(&[(won, 1.0), (r#"takeovers_total{side="lost"}"#, 1.0)]).await;
}

#[actix::test]
async fn a_question_is_open_until_it_is_answered_at_the_server_and_at_the_worker() {
    in_own_process!();
    let (metrics, redis) = (Metrics::install(), RedisServer::start());
    let server = server(&redis).await;
    let client = RawClient::connect_with(&server.url, json!({"elicitation": {}})).await;
    let mut stream = client.open_stream().await;
    let (elicitor, session) = (server.courier.publisher().elicitor(), id(client.session_id()));
    let asking = actix::spawn(async move {
        let question = Elicitation::form("?", json!({"type": "object", "properties": {}})).unwrap();
        elicitor.elicit(&session, &TaskKey::anonymous("t").unwrap(), question, Duration::from_secs(60)).await
    });
    let question = stream.next_request().await.unwrap();
    metrics.until(&[("questions_open", 1.0), ("elicitations_open", 1.0), ("questions_asked_total", 1.0)]).await;
    client.answer(&question, json!({"action": "accept", "content": {}})).await;
    assert!(matches!(asking.await.unwrap().unwrap(), Answer::Accept(_)));
    metrics
        .until(&[
            ("questions_open", 0.0),
            ("elicitations_open", 0.0),
            (r#"questions_answered_total{outcome="accepted"}"#, 1.0),
            (r#"elicitations_total{outcome="accepted"}"#, 1.0),
        ])
        .await;
}

#[actix::test]
async fn queues_that_wait_for_their_clients_are_counted_and_their_oldest_ages() {
    in_own_process!();
    let (metrics, redis) = (Metrics::install(), RedisServer::start());
    // The second courier begins where the first has ended, because the sums are those of the process.
    for url in ["memory://metrics-depth".to_owned(), redis.url()] {
        let config =
            Config::builder().hand_over_timeout(Duration::from_millis(500)).max_attempts(1000).build().unwrap();
        let courier = Courier::start(&url, config).await.unwrap();
        let sessions = [Recorder::new(), Recorder::new(), Recorder::new()];
        for (n, session) in sessions.iter().enumerate() {
            session.always((n > 0).then_some(Act::Hang));
            courier.ensure_subscriber(&id(&format!("s{n}")), session.clone()).await.unwrap();
            push(&courier.publisher(), &id(&format!("s{n}")), 4 + n).await;
        }
        metrics.until(&[("owned_queue_messages", 11.0), ("owned_queue_messages_max", 6.0)]).await;
        metrics.until(&[(r#"subscribers{state="waiting"}"#, 1.0)]).await;
        let oldest = "mcp_courier_owned_queue_oldest_seconds";
        let first = metrics.now().value(oldest);
        assert!(first > 0.0);
        eventually("the oldest ages", WAIT, async || metrics.now().value(oldest) > first).await;
        sessions.iter().for_each(|session| session.always(None));
        metrics.until(&[("owned_queue_messages", 0.0), ("owned_queue_messages_max", 0.0)]).await;
        metrics.until(&[("owned_queue_oldest_seconds", 0.0), (r#"subscribers{state="waiting"}"#, 3.0)]).await;
        courier.shutdown(Duration::from_secs(5)).await;
        metrics.until(&[(r#"subscribers{state="waiting"}"#, 0.0)]).await;
    }
}
