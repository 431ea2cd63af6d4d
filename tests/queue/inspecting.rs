//! Operators' view of real servers: rights, records, and the reasons why sessions get nothing.

use std::time::Duration;

use mcp_courier::{Config, Inspector, Notification, Publisher, SessionCursor, SessionId};
use mcp_courier_testing::redis_server::RedisServer;

const DOCUMENT: &str = include_str!("../../docs/inspecting.md");

/// Returns the rights between two texts of the document.
fn rights(begin: &str) -> impl Iterator<Item = &'static str> {
    let after = DOCUMENT.split_once(begin).expect("the sentence of the rights").1;
    after.split_once('`').expect("the end of the rights").0.split_whitespace()
}

#[tokio::test]
async fn the_rights_that_the_document_names_are_enough() {
    let redis = RedisServer::start();
    let session = SessionId::new("1f0c2f6e").unwrap();
    let publisher = Publisher::connect(&redis.url(), Config::default()).await.unwrap();
    let kept = publisher.push(&session, Notification::tools_list_changed().with_receipt()).await.unwrap();
    let mut allowed = vec!["on", ">secret", "resetchannels", "~mcp-courier:*", "~{mcp-courier:*"];
    allowed.extend(rights("An ACL user that only inspects needs `"));
    let url = redis.restricted_url(&allowed).await;
    let inspector = Inspector::connect(&url, Config::default()).await.unwrap();
    assert_eq!(inspector.sessions(&SessionCursor::default(), 10).await.unwrap().sessions.len(), 1);
    assert_eq!(inspector.session(&session).await.unwrap().summary.depth, 1);
    assert_eq!(inspector.peek(&session, 1).await.unwrap().messages[0].message.id, Some(kept.id));
    assert!(inspector.owner(&session).await.unwrap().is_none() && inspector.servers().await.unwrap().is_empty());
    assert!(!inspector.explain(&session).await.unwrap().is_empty());
    redis.assert_no_right_was_missing().await;
    assert!(inspector.purge(&session).await.is_err(), "this user only inspects");

    allowed.extend(rights("A user who may also purge needs `"));
    redis.restricted_url(&allowed).await;
    assert_eq!(inspector.purge(&session).await.unwrap(), 1);
    let receipt = publisher.until_settled(&session, kept.id, Duration::from_secs(5)).await.unwrap();
    assert!(receipt.is_settled(), "{receipt:?}");
}

/// Number of sessions whose server writes its record.
#[cfg(feature = "server")]
const SESSIONS: u64 = 50;

#[cfg(feature = "server")]
#[actix::test]
async fn a_server_writes_one_record_a_heartbeat_whatever_the_number_of_its_sessions() {
    use std::time::Instant;

    use mcp_courier::Courier;
    use mcp_courier_testing::eventually::{SOON, eventually};
    use mcp_courier_testing::recorder::Recorder;

    let (redis, heartbeat) = (RedisServer::start(), Duration::from_millis(200));
    let config = mcp_courier_testing::waiting::config().heartbeat(heartbeat).build().unwrap();
    let courier = Courier::start(&redis.url(), config).await.unwrap();
    for n in 0..SESSIONS {
        let session = SessionId::new(format!("s-{n}")).unwrap();
        courier.ensure_subscriber(&session, Recorder::new()).await.unwrap();
    }
    let inspector = courier.publisher().inspector();
    eventually("a record of all", SOON, async || {
        let servers = inspector.servers().await.unwrap();
        servers.iter().any(|server| server.subscribers.waiting as u64 == SESSIONS)
    })
    .await;
    // A renewal only extends a lease. So each `SET` is of a record.
    let sets = async || redis.calls().await.get("set").copied().unwrap_or_default();
    let (begun, before) = (Instant::now(), sets().await);
    eventually("five records", SOON, async || sets().await >= before + 5).await;
    let written = sets().await - before;
    let heartbeats = begun.elapsed().as_millis() / heartbeat.as_millis() + 1;
    assert!(u128::from(written) <= heartbeats, "{written} records in {heartbeats} heartbeats");
    courier.shutdown(SOON).await;
    assert!(inspector.servers().await.unwrap().is_empty());
}
