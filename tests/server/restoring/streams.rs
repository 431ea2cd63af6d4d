//! Streams of sessions that are restored do not wait for the handlers of rmcp, which are made by and by.

use rmcp::ServerHandler;
use rmcp::service::{NotificationContext, RoleServer};

use super::handlers::serve;
use super::*;

async fn push(origin: &McpServer, client: &RawClient, n: usize) {
    let notification = Notification::new("notifications/x").unwrap().with_params(json!({ "n": n })).unwrap();
    let session = SessionId::new(client.session_id()).unwrap();
    origin.courier.publisher().push(&session, notification).await.unwrap();
}

#[actix::test]
async fn a_stream_is_served_while_rmcp_still_restores_its_session() {
    let redis = RedisServer::start();
    let origin = origin(&redis).await;
    for step in [Step::Restore, Step::Initialize, Step::Accept] {
        let (sessions, held) = holding(Place::Before(step));
        let b = server(&redis, sessions).await;
        let client = RawClient::connect(&origin.url).await;
        let at_b = client.at(&b.url);
        let mut stream = at_b.open_stream().await;
        push(&origin, &client, 1).await;
        assert_eq!(stream.notifications(1).await[0]["params"]["n"], 1, "{step:?}");
        held.reached.notified().await;
        push(&origin, &client, 2).await;
        assert_eq!(stream.notifications(1).await[0]["params"]["n"], 2, "{step:?}");
        assert_eq!(initialized(&b), 0);
        held.release.notify_one();
        eventually("its handler is made", SOON, async || initialized(&b) == 1).await;
        // What rmcp sends comes down the stream that was there before.
        if step != Step::Accept {
            let changed = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
            assert_eq!(at_b.send(&changed).await, StatusCode::ACCEPTED);
            let event = stream.notifications(1).await;
            assert_eq!(event[0]["method"], "notifications/tools/list_changed", "{step:?}");
        }
    }
}

#[actix::test]
async fn a_request_does_not_wait_for_the_turn_of_its_sessions_handler() {
    let redis = RedisServer::start();
    let (origin, b) = (origin(&redis).await, server(&redis, StagedManager::new(|_| Box::pin(async {}))).await);
    let client = RawClient::connect(&origin.url).await;
    let at_b = client.at(&b.url);
    let _stream = at_b.open_stream().await;
    assert_eq!(at_b.send(&ping()).await, StatusCode::OK);
    assert_eq!(initialized(&b), 1);
    tokio::time::sleep(STALL * 2).await;
    assert_eq!(initialized(&b), 1, "it was made twice");
}

#[actix::test]
async fn a_session_that_ends_while_its_handler_is_made_ends_with_its_stream() {
    let redis = RedisServer::start();
    let origin = origin(&redis).await;
    for step in [Step::Restore, Step::Initialize, Step::Accept] {
        let (sessions, held) = holding(Place::After(step));
        let b = server(&redis, sessions).await;
        let client = RawClient::connect(&origin.url).await;
        let at_b = client.at(&b.url);
        let mut stream = at_b.open_stream().await;
        held.reached.notified().await;
        assert_eq!(at_b.delete().await, StatusCode::NO_CONTENT);
        stream.ended().await;
        held.release.notify_one();
        assert_eq!(at_b.send(&ping()).await, StatusCode::NOT_FOUND, "{step:?}");
        assert_eq!(at_b.open_stream_after(None).await.err(), Some(StatusCode::NOT_FOUND), "{step:?}");
    }
}

#[actix::test]
async fn a_session_that_an_earlier_version_stored_is_restored_before_its_stream_opens() {
    let redis = RedisServer::start();
    let origin = origin(&redis).await;
    let b = server(&redis, StagedManager::new(|_| Box::pin(async {}))).await;
    let client = RawClient::connect(&origin.url).await;
    let key = format!("mcp-courier:session:{}", client.session_id());
    let mut connection = redis.connection().await;
    let stored: String = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
    let mut stored: Value = serde_json::from_str(&stored).unwrap();
    assert_eq!(stored.as_object_mut().unwrap().remove("negotiated"), Some(json!("2025-11-25")));
    let set = redis::cmd("SET").arg(&key).arg(stored.to_string()).query_async(&mut connection).await;
    let () = set.unwrap();
    let mut stream = client.at(&b.url).open_stream().await;
    eventually("it is initialised", SOON, async || initialized(&b) == 1).await;
    push(&origin, &client, 1).await;
    assert_eq!(stream.notifications(1).await[0]["params"]["n"], 1);
}

/// Sends something as soon as the session is initialised.
#[derive(Clone)]
struct Eager;

impl ServerHandler for Eager {
    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        context.peer.notify_resource_list_changed().await.unwrap();
    }
}

#[actix::test]
async fn a_stream_outlives_a_handler_that_cannot_be_made_and_has_what_the_next_one_sends() {
    let redis = RedisServer::start();
    let origin = origin(&redis).await;
    let tries = Calls::default();
    let counted = tries.clone();
    let factory = move || match counted.next() {
        0 => Err(std::io::Error::other("on purpose")),
        _ => Ok(Eager),
    };
    let (b, _service) = serve(&redis, factory).await;
    let client = RawClient::connect(&origin.url).await;
    let at_b = client.at(&b);
    let mut stream = at_b.open_stream().await;
    eventually("a handler was asked for", SOON, async || tries.count() == 1).await;
    push(&origin, &client, 1).await;
    assert_eq!(stream.notifications(1).await[0]["params"]["n"], 1);
    assert_eq!(at_b.send(&ping()).await, StatusCode::OK);
    assert_eq!(stream.notifications(1).await[0]["method"], "notifications/resources/list_changed");
}
