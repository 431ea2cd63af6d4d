//! Clauses 5, 6 and 11: whose a queue is.

use std::time::{Duration, Instant};

use mcp_courier::SessionId;
use mcp_courier::testing::backend::{LeaseState, OwnerToken};
use mcp_courier_testing::eventually::{SOON, eventually};

use super::place::{Owner, Place, config, delivered, envelopes, note, numbers, push, session};

const LONG: Duration = Duration::from_secs(60);

pub(crate) async fn the_newest_claim_wins(place: &Place) {
    let (publisher, queue, mut a) = place.pair(config()).await;
    push(&publisher, [0]).await;
    let mut b = Owner::claiming(&queue).await;
    assert_eq!(a.take().await.lease, LeaseState::Lost);
    assert_eq!(b.take().await.lease, LeaseState::Held);
    a.consumer.claim().await.unwrap();
    assert_eq!(numbers(&a.take().await), [0]);
    assert_eq!(b.take().await.lease, LeaseState::Lost);
}

pub(crate) async fn a_claim_says_whether_it_displaced_another_owner(place: &Place) {
    let (_publisher, queue, mut a) = place.pair(config()).await;
    assert!(!a.consumer.claim().await.unwrap(), "it is its own");
    let mut b = Owner::opening(&queue).await;
    assert!(b.consumer.claim().await.unwrap());
    assert!(queue.release(&session(), b.token).await.unwrap());
    assert!(!a.consumer.claim().await.unwrap(), "nobody had it");
    a.settle().await;
}

pub(crate) async fn to_another_than_the_owner_the_queue_is_lost(place: &Place) {
    let (publisher, queue, mut a) = place.pair(config()).await;
    push(&publisher, 0..3).await;
    let seen = a.take().await;
    let mut b = Owner::claiming(&queue).await;
    let taken = a.take_after(&delivered(&seen, 2)).await;
    assert_eq!((taken.lease, taken.items.len()), (LeaseState::Lost, 0));
    let waited = a.wait(LONG).await;
    assert_eq!((waited.lease, waited.items.len()), (LeaseState::Lost, 0));
    assert_eq!(a.consumer.renew().await.unwrap(), LeaseState::Lost);
    assert_eq!(queue.claim_if_absent(&session(), a.token).await.unwrap(), LeaseState::Lost);
    let taken = b.take().await;
    assert_eq!((taken.lease, numbers(&taken)), (LeaseState::Held, vec![0, 1, 2]));
    assert!(!a.is_permitted());
}

pub(crate) async fn an_absent_lease_is_reclaimed_by_a_take(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..2).await;
    let seen = owner.take().await;
    assert!(queue.release(&session(), owner.token).await.unwrap());
    let taken = owner.take_after(&delivered(&seen, 1)).await;
    assert_eq!((taken.lease, numbers(&taken), taken.changed), (LeaseState::Reclaimed, vec![1], false));
    assert_eq!(owner.take().await.lease, LeaseState::Held);
    owner.settle().await;
}

pub(crate) async fn an_absent_lease_is_reclaimed_by_a_renewal(place: &Place) {
    let (_publisher, queue, mut owner) = place.pair(config()).await;
    assert_eq!(owner.consumer.renew().await.unwrap(), LeaseState::Held);
    assert!(queue.release(&session(), owner.token).await.unwrap());
    assert_eq!(owner.consumer.renew().await.unwrap(), LeaseState::Reclaimed);
    assert_eq!(owner.take().await.lease, LeaseState::Held);
    owner.settle().await;
}

pub(crate) async fn an_absent_lease_is_not_reclaimed_by_a_wait(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(config()).await;
    assert!(queue.release(&session(), owner.token).await.unwrap());
    push(&publisher, [0]).await;
    let waited = owner.wait(LONG).await;
    assert_eq!((waited.lease, waited.items.len()), (LeaseState::Absent, 0));
    assert!(!owner.is_permitted());
    let state = queue.claim_if_absent(&session(), OwnerToken::new()).await.unwrap();
    assert_eq!(state, LeaseState::Reclaimed, "nobody had it");
}

pub(crate) async fn an_absent_lease_can_be_claimed_without_taking_anothers(place: &Place) {
    let queue = place.queue(config()).await;
    let (first, second) = (OwnerToken::new(), OwnerToken::new());
    let claim = async |token| queue.claim_if_absent(&session(), token).await.unwrap();
    assert_eq!(claim(first).await, LeaseState::Reclaimed);
    assert_eq!(claim(second).await, LeaseState::Lost);
    assert_eq!(claim(first).await, LeaseState::Held);
}

pub(crate) async fn a_lease_ends_by_release_of_its_owner_only(place: &Place) {
    let (publisher, queue, owner) = place.pair(config()).await;
    push(&publisher, [0]).await;
    let mut other = Owner::opening(&queue).await;
    assert!(!queue.release(&session(), other.token).await.unwrap());
    assert!(owner.is_permitted());
    assert_eq!(queue.claim_if_absent(&session(), other.token).await.unwrap(), LeaseState::Lost);
    assert!(queue.release(&session(), owner.token).await.unwrap());
    assert!(!queue.release(&session(), owner.token).await.unwrap(), "it has none any more");
    owner.until_not_permitted().await;
    assert_eq!(queue.claim_if_absent(&session(), other.token).await.unwrap(), LeaseState::Reclaimed);
    assert_eq!(numbers(&other.take().await), [0]);
}

pub(crate) async fn a_lease_ends_by_its_time(place: &Place) {
    let queue = place.queue(config().heartbeat(Duration::from_millis(100))).await;
    let mut owner = Owner::claiming(&queue).await;
    let claimed = Instant::now();
    let other = OwnerToken::new();
    eventually("the end of the lease", SOON, async || {
        let state = queue.claim_if_absent(&session(), other).await.unwrap();
        // It trusts its lease for less time than the queue does.
        assert!(state == LeaseState::Lost || !owner.is_permitted());
        state == LeaseState::Reclaimed
    })
    .await;
    assert!(claimed.elapsed() >= Duration::from_millis(150), "a lease lasts two heartbeats");
    assert_eq!(owner.take().await.lease, LeaseState::Lost);
}

pub(crate) async fn a_lease_that_is_renewed_does_not_end(place: &Place) {
    let (_publisher, queue, mut owner) = place.pair(config().heartbeat(Duration::from_millis(500))).await;
    let other = OwnerToken::new();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(owner.consumer.renew().await.unwrap(), LeaseState::Held);
        assert!(owner.is_permitted());
        assert_eq!(queue.claim_if_absent(&session(), other).await.unwrap(), LeaseState::Lost);
    }
}

pub(crate) async fn a_lease_that_ran_out_can_be_claimed_again_by_its_owner(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().heartbeat(Duration::from_millis(100))).await;
    push(&publisher, [0]).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    owner.consumer.claim().await.unwrap();
    assert_eq!(owner.take().await.lease, LeaseState::Held);
    assert!(owner.is_permitted(), "what ran out is no doubt of the new claim");
}

/// Asserts that an owner notices a takeover although it sends nothing.
async fn assert_learns(place: &Place, owner: &Owner) {
    assert!(owner.is_permitted());
    let queue = place.queue(config()).await;
    let next = Owner::claiming(&queue).await;
    owner.until_not_permitted().await;
    tokio::time::timeout(SOON, owner.permit.until_suspended()).await.unwrap();
    assert!(next.is_permitted());
}

pub(crate) async fn whoever_loses_the_lease_learns_it_at_once(place: &Place) {
    let (_publisher, _queue, mut owner) = place.pair(config()).await;
    // Also when it has renewed, and when it has been displaced before.
    assert_learns(place, &owner).await;
    owner.consumer.claim().await.unwrap();
    owner.settle().await;
    assert_learns(place, &owner).await;
    owner.consumer.claim().await.unwrap();
    owner.settle().await;
    owner.consumer.renew().await.unwrap();
    assert_learns(place, &owner).await;
}

pub(crate) async fn whoever_waits_learns_of_a_takeover_at_once(place: &Place) {
    let (_publisher, queue, mut owner) = place.pair(config()).await;
    let permit = owner.permit.clone();
    tokio::select! {
        _ = owner.wait(LONG) => panic!("nothing was pushed"),
        () = permit.until_suspended() => {}
        () = async {
            place.until_waiting(1).await;
            let _next = Owner::claiming(&queue).await;
            tokio::time::sleep(SOON).await;
        } => panic!("it did not learn of the takeover"),
    }
}

pub(crate) async fn whoever_reclaimed_by_a_take_learns_of_a_takeover_at_once(place: &Place) {
    let (_publisher, queue, mut owner) = place.pair(config()).await;
    assert!(queue.release(&session(), owner.token).await.unwrap());
    owner.until_not_permitted().await;
    assert_eq!(owner.take().await.lease, LeaseState::Reclaimed);
    assert_learns(place, &owner).await;
}

pub(crate) async fn whoever_was_in_doubt_and_still_owns_learns_of_the_next_takeover(place: &Place) {
    let (_publisher, queue, mut owner) = place.pair(config()).await;
    // Another claims and gives up again, and our own process takes what is free.
    let next = Owner::claiming(&queue).await;
    assert!(queue.release(&session(), next.token).await.unwrap());
    assert!(queue.claim_if_absent(&session(), owner.token).await.unwrap().is_held());
    owner.until_not_permitted().await;
    assert_eq!(owner.take().await.lease, LeaseState::Held);
    assert_learns(place, &owner).await;
}

pub(crate) async fn live_sessions_are_those_that_someone_owns(place: &Place) {
    let queue = place.queue(config().heartbeat(Duration::from_secs(1))).await;
    let elsewhere = place.queue(config().prefix("elsewhere")).await;
    let live = async || {
        let mut live = queue.live_sessions().await.unwrap();
        live.sort_unstable();
        live
    };
    let ids = ["a", "b:lease", "c%3A"].map(|id| SessionId::new(id).unwrap());
    let mut owners = Vec::new();
    assert_eq!(live().await, []);
    for id in &ids {
        let mut owner = Owner::opening(&queue).await;
        owner.consumer = queue.open(id, owner.token, owner.permit.clone()).await.unwrap();
        owner.consumer.claim().await.unwrap();
        owners.push(owner);
    }
    let foreign = Owner::claiming(&elsewhere).await;
    assert_eq!(live().await, ids);
    // A session that moves is there once, also when its former owner gives up.
    let mut newer = Owner::opening(&queue).await;
    newer.consumer = queue.open(&ids[0], newer.token, newer.permit.clone()).await.unwrap();
    newer.consumer.claim().await.unwrap();
    assert_eq!(live().await, ids);
    assert!(!queue.release(&ids[0], owners[0].token).await.unwrap());
    assert_eq!(live().await, ids);
    assert!(queue.release(&ids[1], owners[1].token).await.unwrap());
    assert_eq!(live().await, [ids[0].clone(), ids[2].clone()]);
    // A take that takes an absent lease makes its session live again.
    owners[1].take().await;
    assert_eq!(live().await, ids);
    // Who only opened and who stopped renewing are not live.
    eventually("the end of the leases", SOON, async || live().await.is_empty()).await;
    assert_eq!(elsewhere.live_sessions().await.unwrap(), [session()]);
    drop(foreign);
}

pub(crate) async fn a_queue_does_not_run_out_under_its_owner(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(config().expiry_grace(Duration::ZERO)).await;
    let short = Duration::from_millis(400);
    for last in ["a push", "a renewal", "a claim"] {
        publisher.push(&session(), note(0).with_time_to_live(short).unwrap()).await.unwrap();
        match last {
            "a push" => {}
            "a renewal" => assert_eq!(owner.consumer.renew().await.unwrap(), LeaseState::Held),
            _ => owner = Owner::claiming(&queue).await,
        }
        tokio::time::sleep(short * 3 / 2).await;
        let taken = owner.take().await;
        assert_eq!(numbers(&taken), [0], "after {last}");
        assert!(envelopes(&taken)[0].is_expired(taken.now));
        owner.take_after(&delivered(&taken, 1)).await;
    }
}
