//! Numbers arrive as they were pushed: by a `Publisher` or by any other program, and after failures and a redrive.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcp_courier::testing::envelope::Timestamp;
use mcp_courier::{Courier, HandOverError, McpSession, Notification, NotificationId, Outbound, SessionId, async_trait};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use serde_json::value::RawValue;

const NUMBERS: [&str; 12] = [
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "1500000000000000000001",
    "12345678901234567890.123456789",
    "100.00",
    "1e2",
    "1E400",
    "-1e-400",
    "-0",
    "-0.0",
    "0.1234567890123456789012345678901234567890",
];

/// Fails each delivery once, rejects each notification once, and takes the rest.
#[derive(Default)]
struct Picky {
    calls: Mutex<HashMap<NotificationId, u32>>,
    taken: Mutex<Vec<String>>,
}

#[async_trait]
impl McpSession for Picky {
    async fn hand_over(&self, outbound: &Outbound) -> Result<(), HandOverError> {
        let calls = *self.calls.lock().unwrap().entry(outbound.id).and_modify(|calls| *calls += 1).or_insert(1);
        let answer = match (calls, outbound.attempt) {
            (_, 0) => Err(HandOverError::Transient("once".to_owned())),
            (2, _) => Err(HandOverError::Rejected("not the first time".to_owned())),
            _ => Ok(()),
        };
        if answer.is_ok() {
            self.taken.lock().unwrap().push(outbound.params().into_owned());
        }
        answer
    }
}

#[actix::test]
async fn numbers_of_any_form_arrive_as_they_were_pushed_also_after_failures_and_a_redrive() {
    let redis = RedisServer::start();
    let config = waiting::config().backoff_initial(Duration::from_millis(1)).dead_letters(100).build().unwrap();
    let courier = Courier::start(&redis.url(), config).await.unwrap();
    let (publisher, id) = (courier.publisher(), SessionId::new("s").unwrap());
    let mut connection = redis.connection().await;
    let fields: Vec<String> = NUMBERS.iter().enumerate().map(|(n, number)| format!("\"{n}\":{number}")).collect();
    let params = format!("{{{},\"nested\":{{\"a\":[{}]}}}}", fields.join(","), NUMBERS.join(", "));
    let meta = format!("{{\"m\":{{\"a\":[{}]}}}}", NUMBERS.join(","));

    let ours = Notification::new("notifications/x").unwrap();
    let ours = ours.with_params_json(&params).unwrap().with_meta_json(&meta).unwrap();
    publisher.push(&id, ours).await.unwrap();
    // As a FastMCP worker writes it, which gives no id.
    let now = Timestamp::of_this_host();
    let raw = format!(
        "{{\"notification\": {{\"method\": \"notifications/x\", \"params\": {params}, \"_meta\": {meta}}}, \
         \"attempt\": 0, \"enqueued_at\": \"{now}\"}}"
    );
    let queue = "mcp-courier:notifications:s";
    redis::cmd("LPUSH").arg(queue).arg(raw).query_async::<()>(&mut connection).await.unwrap();

    let session = Arc::new(Picky::default());
    courier.ensure_subscriber(&id, session.clone()).await.unwrap();
    let letters = async || publisher.dead_letters().list(&id, 0, 10).await.unwrap().len();
    eventually("both are dead letters", SOON, async || letters().await == 2).await;
    assert_eq!(publisher.dead_letters().redrive(&id).await.unwrap().redriven, 2);
    eventually("both are taken", SOON, async || session.taken.lock().unwrap().len() == 2).await;

    for taken in session.taken.lock().unwrap().iter() {
        let mut arrived = texts(taken);
        let mut arrived_meta = texts(&arrived.remove("_meta").unwrap());
        arrived_meta.remove(Outbound::ID_KEY).unwrap();
        assert_eq!((arrived, arrived_meta), (texts(&params), texts(&meta)));
    }
    courier.shutdown(SOON).await;
}

/// Fields of an object, each value as it is written.
fn texts(object: &str) -> BTreeMap<String, String> {
    let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(object).unwrap();
    fields.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect()
}
