//! Users of Redis with few rights: those that the documentation names are enough, and an error names one that is missing.

use std::time::Duration;

use mcp_courier::{Config, Courier, Notification, Publisher, Receipt, SessionId};
use mcp_courier_testing::readme;
use mcp_courier_testing::recorder::Recorder;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use serde_json::json;

fn session() -> SessionId {
    SessionId::new("s").unwrap()
}

fn note() -> Notification {
    Notification::new("notifications/x").unwrap().with_params(json!({"n": 1})).unwrap()
}

#[actix::test]
async fn the_documented_rights_are_enough_for_a_worker_beside_a_server() {
    let redis = RedisServer::start();
    // One server of Redis has one user of this name: the worker's is the restricted one.
    let url = redis.restricted_url(&readme::worker_rights()).await;
    let config = waiting::config().build().unwrap();
    let courier = Courier::start(&format!("redis://127.0.0.1:{}/", redis.port()), config.clone()).await.unwrap();
    let recorder = Recorder::new();
    courier.ensure_subscriber(&session(), recorder.clone()).await.unwrap();

    let publisher = Publisher::connect(&url, config).await.unwrap();
    let id = publisher.push(&session(), note().with_receipt()).await.unwrap().id;
    let receipt = publisher.until_settled(&session(), id, Duration::from_secs(30)).await.unwrap();
    assert!(matches!(receipt, Receipt::Delivered { .. }), "{receipt:?}");
    publisher.broadcast(&note()).await.unwrap();
    let dead = publisher.dead_letters();
    assert!(dead.sessions().await.unwrap().is_empty());
    assert_eq!(dead.redrive(&session()).await.unwrap().redriven, 0);
    assert_eq!(dead.purge(&session()).await.unwrap(), 0);
    courier.shutdown(Duration::from_secs(5)).await;
    redis.assert_no_right_was_missing().await;
}

#[actix::test]
async fn a_right_that_is_missing_is_named_with_where_to_look() {
    let redis = RedisServer::start();
    let without = |right: &'static str| [&readme::worker_rights()[..], &[right]].concat();
    for (right, named) in [("-evalsha", "evalsha"), ("-time", "time"), ("-lpush", "script"), ("resetkeys", "key")] {
        let url = redis.restricted_url(&without(right)).await;
        let pushed = match Publisher::connect(&url, Config::default()).await {
            Ok(publisher) => publisher.push(&session(), note()).await.unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        println!("{right}: {pushed}");
        assert!(pushed.contains(named), "{right}: {pushed}");
        assert!(pushed.contains("docs/redis.md lists the rights that a user needs"), "{right}: {pushed}");
    }
}
