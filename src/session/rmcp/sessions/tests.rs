use futures_util::FutureExt;

use super::*;
use crate::backend::ProcessId;
use crate::config::Config;
use crate::principal::Principal;

fn session() -> SessionId {
    SessionId::new("s").unwrap()
}

fn client() -> Arc<ClientSession> {
    Arc::new(ClientSession::new(&Config::default(), session(), ProcessId::new()))
}

fn restoring(sessions: &Arc<Sessions>) -> Move {
    match sessions.find("s", &session(), true, true) {
        Found::Absent(Some(moving)) => moving,
        _ => panic!("it is not absent"),
    }
}

fn waiting(sessions: &Arc<Sessions>) -> MoveOutcome {
    match sessions.find("s", &session(), true, true) {
        Found::Moving(outcome) => outcome,
        _ => panic!("it does not move"),
    }
}

fn is_here(sessions: &Arc<Sessions>, client: &Arc<ClientSession>) -> bool {
    matches!(sessions.find("s", &session(), true, false), Found::Here(found, _) if Arc::ptr_eq(&found, client))
}

#[test]
fn one_request_moves_a_session_and_the_others_wait_for_the_outcome() {
    let (sessions, client) = (Sessions::new(1), client());
    let moving = restoring(&sessions);
    let (first, second) = (moving.outcome(), waiting(&sessions));
    assert_eq!(result_of(first.clone()).now_or_never(), None);
    moving.end_loaded(&"s".into(), Arc::clone(&client), sessions.try_permit().unwrap());
    assert!(is_here(&sessions, &client));
    for outcome in [first, second] {
        assert_eq!(result_of(outcome).now_or_never(), Some(Moved::Done));
    }
    let leaving = sessions.begin_close("s", &client).unwrap();
    assert!(sessions.try_permit().is_some(), "its place is free at once");
    let third = waiting(&sessions);
    assert!(matches!(sessions.find("s", &session(), true, false), Found::Moving(_)));
    assert_eq!(result_of(third.clone()).now_or_never(), None);
    leaving.end(Moved::Done);
    assert_eq!(result_of(third).now_or_never(), Some(Moved::Done));
    restoring(&sessions).end(Moved::Absent);
}

#[test]
fn who_arrives_may_leave_before_those_who_waited_have_looked() {
    let (sessions, client) = (Sessions::new(1), client());
    let moving = restoring(&sessions);
    let waited = moving.outcome();
    moving.end_loaded(&"s".into(), Arc::clone(&client), sessions.try_permit().unwrap());
    let leaving = sessions.begin_close("s", &client).unwrap();
    assert_eq!(result_of(waited).now_or_never(), Some(Moved::Done));
    assert_eq!(result_of(waiting(&sessions)).now_or_never(), None, "it waits for the close now");
    leaving.end(Moved::Done);
}

fn unserved(sessions: &Arc<Sessions>) -> Move {
    match sessions.find("s", &session(), true, true) {
        Found::Unserved(_, serving) => serving,
        _ => panic!("it is not here, or served"),
    }
}

#[test]
fn a_session_that_was_loaded_serves_streams_and_one_request_has_it_served() {
    let (sessions, client) = (Sessions::new(1), client());
    restoring(&sessions).end_loaded(&"s".into(), Arc::clone(&client), sessions.try_permit().unwrap());
    assert!(is_here(&sessions, &client) && !sessions.has_handler(&client));
    unserved(&sessions).end(Moved::Failed);
    let serving = unserved(&sessions);
    let waited = waiting(&sessions);
    assert!(is_here(&sessions, &client), "streams do not wait");
    serving.end_served(&client);
    assert_eq!(result_of(waited).now_or_never(), Some(Moved::Done));
    assert!(sessions.has_handler(&client));
    assert!(matches!(sessions.find("s", &session(), true, true), Found::Here(_, true)));
}

#[test]
fn a_session_that_is_closed_while_it_is_served_stays_closed_and_its_close_comes_last() {
    let (sessions, client) = (Sessions::new(1), client());
    restoring(&sessions).end_loaded(&"s".into(), Arc::clone(&client), sessions.try_permit().unwrap());
    let serving = unserved(&sessions);
    let mut leaving = sessions.begin_close("s", &client).unwrap();
    let waited = waiting(&sessions);
    assert_eq!(leaving.predecessor().now_or_never(), None);
    serving.end_served(&client);
    assert!(!sessions.has_handler(&client));
    assert_eq!(result_of(waited.clone()).now_or_never(), None, "it waits for the close");
    assert_eq!(result_of(waiting(&sessions)).now_or_never(), None);
    leaving.end(Moved::Done);
    assert_eq!(result_of(waited).now_or_never(), Some(Moved::Done));
    restoring(&sessions).end(Moved::Absent);
}

#[test]
fn a_session_is_closed_by_its_identity_and_rmcp_closes_only_what_it_created() {
    let (sessions, first, second) = (Sessions::new(2), client(), client());
    sessions.add(&"s".into(), Arc::clone(&first), sessions.try_permit().unwrap());
    assert!(sessions.created("s").is_some_and(|created| Arc::ptr_eq(&created, &first)));
    sessions.begin_close("s", &first).unwrap().end(Moved::Done);
    restoring(&sessions).end_loaded(&"s".into(), Arc::clone(&second), sessions.try_permit().unwrap());
    assert!(sessions.created("s").is_none());
    assert!(sessions.begin_close("s", &first).is_none());
    assert!(is_here(&sessions, &second));
}

#[test]
fn a_move_that_is_dropped_has_failed_and_the_next_request_begins_again() {
    let sessions = Sessions::new(1);
    let moving = restoring(&sessions);
    let waited = waiting(&sessions);
    drop(moving);
    assert_eq!(result_of(waited).now_or_never(), Some(Moved::Failed));
    restoring(&sessions).end(Moved::Failed);
    restoring(&sessions).end(Moved::NoPlace);
}

#[test]
fn another_user_neither_finds_a_session_nor_waits_for_it() {
    let (sessions, client) = (Sessions::new(1), client());
    let of_another = session().bound_to(Principal::new("mallory").unwrap());
    let moving = restoring(&sessions);
    assert!(matches!(sessions.find("s", &of_another, true, true), Found::Absent(Some(_))));
    moving.end_loaded(&"s".into(), client, sessions.try_permit().unwrap());
    assert!(matches!(sessions.find("s", &of_another, true, true), Found::Another));
    assert!(matches!(sessions.find("t", &session(), false, true), Found::Absent(None)));
}
