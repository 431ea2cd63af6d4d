//! Clauses 20 and 21: what operators see, and that seeing disturbs nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mcp_courier::testing::backend::{
    Delivered, MessageOutcome, OwnerToken, Permit, ProcessId, Replaced, ServerRecord, server_record,
};
use mcp_courier::{
    ClientStream, DiscardReason, Inspector, Principal, QueueErrorKind, QueueLimit, Receipt, SessionCursor, SessionId,
    SessionSummary,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use serde_json::json;

use super::place::{Owner, Place, Queue, config, delivered, envelopes, note, numbers, push, session};

fn named(name: &str) -> SessionId {
    SessionId::new(name).unwrap()
}

/// Returns all listed sessions, by pages of this size, each as often as it was listed.
async fn listed(inspector: &Inspector, limit: usize) -> Vec<SessionSummary> {
    let (mut cursor, mut listed) = (SessionCursor::default(), Vec::new());
    loop {
        let page = inspector.sessions(&cursor, limit).await.unwrap();
        assert!(page.sessions.len() <= 3 * limit.max(10), "a page of {limit} has {}", page.sessions.len());
        listed.extend(page.sessions);
        match page.next {
            Some(next) => cursor = next.to_string().parse().unwrap(),
            None => return listed,
        }
    }
}

pub(crate) async fn each_session_is_listed_once_whatever_it_has(place: &Place) {
    let (publisher, queue) = (place.publisher(config()).await, place.queue(config().dead_letters(5)).await);
    let mut wanted = HashMap::new();
    for n in 0..60_usize {
        let id = named(&format!("s-{n}")).bound_to(Principal::new(format!("user {}", n % 7)).unwrap());
        // Each combination of what a session can have, except nothing.
        let has = |bit: usize| (n % 15 + 1) >> bit & 1 == 1;
        if has(0) {
            queue.store_session(&id, "{}").await.unwrap();
        }
        if has(3) {
            let lost = MessageOutcome { position: 0, discarded: Some(DiscardReason::Expired), receipt: None };
            queue.record(&id, &lost, b"lost").await.unwrap();
        }
        if has(1) {
            publisher.push(&id, note(n)).await.unwrap();
        }
        if has(2) {
            queue.claim_if_absent(&id, OwnerToken::new()).await.unwrap();
        }
        wanted.insert(id, (has(0), usize::from(has(1)), has(2), usize::from(has(3))));
    }
    queue.end_session(&named("ended"), ProcessId::new(), true).await.unwrap();
    wanted.insert(named("ended"), (false, 0, false, 0));
    for limit in [1, 25, 1000, 1_000_000] {
        let listed = listed(&publisher.inspector(), limit).await;
        assert_eq!(listed.len(), wanted.len(), "each once");
        for summary in &listed {
            let facts = (summary.known, summary.depth, summary.owner.is_some(), summary.dead_letters);
            assert_eq!(Some(&facts), wanted.get(&summary.session), "{summary:?}");
            assert_eq!(summary.ended, summary.session == named("ended"));
            let stream = if facts.2 { ClientStream::Open } else { ClientStream::Closed };
            assert_eq!(summary.stream, stream);
        }
    }
    let wrong = "no cursor: at all".parse().unwrap();
    let refused = publisher.inspector().sessions(&wrong, 1).await.unwrap_err();
    assert!(matches!(&refused.kind, QueueErrorKind::Refused(why) if why.contains("cursor")), "{refused}");
}

pub(crate) async fn a_report_has_all_that_is_known_of_a_session(place: &Place) {
    let settings = || config().dead_letters(5).queue_max_messages(3);
    let (publisher, queue, mut owner) = place.pair(settings()).await;
    let inspector = publisher.inspector();
    let empty = inspector.session(&session()).await.unwrap();
    assert!((&empty.oldest, &empty.newest, empty.full, empty.bytes) == (&None, &None, None, 0), "{empty:?}");
    assert!(empty.queue_expires_in.is_none() && empty.forgotten_in.is_none() && empty.last_discard.is_none());

    queue.store_session(&session(), "{}").await.unwrap();
    push(&publisher, 0..3).await;
    let taken = owner.take().await;
    let discarded = Some(DiscardReason::Rejected("no".to_owned()));
    let outcomes = vec![MessageOutcome { position: 0, discarded: discarded.clone(), receipt: None }];
    owner.take_after(&Delivered { outcomes, ..delivered(&taken, 1) }).await;
    push(&publisher, 3..4).await;
    let taken = owner.take().await;
    let oldest = &taken.items[0];
    let failed = envelopes(&taken)[0].after_failure("it broke");
    assert_eq!(owner.consumer.replace_oldest(&oldest.mark, failed).await.unwrap(), Replaced::Done);

    let report = inspector.session(&session()).await.unwrap();
    assert!(report.summary.known && !report.summary.ended);
    assert_eq!((report.summary.depth, report.summary.dead_letters), (3, 1));
    assert_eq!((report.last_discard, report.full), (discarded, Some(QueueLimit::Messages(3))));
    assert!(report.bytes > 300 && report.wrong_types.is_empty());
    let (oldest, newest) = (report.oldest.unwrap(), report.newest.unwrap());
    assert_eq!((oldest.id, oldest.attempts), (Some(envelopes(&taken)[0].id), 1));
    assert_eq!(oldest.last_error.as_deref(), Some("it broke"));
    assert_eq!((newest.id, newest.attempts), (Some(envelopes(&taken)[2].id), 0));
    assert_eq!(newest.method.as_deref(), Some("notifications/test"));
    assert!(oldest.age.unwrap() < SOON && oldest.expires_in.unwrap() > Duration::from_secs(200));
    let life = report.queue_expires_in.unwrap();
    assert!(life > Duration::from_secs(300) && life <= Duration::from_secs(360), "{life:?}");
    assert!(report.forgotten_in.unwrap() > Duration::from_secs(3500));
    let lease = report.summary.owner.unwrap();
    assert!(!lease.overdue && lease.server.is_none() && lease.lease_life == Duration::from_secs(60), "{lease:?}");
    assert!(lease.lease_rest > Duration::from_secs(40) && lease.lease_rest <= Duration::from_secs(60));
    assert_eq!(inspector.owner(&session()).await.unwrap().map(|owner| owner.lease_life), Some(lease.lease_life));
    assert_eq!(inspector.owner(&named("nobody's")).await.unwrap(), None);
}

pub(crate) async fn a_peek_shows_the_oldest_within_its_bounds_and_what_cannot_be_decoded(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    let inspector = publisher.inspector();
    let nothing = inspector.peek(&session(), 10).await.unwrap();
    assert!(nothing.messages.is_empty() && !nothing.has_more);
    push(&publisher, 0..250).await;
    let oldest = owner.take().await.items[0].mark.clone();
    owner.consumer.replace_oldest(&oldest, b"\xffno message".to_vec()).await.unwrap();
    for limit in [0, 1, 10, 11, 249, 250, 251, 100_000] {
        let peeked = inspector.peek(&session(), limit).await.unwrap();
        assert_eq!(peeked.messages.len(), limit.min(250), "{limit}");
        assert_eq!(peeked.has_more, limit < 250, "{limit}");
        if let [undecodable, rest @ ..] = &*peeked.messages {
            assert!(undecodable.message.undecodable.is_some() && undecodable.message.id.is_none());
            assert_eq!((undecodable.payload.as_str(), undecodable.message.bytes), ("\u{fffd}no message", 11));
            for (peeked, n) in rest.iter().zip(1..) {
                let params: serde_json::Value = serde_json::from_str(&peeked.payload).unwrap();
                assert_eq!(params["n"], json!(n));
                assert!(peeked.message.id.is_some() && !peeked.message.is_expired() && peeked.message.bytes > 100);
            }
        }
    }
    // Large messages: fewer at once, and at least one.
    let large = named("large");
    let half_mebibyte = || note(0).with_params(json!({"text": "x".repeat(500_000)})).unwrap();
    for _ in 0..40 {
        publisher.push(&large, half_mebibyte()).await.unwrap();
    }
    let peeked = inspector.peek(&large, 1000).await.unwrap();
    // Sealed messages are a third larger.
    let least = if place.is_sealed() { 22 } else { 30 };
    assert!(peeked.has_more && (least..36).contains(&peeked.messages.len()), "{}", peeked.messages.len());
}

/// Looks at everything, as a tool does that never stops.
async fn look(inspector: &Inspector) {
    listed(inspector, 10).await;
    inspector.session(&session()).await.unwrap();
    inspector.peek(&session(), 1000).await.unwrap();
    inspector.owner(&session()).await.unwrap();
    inspector.servers().await.unwrap();
    assert!(!inspector.explain(&session()).await.unwrap().is_empty());
}

pub(crate) async fn looking_all_the_time_disturbs_no_delivery(place: &Place) {
    const MANY: usize = 3000;
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    let inspector = publisher.inspector();
    let looking = tokio::spawn(async move {
        for _ in 0..3 {
            look(&inspector).await;
        }
    });
    let (mut got, mut pushed, mut taken) = (Vec::new(), 0, owner.take().await);
    while got.len() < MANY || !looking.is_finished() {
        if pushed < MANY {
            push(&publisher, pushed..pushed + 30).await;
            pushed += 30;
        }
        got.extend(numbers(&taken));
        let count = taken.items.len();
        taken = if count > 0 { owner.take_after(&delivered(&taken, count)).await } else { owner.take().await };
        assert!(!taken.changed && owner.is_permitted());
        // In memory no operation waits.
        tokio::task::yield_now().await;
    }
    looking.await.unwrap();
    assert_eq!(got, (0..MANY).collect::<Vec<_>>());
}

pub(crate) async fn looking_lengthens_no_life(place: &Place) {
    let settings = || config().session_time_to_live(Duration::from_secs(2)).heartbeat(Duration::from_millis(700));
    let (publisher, queue, _owner) = place.pair(settings().expiry_grace(Duration::ZERO)).await;
    queue.store_session(&session(), "{}").await.unwrap();
    publisher.push(&session(), note(0).with_time_to_live(Duration::from_secs(2)).unwrap()).await.unwrap();
    let inspector = publisher.inspector();
    eventually("the end of all lives", SOON, async || {
        look(&inspector).await;
        listed(&inspector, 10).await.is_empty()
    })
    .await;
}

async fn receipt_of(publisher: &mcp_courier::Publisher, n: usize) -> mcp_courier::NotificationId {
    publisher.push(&session(), note(n).with_receipt()).await.unwrap().id
}

pub(crate) async fn a_purge_removes_what_there_is_and_settles_its_receipts(place: &Place) {
    let publisher = place.publisher(config()).await;
    assert_eq!(publisher.inspector().purge(&session()).await.unwrap(), 0);
    let first = receipt_of(&publisher, 0).await;
    push(&publisher, 1..250).await;
    let last = receipt_of(&publisher, 250).await;
    assert_eq!(publisher.inspector().purge(&session()).await.unwrap(), 251);
    for id in [first, last] {
        let receipt = publisher.receipt(&session(), id).await.unwrap();
        assert!(matches!(receipt, Receipt::Discarded { reason: DiscardReason::Purged, .. }), "{receipt:?}");
    }
    assert_eq!(publisher.inspector().session(&session()).await.unwrap().summary.depth, 0);
    push(&publisher, [251]).await;
    let queue = place.queue(config()).await;
    assert_eq!(numbers(&Owner::claiming(&queue).await.take().await), [251]);
}

pub(crate) async fn an_owner_under_which_a_queue_is_purged_removes_nothing_else(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    let delivered_one = receipt_of(&publisher, 0).await;
    push(&publisher, 1..3).await;
    let taken = owner.take().await;
    assert_eq!(publisher.inspector().purge(&session()).await.unwrap(), 3);
    push(&publisher, 3..6).await;
    let outcomes = vec![MessageOutcome { position: 0, discarded: None, receipt: Some(delivered_one) }];
    let rest = owner.take_after(&Delivered { outcomes, ..delivered(&taken, 3) }).await;
    assert!(rest.changed && rest.lease.is_held());
    assert_eq!(numbers(&rest), [3, 4, 5]);
    let receipt = publisher.receipt(&session(), delivered_one).await.unwrap();
    assert!(matches!(receipt, Receipt::Delivered { .. }), "a delivery is never denied: {receipt:?}");
}

pub(crate) async fn a_purge_beside_an_owner_removes_nothing_that_was_pushed_later(place: &Place) {
    const BEFORE: usize = 3000;
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..BEFORE).await;
    let inspector = publisher.inspector();
    let purge = tokio::spawn(async move { inspector.purge(&session()).await.unwrap() });
    let depth = async || publisher.inspector().session(&session()).await.unwrap().summary.depth;
    eventually("the begin of the purge", SOON, async || depth().await < BEFORE).await;
    let (mut got, mut pushed) = (Vec::new(), BEFORE);
    // While the purge goes on, and until the last message that was pushed later has come.
    while !purge.is_finished() || got.last() != Some(&(pushed - 1)) {
        if !purge.is_finished() || pushed < BEFORE + 10 {
            push(&publisher, pushed..pushed + 5).await;
            pushed += 5;
        }
        let taken = owner.take().await;
        let count = taken.items.len();
        if count > 0 && !owner.take_after(&delivered(&taken, count)).await.changed {
            got.extend(numbers(&taken));
        }
        tokio::task::yield_now().await;
    }
    let purged = purge.await.unwrap();
    let later = got.iter().position(|n| *n >= BEFORE).unwrap();
    assert_eq!(got[later..], (BEFORE..pushed).collect::<Vec<_>>(), "all that was pushed later, in order");
    assert_eq!(purged + later, BEFORE, "and each of the others was purged or acknowledged");
}

pub(crate) async fn a_session_of_the_same_id_is_found_under_any_user_and_prefix(place: &Place) {
    let (publisher, queue) = (place.publisher(config()).await, place.queue(config()).await);
    let alice = session().bound_to(Principal::new("alice*").unwrap());
    let longer = named(&format!("{}-longer", session().as_str()));
    for id in [&session(), &alice, &longer] {
        publisher.push(id, note(0)).await.unwrap();
    }
    let foreign = place.publisher(config().prefix("{tag}:other")).await;
    foreign.push(&session(), note(0)).await.unwrap();
    let kept = publisher.push(&session(), note(1).with_receipt()).await.unwrap();
    let mut same = queue.find_id(&session()).await.unwrap();
    same.others.sort();
    let expected = [("mcp-courier".to_owned(), alice.clone()), ("{tag}:other".to_owned(), session())];
    assert_eq!((same.others.as_slice(), same.is_partial), (&expected[..], false));
    assert_eq!(same.receipts, [publisher.receipt(&session(), kept.id).await.unwrap()]);
    assert_eq!(queue.find_id(&alice).await.unwrap().receipts, []);
    assert_eq!(queue.find_id(&longer).await.unwrap().others, []);
}

/// Claims the queue of a session for a server.
async fn claim(queue: &Queue, id: &SessionId, server: &ServerRecord) {
    let mut consumer = queue.open(id, OwnerToken::of(server.id), Arc::new(Permit::new())).await.unwrap();
    consumer.claim().await.unwrap();
}

pub(crate) async fn a_server_is_listed_until_its_record_is_removed_or_its_time_is_over(place: &Place) {
    let (publisher, queue) = (place.publisher(config()).await, place.queue(config()).await);
    let inspector = publisher.inspector();
    let (lasting, dying) = (server_record(Duration::from_secs(60)), server_record(Duration::from_millis(300)));
    queue.announce_server(&dying).await.unwrap();
    queue.announce_server(&lasting).await.unwrap();
    let listed = inspector.servers().await.unwrap();
    assert_eq!(listed.len(), 2);
    let mut found = listed.into_iter().find(|record| record.id == lasting.id).unwrap();
    assert!(found.age < SOON, "{:?}", found.age);
    found.age = lasting.age;
    assert_eq!(found, lasting);

    claim(&queue, &session(), &lasting).await;
    let owner = inspector.owner(&session()).await.unwrap().unwrap();
    assert_eq!((owner.server, owner.pid), (Some(lasting.id), Some(lasting.pid)));
    assert_eq!(owner.host.as_deref(), Some(&*lasting.host));

    eventually("the end of a record", SOON, async || inspector.servers().await.unwrap().len() == 1).await;
    queue.announce_server(&lasting).await.unwrap();
    queue.withdraw_server(lasting.id).await.unwrap();
    assert_eq!(inspector.servers().await.unwrap(), []);
    let owner = inspector.owner(&session()).await.unwrap().unwrap();
    assert_eq!((owner.server, owner.pid, owner.host), (Some(lasting.id), None, None));
}
