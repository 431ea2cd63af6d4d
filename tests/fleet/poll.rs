//! The tool `poll` of the example `chat`, at real servers.
use std::time::{Duration, Instant};

use mcp_courier_testing::examples::ChatProcess;
use mcp_courier_testing::raw_client::{EventStream, RawClient};
use mcp_courier_testing::redis_server::RedisServer;
use serde_json::{Value, json};

const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";

/// A member of room `r` that can be asked.
async fn member(server: &ChatProcess, name: &str) -> (RawClient, EventStream) {
    member_with(server, name, json!({"elicitation": {}})).await
}

async fn member_with(server: &ChatProcess, name: &str, capabilities: Value) -> (RawClient, EventStream) {
    let client = RawClient::connect_with(&server.url, capabilities).await;
    let stream = client.open_stream().await;
    let joined = client.call_tool("join", json!({"room": "r", "name": name})).await;
    assert_eq!(joined["isError"], false, "{joined}");
    (client, stream)
}

async fn begin(client: &RawClient) -> Value {
    let poll = json!({"room": "r", "question": "Lunch?", "options": ["pizza", "sushi"]});
    let begun = client.call_tool("poll", poll).await;
    assert_eq!(begun["isError"], false, "{begun}");
    begun["structuredContent"].clone()
}

/// The next that is said in the room.
async fn said(stream: &mut EventStream) -> Value {
    loop {
        let told = stream.next_notification().await.expect("an open stream");
        if told["method"] == "notifications/message" {
            return told["params"]["data"].clone();
        }
    }
}

#[tokio::test]
async fn all_members_are_asked_at_whatever_server_and_all_hear_the_result() {
    let redis = RedisServer::start();
    let one = ChatProcess::start(&["--redis", &redis.url(), "--poll-timeout", "3"]).await;
    let other = ChatProcess::start(&["--redis", &redis.url()]).await;
    let mut members = Vec::new();
    for n in 0..6 {
        members.push(member(if n % 2 == 0 { &one } else { &other }, &n.to_string()).await);
    }
    members.push(member_with(&other, "cannot", json!({})).await);
    let began = Instant::now();
    assert_eq!(begin(&members[0].0).await, json!({"room": "r", "begun": true, "members": 7, "seconds": 3}));

    let answers = [
        Some(json!({"action": "accept", "content": {"choice": "pizza"}})),
        Some(json!({"action": "accept", "content": {"choice": "sushi"}})),
        Some(json!({"action": "accept", "content": {"choice": "pizza"}})),
        Some(json!({"action": "decline"})),
        Some(json!({"action": "cancel"})),
        None,
    ];
    for ((client, stream), answer) in members.iter_mut().zip(answers) {
        let asked = stream.next_request().await.unwrap();
        assert_eq!(asked["method"], "elicitation/create");
        assert_eq!(asked["params"]["message"], "Lunch?");
        let schema = &asked["params"]["requestedSchema"];
        assert_eq!(schema["properties"]["choice"]["enum"], json!(["pizza", "sushi"]));
        assert_eq!(schema["required"], json!(["choice"]));
        assert!(asked["params"]["_meta"][RELATED_TASK]["taskId"].is_string(), "{asked}");
        if let Some(answer) = answer {
            client.answer(&asked, answer).await;
        }
    }
    let text = "Lunch? pizza 2, sushi 1 (1 declined, 2 did not answer, 1 not able to answer)";
    for (_, stream) in &mut members {
        assert_eq!(said(stream).await, json!({"room": "r", "from": "poll", "text": text, "seq": 1}));
    }
    assert!(began.elapsed() >= Duration::from_secs(3));
    // The numbers continue.
    let next = members[0].0.call_tool("say", json!({"room": "r", "text": "so"})).await;
    assert_eq!(next["structuredContent"]["seq"], 2);
    redis.assert_no_key_without_expiry().await;
}

#[tokio::test]
async fn a_poll_ends_with_its_last_answer_and_its_tasks_end_with_it() {
    let redis = RedisServer::start();
    for args in [&[][..], &["--redis", &redis.url()][..]] {
        let server = ChatProcess::start(args).await;
        let (a, mut stream) = member(&server, "a").await;
        let began = Instant::now();
        begin(&a).await;
        let asked = stream.next_request().await.unwrap();
        a.answer(&asked, json!({"action": "accept", "content": {"choice": "sushi"}})).await;
        let ended = stream.next_notification().await.unwrap();
        assert_eq!(ended["method"], "notifications/tasks/status");
        assert_eq!(ended["params"]["status"], "completed");
        assert_eq!(ended["params"]["taskId"], asked["params"]["_meta"][RELATED_TASK]["taskId"]);
        assert_eq!(said(&mut stream).await["text"], "Lunch? pizza 0, sushi 1");
        assert!(began.elapsed() < Duration::from_secs(30), "it took {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn an_answer_that_is_no_option_counts_for_none() {
    let server = ChatProcess::start(&[]).await;
    let (a, mut stream) = member(&server, "a").await;
    begin(&a).await;
    let asked = stream.next_request().await.unwrap();
    a.answer(&asked, json!({"action": "accept", "content": {"choice": "soup"}})).await;
    assert_eq!(said(&mut stream).await["text"], "Lunch? pizza 0, sushi 0 (1 not able to answer)");
}

#[tokio::test]
async fn who_does_not_answer_in_time_is_told_that_the_question_is_withdrawn() {
    let server = ChatProcess::start(&["--poll-timeout", "1"]).await;
    let (a, mut stream) = member(&server, "a").await;
    begin(&a).await;
    let asked = stream.next_request().await.unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        told.push(stream.next_notification().await.unwrap());
    }
    let withdrawn = told.iter().find(|told| told["method"] == "notifications/cancelled").unwrap();
    assert_eq!(withdrawn["params"]["requestId"], asked["id"]);
    let result = told.iter().find(|told| told["method"] == "notifications/message").unwrap();
    assert_eq!(result["params"]["data"]["text"], "Lunch? pizza 0, sushi 0 (1 did not answer)");
}

#[tokio::test]
async fn polls_end_with_their_server_and_its_result_is_heard_at_others() {
    let redis = RedisServer::start();
    let mut one = ChatProcess::start(&["--redis", &redis.url()]).await;
    let other = ChatProcess::start(&["--redis", &redis.url()]).await;
    let (a, _stream) = member(&one, "a").await;
    let (b, mut stream) = member(&other, "b").await;
    begin(&a).await;
    let asked = stream.next_request().await.unwrap();
    b.answer(&asked, json!({"action": "accept", "content": {"choice": "pizza"}})).await;
    // Only when the answer has come to where the poll is does the server end.
    let mut status = redis::cmd("KEYS");
    status.arg("*:elicit:status");
    let mut connection = redis.connection().await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while status.query_async::<Vec<String>>(&mut connection).await.unwrap().len() > 1 {
        assert!(Instant::now() < deadline, "the answer is not taken");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(one.terminate().await.code(), Some(0));
    assert_eq!(said(&mut stream).await["text"], "Lunch? pizza 1, sushi 0 (1 did not answer)");
}

#[tokio::test]
async fn bad_polls_get_tool_errors_that_say_what_is_allowed() {
    let server = ChatProcess::start(&[]).await;
    let (a, _stream) = member(&server, "a").await;
    let poll =
        |room: &str, question: &str, options: &[&str]| json!({"room": room, "question": question, "options": options});
    let eleven: Vec<_> = (0..11).map(|n| n.to_string()).collect();
    let eleven: Vec<_> = eleven.iter().map(String::as_str).collect();
    let long = "x".repeat(65);
    let wrong = [
        (poll("r", "Q?", &[]), "options: there must be 2 to 10, and these are 0"),
        (poll("r", "Q?", &["one"]), "options: there must be 2 to 10, and these are 1"),
        (poll("r", "Q?", &eleven), "options: there must be 2 to 10, and these are 11"),
        (poll("r", "Q?", &["a", "b", "a"]), "options: they must be distinct, and \"a\" comes twice"),
        (poll("r", "Q?", &["a", ""]), "options: it must have 1 to 64 characters, and this one has 0"),
        (poll("r", "Q?", &["a", &long]), "options: it must have 1 to 64 characters, and this one has 65"),
        (poll("r", "", &["a", "b"]), "question: it must have 1 to 1024 characters, and this one has 0"),
        (poll("", "Q?", &["a", "b"]), "room: it must have 1 to 64 characters"),
        (poll("elsewhere", "Q?", &["a", "b"]), "room: you are not a member of \"elsewhere\""),
        (json!({"room": "r", "question": "Q?"}), "missing field `options`"),
        (json!({"room": "r", "question": "Q?", "options": [1, 2]}), "expected a string"),
    ];
    for (arguments, expected) in wrong {
        let result = a.call_tool("poll", arguments.clone()).await;
        assert_eq!(result["isError"], true, "{arguments}");
        let text = result["content"][0]["text"].as_str().unwrap();
        assert!(text.contains(expected), "{arguments}: {text}");
    }
    let impostor = a.call_tool("join", json!({"room": "r", "name": "poll"})).await;
    assert_eq!(impostor["isError"], true, "{impostor}");
}
