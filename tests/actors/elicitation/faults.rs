//! Processes and connections that die while a question is open.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_courier::testing::backend::{Posed, Settled};
use mcp_courier::{
    Answer, AskError, Courier, HandOverError, ListSubscribers, McpSession, Outbound, Publisher, Question, async_trait,
};
use mcp_courier_testing::child::{self, Child};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::redis_server::RedisServer;
use redis::aio::MultiplexedConnection;
use serde_json::json;

use super::client::{client, client_who_answers};
use super::place::{PATIENCE, Place, accept, config, content, form, id, outcome, reason, task};

/// Time between two signs of life of a worker.
const A_ROUND: Duration = Duration::from_secs(5);

/// A server process with one bare session; its client answers, or never does.
struct Server(Child);

/// Not a test: what a [`Server`] runs.
#[actix::test]
#[ignore = "the program of a child process"]
async fn server_process() {
    struct Writer {
        answers: bool,
    }
    #[async_trait]
    impl McpSession for Writer {
        async fn hand_over(&self, _: &Outbound) -> Result<(), HandOverError> {
            Ok(())
        }

        async fn elicit(&self, question: &Question) -> Result<Answer, AskError> {
            say("ASKED", &question.request_id);
            if !self.answers {
                std::future::pending::<()>().await;
            }
            Ok(accept(7))
        }
    }
    let Ok(url) = std::env::var("ELICITATION_REDIS") else { return };
    let answers = std::env::var("ELICITATION_ANSWERS").is_ok();
    let courier = Courier::start(&url, config().build().unwrap()).await.unwrap();
    courier.ensure_subscriber(&id(), Arc::new(Writer { answers })).await.unwrap();
    std::future::pending::<()>().await;
}

/// Not a test: a worker that asks, for a test that kills it.
#[actix::test]
#[ignore = "the program of a child process"]
async fn worker_process() {
    let Ok(url) = std::env::var("ELICITATION_REDIS") else { return };
    let publisher = Publisher::connect(&url, config().build().unwrap()).await.unwrap();
    say("ASKS", "");
    publisher.elicitor().elicit(&id(), &task("t"), form("of a process that dies"), PATIENCE).await.unwrap();
}

fn say(what: &str, of: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{what} {of}").unwrap();
    out.flush().unwrap();
}

impl Server {
    fn start(redis: &RedisServer, program: &str, answers: bool) -> Self {
        let mut program = child::program(module_path!(), program);
        program.env("ELICITATION_REDIS", redis.url());
        if answers {
            program.env("ELICITATION_ANSWERS", "yes");
        }
        Self(Child::start(&mut program).unwrap())
    }

    /// Returns the next question that its client is asked.
    async fn asked(&mut self) -> String {
        self.0.said("ASKED ").await
    }
}

async fn command<T: redis::FromRedisValue>(raw: &mut MultiplexedConnection, words: &[&str]) -> T {
    redis::cmd(words[0]).arg(&words[1..]).query_async(raw).await.unwrap()
}

#[actix::test]
async fn a_server_killed_while_it_asks_is_followed_by_another_and_the_worker_gets_its_answer() {
    let place = Place::in_redis().await;
    let redis = place.redis.as_ref().unwrap();
    let mut killed = Server::start(redis, "server_process", false);
    let worker = place.ask(&task("t"), form("?"));
    let first = killed.asked().await;
    killed.0.kill();
    let begun = Instant::now();
    let mut next = Server::start(redis, "server_process", true);
    assert_eq!(next.asked().await, first);
    assert_eq!(outcome(worker).await, accept(7));
    println!(
        "| the relay is killed, another asks and is answered | {:.0} ms |",
        begun.elapsed().as_secs_f64() * 1000.0
    );
    place.until_nothing_is_left(&task("t")).await;
}

#[actix::test]
async fn a_worker_that_was_killed_holds_its_task_up_for_seconds_only() {
    let place = Place::in_redis().await;
    let redis = place.redis.as_ref().unwrap();
    let client = client();
    place.serve(client.session.clone()).await;
    let mut killed = Server::start(redis, "worker_process", false);
    let asked = client.asked().await;
    killed.0.kill();
    let worker = place.ask(&task("t"), form("next"));
    // Fifteen seconds, which this need not wait for: then the key by which it was known to live is gone.
    let mut raw = redis.connection().await;
    let asker = "mcp-courier:task:anon:t:elicit:asker";
    let life: i64 = command(&mut raw, &["PTTL", asker]).await;
    assert!((1..=15_000).contains(&life), "{life}");
    let () = command(&mut raw, &["DEL", asker]).await;
    let next = client.asked().await;
    assert_eq!(next.question.elicitation.message(), "next");
    // What the user answers to the dead one's question is nobody's.
    let settled = place.elicitor.answer(&task("t"), &asked.question.request_id, &accept(1)).await.unwrap();
    assert_eq!(settled, Settled::OtherQuestion);
    assert!(next.answer(accept(2)));
    assert_eq!(outcome(worker).await, accept(2));
}

#[actix::test]
async fn a_worker_whose_place_was_taken_is_told() {
    let place = Place::in_redis().await;
    let raw = place.redis.as_ref().unwrap().connection().await;
    place.serve(client().session).await;
    let worker = place.ask(&task("t"), form("?"));
    let asker = "mcp-courier:task:anon:t:elicit:asker";
    eventually("it asks", SOON, || {
        let mut raw = raw.clone();
        async move { command::<bool>(&mut raw, &["EXISTS", asker]).await }
    })
    .await;
    let request = json!({"request_id": "other", "message": "?"}).to_string();
    // As after a pause of more than fifteen seconds. The worker is not paused, and may take its place back in between.
    eventually("the other question takes its place", SOON, async || {
        let () = command(&mut raw.clone(), &["DEL", asker]).await;
        place.queue.pose(&task("t"), "other", request.clone(), PATIENCE).await.unwrap() != Posed::Busy
    })
    .await;
    // It hears of it with the next answer, and at the latest in the next round.
    assert_eq!(place.queue.settle(&task("t"), "other", &accept(1)).await.unwrap(), Settled::Done);
    assert_eq!(reason(outcome(worker).await), "another question of the same task took its place");
    let answer = tokio::time::timeout(SOON, place.queue.answer_to(&task("t"), "other")).await;
    assert_eq!(answer.expect("the other has its answer").unwrap(), accept(1));
}

#[actix::test]
async fn a_worker_whose_place_was_taken_while_it_could_not_hear_is_told_in_the_next_round() {
    let place = Place::in_redis().await;
    let mut raw = place.redis.as_ref().unwrap().connection().await;
    let client = client();
    place.serve(client.session.clone()).await;
    let worker = place.ask(&task("t"), form("?"));
    client.asked().await;
    let () = command(&mut raw, &["DEL", "mcp-courier:task:anon:t:elicit:asker"]).await;
    // The answer key is not touched: its change would be announced to the worker.
    let request = json!({"request_id": "other", "message": "?"}).to_string();
    let () = command(&mut raw, &["SET", "mcp-courier:task:anon:t:elicit:request", &request, "EX", "60"]).await;
    assert_eq!(reason(outcome(worker).await), "another question of the same task took its place");
}

#[actix::test]
async fn a_living_worker_has_its_place_back_after_redis_believed_it_dead() {
    let place = Place::in_redis().await;
    let mut raw = place.redis.as_ref().unwrap().connection().await;
    let client = client();
    place.serve(client.session.clone()).await;
    let worker = place.ask(&task("t"), form("?"));
    let asked = client.asked().await;
    let () = command(&mut raw, &["DEL", "mcp-courier:task:anon:t:elicit:asker"]).await;
    tokio::time::sleep(A_ROUND + SOON / 4).await;
    let request = json!({"request_id": "other", "message": "?"}).to_string();
    assert_eq!(place.queue.pose(&task("t"), "other", request, PATIENCE).await.unwrap(), Posed::Busy);
    assert!(asked.answer(accept(1)));
    assert_eq!(outcome(worker).await, accept(1));
    place.until_nothing_is_left(&task("t")).await;
}

#[actix::test]
async fn redis_killed_and_started_again_while_a_question_is_open_costs_no_answer() {
    let mut place = Place::in_this(RedisServer::durable()).await;
    let client = client();
    place.serve(client.session.clone()).await;
    let workers: Vec<_> = (0..5).map(|n| place.ask(&task(&format!("t{n}")), form(&n.to_string()))).collect();
    let mut asked = Vec::new();
    for _ in 0..5 {
        asked.push(client.asked().await);
    }
    let redis = place.redis.as_mut().unwrap();
    redis.kill();
    // Some users answer while it is gone, others when it is back.
    let late = asked.split_off(3);
    let answer = |asked: super::client::Asked| {
        let n = asked.question.elicitation.message().parse().unwrap();
        asked.answer(accept(n))
    };
    for asked in asked {
        assert!(answer(asked));
    }
    redis.start_again();
    let mut answered = 0;
    for asked in late {
        answered += usize::from(answer(asked));
    }
    assert_eq!(answered, 2, "they are still asked");
    for (n, worker) in workers.into_iter().enumerate() {
        assert_eq!(outcome(worker).await, accept(n as u64));
    }
    // It may be that one is asked again, as nobody knows what Redis did before it died; nobody waits for that.
    place.redis.as_ref().unwrap().assert_no_key_without_expiry().await;
}

#[actix::test]
async fn forgotten_scripts_and_killed_connections_cost_no_answer() {
    let place = Place::in_redis().await;
    let mut raw = place.redis.as_ref().unwrap().connection().await;
    let client = client();
    place.serve(client.session.clone()).await;
    for n in 0..6 {
        let worker = place.ask(&task("t"), form("?"));
        let asked = client.asked().await;
        match n % 3 {
            0 => command(&mut raw, &["SCRIPT", "FLUSH"]).await,
            1 => {
                // All but this one: the worker's, the waiting one, and the subscriber's.
                let _: usize = command(&mut raw, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
            }
            _ => {}
        }
        let mut asked = Some(asked);
        let begun = Instant::now();
        let mut worker = Box::pin(outcome(worker));
        let answer = loop {
            // Who lost touch may be asked again.
            if let Some(asked) = asked.take().or_else(|| client.asked_now()) {
                asked.answer(accept(n));
            }
            if let Ok(answer) = tokio::time::timeout(Duration::from_millis(5), &mut worker).await {
                break answer;
            }
        };
        assert_eq!(answer, accept(n));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?} in round {n}", begun.elapsed());
    }
    place.until_nothing_is_left(&task("t")).await;
}

#[actix::test]
async fn a_key_that_holds_something_else_stops_only_its_own_question() {
    let place = Place::in_redis().await;
    let mut raw = place.redis.as_ref().unwrap().connection().await;
    let silent = client();
    place.serve(silent.session.clone()).await;
    let broken = place.ask(&task("broken"), form("?"));
    silent.asked().await;
    let () = command(&mut raw, &["SET", "mcp-courier:task:anon:broken:elicit:response", "x", "PX", "60000"]).await;
    place.serve(client_who_answers(|_| accept(1)).session).await;
    for _ in 0..5 {
        assert_eq!(outcome(place.ask(&task("t"), form("?"))).await, accept(1));
    }
    broken.abort();
}

#[actix::test]
async fn another_type_under_the_open_questions_is_named_and_what_was_asked_meanwhile_is_asked_when_it_is_removed() {
    let place = Place::in_redis().await;
    let mut raw = place.redis.as_ref().unwrap().connection().await;
    let client = client();
    place.serve(client.session.clone()).await;
    let worker = place.ask(&task("t"), form("?"));
    client.asked().await.answer(accept(1));
    assert_eq!(outcome(worker).await, accept(1));
    place.until_nothing_is_left(&task("t")).await;

    let open = "{mcp-courier:notifications:the-session}:questions";
    let () = command(&mut raw, &["SET", open, "x", "EX", "60"]).await;
    let worker = place.ask(&task("t"), form("?"));
    eventually("an error", SOON, async || {
        let info = place.courier.supervisor().send(ListSubscribers).await.unwrap().pop().unwrap();
        info.last_error.is_some_and(|error| error.contains("the key of the open questions holds a string, not a hash"))
    })
    .await;
    let () = command(&mut raw, &["DEL", open]).await;
    client.asked().await.answer(accept(2));
    assert_eq!(outcome(worker).await, accept(2));
    place.until_nothing_is_left(&task("t")).await;
}

#[actix::test]
async fn fastmcps_answer_which_names_no_question_is_taken_for_the_one_under_way() {
    let place = Place::in_redis().await;
    let mut raw = place.redis.as_ref().unwrap().connection().await;
    let client = client();
    place.serve(client.session.clone()).await;
    let worker = place.ask(&task("t"), form("?"));
    client.asked().await;
    let stem = "mcp-courier:task:anon:t:elicit";
    let status: String = command(&mut raw, &["GET", &format!("{stem}:status")]).await;
    assert_eq!(status, "waiting");
    let request: String = command(&mut raw, &["GET", &format!("{stem}:request")]).await;
    let request: serde_json::Value = serde_json::from_str(&request).unwrap();
    assert_eq!((&request["message"], request["request_id"].is_string()), (&json!("?"), true));
    // As FastMCP's relay answers.
    let answer = json!({"action": "accept", "content": {"n": 3}}).to_string();
    let () = command(&mut raw, &["LPUSH", &format!("{stem}:response"), &answer]).await;
    assert_eq!(outcome(worker).await, Answer::Accept(content(json!({"n": 3}))));
    place.until_nothing_is_left(&task("t")).await;
}
