//! Messages in the form that this crate wrote before `at` and `ttl`: both times were texts, by the queue's clock.

use std::time::Duration;

use mcp_courier::testing::backend::{Delivered, MessageOutcome, Replaced, Taken};
use mcp_courier::testing::envelope::Timestamp;
use mcp_courier::{DiscardReason, Receipt};
use mcp_courier_testing::eventually::assert_about;

use super::place::{Owner, Place, config, delivered, envelopes, numbers, push, session};

const LIFE: Duration = Duration::from_secs(7);

/// Id of these messages.
const ID: &str = "01a20633-8601-72df-afc7-ed3bd94d95cf";

fn previous(enqueued_at: Timestamp) -> String {
    let expires_at = enqueued_at.plus(LIFE);
    format!(
        r#"{{"notification":{{"method":"notifications/test","params":{{"n":7}}}},"attempt":0,"enqueued_at":"{enqueued_at}","expires_at":"{expires_at}","receipt":true,"id":"{ID}"}}"#
    )
}

/// Puts a message in the place of the oldest: no port has a push of bytes.
async fn put(owner: &mut Owner, taken: &Taken, raw: String) {
    let replaced = owner.consumer.replace_oldest(&taken.items[0].mark, raw.into_bytes()).await.unwrap();
    assert_eq!(replaced, Replaced::Done);
}

pub(crate) async fn a_message_of_the_previous_form_keeps_its_times(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..2).await;
    let taken = owner.take().await;
    let second = Duration::from_secs(1);
    for (age, is_expired) in [(Duration::ZERO, false), (LIFE - second, false), (LIFE, true), (LIFE + second, true)] {
        let taken = owner.take().await;
        let enqueued_at = Timestamp(taken.now.0 - i64::try_from(age.as_micros()).unwrap());
        put(&mut owner, &taken, previous(enqueued_at)).await;
        for attempt in 0..3 {
            let again = owner.take().await;
            let [old, new] = envelopes(&again)[..] else { panic!("two are queued") };
            assert_eq!(numbers(&again), [7, 1]);
            assert_eq!((old.id.to_string().as_str(), old.attempt, old.receipt), (ID, attempt, true));
            assert_eq!((old.enqueued_at, old.expires_at), (Some(enqueued_at), Some(enqueued_at.plus(LIFE))));
            assert_eq!(old.is_expired(taken.now), is_expired);
            assert!(!new.is_expired(again.now), "this form beside it");
            let failed = String::from_utf8(old.after_failure("once more")).unwrap();
            assert!(!failed.contains("\"at\""), "a failed attempt keeps the form");
            put(&mut owner, &again, failed).await;
        }
    }
    assert_eq!(taken.items.len(), 2);
    let both = owner.take().await;
    assert!(owner.take_after(&delivered(&both, 2)).await.items.is_empty());
}

pub(crate) async fn a_dead_letter_of_the_previous_form_is_redriven_in_this_form(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().dead_letters(10)).await;
    push(&publisher, [0]).await;
    let taken = owner.take().await;
    let enqueued_at = Timestamp(taken.now.0 - 3_600_000_000);
    put(&mut owner, &taken, previous(enqueued_at)).await;
    let taken = owner.take().await;
    let id = envelopes(&taken)[0].id;
    let expired = MessageOutcome { position: 0, discarded: Some(DiscardReason::Expired), receipt: Some(id) };
    owner.take_after(&Delivered { outcomes: vec![expired], ..delivered(&taken, 1) }).await;
    assert_eq!(publisher.dead_letters().redrive(&session()).await.unwrap().redriven, 1);
    let again = owner.take().await;
    let [envelope] = envelopes(&again)[..] else { panic!("one is queued") };
    assert_eq!((envelope.id, numbers(&again)), (id, vec![7]));
    let at = envelope.enqueued_at.unwrap();
    assert_about(at.to_system(), again.now.to_system());
    assert_eq!(envelope.expires_at, Some(at.plus(LIFE)));
    let receipt = publisher.receipt(&session(), id).await.unwrap();
    assert_eq!(receipt, Receipt::Queued { expires_at: at.plus(LIFE).to_system() });
    // And it is marked by its end, which is its id and the queue's time.
    let last = String::from_utf8(again.items[0].mark.last().to_vec()).unwrap();
    assert!(last.contains(&format!("\"id\":\"{id}\",\"at\":")), "{last}");
    let failed = String::from_utf8(envelope.after_failure("x")).unwrap();
    assert!(failed.ends_with(&format!("\"at\":{}}}", at.0)), "{failed}");
    assert!(failed.contains(&format!("\"ttl\":{},", LIFE.as_micros())), "{failed}");
}
