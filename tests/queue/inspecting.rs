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
