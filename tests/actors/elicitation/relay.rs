//! The server's side: clients that leave and come back, many questions at once, servers that take over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mcp_courier::testing::backend::{OwnerToken, Permit, Settled};
use mcp_courier::{Answer, AskError, HandOverError, Notification};
use mcp_courier_testing::eventually::{SOON, eventually};

use super::client::{client, client_that};
use super::place::{Place, accept, form, id, outcome, reason, task};

pub(crate) async fn a_client_that_comes_back_is_asked_again_and_its_answer_counts_once(place: Place) {
    let client = client();
    place.serve(client.session.clone()).await;
    let worker = place.ask(&task("t"), form("?"));
    let mut first = client.asked().await;
    let request_id = first.question.request_id.clone();
    // It leaves; and its stream breaks while it is asked; and again.
    client.presence().disconnected();
    first.until_unwanted().await;
    client.presence().connected(2);
    let second = client.asked().await;
    second.fail(AskError::NotReady("its stream has ended".to_owned()));
    let mut third = client.asked().await;
    client.presence().disconnected();
    third.until_unwanted().await;
    client.presence().connected(3);
    let last = client.asked().await;
    assert_eq!(last.question.request_id, request_id, "it is the same question");
    assert!(last.answer(accept(1)));
    assert_eq!(outcome(worker).await, accept(1));
    assert_eq!(place.courier.answer(&id(), &request_id, accept(2)).await.unwrap(), Settled::NotWaiting);
    place.until_nothing_is_left(&task("t")).await;
    client.presence().disconnected();
    client.presence().connected(4);
    place.publisher.push(&id(), Notification::tools_list_changed()).await.unwrap();
    while client.notification().await.method() != "notifications/tools/list_changed" {}
    assert!(client.asked_now().is_none(), "what was answered is not asked again");
}

pub(crate) async fn an_answer_counts_though_its_client_leaves_at_once(place: Place) {
    let client = client();
    place.serve(client.session.clone()).await;
    for n in 0..20 {
        client.presence().connected(n + 1);
        let worker = place.ask(&task("t"), form("?"));
        let asked = client.asked().await;
        assert!(asked.answer(accept(n)));
        client.presence().disconnected();
        assert_eq!(outcome(worker).await, accept(n));
    }
}

pub(crate) async fn the_end_of_a_session_whose_client_is_away_cancels_its_questions_at_once(place: Place) {
    let client = client();
    place.serve(client.session.clone()).await;
    let worker = place.ask(&task("t"), form("?"));
    let mut asked = client.asked().await;
    client.presence().disconnected();
    asked.until_unwanted().await;
    eventually("it is parked", SOON, async || {
        let infos = place.courier.supervisor().send(mcp_courier::ListSubscribers).await.unwrap();
        infos.iter().all(|info| info.state == mcp_courier::SubscriberState::Parked)
    })
    .await;
    client.presence().ended();
    assert_eq!(reason(outcome(worker).await), "the session has ended");
    place.until_nothing_is_left(&task("t")).await;
    eventually("the subscriber ends", SOON, async || {
        place.courier.supervisor().send(mcp_courier::GetSubscriberCount).await.unwrap() == 0
    })
    .await;
    let live = place.publisher.broadcast(&Notification::tools_list_changed()).await.unwrap();
    assert_eq!(live.len(), 0, "the lease is given up");
}

pub(crate) async fn at_most_sixteen_are_asked_at_once_and_deliveries_go_on(place: Place) {
    let client = client();
    place.serve(client.session.clone()).await;
    let tasks: Vec<_> = (0..40).map(|n| task(&format!("t{n}"))).collect();
    let mut workers: Vec<_> = tasks.iter().map(|task| Some(place.ask(task, form("?")))).collect();
    let mut asked = Vec::new();
    for _ in 0..16 {
        asked.push(client.asked().await);
    }
    // Deliveries do not wait for any of them.
    let begun = Instant::now();
    place.publisher.push(&id(), Notification::tools_list_changed()).await.unwrap();
    while client.notification().await.method() != "notifications/tools/list_changed" {}
    assert!(begun.elapsed() < SOON);
    assert!(client.asked_now().is_none(), "the seventeenth waits");
    // Those that are withdrawn make room for the others.
    let of = |asked: &super::client::Asked| tasks.iter().position(|t| *t == asked.question.task).unwrap();
    for asked in asked.drain(..8) {
        workers[of(&asked)].take().unwrap().abort();
    }
    for _ in 0..8 {
        asked.push(client.asked().await);
    }
    for _ in 0..32 {
        let next = asked.pop().unwrap();
        let worker = workers[of(&next)].take().unwrap();
        let n = of(&next) as u64;
        assert!(next.answer(accept(n)));
        assert_eq!(outcome(worker).await, accept(n));
        if workers.iter().flatten().count() > asked.len() {
            asked.push(client.asked().await);
        }
    }
    assert_eq!(client.most_at_once(), 16);
}

pub(crate) async fn a_question_before_a_failing_notification_is_asked_at_once(place: Place) {
    let broken = AtomicBool::new(true);
    let take = move |outbound: &mcp_courier::Outbound| {
        if outbound.method() == "notifications/x" && broken.load(Ordering::SeqCst) {
            if outbound.attempt == 2 {
                broken.store(false, Ordering::SeqCst);
            }
            return Err(HandOverError::Transient("broken".to_owned()));
        }
        Ok(())
    };
    let client = client_that(take, |_| None);
    // Both are in one batch.
    let worker = place.ask(&task("t"), form("?"));
    eventually("the question is queued", SOON, || is_queued(&place)).await;
    place.publisher.push(&id(), Notification::new("notifications/x").unwrap()).await.unwrap();
    place.serve(client.session.clone()).await;
    let asked = client.asked().await;
    assert!(asked.answer(accept(1)));
    assert_eq!(outcome(worker).await, accept(1));
}

/// Returns whether anything is queued. Reads the queue as an owner, while there is no other.
async fn is_queued(place: &Place) -> bool {
    let (owner, permit) = (OwnerToken::new(), Arc::new(Permit::new()));
    let mut consumer = place.queue.open(&id(), owner, permit).await.unwrap();
    consumer.claim().await.unwrap();
    !consumer.take(None).await.unwrap().items.is_empty()
}

pub(crate) async fn a_session_that_moved_is_asked_by_its_new_owner(place: Place) {
    let (old, new) = (client(), client());
    place.serve(old.session.clone()).await;
    let worker = place.ask(&task("t"), form("?"));
    let mut first = old.asked().await;
    let other = place.another_server().await;
    other.ensure_subscriber(&id(), new.session.clone()).await.unwrap();
    let second = new.asked().await;
    assert_eq!(second.question, first.question);
    first.until_unwanted().await;
    assert!(second.answer(accept(2)));
    assert_eq!(outcome(worker).await, accept(2));
    place.until_nothing_is_left(&task("t")).await;
}

pub(crate) async fn the_end_of_a_copy_that_was_left_behind_cancels_nothing(place: Place) {
    let (old, new) = (client(), client());
    place.serve(old.session.clone()).await;
    let worker = place.ask(&task("t"), form("?"));
    let mut first = old.asked().await;
    let other = place.another_server().await;
    other.ensure_subscriber(&id(), new.session.clone()).await.unwrap();
    let second = new.asked().await;
    first.until_unwanted().await;
    // As when it has been idle for long here.
    old.presence().ended();
    eventually("the old subscriber ends", SOON, || async {
        place.courier.supervisor().send(mcp_courier::GetSubscriberCount).await.unwrap() == 0
    })
    .await;
    assert!(second.answer(accept(2)));
    assert_eq!(outcome(worker).await, accept(2));
}

pub(crate) async fn a_session_that_panics_over_a_question_cancels_it_and_goes_on(place: Place) {
    let answer = |question: &mcp_courier::Question| match question.elicitation.message() {
        "panic" => panic!("as it was told"),
        _ => Some(Ok(Answer::Decline)),
    };
    let client = client_that(|_| Ok(()), answer);
    place.serve(client.session.clone()).await;
    let panicked = outcome(place.ask(&task("t"), form("panic"))).await;
    assert_eq!(reason(panicked), "the session panicked: as it was told");
    assert_eq!(outcome(place.ask(&task("t"), form("?"))).await, Answer::Decline);
}
