//! The decorated session manager in a real server, and clients that behave and misbehave over HTTP.
use std::time::{Duration, Instant};

use mcp_courier::{
    ConfigBuilder, Courier, DeliveryLevel, GetSubscriberCount, ListSubscribers, Notification, SessionId,
    SubscriberState, TraceContext,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::mcp_server::McpServer;
use mcp_courier_testing::raw_client::{EventStream, RawClient};
use mcp_courier_testing::waiting;
use reqwest::StatusCode;
use serde_json::{Value, json};

fn config() -> ConfigBuilder {
    waiting::config()
        .backoff_initial(Duration::from_millis(5))
        .backoff_max(Duration::from_millis(100))
        .hand_over_timeout(Duration::from_millis(500))
}

async fn server(name: &str, config: ConfigBuilder) -> McpServer {
    server_with(name, config, Duration::from_secs(300)).await
}

async fn server_with(name: &str, config: ConfigBuilder, idle: Duration) -> McpServer {
    let courier = Courier::start(&format!("memory://rmcp-{name}"), config.build().unwrap()).await.unwrap();
    let manager = courier.session_manager().idle_timeout(idle);
    McpServer::start(courier, manager)
}

fn numbered(n: usize, size: usize) -> Notification {
    let params = json!({"n": n, "padding": "x".repeat(size)});
    Notification::new("notifications/x").unwrap().with_params(params).unwrap()
}

async fn push(server: &McpServer, client: &RawClient, numbers: std::ops::Range<usize>, size: usize) {
    let id = SessionId::new(client.session_id()).unwrap();
    for result in server.courier.publisher().push_many(numbers.map(|n| (id.clone(), numbered(n, size)))).await {
        result.unwrap();
    }
}

fn number(notification: &Value) -> usize {
    usize::try_from(notification["params"]["n"].as_u64().unwrap()).unwrap()
}

async fn numbers(stream: &mut EventStream, count: usize) -> Vec<usize> {
    stream.notifications(count).await.iter().map(number).collect()
}

fn range(numbers: std::ops::Range<usize>) -> Vec<usize> {
    numbers.collect()
}

/// Reads until `last` has arrived. Leaves out repeats.
async fn without_repeats(stream: &mut EventStream, seen: &mut Vec<(usize, Value)>, last: usize) {
    while seen.last().is_none_or(|(n, _)| *n < last) {
        let notification = stream.next_notification().await.expect("the stream goes on");
        let id = notification["params"]["_meta"]["mcp-courier/id"].clone();
        assert!(id.is_string(), "{notification}");
        if !seen.iter().any(|(_, known)| *known == id) {
            seen.push((number(&notification), id));
        }
    }
}

async fn state(server: &McpServer) -> Option<SubscriberState> {
    server.courier.supervisor().send(ListSubscribers).await.unwrap().pop().map(|info| info.state)
}

async fn until_state(server: &McpServer, wanted: Option<SubscriberState>) {
    eventually(&format!("{wanted:?}"), SOON, || async { state(server).await == wanted }).await;
}

#[actix::test]
async fn opening_a_stream_claims_the_session_and_nothing_else_does() {
    let server = server("claims", config()).await;
    let client = RawClient::connect(&server.url).await;
    client.request("tools/list", json!({})).await;
    assert_eq!(server.courier.supervisor().send(GetSubscriberCount).await.unwrap(), 0);
    let mut stream = client.open_stream().await;
    push(&server, &client, 0..1, 0).await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
    drop(stream);
    until_state(&server, Some(SubscriberState::Parked)).await;
    assert_eq!(client.delete().await, StatusCode::NO_CONTENT);
    until_state(&server, None).await;
}

#[actix::test]
async fn g1_g2_what_is_pushed_while_no_stream_is_open_arrives_whole_on_the_next_one() {
    let server = server("between", config()).await;
    let client = RawClient::connect(&server.url).await;
    let mut stream = client.open_stream().await;
    push(&server, &client, 0..1, 0).await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
    // The confirmation is awaited; the messages that it confirms must not be repeated.
    until_state(&server, Some(SubscriberState::Waiting)).await;
    drop(stream);
    until_state(&server, Some(SubscriberState::Parked)).await;
    push(&server, &client, 1..101, 0).await;
    let mut stream = client.open_stream().await;
    assert_eq!(numbers(&mut stream, 100).await, range(1..101));
}

#[actix::test]
async fn what_was_pushed_goes_out_as_it_was_with_its_id() {
    let server = server("as-it-was", config()).await;
    let client = RawClient::connect(&server.url).await;
    let mut stream = client.open_stream().await;
    let id = SessionId::new(client.session_id()).unwrap();
    let now = mcp_courier::testing::envelope::Timestamp::of_this_host().to_string();
    let params = json!({"taskId": "7", "status": "working", "createdAt": now, "lastUpdatedAt": now,
        "ttl": null, "unknown": {"to": ["rmcp"]}, "_meta": {"a": 1}});
    let context = TraceContext::new("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
    let context = context.with_tracestate("a=\"1\"").unwrap().with_baggage("tenant=acme").unwrap();
    let notification = Notification::new("notifications/tasks/status")
        .unwrap()
        .with_params(params.clone())
        .unwrap()
        .with_meta(json!({"b": 2}))
        .unwrap()
        .with_trace_context(context);
    let pushed = server.courier.publisher().push(&id, notification).await.unwrap();
    let mut expected = params;
    expected["_meta"] = json!({"a": 1, "b": 2, "mcp-courier/id": pushed.id.to_string(),
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "a=\"1\"",
        "baggage": "tenant=acme"});
    let got = stream.next_notification().await.unwrap();
    assert_eq!(got, json!({"jsonrpc": "2.0", "method": "notifications/tasks/status", "params": expected}));
}

#[actix::test]
async fn what_rmcp_itself_sends_comes_down_the_same_stream() {
    let server = server("rmcps-own", config()).await;
    let client = RawClient::connect(&server.url).await;
    let mut stream = client.open_stream().await;
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"})).await;
    let mut event = stream.next_event().await.unwrap();
    while event.message.is_none() {
        // rmcp's priming event, and ours.
        event = stream.next_event().await.unwrap();
    }
    assert_eq!(event.message.unwrap()["method"], "notifications/tools/list_changed");
    // Its id says which process issued it: there it is resumed, and what comes after it is not lost.
    let id = event.id.unwrap();
    drop(stream);
    until_state(&server, Some(SubscriberState::Parked)).await;
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"})).await;
    let mut stream = client.come_back(&id).await;
    assert!(stream.next_event().await.unwrap().message.is_none(), "the first event of a stream has no data");
    let missed = stream.next_event().await.unwrap();
    assert_eq!(missed.message.unwrap()["method"], "notifications/tools/list_changed");
    // rmcp begins by the event that the client has: that is left out.
    push(&server, &client, 0..1, 0).await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
}

#[actix::test]
async fn g2_g7_a_reader_that_stalls_is_cut_off_harms_only_itself_and_loses_nothing() {
    let server = server("stalls", config()).await;
    let client = RawClient::connect(&server.url).await;
    let stream = client.open_stream().await;
    stream.read(false);
    push(&server, &client, 0..500, 32 * 1024).await;
    until_state(&server, Some(SubscriberState::Delivering)).await;
    let begun = Instant::now();
    client.request("tools/list", json!({})).await;
    assert!(begun.elapsed() < Duration::from_millis(400), "other calls waited {:?}", begun.elapsed());
    // Not read, so not confirmed: cut off, and parked.
    until_state(&server, Some(SubscriberState::Parked)).await;
    drop(stream);
    let mut stream = client.open_stream().await;
    let mut seen = Vec::new();
    without_repeats(&mut stream, &mut seen, 499).await;
    assert_eq!(seen.iter().map(|(n, _)| *n).collect::<Vec<_>>(), range(0..500));
}

#[actix::test]
async fn a_stalled_session_can_still_be_deleted() {
    let server = server("stalled-delete", config().hand_over_timeout(Duration::from_secs(30))).await;
    let client = RawClient::connect(&server.url).await;
    let stream = client.open_stream().await;
    stream.read(false);
    push(&server, &client, 0..500, 32 * 1024).await;
    until_state(&server, Some(SubscriberState::Delivering)).await;
    assert_eq!(client.delete().await, StatusCode::NO_CONTENT);
    until_state(&server, None).await;
}

#[actix::test]
async fn g2_a_client_that_comes_back_ten_times_without_confirming_loses_nothing_by_it() {
    let server = server("unconfirmed", config().max_attempts(1).batch_messages(50)).await;
    let client = RawClient::connect(&server.url).await;
    push(&server, &client, 0..200, 0).await;
    for _ in 0..10 {
        let mut stream = client.open_stream().await;
        stream.answer_pings(false);
        assert_eq!(numbers(&mut stream, 50).await, range(0..50), "the same batch, as nobody confirmed it");
    }
    let mut stream = client.open_stream().await;
    let mut seen = Vec::new();
    without_repeats(&mut stream, &mut seen, 199).await;
    assert_eq!(seen.iter().map(|(n, _)| *n).collect::<Vec<_>>(), range(0..200));
    let info = server.courier.supervisor().send(ListSubscribers).await.unwrap().pop().unwrap();
    assert_eq!(info.discarded, 0);
}

#[actix::test]
async fn a_client_that_never_answers_a_ping_is_cut_off_and_may_come_back() {
    let server = server("never-answers", config()).await;
    let client = RawClient::connect(&server.url).await;
    let mut stream = client.open_stream().await;
    stream.answer_pings(false);
    push(&server, &client, 0..1, 0).await;
    stream.ended().await;
    let mut stream = client.open_stream().await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
}

#[actix::test]
async fn an_answer_to_a_ping_that_was_never_sent_confirms_nothing() {
    let server = server("forged", config()).await;
    let client = RawClient::connect(&server.url).await;
    let mut stream = client.open_stream().await;
    stream.answer_pings(false);
    push(&server, &client, 0..1, 0).await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
    for id in [json!("mcp-courier:"), json!("mcp-courier:01a20633-8601-72df-afc7-ed3bd94d95cf"), json!(1)] {
        let status = client.send(&json!({"jsonrpc": "2.0", "id": id, "result": {}})).await;
        assert_eq!(status, StatusCode::ACCEPTED);
    }
    stream.ended().await;
    let mut stream = client.open_stream().await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
}

#[actix::test]
async fn the_newest_stream_receives_and_the_older_goes_on_when_it_closes() {
    let server = server("two-streams", config()).await;
    let client = RawClient::connect(&server.url).await;
    let mut older = client.open_stream().await;
    push(&server, &client, 0..10, 0).await;
    assert_eq!(numbers(&mut older, 10).await, range(0..10));
    until_state(&server, Some(SubscriberState::Waiting)).await;
    let mut newer = client.open_stream().await;
    push(&server, &client, 10..20, 0).await;
    assert_eq!(numbers(&mut newer, 10).await, range(10..20));
    until_state(&server, Some(SubscriberState::Waiting)).await;
    drop(newer);
    // It may be some time before the server notices; whatever is pushed meanwhile is not lost.
    push(&server, &client, 20..30, 0).await;
    let mut seen = Vec::new();
    without_repeats(&mut older, &mut seen, 29).await;
    assert_eq!(seen.iter().map(|(n, _)| *n).collect::<Vec<_>>(), range(20..30));
    assert_eq!(older.notification_within(Duration::from_millis(50)).await, None);
}

#[actix::test]
async fn a_last_event_id_of_another_process_opens_a_fresh_stream() {
    let server = server("foreign-id", config()).await;
    let client = RawClient::connect(&server.url).await;
    for (n, id) in ["0", "37", "0/5", "nonsense", "01a2063386017-37"].into_iter().enumerate() {
        let mut stream = client.come_back(id).await;
        push(&server, &client, n..n + 1, 0).await;
        assert_eq!(numbers(&mut stream, 1).await, [n], "after {id}");
        until_state(&server, Some(SubscriberState::Waiting)).await;
    }
}

#[actix::test]
async fn pulled_does_without_pings() {
    let server = server("pulled", config().delivery_level(DeliveryLevel::Pulled)).await;
    let client = RawClient::connect(&server.url).await;
    let mut stream = client.open_stream().await;
    push(&server, &client, 0..1000, 0).await;
    assert_eq!(numbers(&mut stream, 1000).await, range(0..1000));
    until_state(&server, Some(SubscriberState::Waiting)).await;
    assert_eq!(stream.pings(), 0);
}

#[actix::test]
async fn an_idle_session_is_ended_and_one_with_an_open_stream_is_not() {
    let server = server_with("idle", config(), Duration::from_millis(200)).await;
    let (idle, listening) = (RawClient::connect(&server.url).await, RawClient::connect(&server.url).await);
    let mut stream = listening.open_stream().await;
    let ended = || async { idle.open_stream_after(Some("x")).await.err() == Some(StatusCode::NOT_FOUND) };
    // Asking keeps it alive, so it is asked once, late.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(ended().await, "an idle session still lives");
    push(&server, &listening, 0..1, 0).await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
}

#[actix::test]
async fn g6_a_stream_too_many_is_refused_and_says_why() {
    let server = server("limit", config().dedicated_limit(1).shared_limit(0)).await;
    let (first, second) = (RawClient::connect(&server.url).await, RawClient::connect(&server.url).await);
    let _stream = first.open_stream().await;
    assert_eq!(second.open_stream_after(None).await.err(), Some(StatusCode::INTERNAL_SERVER_ERROR));
    first.delete().await;
    until_state(&server, None).await;
    let mut stream = second.open_stream().await;
    push(&server, &second, 0..1, 0).await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
}
