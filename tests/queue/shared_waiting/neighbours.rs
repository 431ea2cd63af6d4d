//! Sessions of one arbiter: none holds up, loses or reorders what is another's.

use std::thread::available_parallelism;

use mcp_courier::{Courier, Delivery, HandOverError, Notification, SessionId, SubscriberState};
use mcp_courier_testing::eventually::eventually;
use mcp_courier_testing::recorder::{Act, Recorder};
use serde_json::json;

use super::place::{NEVER, PROMPT, Place, numbered, shared};

#[actix::test]
async fn g7_a_session_with_a_long_backlog_does_not_starve_its_neighbours() {
    const BACKLOG: usize = 50_000;
    let neighbours = 4 * available_parallelism().unwrap().get();
    let mut place = Place::new(neighbours, shared().queue_max_messages(BACKLOG).queue_max_bytes(100_000_000)).await;
    let (busy, recorder) = (SessionId::new("busy").unwrap(), Recorder::new());
    for numbers in (0..BACKLOG).collect::<Vec<_>>().chunks(1000) {
        for result in place.publisher().push_many(numbers.iter().map(|n| (busy.clone(), numbered(*n)))).await {
            result.unwrap();
        }
    }
    place.courier.ensure_subscriber(&busy, recorder.clone()).await.unwrap();
    recorder.until_taken(1).await;
    let mut rounds = 0;
    while recorder.outbound().len() < BACKLOG {
        place.flows_at_once().await;
        rounds += 1;
    }
    assert!(rounds >= 3, "{rounds} rounds of the neighbours while {BACKLOG} were taken");
    assert!(recorder.taken().iter().enumerate().all(|(n, taken)| n as i64 == *taken));
}

#[actix::test]
async fn g7_sessions_that_are_stuck_hold_up_no_neighbour() {
    let mut place = Place::new(40, shared().hand_over_timeout(NEVER)).await;
    let stuck = place.sessions.split_off(20);
    for (id, recorder) in &stuck {
        recorder.always(Some(Act::Hang));
        place.publisher().push(id, numbered(0)).await.unwrap();
        recorder.until_offered(1).await;
    }
    for _ in 0..5 {
        place.flows_at_once().await;
    }
    assert!(stuck.iter().all(|(_, recorder)| recorder.taken().is_empty()));
}

#[actix::test]
async fn g7_sessions_that_panic_or_fail_are_tried_again_and_hold_up_no_neighbour() {
    let mut place = Place::new(10, shared()).await;
    let failed = || Act::Fail(HandOverError::Transient("later".to_owned()));
    let troubled: Vec<_> = [vec![Act::Panic], vec![failed(), failed()], vec![failed(), Act::Panic]]
        .into_iter()
        .enumerate()
        .map(|(n, script)| (SessionId::new(format!("troubled-{n}")).unwrap(), Recorder::scripted(script)))
        .collect();
    for (id, recorder) in &troubled {
        place.courier.ensure_subscriber(id, recorder.clone()).await.unwrap();
        place.publisher().push(id, numbered(0)).await.unwrap();
        place.publisher().push(id, numbered(1)).await.unwrap();
    }
    place.flows_at_once().await;
    for (_, recorder) in &troubled {
        recorder.until_taken(2).await;
        assert_eq!(recorder.taken(), [0, 1]);
    }
}

#[actix::test]
async fn g8_a_stop_amid_deliveries_loses_nothing_and_another_goes_on() {
    const EACH: usize = 100;
    let mut place = Place::new(50, shared().batch_messages(10)).await;
    for _ in 0..EACH {
        place.push().await;
    }
    place.recorder(7).until_taken(EACH / 10).await;
    let report = place.courier.shutdown(PROMPT).await;
    assert_eq!((report.stopped, report.forced), (50, 0));
    let other = Courier::start(&place.redis.url(), shared().build().unwrap()).await.unwrap();
    for (id, recorder) in &place.sessions {
        let next = Recorder::new();
        other.ensure_subscriber(id, next.clone()).await.unwrap();
        let before = recorder.taken();
        next.until_taken(EACH - before.len()).await;
        assert_eq!([before, next.taken()].concat(), (0..EACH as i64).collect::<Vec<_>>(), "{id:?}");
    }
    other.shutdown(PROMPT).await;
}

#[actix::test]
async fn at_most_once_holds_over_shared_connections() {
    let mut place = Place::new(20, shared().delivery(Delivery::AtMostOnce)).await;
    for _ in 0..10 {
        place.push().await;
    }
    place.until_all_taken().await;
    let left: Vec<String> = place.redis(&["KEYS", "*:notifications:session-*"]).await;
    assert!(left.iter().all(|key| key.contains("lease")), "{left:?}");
}

#[actix::test]
async fn g6_large_messages_of_many_sessions_are_taken_within_the_bound_of_bytes() {
    const EACH: usize = 6;
    let place = Place::new(20, shared().batch_bytes(1 << 20)).await;
    let text = "x".repeat(400_000);
    for n in 0..EACH {
        for (id, _) in &place.sessions {
            let params = json!({"n": n, "text": text});
            let large = Notification::new("notifications/x").unwrap().with_params(params).unwrap();
            place.publisher().push(id, large).await.unwrap();
        }
    }
    for (id, recorder) in &place.sessions {
        recorder.until_taken(EACH).await;
        assert_eq!(recorder.taken(), (0..EACH as i64).collect::<Vec<_>>(), "{id:?}");
    }
}

#[actix::test]
async fn a_session_that_comes_back_gets_what_waited_for_it() {
    let mut place = Place::new(20, shared().heartbeat(NEVER)).await;
    place.flows_at_once().await;
    for (_, recorder) in &place.sessions {
        recorder.presence().disconnected();
    }
    eventually("all are parked", PROMPT, async || {
        place.states().await.iter().all(|state| *state == SubscriberState::Parked)
    })
    .await;
    place.push().await;
    for (_, recorder) in &place.sessions {
        assert_eq!(recorder.taken(), [0]);
        recorder.presence().connected(2);
    }
    tokio::time::timeout(PROMPT, place.until_all_taken()).await.expect("at once");
}
