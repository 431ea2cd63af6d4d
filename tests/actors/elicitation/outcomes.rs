//! Outcomes of questions: the answer that a worker gets, how soon it gets that answer, and what the client sees.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use mcp_courier::{
    Answer, AskError, ElicitError, Elicitation, Elicited, HandOverError, InvalidQuestion, ListSubscribers,
    Notification, Publisher, PushRefusal, Task, TaskKey, TaskStatus,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::{Client, client, client_that, client_who_answers};
use super::place::{PATIENCE, Place, accept, config, content, form, id, outcome, reason, task};

/// Longer than a worker needs that gets its answer at once, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Case: its name, a client, and the check of the answer that the worker got.
type Case = (&'static str, fn() -> Client, fn(Answer) -> bool);

pub(crate) async fn each_outcome_reaches_the_worker_at_once(place: Place) {
    let mut table = Vec::new();
    let cases: [Case; 8] = [
        ("accepted", || client_who_answers(|_| accept(7)), |answer| answer == accept(7)),
        (
            "accepted, content that does not fit",
            || client_who_answers(|_| Answer::Accept(content(json!({"n": -1})))),
            |answer| reason(answer) == "the client's answer does not fit the schema at /n",
        ),
        ("declined", || client_who_answers(|_| Answer::Decline), |answer| answer == Answer::Decline),
        (
            "cancelled by the user",
            || client_who_answers(|_| Answer::Cancel { reason: None }),
            |answer| answer == Answer::Cancel { reason: None },
        ),
        (
            "the client cannot be asked",
            || client_that(|_| Ok(()), |_| Some(Err(AskError::Impossible("it cannot".to_owned())))),
            |answer| reason(answer) == "it cannot",
        ),
        (
            "the notification is rejected",
            || client_that(|_| Err(HandOverError::Rejected("never".to_owned())), |_| None),
            |answer| reason(answer) == "the session rejected it: never",
        ),
        (
            "every attempt to hand it over fails",
            || client_that(|_| Err(HandOverError::Transient("broken".to_owned())), |_| None),
            |answer| reason(answer) == "all 3 attempts failed, the last with: broken",
        ),
        ("never answered, timeout 0.3 s", client, |answer| reason(answer).starts_with("no answer came within")),
    ];
    for (case, make, expected) in cases {
        let client = make();
        place.serve(client.session.clone()).await;
        let timeout = if case.starts_with("never") { Duration::from_millis(300) } else { PATIENCE };
        let begun = Instant::now();
        let answer = outcome(place.ask_for(&task(case), form(case), timeout)).await;
        let took = begun.elapsed();
        table.push((case, took));
        assert!(took < AT_ONCE, "{case}: {took:?}");
        assert!(expected(answer.clone()), "{case}: {answer:?}");
        place.until_nothing_is_left(&task(case)).await;
    }
    let client = client();
    place.serve(client.session.clone()).await;
    let worker = place.ask(&task("ends"), form("?"));
    let _asked = client.asked().await;
    let begun = Instant::now();
    client.presence().ended();
    assert_eq!(reason(outcome(worker).await), "the session has ended");
    table.push(("the session ends while it is open", begun.elapsed()));
    place.until_nothing_is_left(&task("ends")).await;
    println!("{}", if place.redis.is_some() { "a bare session, Redis" } else { "a bare session, memory" });
    for (case, took) in table {
        println!("| {case} | {:.1} ms |", took.as_secs_f64() * 1000.0);
    }
}

pub(crate) async fn a_question_comes_as_a_status_without_what_is_internal_and_as_itself(place: Place) {
    let client = client();
    place.serve(client.session.clone()).await;
    let owner = TaskKey::of_scope("client|alice", "task-7").unwrap();
    let worker = place.ask(&owner, form("How many?"));
    let status = client.message().await;
    assert_eq!(status["method"], "notifications/tasks/status");
    assert_eq!(status["params"]["status"], "input_required");
    assert_eq!(status["params"]["statusMessage"], "How many?");
    assert_eq!(status["params"]["taskId"], "task-7");
    let meta = status["params"]["_meta"].as_object().unwrap();
    assert_eq!(meta.keys().collect::<Vec<_>>(), ["mcp-courier/id"]);
    let asked = client.asked().await;
    let params = Value::from(asked.question.to_params());
    assert_eq!(params["_meta"], json!({"io.modelcontextprotocol/related-task": {"taskId": "task-7"}}));
    assert_eq!(params["message"], "How many?");
    assert_eq!(params["requestedSchema"]["required"], json!(["n"]));
    assert!(!params.to_string().contains("alice"));
    assert!(asked.answer(accept(1)));
    assert_eq!(outcome(worker).await, accept(1));
    place.until_nothing_is_left(&owner).await;
}

pub(crate) async fn a_refused_notification_is_an_error_and_leaves_nothing(place: Place) {
    let config = config().queue_max_messages(1).build().unwrap();
    let elicitor = Publisher::connect(&place.url, config).await.unwrap().elicitor();
    place.publisher.push(&id(), Notification::tools_list_changed()).await.unwrap();
    let error = elicitor.elicit(&id(), &task("full"), form("?"), PATIENCE).await.unwrap_err();
    let ElicitError::Push(error) = error else { panic!("{error}") };
    assert!(matches!(error.reason, PushRefusal::QueueFull(_)), "{error}");
    place.until_nothing_is_left(&task("full")).await;
    // The task can ask again at once.
    place.serve(client_who_answers(|_| accept(1)).session).await;
    assert_eq!(outcome(place.ask(&task("full"), form("?"))).await, accept(1));
}

pub(crate) async fn a_question_that_cannot_be_asked_is_an_error(place: Place) {
    for timeout in [Duration::ZERO, Duration::from_secs(400 * 24 * 3600)] {
        let error = place.elicitor.elicit(&id(), &task("t"), form("?"), timeout).await.unwrap_err();
        assert!(matches!(error, ElicitError::Invalid(InvalidQuestion::Timeout { .. })), "{error}");
    }
    let nonsense = json!({"type": "object", "properties": {"a": {"type": "string", "minLength": "long"}}});
    let question = Elicitation::form("?", nonsense).unwrap();
    let error = place.elicitor.elicit(&id(), &task("t"), question, PATIENCE).await.unwrap_err();
    assert!(matches!(error, ElicitError::Invalid(InvalidQuestion::Schema { .. })), "{error}");
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Approval {
    approve: bool,
    comment: Option<String>,
    #[schemars(range(max = 10))]
    amount: u8,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Nested {
    #[expect(dead_code, reason = "only its schema counts")]
    inner: Approval,
}

pub(crate) async fn a_type_is_asked_for_and_comes_back(place: Place) {
    let answers = Mutex::new(vec![
        Answer::Accept(content(json!({"approve": true, "amount": 7}))),
        Answer::Accept(content(json!({"approve": true, "amount": 7, "comment": "why not"}))),
        Answer::Accept(content(json!({"approve": true, "amount": 11}))),
        Answer::Accept(Map::new()),
        Answer::Decline,
        Answer::Cancel { reason: None },
    ]);
    place.serve(client_who_answers(move |_| answers.lock().unwrap().remove(0)).session).await;
    let (mut outcomes, (id, task)) = (Vec::new(), (id(), task("typed")));
    for _ in 0..6 {
        let asked = place.elicitor.elicit_as::<Approval>(&id, &task, "Pay?", PATIENCE);
        outcomes.push(tokio::time::timeout(SOON, asked).await.unwrap().unwrap());
    }
    let accepted = |comment: Option<&str>| {
        Elicited::Accepted(Approval { approve: true, comment: comment.map(str::to_owned), amount: 7 })
    };
    let refused =
        |at: &str| Elicited::Cancelled { reason: Some(format!("the client's answer does not fit the schema at {at}")) };
    let expected = [
        accepted(None),
        accepted(Some("why not")),
        refused("/amount"),
        refused("/"),
        Elicited::Declined,
        Elicited::Cancelled { reason: None },
    ];
    assert_eq!(outcomes, expected);
    let error = place.elicitor.elicit_as::<Nested>(&id, &task, "Pay?", PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("\"inner\""), "{error}");
}

pub(crate) async fn a_reporter_tells_how_its_task_goes(place: Place) {
    let client = client();
    place.serve(client.session.clone()).await;
    let mut task = Task::new("task-7", TaskStatus::Working, SystemTime::now());
    task.ttl = Some(Duration::from_secs(60));
    let mut report = place.publisher.task_reporter(&id(), task);
    report.status(TaskStatus::Working, Some("reading")).await.unwrap();
    report.progress("token", 30.0, Some(100.0), None).await.unwrap();
    report.progress(7, f64::NAN, None, Some("lost count")).await.unwrap();
    report.status(TaskStatus::Completed, None).await.unwrap();
    assert_eq!(report.task().status, TaskStatus::Completed);
    let working = client.message().await;
    for field in ["createdAt", "lastUpdatedAt"] {
        assert!(working["params"][field].as_str().unwrap().ends_with('Z'), "{working}");
    }
    let told = |status: &Value| json!([status["params"]["status"], status["params"]["statusMessage"]]);
    assert_eq!(told(&working), json!(["working", "reading"]));
    assert_eq!((&working["params"]["taskId"], &working["params"]["ttl"]), (&json!("task-7"), &json!(60_000)));
    let progress = client.message().await;
    assert_eq!(progress["method"], "notifications/progress");
    assert_eq!((&progress["params"]["progressToken"], &progress["params"]["progress"]), (&json!("token"), &json!(30)));
    assert_eq!(progress["params"]["_meta"]["io.modelcontextprotocol/related-task"], json!({"taskId": "task-7"}));
    let progress = client.message().await;
    assert_eq!(
        (&progress["params"]["progressToken"], &progress["params"]["message"]),
        (&json!(7), &json!("lost count"))
    );
    let completed = client.message().await;
    assert_eq!(told(&completed), json!(["completed", null]));
    assert!(completed["params"].get("statusMessage").is_none());
    assert_eq!(completed["params"]["createdAt"], working["params"]["createdAt"]);
}

pub(crate) async fn a_task_that_has_ended_goes_on_for_nobody(place: Place) {
    let again = AtomicBool::new(true);
    // The end of one task has to be tried twice: it has ended only when that is delivered.
    let take =
        move |outbound: &mcp_courier::Outbound| match outbound.parse_params::<Value>().unwrap()["status"].as_str() {
            Some("failed") if again.swap(false, Ordering::SeqCst) => Err(HandOverError::Transient("once".to_owned())),
            _ => Ok(()),
        };
    let client = client_that(take, |_| None);
    place.serve(client.session.clone()).await;
    let tell = |name: &'static str, status: TaskStatus| {
        let (publisher, task) = (place.publisher.clone(), Task::new(name, status, SystemTime::now()));
        async move { publisher.push(&id(), Notification::task_status(&task)).await.unwrap() }
    };
    for status in [TaskStatus::Working, TaskStatus::Failed, TaskStatus::Working, TaskStatus::InputRequired] {
        tell("a", status).await;
    }
    tell("b", TaskStatus::Working).await;
    let mut told = Vec::new();
    for _ in 0..3 {
        let params = client.notification().await.parse_params::<Value>().unwrap();
        told.push([params["taskId"].clone(), params["status"].clone()]);
    }
    assert_eq!(json!(told), json!([["a", "working"], ["a", "failed"], ["b", "working"]]));
    // A request for an ended task gets its answer at once.
    assert_eq!(reason(outcome(place.ask(&task("a"), form("?"))).await), "its task has ended");
    let discarded = || async {
        let info = place.courier.supervisor().send(ListSubscribers).await.unwrap().pop().unwrap();
        info.discarded
    };
    eventually("three are counted as discarded", SOON, || async { discarded().await == 3 }).await;
}
