//! Clause 13: a question is answered once, by the first answer to its id, while its worker waits.

use std::sync::Arc;
use std::time::Duration;

use mcp_courier::testing::backend::{Backend, Delivered, LeaseState, Posed, Settled};
use mcp_courier::testing::envelope::Timestamp;
use mcp_courier::{Answer, Elicitation, Question, SessionId, TaskKey};
use mcp_courier_testing::eventually::SOON;
use serde_json::{Map, json};

use super::place::{Owner, Place, config, delivered, push, session};

const PATIENCE: Duration = Duration::from_secs(60);

fn task() -> TaskKey {
    TaskKey::anonymous("a task: 7").unwrap()
}

fn accept(n: usize) -> Answer {
    Answer::Accept(Map::from_iter([("n".to_owned(), json!(n))]))
}

fn asked(n: usize) -> Elicitation {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    Elicitation::form(format!("question {n}"), schema).unwrap()
}

async fn pose(queue: &dyn Backend, task: &TaskKey, id: &str) -> Posed {
    let request = json!({"request_id": id, "message": "?", "schema": {}}).to_string();
    queue.pose(task, id, request, PATIENCE).await.unwrap()
}

async fn posed(queue: &dyn Backend, task: &TaskKey, id: &str) {
    assert!(matches!(pose(queue, task, id).await, Posed::Done(_)), "{id}");
}

async fn answer_to(queue: &dyn Backend, task: &TaskKey, id: &str) -> Answer {
    tokio::time::timeout(SOON, queue.answer_to(task, id)).await.expect("an answer in time").unwrap()
}

async fn is_unanswered(queue: &dyn Backend, task: &TaskKey, id: &str) -> bool {
    tokio::time::timeout(Duration::from_millis(50), queue.answer_to(task, id)).await.is_err()
}

pub(crate) async fn the_first_answer_counts_and_no_other(place: &Place) {
    let queue = place.queue(config()).await;
    posed(&*queue, &task(), "q1").await;
    assert!(queue.is_waiting(&task(), "q1").await.unwrap());
    assert_eq!(queue.settle(&task(), "q1", &accept(1)).await.unwrap(), Settled::Done);
    assert!(!queue.is_waiting(&task(), "q1").await.unwrap());
    assert_eq!(queue.settle(&task(), "q1", &accept(2)).await.unwrap(), Settled::NotWaiting);
    assert_eq!(answer_to(&*queue, &task(), "q1").await, accept(1));
    assert_eq!(queue.settle(&task(), "q1", &accept(3)).await.unwrap(), Settled::NotWaiting);
}

pub(crate) async fn every_answer_survives_the_queue(place: &Place) {
    let queue = place.queue(config()).await;
    let reason = Some("away".to_owned());
    let answers = [accept(1), Answer::Accept(Map::new()), Answer::Decline, Answer::Cancel { reason }];
    for (n, answer) in answers.into_iter().chain([Answer::Cancel { reason: None }]).enumerate() {
        let id = n.to_string();
        posed(&*queue, &task(), &id).await;
        assert_eq!(queue.settle(&task(), &id, &answer).await.unwrap(), Settled::Done);
        assert_eq!(answer_to(&*queue, &task(), &id).await, answer);
    }
}

pub(crate) async fn whoever_waits_is_woken_by_the_answer(place: &Place) {
    let (queue, other) = (place.queue(config()).await, place.queue(config()).await);
    for n in 0..20 {
        let id = n.to_string();
        posed(&*queue, &task(), &id).await;
        let (task, answer) = (task(), accept(n));
        let (got, settled) =
            tokio::join!(answer_to(&*queue, &task, &id), async { other.settle(&task, &id, &answer).await.unwrap() });
        assert_eq!((got, settled), (answer.clone(), Settled::Done));
    }
}

pub(crate) async fn an_answer_to_another_question_is_refused(place: &Place) {
    let queue = place.queue(config()).await;
    assert_eq!(queue.settle(&task(), "q1", &accept(0)).await.unwrap(), Settled::NotWaiting);
    posed(&*queue, &task(), "q2").await;
    assert_eq!(queue.settle(&task(), "q1", &accept(1)).await.unwrap(), Settled::OtherQuestion);
    assert!(!queue.is_waiting(&task(), "q1").await.unwrap());
    assert!(queue.is_waiting(&task(), "q2").await.unwrap());
    assert_eq!(queue.settle(&task(), "q2", &accept(2)).await.unwrap(), Settled::Done);
    assert_eq!(answer_to(&*queue, &task(), "q2").await, accept(2));
}

pub(crate) async fn an_answer_under_another_scope_finds_no_question(place: &Place) {
    let queue = place.queue(config()).await;
    let owner = TaskKey::of_scope("client|alice", "7").unwrap();
    posed(&*queue, &owner, "q1").await;
    // The last one is how the owner's stands in a key.
    for (scope, id) in [(None, "7"), (Some("client|bob"), "7"), (Some("client"), "7"), (None, "auth:client%7Calice:7")]
    {
        let other = scope.map_or_else(|| TaskKey::anonymous(id), |scope| TaskKey::of_scope(scope, id)).unwrap();
        assert_eq!(queue.settle(&other, "q1", &accept(1)).await.unwrap(), Settled::NotWaiting, "{other:?}");
        assert!(!queue.is_waiting(&other, "q1").await.unwrap());
    }
    assert!(queue.is_waiting(&owner, "q1").await.unwrap());
}

pub(crate) async fn a_withdrawn_question_is_over_and_the_next_is_untouched_by_it(place: &Place) {
    let queue = place.queue(config()).await;
    posed(&*queue, &task(), "q1").await;
    queue.withdraw(&task(), "q1").await.unwrap();
    assert!(!queue.is_waiting(&task(), "q1").await.unwrap());
    assert_eq!(queue.settle(&task(), "q1", &accept(1)).await.unwrap(), Settled::NotWaiting);
    posed(&*queue, &task(), "q2").await;
    queue.withdraw(&task(), "q1").await.unwrap();
    assert!(queue.is_waiting(&task(), "q2").await.unwrap());
}

pub(crate) async fn a_task_asks_one_question_at_a_time(place: &Place) {
    let (queue, other) = (place.queue(config()).await, place.queue(config()).await);
    posed(&*queue, &task(), "q1").await;
    assert_eq!(pose(&*other, &task(), "q2").await, Posed::Busy);
    // As after an answer of the queue's that was lost.
    posed(&*queue, &task(), "q1").await;
    posed(&*other, &TaskKey::anonymous("another").unwrap(), "q3").await;
    assert_eq!(queue.settle(&task(), "q1", &accept(1)).await.unwrap(), Settled::Done);
    assert_eq!(pose(&*other, &task(), "q2").await, Posed::Busy, "its worker has not seen the answer yet");
    assert_eq!(answer_to(&*queue, &task(), "q1").await, accept(1));
    posed(&*other, &task(), "q2").await;
    other.withdraw(&task(), "q2").await.unwrap();
    posed(&*queue, &task(), "q4").await;
}

pub(crate) async fn an_answer_that_nobody_took_is_none_to_the_next_question(place: &Place) {
    let queue = place.queue(config()).await;
    posed(&*queue, &task(), "q1").await;
    assert_eq!(queue.settle(&task(), "q1", &accept(1)).await.unwrap(), Settled::Done);
    queue.withdraw(&task(), "q1").await.unwrap();
    posed(&*queue, &task(), "q2").await;
    assert!(is_unanswered(&*queue, &task(), "q2").await);
    assert_eq!(queue.settle(&task(), "q2", &accept(2)).await.unwrap(), Settled::Done);
    assert_eq!(answer_to(&*queue, &task(), "q2").await, accept(2));
}

pub(crate) async fn waiting_can_be_dropped_and_taken_up_again(place: &Place) {
    let queue = place.queue(config()).await;
    posed(&*queue, &task(), "q1").await;
    for _ in 0..3 {
        assert!(is_unanswered(&*queue, &task(), "q1").await);
    }
    assert!(queue.is_waiting(&task(), "q1").await.unwrap());
    assert_eq!(queue.settle(&task(), "q1", &accept(1)).await.unwrap(), Settled::Done);
    assert_eq!(answer_to(&*queue, &task(), "q1").await, accept(1));
}

fn question(n: usize, now: Timestamp) -> Question {
    // Redis keeps microseconds, and so do these.
    Question::new(format!("q{n}"), task(), asked(n), now.plus(PATIENCE).to_system())
}

pub(crate) async fn what_was_delivered_and_not_answered_is_an_open_question_for_any_owner(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..3).await;
    let taken = owner.take().await;
    let questions: Vec<_> = (0..2).map(|n| question(n, taken.now)).collect();
    let done = Delivered { questions: questions.clone(), ..delivered(&taken, 2) };
    owner.take_after(&done).await;
    // An acknowledgement whose answer was lost is repeated.
    owner.take_after(&done).await;
    let new = place.queue(config()).await;
    let _owner = Owner::claiming(&new).await;
    let mut open = new.open_questions(&session()).await.unwrap();
    open.sort_by(|a, b| a.request_id.cmp(&b.request_id));
    assert_eq!(open, questions);
    assert_eq!(new.open_question(&session(), "q1").await.unwrap().as_ref(), Some(&questions[1]));
    assert_eq!(new.open_question(&session(), "q2").await.unwrap(), None);
    assert_eq!(new.open_questions(&SessionId::new("other").unwrap()).await.unwrap(), []);
    new.close_question(&session(), "q0").await.unwrap();
    assert_eq!(queue.open_questions(&session()).await.unwrap(), questions[1..]);
    queue.close_question(&session(), "q1").await.unwrap();
    assert_eq!(queue.open_questions(&session()).await.unwrap(), []);
}

pub(crate) async fn an_acknowledgement_over_a_new_connection_opens_its_questions_too(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..1).await;
    let taken = owner.take().await;
    let done = Delivered { questions: vec![question(0, taken.now)], ..delivered(&taken, 1) };
    owner.consumer = queue.open(&session(), owner.token, Arc::clone(&owner.permit)).await.unwrap();
    owner.take_after(&done).await;
    assert_eq!(queue.open_questions(&session()).await.unwrap(), done.questions);
}

pub(crate) async fn one_who_is_not_the_owner_opens_no_question(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..1).await;
    let taken = owner.take().await;
    let _new = Owner::claiming(&queue).await;
    let done = Delivered { questions: vec![question(0, taken.now)], ..delivered(&taken, 1) };
    assert_eq!(owner.take_after(&done).await.lease, LeaseState::Lost);
    assert_eq!(queue.open_questions(&session()).await.unwrap(), []);
}
