//! Life of a queue in Redis, and the times in its messages.

use std::time::{Duration, SystemTime};

use mcp_courier::TraceContext;
use mcp_courier::testing::envelope::{Envelope, Timestamp};
use mcp_courier_testing::eventually::assert_about;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;

use super::fixture::{Fixture, LONG, QUEUE, note, numbers, session};

const HOUR: Duration = Duration::from_secs(3600);
const GRACE: Duration = Duration::from_secs(60);

/// Reads a time as people and FastMCP do.
fn envelope_time(text: &serde_json::Value) -> Timestamp {
    let raw = serde_json::json!({"notification": {}, "enqueued_at": text}).to_string();
    Envelope::decode("q", raw.into_bytes(), GRACE).unwrap().enqueued_at.unwrap()
}

fn near(life: Duration, expected: Duration) -> bool {
    life <= expected && expected - life < Duration::from_secs(5)
}

#[tokio::test]
async fn a_queue_lives_as_long_as_its_longest_lived_message_and_the_grace() {
    let mut f = Fixture::new().await;
    // Under an owner it lives as long as the lease and the grace, too.
    assert!(f.queue.release(&session(), f.token).await.unwrap());
    for (message, queue) in [(10, 70), (7200, 7260), (1, 7260), (3600, 7260), (7300, 7360)] {
        f.push_for(0, Duration::from_secs(message)).await;
        let life = f.life().await;
        assert!(near(life, Duration::from_secs(queue)), "{message} {life:?}");
    }
    // Together as one by one.
    let lives = [10, 9000, 20].map(|s| (session(), note(0).with_time_to_live(Duration::from_secs(s)).unwrap()));
    for pushed in f.publisher.push_many(lives).await {
        pushed.unwrap();
    }
    assert!(near(f.life().await, Duration::from_secs(9060)));
    f.end().await;
}

#[tokio::test]
async fn a_life_that_fastmcp_cut_short_is_put_right_by_whoever_saw_what_is_in_it() {
    let mut f = Fixture::new().await;
    f.push_for(0, HOUR).await;
    f.take().await;
    let cut = async |f: &mut Fixture| {
        let _: () = f.redis(&["LPUSH", QUEUE, r#"{"notification": {"params": {"n": 1}}}"#]).await;
        let _: () = f.redis(&["EXPIRE", QUEUE, "300"]).await;
    };
    cut(&mut f).await;
    f.take().await;
    assert!(near(f.life().await, HOUR + GRACE));
    cut(&mut f).await;
    f.consumer.wait(LONG).await.unwrap();
    assert!(near(f.life().await, HOUR + GRACE));
    // One who has just come sees it first, and puts it right next.
    cut(&mut f).await;
    f.reopen().await;
    f.take().await;
    f.take().await;
    assert!(near(f.life().await, HOUR + GRACE));
    f.end().await;
}

#[tokio::test]
async fn a_queue_without_an_expiry_gets_one() {
    let mut f = Fixture::new().await;
    let message = r#"{"notification": {"params": {"n": 0}}}"#;
    let _: () = f.redis(&["LPUSH", QUEUE, message, message]).await;
    let taken = f.take().await;
    assert!(near(f.life().await, Duration::from_secs(360)));
    let _: () = f.redis(&["PERSIST", QUEUE]).await;
    f.consumer.replace_oldest(&taken.items[0].mark, message.into()).await.unwrap();
    assert!(near(f.life().await, Duration::from_secs(360)));
    let _: () = f.redis(&["PERSIST", QUEUE]).await;
    f.push([1]).await;
    assert!(near(f.life().await, Duration::from_secs(360)));
    f.end().await;
}

#[tokio::test]
async fn neither_waiting_nor_acknowledging_nor_a_failed_attempt_changes_the_life_of_a_queue() {
    let mut f = Fixture::new().await;
    f.push_for(0, HOUR).await;
    f.push_for(1, HOUR).await;
    let taken = f.consumer.wait(LONG).await.unwrap();
    assert!(near(f.life().await, HOUR + GRACE));
    let failed = taken.items[0].envelope.as_ref().unwrap().after_failure("x");
    f.consumer.replace_oldest(&taken.items[0].mark, failed).await.unwrap();
    assert!(near(f.life().await, HOUR + GRACE));
    let (one, _) = (f.take().await, f.redis::<()>(&["PERSIST", "nothing"]).await);
    f.consumer
        .take(Some(&mcp_courier::testing::backend::Delivered {
            count: 1,
            last: one.items[0].mark.clone(),
            questions: Vec::new(),
            outcomes: Vec::new(),
        }))
        .await
        .unwrap();
    // With one message a rotation could lose the key and its expiry.
    assert_eq!(numbers(&f.consumer.wait(LONG).await.unwrap()), [1]);
    assert!(near(f.life().await, HOUR + GRACE));
    f.end().await;
}

#[tokio::test]
async fn each_message_has_its_own_life_from_the_time_of_its_push() {
    let f = Fixture::with(RedisServer::start(), waiting::config().batch_messages(1000)).await;
    let mut f = f;
    let lives: Vec<_> =
        (1..=365).map(|day| Duration::from_secs(day * 86_400) - Duration::from_millis(day % 7 * 1001)).collect();
    let before = SystemTime::now();
    let batch = lives.iter().map(|life| (session(), note(0).with_time_to_live(*life).unwrap()));
    for pushed in f.publisher.push_many(batch).await {
        pushed.unwrap();
    }
    let taken = f.take().await;
    assert_eq!(taken.items.len(), lives.len());
    for (item, life) in taken.items.iter().zip(lives) {
        let envelope = item.envelope.as_ref().unwrap();
        let enqueued_at = envelope.enqueued_at.unwrap();
        assert_eq!(envelope.expires_at.unwrap().since(enqueued_at), life);
        // Redis and this test share a host, and so a clock.
        assert_about(enqueued_at.to_system(), before);
    }
    f.end().await;
}

#[tokio::test]
async fn what_lies_in_redis_is_what_the_envelope_promises() {
    let mut f = Fixture::new().await;
    let context = TraceContext::new("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
    let context = context.with_tracestate("a=1").unwrap().with_baggage("k=v").unwrap();
    let said = note(7).with_meta(serde_json::json!({"k": "é\n"})).unwrap().with_trace_context(context);
    let pushed = f.publisher.push(&session(), said).await.unwrap();
    let raw: String = f.redis(&["LINDEX", QUEUE, "0"]).await;
    let read: serde_json::Value = serde_json::from_str(&raw).unwrap();
    let fields: Vec<_> = read.as_object().unwrap().keys().map(String::as_str).collect();
    let trace = ["traceparent", "tracestate", "baggage"];
    assert_eq!(fields[..5], ["ttl", "enqueued_at", "expires_at", "notification", "attempt"]);
    assert_eq!((&fields[5..8], &fields[8..]), (&trace[..], &["id", "at"][..]));
    assert_eq!(
        read["notification"],
        serde_json::json!({"method": "notifications/test", "params": {"n": 7}, "_meta": {"k": "é\n"}})
    );
    assert_eq!((&read["attempt"], &read["id"]), (&0.into(), &pushed.id.to_string().into()));
    for field in ["enqueued_at", "expires_at"] {
        // The form that Python's isoformat writes, and its fromisoformat reads.
        let form: String =
            read[field].as_str().unwrap().chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
        assert_eq!(form, "9999-99-99T99:99:99.999999+99:99");
        assert!(read[field].as_str().unwrap().ends_with("+00:00"));
    }
    // The integers count: the time of the push by Redis's clock, and the time to live.
    let taken = f.take().await;
    let envelope = taken.items[0].envelope.as_ref().unwrap();
    let at = Timestamp(read["at"].as_i64().unwrap());
    assert_eq!(read["ttl"], 300_000_000);
    assert_eq!((envelope.enqueued_at, envelope.expires_at), (Some(at), Some(at.plus(Duration::from_secs(300)))));
    // The texts say the same, as one host has one clock: the push was sent a moment before.
    let sent = envelope_time(&read["enqueued_at"]);
    assert_about(sent.to_system(), at.to_system());
    assert_eq!(envelope_time(&read["expires_at"]), sent.plus(Duration::from_secs(300)));
    f.end().await;
}
