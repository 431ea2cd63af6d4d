//! The worker: a process that holds no session, and reaches each client by the session id of its task.

use std::time::Duration;

use mcp_courier::{Cause, Config, LoggingLevel, Notification, Publisher, PushError, SessionId};
use redis::{AsyncCommands, AsyncConnectionConfig};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// List in Redis by which the servers hand tasks to workers. With this list a task is lost where its worker dies: use a
/// job queue of your choice.
pub(crate) const TASKS: &str = "fleet:tasks";

#[derive(Serialize, Deserialize)]
pub(crate) struct Task {
    /// Session that started the task, bound to its user.
    pub(crate) session: SessionId,
    /// Number of steps, each of which takes a moment.
    pub(crate) steps: usize,
}

pub(crate) async fn work(redis: &str) -> Result<(), Cause> {
    let publisher = Publisher::connect(redis, Config::default()).await?;
    // BLPOP waits for longer than a response usually may take.
    let patient = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut tasks = redis::Client::open(redis)?.get_multiplexed_async_connection_with_config(&patient).await?;
    loop {
        let (_, task): (String, String) = tasks.blpop(TASKS, 0.0).await?;
        let report = report(publisher.clone(), serde_json::from_str(&task)?);
        tokio::spawn(async { report.await.inspect_err(|error| eprintln!("a report has ended early: {error}")) });
    }
}

async fn report(publisher: Publisher, Task { session, steps }: Task) -> Result<(), PushError> {
    for step in 1..=steps {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let data = json!({"step": step, "of": steps});
        // Once this is `Ok`, the client gets the notification, whatever happens to the servers.
        publisher.push(&session, Notification::message(LoggingLevel::Info, Some("report"), data)).await?;
    }
    Ok(())
}
