//! Redis forgets, dies, is full, or holds something else.

use std::time::{Duration, Instant};

use mcp_courier::testing::backend::{LeaseState, Replaced};
use mcp_courier::{PushRefusal, QueueError, QueueErrorKind};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;

use super::fixture::{Fixture, LEASE, LONG, QUEUE, note, numbers, session};

fn refusal_of(error: &QueueError) -> &str {
    match &error.kind {
        QueueErrorKind::Refused(text) => text,
        other => panic!("{other:?}"),
    }
}

/// The connection is lost. A shared one is made again by each operation, which then says that nobody is there.
fn is_lost(error: &QueueError) {
    match error.kind {
        QueueErrorKind::Unreachable(_) => assert!(waiting::is_shared(), "{error:?}"),
        _ => assert!(matches!(error.kind, QueueErrorKind::Broken(_)), "{error:?}"),
    }
}

#[tokio::test]
async fn everything_goes_on_when_redis_has_forgotten_the_scripts() {
    let mut f = Fixture::new().await;
    let forget = async |f: &mut Fixture| f.redis::<()>(&["SCRIPT", "FLUSH"]).await;
    forget(&mut f).await;
    f.push([0, 1, 2]).await;
    forget(&mut f).await;
    let both = ["s-1", "s-2"].map(|id| (mcp_courier::SessionId::new(id).unwrap(), note(3)));
    for pushed in f.publisher.push_many(both).await {
        pushed.unwrap();
    }
    forget(&mut f).await;
    let taken = f.take().await;
    assert_eq!(numbers(&taken), [0, 1, 2, 3]);
    forget(&mut f).await;
    let failed = taken.items[0].envelope.as_ref().unwrap().after_failure("x");
    assert_eq!(f.consumer.replace_oldest(&taken.items[0].mark, failed).await.unwrap(), Replaced::Done);
    forget(&mut f).await;
    assert_eq!(f.take_after(&taken).await.items.len(), 0);
    forget(&mut f).await;
    f.push([4]).await;
    forget(&mut f).await;
    assert_eq!(numbers(&f.consumer.wait(LONG).await.unwrap()), [4]);
    forget(&mut f).await;
    assert_eq!(f.consumer.renew().await.unwrap(), LeaseState::Held);
    forget(&mut f).await;
    f.consumer.claim().await.unwrap();
    assert_eq!(f.take().await.lease, LeaseState::Held);
    forget(&mut f).await;
    assert!(f.owners.claim_if_absent(&session(), f.token).await.unwrap().is_held());
    forget(&mut f).await;
    assert!(f.owners.release(&session(), f.token).await.unwrap());
    f.end().await;
}

#[tokio::test]
async fn a_takeover_is_noticed_at_once_also_after_the_scripts_were_forgotten() {
    let mut f = Fixture::new().await;
    let _: () = f.redis(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(f.consumer.renew().await.unwrap(), LeaseState::Held);
    assert!(f.permit.holds(Instant::now()));
    let _: () = f.redis(&["SET", LEASE, "another", "PX", "60000"]).await;
    eventually("the loss of the permit", SOON, async || !f.permit.holds(Instant::now())).await;
    f.end().await;
}

#[tokio::test]
async fn a_flush_is_doubt_and_the_owner_takes_the_lease_again() {
    let mut f = Fixture::new().await;
    f.push([0]).await;
    let _: () = f.redis(&["FLUSHALL"]).await;
    eventually("the loss of the permit", SOON, async || !f.permit.holds(Instant::now())).await;
    f.push([1]).await;
    let taken = f.take().await;
    assert_eq!((taken.lease, numbers(&taken)), (LeaseState::Reclaimed, vec![1]));
    f.end().await;
}

#[tokio::test]
async fn a_server_that_dies_is_an_error_to_each_and_what_was_queued_is_there_again() {
    let mut f = Fixture::with(RedisServer::durable(), waiting::config()).await;
    f.push(0..20).await;
    let taken = f.take().await;
    let last = taken.items[4].mark.clone();
    f.consumer
        .take(Some(&mcp_courier::testing::backend::Delivered {
            count: 5,
            last,
            questions: Vec::new(),
            outcomes: Vec::new(),
        }))
        .await
        .unwrap();

    // Writes stand still, so that the answer is outstanding when the server dies.
    let _: () = f.redis(&["CLIENT", "PAUSE", "60000", "WRITE"]).await;
    let publisher = f.publisher.clone();
    let outstanding = tokio::spawn(async move { publisher.push(&session(), note(99)).await });
    eventually("a push that stands still", SOON, async || f.server.blocked_clients().await == 1).await;
    let died = Instant::now();
    f.server.kill();
    let refused = outstanding.await.unwrap().unwrap_err();
    assert!(matches!(refused.reason, PushRefusal::Uncertain(_)), "{:?}", refused.reason);
    assert!(refused.reason.may_have_been_queued());

    // While it is down nothing can have been queued.
    let refused = f.publisher.push(&session(), note(99)).await.unwrap_err();
    assert!(matches!(refused.reason, PushRefusal::Unreachable(_)), "{:?}", refused.reason);
    assert!(!refused.reason.may_have_been_queued());
    let error = f.consumer.take(None).await.unwrap_err();
    is_lost(&error);
    assert!(f.consumer.renew().await.is_err());
    assert!(f.consumer.wait(LONG).await.is_err());
    assert!(!f.permit.holds(Instant::now()), "a broken connection is doubt");
    match f.owners.open(&session(), f.token, f.permit.clone()).await {
        Ok(_) => assert!(waiting::is_shared(), "it is down, and only a shared connection is made later"),
        Err(error) => assert!(matches!(error.kind, QueueErrorKind::Unreachable(_)), "{error:?}"),
    }
    assert!(f.queue.live_sessions().await.is_err());
    assert!(died.elapsed() < SOON, "errors, not time limits");

    f.server.start_again();
    eventually("a push that succeeds", SOON, async || f.publisher.push(&session(), note(20)).await.is_ok()).await;
    f.reopen().await;
    assert_eq!(f.consumer.renew().await.unwrap(), LeaseState::Held, "its lease has survived");
    assert_eq!(numbers(&f.take().await), (5..=20).collect::<Vec<_>>());
    f.raw = f.server.connection().await;
    f.end().await;
}

#[tokio::test]
async fn an_owner_whose_connection_is_lost_makes_no_other_and_nobody_else_notices() {
    if waiting::is_shared() {
        // Without meaning: a shared connection is made again for all. `tests/queue/shared_waiting/outages.rs` cuts those.
        return;
    }
    let mut f = Fixture::new().await;
    f.push([0]).await;
    let clients: String = f.redis(&["CLIENT", "LIST"]).await;
    // Only an owner's connection tracks.
    let owner = clients.lines().find(|client| client.contains("flags=t")).expect("the owner's connection");
    let id = owner.split(' ').find_map(|field| field.strip_prefix("id=")).unwrap().to_owned();
    let killed: usize = f.redis(&["CLIENT", "KILL", "ID", &id]).await;
    assert_eq!(killed, 1);
    let connections = async |f: &mut Fixture| {
        let stats: String = f.redis(&["INFO", "stats"]).await;
        stats.lines().find_map(|line| line.strip_prefix("total_connections_received:")).map(str::to_owned)
    };
    let before = connections(&mut f).await;
    eventually("doubt", SOON, async || !f.permit.holds(Instant::now())).await;
    for _ in 0..2 {
        let error = f.consumer.take(None).await.unwrap_err();
        assert!(matches!(error.kind, QueueErrorKind::Broken(_)), "{error:?}");
        assert!(f.consumer.renew().await.is_err());
        assert!(f.consumer.claim().await.is_err());
    }
    f.push([1]).await;
    f.queue.live_sessions().await.unwrap();
    assert_eq!(connections(&mut f).await, before, "somebody made a connection");
    f.reopen().await;
    assert_eq!(numbers(&f.take().await), [0, 1]);
    f.end().await;
}

#[tokio::test]
async fn a_wait_ends_with_an_error_when_the_server_dies() {
    let mut f = Fixture::new().await;
    let Fixture { server, consumer, permit, .. } = &mut f;
    let begun = Instant::now();
    let (waited, ()) = tokio::join!(consumer.wait(LONG), async {
        // A shared wait blocks nothing in Redis, and began when it was polled.
        let blocked = usize::from(!waiting::is_shared());
        eventually("a wait", SOON, async || server.blocked_clients().await == blocked).await;
        server.kill();
    });
    is_lost(&waited.unwrap_err());
    assert!(!permit.holds(Instant::now()));
    assert!(begun.elapsed() < SOON);
}

#[tokio::test]
async fn a_connection_that_was_cut_is_made_again_by_the_publisher() {
    let mut f = Fixture::new().await;
    f.push([0]).await;
    let _: () = f.redis(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    eventually("a push that succeeds", SOON, async || f.publisher.push(&session(), note(1)).await.is_ok()).await;
    f.reopen().await;
    let seen = numbers(&f.take().await);
    assert!(seen.starts_with(&[0]) && seen.ends_with(&[1]), "{seen:?}");
    f.end().await;
}

#[tokio::test]
async fn another_type_under_the_key_is_refused_and_repaired_by_its_removal() {
    let mut f = Fixture::new().await;
    let _: () = f.redis(&["SET", QUEUE, "x", "EX", "60"]).await;
    let results = f.publisher.push_many([0, 1].map(|n| (session(), note(n)))).await;
    for result in results {
        let refused = result.unwrap_err();
        assert!(matches!(&refused.reason, PushRefusal::Refused(text) if text.contains("WRONGTYPE")), "{refused}");
        assert!(!refused.reason.may_have_been_queued());
    }
    assert!(refusal_of(&f.consumer.take(None).await.unwrap_err()).contains("WRONGTYPE"));
    let begun = Instant::now();
    assert!(refusal_of(&f.consumer.wait(LONG).await.unwrap_err()).contains("WRONGTYPE"));
    assert!(begun.elapsed() < SOON);
    f.reopen().await;
    let _: () = f.redis(&["DEL", QUEUE]).await;
    f.push([2]).await;
    assert_eq!(numbers(&f.take().await), [2]);
    f.end().await;
}

#[tokio::test]
async fn another_sessions_refusal_is_its_own() {
    let mut f = Fixture::new().await;
    let _: () = f.redis(&["SET", QUEUE, "x", "EX", "60"]).await;
    let other = mcp_courier::SessionId::new("s-2").unwrap();
    let batch = [(session(), note(0)), (other.clone(), note(1)), (session(), note(2)), (other, note(3))];
    let queued: Vec<_> = f.publisher.push_many(batch).await.iter().map(Result::is_ok).collect();
    assert_eq!(queued, [false, true, false, true]);
    f.end().await;
}

#[tokio::test]
async fn out_of_memory_a_push_is_refused_and_an_owner_goes_on() {
    let mut f = Fixture::new().await;
    f.push([0, 1, 2, 3]).await;
    let taken = f.take().await;
    let _: () = f.redis(&["CONFIG", "SET", "maxmemory", "1"]).await;

    let refused = f.publisher.push(&session(), note(4)).await.unwrap_err();
    assert!(matches!(&refused.reason, PushRefusal::Refused(text) if text.contains("OOM")), "{refused:?}");
    let rest = f
        .consumer
        .take(Some(&mcp_courier::testing::backend::Delivered {
            count: 1,
            last: taken.items[0].mark.clone(),
            questions: Vec::new(),
            outcomes: Vec::new(),
        }))
        .await
        .unwrap();
    assert_eq!(numbers(&rest), [1, 2, 3]);
    let failed = rest.items[0].envelope.as_ref().unwrap().after_failure("x");
    assert_eq!(f.consumer.replace_oldest(&rest.items[0].mark, failed).await.unwrap(), Replaced::Done);
    assert_eq!(f.consumer.renew().await.unwrap(), LeaseState::Held);
    // The lease is lost and taken again in every way there is.
    assert!(f.owners.release(&session(), f.token).await.unwrap());
    assert_eq!(f.take().await.lease, LeaseState::Reclaimed);
    assert!(f.owners.release(&session(), f.token).await.unwrap());
    assert_eq!(f.consumer.renew().await.unwrap(), LeaseState::Reclaimed);
    assert!(f.owners.release(&session(), f.token).await.unwrap());
    assert!(f.queue.claim_if_absent(&session(), f.token).await.unwrap().is_held());
    f.consumer.claim().await.unwrap();
    assert_eq!(numbers(&f.take().await), [1, 2, 3]);
    assert_eq!(
        numbers(&{
            f.reopen().await;
            f.take().await
        }),
        [1, 2, 3]
    );
    // A wait that blocks cannot wait: it must say so, or its caller would turn in a tight loop. A shared one only reads.
    match f.consumer.wait(LONG).await {
        Ok(taken) => assert!(waiting::is_shared() && numbers(&taken) == [1, 2, 3]),
        Err(error) => assert!(refusal_of(&error).contains("OOM")),
    }

    let _: () = f.redis(&["CONFIG", "SET", "maxmemory", "0"]).await;
    f.push([4]).await;
    f.reopen().await;
    assert_eq!(numbers(&f.take().await), [1, 2, 3, 4]);
    f.end().await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_an_error_after_a_while() {
    let mut f = Fixture::new().await;
    let _: () = f.redis(&["CLIENT", "PAUSE", "60000", "ALL"]).await;
    let (begun, session) = (Instant::now(), session());
    let (pushed, taken) = tokio::join!(f.publisher.push(&session, note(0)), f.consumer.take(None));
    assert!(pushed.unwrap_err().reason.may_have_been_queued());
    assert!(matches!(taken.unwrap_err().kind, QueueErrorKind::Broken(_)));
    assert!(begun.elapsed() < Duration::from_secs(10));
}
