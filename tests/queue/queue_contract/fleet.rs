//! Clauses 14 and 15: what the processes of a fleet remember of sessions, and tell each other.

use std::time::Duration;

use mcp_courier::testing::backend::{News, ProcessId, SessionRecord};
use mcp_courier::{Principal, SessionId};
use mcp_courier_testing::eventually::{SOON, eventually};

use super::place::{Place, config, session};

const STATE: &str = r#"{"initialize_params": {}}"#;

fn another() -> SessionId {
    SessionId::new("another").unwrap()
}

pub(crate) async fn a_session_is_remembered_by_all_and_forgotten_by_all(place: &Place) {
    let (a, b) = (place.queue(config()).await, place.queue(config()).await);
    assert_eq!(a.load_session(&session()).await.unwrap(), None);
    assert!(a.store_session(&session(), STATE).await.unwrap());
    assert_eq!(b.load_session(&session()).await.unwrap().as_deref(), Some(STATE));
    b.end_session(&session(), ProcessId::new(), false).await.unwrap();
    assert_eq!(a.load_session(&session()).await.unwrap(), None);
}

pub(crate) async fn a_session_that_has_ended_is_not_remembered_again(place: &Place) {
    let queue = place.queue(config()).await;
    queue.store_session(&session(), STATE).await.unwrap();
    queue.end_session(&session(), ProcessId::new(), false).await.unwrap();
    assert!(!queue.store_session(&session(), STATE).await.unwrap());
    assert_eq!(queue.load_session(&session()).await.unwrap(), None);
}

pub(crate) async fn a_session_is_another_under_another_principal(place: &Place) {
    let queue = place.queue(config()).await;
    let bound = |principal| session().bound_to(Principal::new(principal).unwrap());
    queue.store_session(&bound("alice"), STATE).await.unwrap();
    assert_eq!(queue.load_session(&session()).await.unwrap(), None);
    assert_eq!(queue.load_session(&bound("mallory")).await.unwrap(), None);
    queue.end_session(&bound("mallory"), ProcessId::new(), true).await.unwrap();
    assert_eq!(queue.load_session(&bound("alice")).await.unwrap().as_deref(), Some(STATE));
}

pub(crate) async fn what_is_known_of_sessions_is_said_of_each(place: &Place) {
    let queue = place.queue(config()).await;
    queue.store_session(&session(), STATE).await.unwrap();
    queue.end_session(&another(), ProcessId::new(), true).await.unwrap();
    let asked = [another(), session(), SessionId::new("unknown").unwrap()];
    let known = queue.refresh_sessions(&asked).await.unwrap();
    assert_eq!(known, [SessionRecord::Ended, SessionRecord::Known, SessionRecord::Unknown]);
    assert_eq!(queue.refresh_sessions(&[]).await.unwrap(), []);
    assert_eq!(queue.look_up_sessions(&asked).await.unwrap(), known);
    assert!(queue.knows_all(&asked[..2]).await.unwrap() && queue.knows_all(&[]).await.unwrap());
    assert!(!queue.knows_all(&asked).await.unwrap());
}

pub(crate) async fn a_session_that_never_was_is_not_remembered_as_ended(place: &Place) {
    let queue = place.queue(config()).await;
    assert!(!queue.end_session(&session(), ProcessId::new(), false).await.unwrap());
    assert_eq!(queue.look_up_sessions(&[session()]).await.unwrap(), [SessionRecord::Unknown]);
    assert!(queue.store_session(&session(), STATE).await.unwrap(), "it may still begin");
    // Whoever holds a session that the queue has lost ends it all the same.
    assert!(queue.end_session(&another(), ProcessId::new(), true).await.unwrap());
    assert_eq!(queue.look_up_sessions(&[another()]).await.unwrap(), [SessionRecord::Ended]);
    assert!(queue.end_session(&another(), ProcessId::new(), false).await.unwrap(), "it has ended");
}

pub(crate) async fn a_session_lives_as_long_as_it_is_used(place: &Place) {
    let life = Duration::from_secs(1);
    let queue = place.queue(config().session_time_to_live(life)).await;
    queue.store_session(&session(), STATE).await.unwrap();
    queue.store_session(&another(), STATE).await.unwrap();
    let (mut uses, begun) = (0, tokio::time::Instant::now());
    while begun.elapsed() < life * 3 / 2 {
        let used = match uses % 2 {
            0 => queue.load_session(&session()).await.unwrap().is_some(),
            _ => queue.refresh_sessions(&[session()]).await.unwrap() == [SessionRecord::Known],
        };
        assert!(used, "after {uses} uses and {:?}", begun.elapsed());
        uses += 1;
        tokio::time::sleep(life / 20).await;
    }
    // Nobody has used it.
    assert_eq!(queue.load_session(&another()).await.unwrap(), None);
    eventually("the end of the one used last", SOON, async || {
        tokio::time::sleep(life * 5 / 4).await;
        queue.load_session(&session()).await.unwrap().is_none()
    })
    .await;
}

pub(crate) async fn an_end_is_told_to_all_and_a_ping_to_one(place: &Place) {
    let (a, b) = (place.queue(config()).await, place.queue(config()).await);
    let (one, other) = (ProcessId::new(), ProcessId::new());
    let mut listeners = [a.listen(one), a.listen(other), b.listen(ProcessId::new())];
    // Until all listen: that takes a moment, and what was said before is not repeated.
    let begun = tokio::time::Instant::now();
    for listener in &mut listeners {
        while tokio::time::timeout(Duration::from_millis(20), listener.recv()).await.is_err() {
            assert!(begun.elapsed() < SOON, "a listener hears nothing");
            b.end_session(&another(), ProcessId::new(), true).await.unwrap();
        }
    }
    b.announce_confirmation(one, &session(), 7).await.unwrap();
    let by = ProcessId::new();
    assert!(b.end_session(&session(), by, true).await.unwrap());
    let mut heard = Vec::new();
    for listener in &mut listeners {
        let mut rest = Vec::new();
        while rest.last() != Some(&News::Ended(session(), by)) {
            let news = tokio::time::timeout(SOON, listener.recv()).await.unwrap().unwrap();
            if !matches!(&news, News::Ended(session, _) if *session == another()) {
                rest.push(news);
            }
        }
        heard.push(rest);
    }
    let ended = News::Ended(session(), by);
    assert_eq!(heard, [vec![News::Confirmed(session(), 7), ended.clone()], vec![ended.clone()], vec![ended]]);
}
