//! Memory of a server does not grow with sizes that others choose. Each test measures the memory of a process of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mcp_courier::{
    Config, Courier, HandOverError, ListSubscribers, McpSession, Notification, Outbound, Publisher, PushRefusal,
    SessionId, Task, TaskKey, TaskStatus, async_trait,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::in_own_process;
use mcp_courier_testing::process::Process;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use serde_json::json;

/// Number of tasks. Their whole ids, kept twice, would take as many MB.
const TASKS: usize = 60;

const QUEUE: &str = "mcp-courier:notifications:s";

fn id() -> SessionId {
    SessionId::new("s").unwrap()
}

/// A session that keeps nothing of what it gets.
#[derive(Default)]
struct Counter(AtomicUsize);

#[async_trait]
impl McpSession for Counter {
    async fn hand_over(&self, _: &Outbound) -> Result<(), HandOverError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A task's status as FastMCP pushes it.
fn status(task_id: &str, status: &str) -> String {
    json!({"notification": {"method": "notifications/tasks/status",
        "params": {"taskId": task_id, "status": status}}, "attempt": 0})
    .to_string()
}

#[actix::test]
async fn g6_ended_tasks_are_remembered_in_little_memory_however_long_their_ids_are() {
    in_own_process!();
    let server = RedisServer::start();
    let courier = Courier::start(&server.url(), waiting::config().build().unwrap()).await.unwrap();
    let session = Arc::new(Counter::default());
    courier.ensure_subscriber(&id(), session.clone()).await.unwrap();
    let mut raw = server.connection().await;
    let mut push = async |text: String| {
        let _: i64 = redis::cmd("LPUSH").arg(QUEUE).arg(text).query_async(&mut raw).await.unwrap();
    };
    let long = |n: usize| format!("{n:08}").repeat(64 * 1024);
    let before = Process::this().resident();
    for n in 0..TASKS {
        push(status(&long(n), "completed")).await;
        eventually("it is delivered", SOON, async || session.0.load(Ordering::Relaxed) > n).await;
    }
    let grown = Process::this().resident().saturating_sub(before) / (1 << 20);
    println!("{TASKS} ended tasks with ids of 512 KB took {grown} MB");
    assert!(grown < 40, "{grown} MB for {TASKS} ended tasks");
    // They are remembered all the same, by their whole ids.
    push(status(&long(7), "working")).await;
    push(status(&format!("{}x", long(7)), "working")).await;
    eventually("the other task's is delivered", SOON, async || session.0.load(Ordering::Relaxed) == TASKS + 1).await;
    eventually("both are counted", SOON, async || {
        let info = courier.supervisor().send(ListSubscribers).await.unwrap().pop().unwrap();
        (info.delivered, info.discarded) == (TASKS as u64 + 1, 1)
    })
    .await;
}

#[tokio::test]
async fn g6_a_task_id_that_is_too_long_is_refused_at_the_push_with_the_limit() {
    in_own_process!();
    let publisher = Publisher::connect("memory://bounds-task-id", Config::default()).await.unwrap();
    let of_length = |length| {
        let task = Task::new("t".repeat(length), TaskStatus::Completed, std::time::SystemTime::now());
        Notification::task_status(&task)
    };
    publisher.push(&id(), of_length(TaskKey::MAX_LEN)).await.unwrap();
    let results = publisher.push_many([(id(), of_length(TaskKey::MAX_LEN + 1)), (id(), of_length(1))]).await;
    let refused: Vec<_> = results.into_iter().map(|result| result.unwrap_err()).collect();
    assert!(matches!(refused[0].reason, PushRefusal::TaskIdTooLong { bytes: 257, limit: 256 }), "{}", refused[0]);
    assert!(refused[0].to_string().contains("the taskId has 257 bytes, and at most 256 are allowed"), "{}", refused[0]);
    assert!(matches!(refused[1].reason, PushRefusal::AfterRefused));
    // Only a status says how a task goes.
    let other = Notification::new("notifications/x").unwrap().with_params(json!({"taskId": "t".repeat(300)})).unwrap();
    publisher.push(&id(), other).await.unwrap();
}
