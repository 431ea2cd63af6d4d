use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use futures_util::FutureExt;
use uuid::Uuid;

use super::*;
use crate::notification::NotificationId;

/// Makes a message whose number is its time, with params of this length.
fn message(at: u64, length: usize) -> Outbound {
    let id = NotificationId(Uuid::from_u128(7));
    let params = format!(r#"{{"x":"{}"}}"#, "x".repeat(length));
    let mut message = Outbound::composed(id, "notifications/x", &params);
    message.message_id = Some(MessageId { notification: id, at });
    message
}

/// Counter of the wake-ups of a reader.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll(frames: &Frames, woken: &Arc<Woken>) -> Poll<Option<String>> {
    frames.poll_take(&mut Context::from_waker(&Waker::from(Arc::clone(woken))))
}

fn take(frames: &Frames) -> String {
    match poll(frames, &Arc::default()) {
        Poll::Ready(Some(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// Returns the id of the next event.
fn next_id(frames: &Frames) -> String {
    frames.first(|id| ServerSseMessage::priming(id.to_string(), std::time::Duration::ZERO)).event_id.unwrap()
}

/// Returns the times of the messages that the ids of some events name.
fn named(text: &str) -> Vec<Option<u64>> {
    let ids = sse::read(text).filter_map(|(id, _)| id);
    ids.map(|id| EventId::parse(id).received.map(|message| message.at)).collect()
}

#[test]
fn many_messages_are_one_wake_and_one_part() {
    let (frames, woken) = (Frames::new(EventIds::behind(None)), Arc::default());
    assert!(poll(&frames, &woken).is_pending());
    (1..=50).for_each(|at| frames.hand_over(&message(at, 10)).unwrap());
    assert!(poll(&frames, &woken).is_pending(), "nothing is flushed");
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    frames.ping("{}");
    frames.flush();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    let text = take(&frames);
    assert_eq!(named(&text), (1..=50).map(Some).collect::<Vec<_>>());
    assert!(text.ends_with("data: {}\n\n"), "the ping is behind them");
    assert!(poll(&frames, &woken).is_pending());
    frames.flush();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1, "there is nothing to be taken");
}

#[test]
fn a_full_buffer_wakes_its_reader_and_takes_pings_only() {
    let (frames, woken) = (Frames::new(EventIds::behind(None)), Arc::default());
    assert!(poll(&frames, &woken).is_pending());
    // A message of any length has room in a buffer that is not full.
    frames.hand_over(&message(1, 1_000_000)).unwrap();
    assert!(frames.until_room().now_or_never().is_none());
    frames.hand_over(&message(2, 1)).unwrap_err();
    frames.request("{}").unwrap_err();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    frames.ping("{}");
    let mut room = std::pin::pin!(frames.until_room());
    assert!((&mut room).now_or_never().is_none());
    assert_eq!(named(&take(&frames)), [Some(1)]);
    assert!(room.now_or_never().is_some());
    frames.hand_over(&message(2, 1)).unwrap();
}

#[test]
fn what_is_taken_is_told_from_what_is_not() {
    let frames = Frames::new(EventIds::behind(None));
    frames.hand_over(&message(1, 1)).unwrap();
    let place = frames.flush();
    let mut taken = std::pin::pin!(frames.until_taken(place));
    assert!((&mut taken).now_or_never().is_none());
    frames.hand_over(&message(2, 1)).unwrap();
    take(&frames);
    frames.hand_over(&message(3, 1)).unwrap();
    assert!(taken.now_or_never().is_some(), "a later message does not count");
    assert!(frames.until_taken(frames.flush()).now_or_never().is_none());
}

#[test]
fn what_a_newer_stream_gets_is_dropped_and_named_by_no_id() {
    let frames = Frames::new(EventIds::behind(Some(EventId::parse(&{
        let older = Frames::new(EventIds::behind(None));
        older.hand_over(&message(1, 1)).unwrap();
        next_id(&older)
    }))));
    frames.hand_over(&message(2, 1)).unwrap();
    frames.flush();
    frames.discard();
    assert_eq!(EventId::parse(&next_id(&frames)).received.unwrap().at, 1, "what the client has");
    frames.hand_over(&message(3, 1)).unwrap();
    frames.flush();
    take(&frames);
    frames.hand_over(&message(4, 1)).unwrap();
    frames.discard();
    assert_eq!(EventId::parse(&next_id(&frames)).received.unwrap().at, 3);
    assert!(poll(&frames, &Arc::default()).is_pending());
}

#[test]
fn an_event_of_rmcp_is_behind_all_that_its_id_names_and_moves_the_position() {
    let frames = Frames::new(EventIds::behind(None));
    frames.hand_over(&message(1, 1)).unwrap();
    let mut event = ServerSseMessage::priming("e-5", std::time::Duration::ZERO);
    assert_eq!(named(&frames.insert(&mut event)), [Some(1)], "not flushed, and before the event all the same");
    let id = event.event_id.unwrap();
    let id = EventId::parse(&id);
    assert_eq!((id.position, id.received.map(|message| message.at)), (Some("e-5"), Some(1)));
    let mut unnamed = ServerSseMessage::default();
    assert_eq!(frames.insert(&mut unnamed), "");
    assert_eq!(unnamed.event_id, None);
    frames.hand_over(&message(2, 1)).unwrap();
    frames.flush();
    let text = take(&frames);
    let (id, _) = sse::read(&text).next().unwrap();
    assert_eq!(EventId::parse(id.unwrap()).position, Some("e-5"));
}

#[test]
fn a_message_without_a_name_leaves_the_one_before_it_the_newest() {
    let frames = Frames::new(EventIds::behind(None));
    frames.hand_over(&message(1, 1)).unwrap();
    let mut without_a_name = message(2, 1);
    without_a_name.message_id = None;
    frames.hand_over(&without_a_name).unwrap();
    frames.flush();
    assert_eq!(named(&take(&frames)), [Some(1), Some(1)]);
}

#[test]
fn a_closed_stream_ends_and_holds_nobody_up() {
    let (frames, woken) = (Frames::new(EventIds::behind(None)), Arc::default());
    assert!(poll(&frames, &woken).is_pending());
    frames.hand_over(&message(1, CAPACITY)).unwrap();
    let mut room = std::pin::pin!(frames.until_room());
    assert!((&mut room).now_or_never().is_none());
    frames.close();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert!(room.now_or_never().is_some());
    assert!(matches!(poll(&frames, &woken), Poll::Ready(None)));
}
