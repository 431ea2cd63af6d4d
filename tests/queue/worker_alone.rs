//! A worker without a server, on a real Redis: these tests run without any feature. They look into Redis for what a server would do.

use std::time::Duration;

use mcp_courier::{
    Config, ConnectError, DiscardReason, Notification, Publisher, PushRefusal, QueueLimit, Receipt, SessionId,
    SessionStatus,
};
use mcp_courier_testing::redis_server::RedisServer;
use redis::AsyncCommands;
use serde_json::{Value, json};

const QUEUE: &str = "mcp-courier:notifications:s";
const DEAD: &str = "{mcp-courier:notifications:s}:dead";

fn session() -> SessionId {
    SessionId::new("s").unwrap()
}

fn notification(n: usize) -> Notification {
    Notification::new("notifications/x").unwrap().with_params(json!({"n": n})).unwrap()
}

#[tokio::test]
async fn what_is_pushed_is_queued_in_order_and_a_full_queue_names_its_limit() {
    let server = RedisServer::start();
    let config = Config::builder().queue_max_messages(2).build().unwrap();
    let publisher = Publisher::connect(&server.url(), config).await.unwrap();
    for n in 1..=2 {
        let pushed = publisher.push(&session(), notification(n)).await.unwrap();
        assert_eq!((pushed.waiting, pushed.session), (n, SessionStatus::Unknown));
    }
    let refused = publisher.push(&session(), notification(3)).await.unwrap_err();
    assert!(matches!(refused.reason, PushRefusal::QueueFull(QueueLimit::Messages(2))), "{refused}");

    let queued: Vec<String> = server.connection().await.lrange(QUEUE, 0, -1).await.unwrap();
    let queued: Vec<Value> = queued.iter().rev().map(|text| serde_json::from_str(text).unwrap()).collect();
    let numbers: Vec<_> = queued.iter().map(|message| message["notification"]["params"]["n"].clone()).collect();
    assert_eq!(numbers, [1, 2]);
}

#[tokio::test]
async fn the_receipt_of_a_notification_that_nobody_delivers_expires() {
    let server = RedisServer::start();
    let publisher = Publisher::connect(&server.url(), Config::default()).await.unwrap();
    let brief = notification(1).with_receipt().with_time_to_live(Duration::from_millis(300)).unwrap();
    let id = publisher.push(&session(), brief).await.unwrap().id;
    assert!(matches!(publisher.receipt(&session(), id).await.unwrap(), Receipt::Queued { .. }));
    assert_eq!(publisher.until_settled(&session(), id, Duration::from_secs(10)).await.unwrap(), Receipt::Expired);
}

#[tokio::test]
async fn a_dead_letter_of_a_server_is_listed_and_redriven() {
    let server = RedisServer::start();
    let publisher = Publisher::connect(&server.url(), Config::default()).await.unwrap();
    let id = publisher.push(&session(), notification(1)).await.unwrap().id;
    // A server that discards the notification keeps it behind a line with the time and the reason.
    let mut redis = server.connection().await;
    let message: String = redis.rpop(QUEUE, None).await.unwrap();
    let (now, _): (i64, i64) = redis::cmd("TIME").query_async(&mut redis).await.unwrap();
    let header = json!({"at": now * 1_000_000, "reason": "expired"});
    let _: usize = redis.lpush(DEAD, format!("{header}\n{message}")).await.unwrap();

    let dead = publisher.dead_letters();
    assert_eq!(dead.sessions().await.unwrap(), [session()]);
    let letters = dead.list(&session(), 0, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].id, &letters[0].reason), (Some(id), &DiscardReason::Expired));
    assert_eq!(dead.redrive(&session()).await.unwrap().redriven, 1);
    let again: String = redis.lindex(QUEUE, -1).await.unwrap();
    assert!(again.contains(&id.to_string()), "{again}");
    assert_eq!(dead.purge(&session()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_queue_in_memory_needs_a_server_in_the_same_build() {
    let connected = Publisher::connect("memory://x", Config::default()).await;
    if cfg!(feature = "server") {
        connected.unwrap();
    } else {
        let error = connected.unwrap_err();
        assert!(matches!(&error, ConnectError::Url(_)) && error.to_string().contains("feature `server`"), "{error}");
    }
}

#[cfg(feature = "elicitation")]
#[tokio::test]
async fn a_worker_alone_asks_and_checks_the_answer() {
    use mcp_courier::{Answer, Elicitation, TaskKey};

    let server = RedisServer::start();
    let publisher = Publisher::connect(&server.url(), Config::default()).await.unwrap();
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    for (task, content, is_right) in [("right", json!({"n": 3.0}), true), ("wrong", json!({"n": "three"}), false)] {
        let question = Elicitation::form("How many?", schema.clone()).unwrap();
        let key = TaskKey::anonymous(task).unwrap();
        let elicitor = publisher.elicitor();
        let session = session();
        let ask = elicitor.elicit(&session, &key, question, Duration::from_secs(10));
        // As FastMCP's server does: the answer first, then the status.
        let answer = async {
            let mut redis = server.connection().await;
            let part = |name: &str| format!("mcp-courier:task:anon:{task}:elicit:{name}");
            while redis.llen::<_, usize>(QUEUE).await.unwrap() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let message: String = redis.rpop(QUEUE, None).await.unwrap();
            assert!(message.contains("How many?"), "{message}");
            let wire = json!({"action": "accept", "content": content}).to_string();
            let _: usize = redis.lpush(part("response"), wire).await.unwrap();
            let () = redis.set_options(part("status"), "responded", redis::SetOptions::default()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(ask, answer);
        match answer.unwrap() {
            Answer::Accept(content) if is_right => assert_eq!(content["n"], json!(3)),
            Answer::Cancel { reason: Some(reason) } if !is_right => assert!(reason.contains("/n"), "{reason}"),
            other => panic!("{task}: {other:?}"),
        }
    }
}
