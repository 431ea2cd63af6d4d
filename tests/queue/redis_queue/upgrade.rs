//! A fleet is upgraded server by server: messages of the version before stand among those of this one.

use std::time::Duration;

use mcp_courier::testing::envelope::Timestamp;
use mcp_courier::{Courier, Publisher};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::recorder::Recorder;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use redis::aio::MultiplexedConnection;

use super::fixture::{QUEUE, note, session};

/// Queues a notification as the version before did at a moment: both times by Redis's clock, as texts.
async fn push_as_before(raw: &mut MultiplexedConnection, n: usize, at: Timestamp, life: Duration) -> String {
    let (id, expires_at) = (format!("01a20633-8601-72df-afc7-{n:012}"), at.plus(life));
    let message = format!(
        r#"{{"notification":{{"method":"notifications/test","params":{{"n":{n}}}}},"attempt":0,"enqueued_at":"{at}","expires_at":"{expires_at}","id":"{id}"}}"#
    );
    redis::pipe()
        .cmd("LPUSH")
        .arg(QUEUE)
        .arg(message)
        .cmd("EXPIRE")
        .arg(QUEUE)
        .arg(3600)
        .exec_async(raw)
        .await
        .unwrap();
    id
}

#[actix::test]
async fn g1_g5_messages_of_the_version_before_are_delivered_in_order_and_expire_by_their_own_times() {
    // Redis's clock counts, not this host's.
    let server = RedisServer::with_own_clock();
    server.set_clock(-3600);
    let mut raw = server.connection().await;
    let (seconds, _): (i64, i64) = redis::cmd("TIME").query_async(&mut raw).await.unwrap();
    let now = Timestamp(seconds * 1_000_000);
    let config = waiting::config().dead_letters(10).build().unwrap();
    let publisher = Publisher::connect(&server.url(), config.clone()).await.unwrap();
    let minute = Duration::from_secs(60);
    publisher.push(&session(), note(0)).await.unwrap();
    let mut ids = vec![push_as_before(&mut raw, 1, now, minute).await];
    let expired = push_as_before(&mut raw, 2, Timestamp(now.0 - 61_000_000), minute).await;
    publisher.push(&session(), note(3)).await.unwrap();
    // Far beyond FastMCP's 300 s.
    ids.push(push_as_before(&mut raw, 4, Timestamp(now.0 - 3_000_000_000), 60 * minute).await);

    let courier = Courier::start(&server.url(), config).await.unwrap();
    let recorder = Recorder::new();
    courier.ensure_subscriber(&session(), recorder.clone()).await.unwrap();
    recorder.until_taken(4).await;
    let taken = recorder.outbound();
    assert_eq!([1, 3].map(|n| taken[n].id.to_string()), ids[..]);
    let letters = async || publisher.dead_letters().list(&session(), 0, 10).await.unwrap();
    eventually("the expired one is discarded", SOON, async || !letters().await.is_empty()).await;
    assert_eq!(letters().await.iter().map(|letter| letter.id.unwrap().to_string()).collect::<Vec<_>>(), [expired]);
    courier.shutdown(SOON).await;
    server.assert_no_key_without_expiry().await;
}
