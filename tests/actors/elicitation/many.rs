//! A thousand questions of one worker process.

use std::time::Duration;

use mcp_courier::{Answer, Courier, SessionId};
use mcp_courier_testing::eventually::eventually;
use serde_json::json;

use super::client::client_that;
use super::place::{PATIENCE, Place, accept, content, form, task};

const SESSIONS: usize = 100;
const TASKS: usize = 1000;

fn session(n: usize) -> SessionId {
    SessionId::new(format!("session-{n}")).unwrap()
}

#[actix::test]
async fn a_thousand_questions_of_one_worker_wait_on_a_few_connections_and_all_are_answered() {
    let place = Place::in_redis().await;
    let redis = place.redis.as_ref().unwrap();
    // The worker's process has its first connection; nobody serves the sessions yet.
    place.publisher.push(&session(0), mcp_courier::Notification::tools_list_changed()).await.unwrap();
    let before = redis.connected_clients().await;
    let workers: Vec<_> = (0..TASKS)
        .map(|n| {
            let elicitor = place.elicitor.clone();
            tokio::spawn(async move {
                let (session, task) = (session(n % SESSIONS), task(&format!("task-{n}")));
                elicitor.elicit(&session, &task, form(&n.to_string()), PATIENCE).await.unwrap()
            })
        })
        .collect();
    let mut raw = redis.connection().await;
    eventually("a thousand questions are queued", Duration::from_secs(20), || {
        let mut raw = raw.clone();
        async move {
            let mut pipe = redis::pipe();
            for n in 0..SESSIONS {
                pipe.cmd("LLEN").arg(format!("mcp-courier:notifications:session-{n}"));
            }
            let queued: Vec<usize> = pipe.query_async(&mut raw).await.unwrap();
            queued.iter().sum::<usize>() == TASKS + 1
        }
    })
    .await;
    // Without `raw`.
    let during = redis.connected_clients().await - 1;
    println!("{TASKS} open questions of one process: {} connections before, {during} while they wait", before);
    assert!(during <= before + 10, "{before} before, {during} while they wait");
    // They can be queued before the connection to wait on is made.
    eventually("one connection that tracks", Duration::from_secs(20), || {
        let mut raw = raw.clone();
        async move {
            let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut raw).await.unwrap();
            list.lines().filter(|line| line.contains("flags=t")).count() == 1
        }
    })
    .await;
    let courier = Courier::start(&place.url, super::place::config().build().unwrap()).await.unwrap();
    for n in 0..SESSIONS {
        let client = client_that(
            |_| Ok(()),
            |question| {
                let n: u64 = question.elicitation.message().parse().unwrap();
                Some(Ok(Answer::Accept(content(json!({ "n": n })))))
            },
        );
        courier.ensure_subscriber(&session(n), client.session).await.unwrap();
    }
    let all = async {
        for (n, worker) in workers.into_iter().enumerate() {
            assert_eq!(worker.await.unwrap(), accept(n as u64));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("all are answered in time");
    redis.assert_no_key_without_expiry().await;
    let left: Vec<String> = redis::cmd("KEYS").arg("*:elicit:*").query_async(&mut raw).await.unwrap();
    assert_eq!(left, Vec::<String>::new());
}
