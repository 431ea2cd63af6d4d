//! Placement of subscribers: dedicated up to a limit, shared beyond. The queue is in memory.

use std::sync::Arc;
use std::time::Duration;

use mcp_courier::{
    Config, ConfigBuilder, Courier, EnsureError, Ensured, ListSubscribers, Notification, Placement, SessionId,
    SubscriberState,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::paused;
use mcp_courier_testing::recorder::{Act, Recorder};
use serde_json::json;

fn config() -> ConfigBuilder {
    Config::builder().backoff_initial(Duration::from_millis(5)).backoff_max(Duration::from_millis(50))
}

async fn courier(name: &str, config: ConfigBuilder) -> Courier {
    paused::start(&format!("memory://placement-{name}"), config.build().unwrap()).await
}

fn id(n: usize) -> SessionId {
    SessionId::new(format!("session-{n}")).unwrap()
}

async fn push(courier: &Courier, session: usize, numbers: impl IntoIterator<Item = usize>) {
    let numbered = |n| Notification::new("notifications/x").unwrap().with_params(json!({"n": n})).unwrap();
    for result in courier.publisher().push_many(numbers.into_iter().map(|n| (id(session), numbered(n)))).await {
        result.unwrap();
    }
}

async fn ensure(courier: &Courier, n: usize, session: &Arc<Recorder>) -> Result<Ensured, EnsureError> {
    courier.ensure_subscriber(&id(n), session.clone()).await
}

/// Runs so many subscribers, of the sessions 0, 1, 2 …
async fn ensured(courier: &Courier, count: usize) -> Vec<Arc<Recorder>> {
    let sessions: Vec<_> = (0..count).map(|_| Recorder::new()).collect();
    for (n, session) in sessions.iter().enumerate() {
        ensure(courier, n, session).await.unwrap();
    }
    sessions
}

/// The placements of the sessions 0, 1, 2 …, those without a subscriber left out.
async fn placements(courier: &Courier) -> Vec<Option<Placement>> {
    let mut infos = courier.supervisor().send(ListSubscribers).await.unwrap();
    infos.sort_by_key(|info| (info.session.as_str().len(), info.session.as_str().to_owned()));
    infos.into_iter().map(|info| info.placement).collect()
}

const DEDICATED: Option<Placement> = Some(Placement::Dedicated);
const SHARED: Option<Placement> = Some(Placement::Shared);

#[actix::test]
async fn subscribers_beyond_the_dedicated_limit_are_shared_and_served() {
    let courier = courier("beyond", config().dedicated_limit(2)).await;
    let sessions = ensured(&courier, 4).await;
    assert_eq!(placements(&courier).await, [DEDICATED, DEDICATED, SHARED, SHARED]);
    for (n, session) in sessions.iter().enumerate() {
        push(&courier, n, 0..150).await;
        session.until_taken(150).await;
        assert_eq!(session.taken(), (0..150).collect::<Vec<_>>());
    }
    let report = courier.shutdown(SOON).await;
    assert_eq!((report.stopped, report.forced, report.delivered), (4, 0, 600));
}

#[actix::test]
async fn with_a_dedicated_limit_of_0_all_are_shared_and_with_a_shared_limit_of_0_all_are_dedicated() {
    let all_shared = courier("all-shared", config().dedicated_limit(0)).await;
    ensured(&all_shared, 3).await;
    assert_eq!(placements(&all_shared).await, [SHARED; 3]);
    let all_dedicated = courier("all-dedicated", config().shared_limit(0)).await;
    ensured(&all_dedicated, 3).await;
    assert_eq!(placements(&all_dedicated).await, [DEDICATED; 3]);
}

#[actix::test]
async fn g6_one_subscriber_more_than_both_limits_is_refused_with_the_limits() {
    let courier = courier("limits", config().dedicated_limit(1).shared_limit(2)).await;
    let sessions = ensured(&courier, 3).await;
    let refused = Err(EnsureError::LimitReached { dedicated: 1, shared: 2 });
    assert_eq!(ensure(&courier, 3, &Recorder::new()).await, refused);
    // Replacing is no new one.
    assert_eq!(ensure(&courier, 2, &Recorder::new()).await, Ok(Ensured::Replaced));
    assert_eq!(ensure(&courier, 3, &Recorder::new()).await, refused);
    // One that parks makes room, and is placed anew when its client is back.
    sessions[0].presence().disconnected();
    eventually("there is a place", SOON, async || ensure(&courier, 3, &Recorder::new()).await.is_ok()).await;
    assert_eq!(placements(&courier).await, [None, SHARED, SHARED, DEDICATED]);
    courier.stop_subscriber(&id(1), None).await;
    sessions[0].presence().connected(2);
    eventually("it is shared now", SOON, async || placements(&courier).await == [SHARED, SHARED, DEDICATED]).await;
    push(&courier, 0, [1]).await;
    sessions[0].until_taken(1).await;
}

#[actix::test]
async fn a_shared_subscriber_that_does_not_stop_in_time_is_dropped_alone() {
    let config = config().dedicated_limit(0).hand_over_timeout(Duration::from_secs(60));
    let courier = courier("dropped-alone", config).await;
    let sessions = ensured(&courier, 20).await;
    sessions[7].always(Some(Act::Hang));
    for n in 0..20 {
        push(&courier, n, [1, 2]).await;
    }
    sessions[7].until_offered(1).await;
    let watched = Arc::downgrade(&sessions[7]);
    let next = Recorder::new();
    assert_eq!(ensure(&courier, 7, &next).await, Ok(Ensured::Replaced));
    // It waits for a second for its predecessor, and then takes the session over.
    next.until_taken(2).await;
    let mut sessions = sessions;
    drop(sessions.remove(7));
    eventually("all that ran for it is dropped", Duration::from_secs(120), async || watched.strong_count() == 0).await;
    for (n, session) in sessions.iter().enumerate() {
        push(&courier, if n < 7 { n } else { n + 1 }, [3]).await;
        session.until_taken(3).await;
        assert_eq!(session.taken(), [1, 2, 3]);
    }
}

#[actix::test]
async fn a_shared_subscriber_that_panics_takes_nobody_with_it() {
    let courier = courier("panics", config().dedicated_limit(0)).await;
    let sessions = ensured(&courier, 8).await;
    sessions[3].always(Some(Act::Panic));
    for n in 0..8 {
        push(&courier, n, [1]).await;
    }
    sessions[3].until_offered(1).await;
    sessions[3].always(None);
    for session in &sessions {
        session.until_taken(1).await;
    }
    eventually("all wait", SOON, async || {
        let infos = courier.supervisor().send(ListSubscribers).await.unwrap();
        infos.iter().all(|info| info.state == SubscriberState::Waiting)
    })
    .await;
}
