//! An answer belongs to one question, whoever gives it, however often, and wherever.

use mcp_courier::testing::backend::Settled;
use mcp_courier::{Answer, Question, TaskKey};

use super::client::{client, client_who_answers};
use super::place::{PATIENCE, Place, accept, content, form, id, outcome, task};

/// Answers a question with the number in it.
fn echo(question: &Question) -> Answer {
    accept(question.elicitation.message().parse().unwrap())
}

pub(crate) async fn two_in_a_row_and_two_at_once_get_each_their_own_a_thousand_times(place: Place) {
    place.serve(client_who_answers(echo).session).await;
    let (elicitor, task) = (&place.elicitor, task("t"));
    let ask = |n: u64| {
        let task = task.clone();
        async move { (n, elicitor.elicit(&id(), &task, form(&n.to_string()), PATIENCE).await.unwrap()) }
    };
    let rounds = async {
        for n in (0..1000).step_by(4) {
            let one_after_another = [ask(n).await, ask(n + 1).await];
            let (third, fourth) = tokio::join!(ask(n + 2), ask(n + 3));
            for (n, answer) in one_after_another.into_iter().chain([third, fourth]) {
                assert_eq!(answer, accept(n));
            }
        }
    };
    tokio::time::timeout(PATIENCE, rounds).await.unwrap();
    place.until_nothing_is_left(&task).await;
}

pub(crate) async fn tasks_that_ask_together_get_each_their_own(place: Place) {
    let client = client();
    place.serve(client.session.clone()).await;
    let tasks: Vec<_> = (0..12).map(|n| task(&format!("task-{n}"))).collect();
    let workers: Vec<_> = tasks.iter().enumerate().map(|(n, task)| place.ask(task, form(&n.to_string()))).collect();
    let mut asked = Vec::new();
    for _ in 0..tasks.len() {
        asked.push(client.asked().await);
    }
    // The last one asked is answered first.
    for asked in asked.into_iter().rev() {
        let answer = echo(&asked.question);
        assert!(asked.answer(answer));
    }
    for (n, worker) in workers.into_iter().enumerate() {
        assert_eq!(outcome(worker).await, accept(n as u64));
    }
}

pub(crate) async fn a_second_answer_is_refused_and_never_satisfies_the_next_question(place: Place) {
    let client = client();
    place.serve(client.session.clone()).await;
    let other = place.another_server().await;
    let task = task("t");
    let mut earlier: Option<String> = None;
    for n in 0..10 {
        let worker = place.ask(&task, form("?"));
        let asked = client.asked().await;
        let request_id = asked.question.request_id.clone();
        if let Some(earlier) = &earlier {
            let settled = place.elicitor.answer(&task, earlier, &accept(99)).await.unwrap();
            assert_eq!(settled, Settled::OtherQuestion);
            assert_eq!(other.answer(&id(), earlier, accept(99)).await.unwrap(), Settled::NotWaiting);
        }
        assert!(asked.answer(accept(n)));
        assert_eq!(outcome(worker).await, accept(n));
        assert_eq!(place.elicitor.answer(&task, &request_id, &accept(98)).await.unwrap(), Settled::NotWaiting);
        assert_eq!(other.answer(&id(), &request_id, accept(98)).await.unwrap(), Settled::NotWaiting);
        earlier = Some(request_id);
    }
    place.until_nothing_is_left(&task).await;
}

pub(crate) async fn an_answer_by_another_way_counts_once_and_only_under_its_scope(place: Place) {
    let client = client();
    place.serve(client.session.clone()).await;
    let owner = TaskKey::of_scope("client|alice", "7").unwrap();
    let worker = place.ask(&owner, form("?"));
    let mut asked = client.asked().await;
    let request_id = asked.question.request_id.clone();
    let answers = place.publisher.elicitor();
    for other in [TaskKey::anonymous("7").unwrap(), TaskKey::of_scope("client|bob", "7").unwrap()] {
        assert_eq!(answers.answer(&other, &request_id, &accept(1)).await.unwrap(), Settled::NotWaiting);
    }
    assert_eq!(answers.answer(&owner, "another", &accept(1)).await.unwrap(), Settled::OtherQuestion);
    assert_eq!(answers.answer(&owner, &request_id, &accept(2)).await.unwrap(), Settled::Done);
    assert_eq!(outcome(worker).await, accept(2));
    assert_eq!(answers.answer(&owner, &request_id, &accept(3)).await.unwrap(), Settled::NotWaiting);
    asked.until_unwanted().await;
    place.until_nothing_is_left(&owner).await;
}

pub(crate) async fn an_answer_at_another_server_of_the_fleet_counts_and_frees_the_turn(place: Place) {
    let client = client();
    place.serve(client.session.clone()).await;
    let other = place.another_server().await;
    let worker = place.ask(&task("t"), form("?"));
    let mut asked = client.asked().await;
    let request_id = asked.question.request_id.clone();
    let elsewhere = mcp_courier::SessionId::new("another-session").unwrap();
    let stolen = other.answer(&elsewhere, &request_id, accept(1)).await.unwrap();
    assert_eq!(stolen, Settled::NotWaiting, "another session was not asked");
    assert_eq!(other.answer(&id(), &request_id, accept(2)).await.unwrap(), Settled::Done);
    assert_eq!(outcome(worker).await, accept(2));
    assert_eq!(other.answer(&id(), &request_id, accept(3)).await.unwrap(), Settled::NotWaiting);
    asked.until_unwanted().await;
    place.until_nothing_is_left(&task("t")).await;
}

pub(crate) async fn a_dropped_question_is_withdrawn(place: Place) {
    let client = client();
    place.serve(client.session.clone()).await;
    let worker = place.ask(&task("dropped"), form("?"));
    let mut asked = client.asked().await;
    assert_eq!(client.notification().await.method(), "notifications/tasks/status");
    worker.abort();
    let withdrawn = client.message().await;
    assert_eq!(withdrawn["method"], "notifications/cancelled");
    let request_id = asked.question.request_id.clone();
    assert_eq!(withdrawn["params"]["requestId"], format!("mcp-courier:elicit:{request_id}"));
    asked.until_unwanted().await;
    assert_eq!(place.courier.answer(&id(), &request_id, accept(1)).await.unwrap(), Settled::NotWaiting);
    place.until_nothing_is_left(&task("dropped")).await;
    // Before anybody was asked, nobody gets a cancellation: the next message is the next question.
    client.presence().disconnected();
    place.ask(&task("dropped"), form("?")).abort();
    client.presence().connected(2);
    let worker = place.ask(&task("dropped"), form("next"));
    let asked = client.asked().await;
    assert_eq!(asked.question.elicitation.message(), "next");
    assert!(asked.answer(Answer::Accept(content(serde_json::json!({"n": 1})))));
    assert_eq!(outcome(worker).await, accept(1));
    place.until_nothing_is_left(&task("dropped")).await;
}
