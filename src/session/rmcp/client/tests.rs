use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, stream};
use uuid::Uuid;

use super::*;
use crate::notification::NotificationId;
use crate::question::{Answer, Elicitation, Question, TaskKey};
use crate::session::rmcp::event_id::Epoch;
use crate::session::rmcp::stream::{Part, Standalone, WholeStream};
use crate::session::{AskError, HandOverError, McpSession, Outbound, SessionState};
use rmcp::transport::streamable_http_server::session::ServerSseMessage;

fn client(config: &Config) -> Arc<ClientSession> {
    Arc::new(ClientSession::new(config, SessionId::new("s").unwrap(), ProcessId::new()))
}

fn open(session: &Arc<ClientSession>) -> WholeStream {
    let slot = DetachableStream::new(stream::pending(), &Epoch::new());
    let mut stream = WholeStream::new(Standalone::open(session, slot, None, false, Duration::from_secs(3)));
    let first = stream.next().now_or_never().unwrap().unwrap();
    assert!(first.message.is_none() && first.event_id.is_some());
    stream
}

async fn hand_over(session: &ClientSession) -> Result<(), HandOverError> {
    hand_over_params(session, "{}").await
}

async fn hand_over_params(session: &ClientSession, params: &str) -> Result<(), HandOverError> {
    let id = NotificationId(Uuid::now_v7());
    let generation = match session.presence().now() {
        SessionState::Connected { generation, .. } => generation,
        _ => 0,
    };
    let mut outbound = Outbound::composed(id, "notifications/x", params);
    outbound.generation = generation;
    session.hand_over(&outbound).await
}

/// Returns params that fill a stream.
fn large() -> String {
    format!(r#"{{"x":"{}"}}"#, "x".repeat(100_000))
}

#[tokio::test]
async fn what_an_older_stream_was_not_read_of_goes_down_the_next_alone_and_is_confirmed_there() {
    let config = Config::builder().delivery_level(DeliveryLevel::Pulled).build().unwrap();
    let session = client(&config);
    let mut older = open(&session);
    hand_over(&session).await.unwrap();
    // The next message cannot follow on the newer stream, so the first is given up where it is.
    let newer = open(&session);
    hand_over(&session).await.unwrap_err();
    session.confirm().await.unwrap_err();
    drop(newer);
    // The older stream continues, without that first message.
    hand_over(&session).await.unwrap();
    let confirmed = session.confirm();
    tokio::pin!(confirmed);
    assert!((&mut confirmed).now_or_never().is_none(), "nobody has pulled it");
    older.next().await.unwrap();
    confirmed.await.unwrap();
    assert!(older.next().now_or_never().is_none(), "it was the only one");
}

#[test]
fn what_a_newer_stream_drops_at_the_same_moment_does_not_count_as_pulled() {
    let config = Config::builder().delivery_level(DeliveryLevel::Pulled).build().unwrap();
    let session = client(&config);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for _ in 0..300 {
        // Nobody reads it.
        let older = open(&session);
        let (confirming, opening) = (Arc::clone(&session), Arc::clone(&session));
        let confirmed = std::thread::spawn(move || {
            runtime().block_on(async {
                hand_over(&confirming).await?;
                confirming.confirm().await
            })
        });
        let newer = std::thread::spawn(move || open(&opening)).join().unwrap();
        // The newer stream is closed, where the message may have been handed over.
        drop(newer);
        drop(older);
        let confirmed = confirmed.join().unwrap();
        assert!(matches!(confirmed, Err(HandOverError::NotReady(_))), "{confirmed:?}");
        let _ = hand_over(&session).now_or_never();
    }
}

#[tokio::test]
async fn several_confirmations_are_awaited_at_once_and_the_last_ones_answer_is_enough() {
    let session = client(&Config::default());
    let mut stream = open(&session);
    hand_over(&session).await.unwrap();
    let mut first = session.confirm();
    assert!((&mut first).now_or_never().is_none());
    hand_over(&session).await.unwrap();
    confirm(&session, &mut stream, 2).await.unwrap();
    first.await.unwrap();
    // A newer stream breaks all of them off.
    hand_over(&session).await.unwrap();
    let mut first = session.confirm();
    assert!((&mut first).now_or_never().is_none());
    hand_over(&session).await.unwrap();
    let mut second = session.confirm();
    assert!((&mut second).now_or_never().is_none());
    let mut newer = open(&session);
    first.await.unwrap_err();
    hand_over(&session).await.unwrap_err();
    second.await.unwrap_err();
    hand_over(&session).await.unwrap();
    confirm(&session, &mut newer, 1).await.unwrap();
}

#[tokio::test]
async fn a_ping_is_behind_what_was_handed_over_before_even_where_the_stream_is_full() {
    let session = client(&Config::default());
    let mut stream = open(&session);
    hand_over_params(&session, &large()).await.unwrap();
    let mut confirmed = session.confirm();
    assert!((&mut confirmed).now_or_never().is_none());
    let mut next = Box::pin(hand_over(&session));
    assert!((&mut next).now_or_never().is_none(), "there is no room");
    let methods = |event: Option<ServerSseMessage>| {
        serde_json::to_value(&*event.unwrap().message.unwrap()).unwrap()["method"].as_str().unwrap().to_owned()
    };
    assert_eq!(methods(stream.next().await), "notifications/x");
    assert_eq!(methods(stream.next().await), "ping");
    next.await.unwrap();
}

/// Confirms everything handed over, as a client does that answers only the last of `pings` pings on this stream.
async fn confirm(session: &ClientSession, stream: &mut WholeStream, mut pings: usize) -> Result<(), HandOverError> {
    let answer = async {
        loop {
            let message = stream.next().await.unwrap().message.unwrap();
            let message = serde_json::to_value(&*message).unwrap();
            pings -= usize::from(message["method"] == "ping");
            if pings == 0 {
                let pong = serde_json::json!({"jsonrpc": "2.0", "id": message["id"], "result": {}});
                session.answered(&serde_json::from_value(pong).unwrap());
                return std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        confirmed = session.confirm() => confirmed,
        () = answer => unreachable!(),
    }
}

#[tokio::test]
async fn a_rejected_message_does_not_keep_later_ones_from_a_newer_stream() {
    let session = client(&Config::default());
    let mut older = open(&session);
    let rejected = hand_over_params(&session, "[1E400]").await;
    assert!(matches!(rejected, Err(HandOverError::Rejected(_))), "{rejected:?}");
    let mut newer = open(&session);
    hand_over(&session).await.unwrap();
    confirm(&session, &mut newer, 1).await.unwrap();
    assert!(older.next().now_or_never().is_none(), "it gets nothing");
    // A message sent before a rejected one is confirmed, on its own stream.
    hand_over(&session).await.unwrap();
    hand_over_params(&session, "[1E400]").await.unwrap_err();
    confirm(&session, &mut newer, 1).await.unwrap();
    hand_over(&session).await.unwrap();
    hand_over_params(&session, "[1E400]").await.unwrap_err();
    let mut newest = open(&session);
    confirm(&session, &mut newest, 1).now_or_never().unwrap().unwrap_err();
    hand_over(&session).await.unwrap();
    confirm(&session, &mut newest, 1).await.unwrap();
}

#[tokio::test]
async fn a_call_that_is_dropped_does_not_keep_later_ones_from_a_newer_stream() {
    let session = client(&Config::default());
    let _older = open(&session);
    hand_over(&session).await.unwrap();
    assert!(session.confirm().now_or_never().is_none(), "it waits for the answer to a ping");
    let mut newer = open(&session);
    hand_over(&session).await.unwrap();
    confirm(&session, &mut newer, 1).await.unwrap();
    // The call is dropped while it waits for room, behind another message of its batch.
    hand_over_params(&session, &large()).await.unwrap();
    assert!(hand_over(&session).now_or_never().is_none());
    let mut newest = open(&session);
    // Nobody asks for a confirmation of the first message, as its caller is gone. One failure reports that to the next
    // caller.
    hand_over(&session).await.unwrap_err();
    hand_over(&session).await.unwrap();
    confirm(&session, &mut newest, 1).await.unwrap();
}

#[tokio::test]
async fn forged_news_and_pings_of_earlier_versions_confirm_nothing() {
    let session = client(&Config::default());
    let _stream = open(&session);
    hand_over(&session).await.unwrap();
    let confirmed = session.confirm();
    tokio::pin!(confirmed);
    assert!((&mut confirmed).now_or_never().is_none());
    // Earlier versions counted from 1, in each process.
    (0..100_000).for_each(|ping| session.confirmed(ping));
    let pong =
        |id: String| serde_json::from_value(serde_json::json!({"jsonrpc": "2.0", "id": id, "result": {}})).unwrap();
    for n in 0..100 {
        let answered = session.answered(&pong(format!("mcp-courier:ping:{}:{n}", session.process)));
        assert!(matches!(answered, Answered::Ping));
    }
    assert!((&mut confirmed).now_or_never().is_none(), "it is not confirmed");
    // During an upgrade an earlier version asks, and gets the answer that arrives here.
    let earlier = ProcessId::new();
    let answered = session.answered(&pong(format!("mcp-courier:ping:{earlier}:7")));
    assert!(matches!(answered, Answered::PingOf(process, 7) if process == earlier));
}

fn may_be_asked(session: &ClientSession) {
    let initialize = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {"elicitation": {}},
        "clientInfo": {"name": "c", "version": "1"}}});
    session.initialized(&mut serde_json::from_value(initialize).unwrap()).unwrap();
}

fn question() -> Question {
    let schema = serde_json::json!({"type": "object", "properties": {}});
    let asked = Elicitation::form("?", schema).unwrap();
    Question::new("r", TaskKey::anonymous("t").unwrap(), asked, std::time::UNIX_EPOCH)
}

#[tokio::test]
async fn a_question_follows_the_client_to_its_newest_stream() {
    let session = client(&Config::default());
    may_be_asked(&session);
    // The connection of this stream is broken, and nothing shows that yet.
    let mut dead = open(&session);
    let question = question();
    let asked = session.ask(&question);
    tokio::pin!(asked);
    assert!((&mut asked).now_or_never().is_none());
    dead.next().await.unwrap();
    let mut newer = open(&session);
    assert!(matches!((&mut asked).now_or_never(), Some(Err(AskError::NotReady(_)))), "to be asked again");
    let again = session.ask(&question);
    tokio::pin!(again);
    assert!((&mut again).now_or_never().is_none());
    newer.next().await.unwrap();
    assert!(session.hand_in("r", Answer::Decline));
    assert_eq!(again.await.unwrap(), Answer::Decline);
}

#[tokio::test]
async fn who_asks_a_second_time_keeps_its_place_when_the_first_leaves() {
    let session = client(&Config::default());
    may_be_asked(&session);
    let mut stream = open(&session);
    let question = question();
    let first = session.ask(&question);
    tokio::pin!(first);
    assert!((&mut first).now_or_never().is_none());
    stream.next().await.unwrap();
    let second = session.ask(&question);
    tokio::pin!(second);
    assert!((&mut second).now_or_never().is_none());
    first.await.unwrap_err();
    assert!(session.hand_in("r", Answer::Decline));
    assert_eq!(second.await.unwrap(), Answer::Decline);
}

#[tokio::test]
async fn neither_side_of_a_stream_starves_the_other_and_ids_follow_the_order_of_the_parts() {
    let session = client(&Config::default());
    let of_rmcp = stream::iter(0..).map(|n: usize| ServerSseMessage::priming(n.to_string(), Duration::ZERO));
    let slot = DetachableStream::new(of_rmcp, &Epoch::new());
    let mut stream = Standalone::open(&session, slot, None, true, Duration::from_secs(3));
    let (mut ours, mut position, mut events) = (0, None, 0);
    for _ in 0..40 {
        hand_over(&session).await.unwrap();
        drop(session.confirm().now_or_never());
        match std::future::poll_fn(|context| stream.poll_next(context)).await.unwrap() {
            Part::Frames(frames) => {
                ours += 1;
                let ids: Vec<&str> = crate::session::rmcp::sse::read(&frames).filter_map(|(id, _)| id).collect();
                assert!(ids.iter().all(|id| EventId::parse(id).position == position.as_deref()), "{ids:?}");
            }
            Part::Event(event) => {
                events += 1;
                let id = event.event_id.unwrap();
                position = EventId::parse(&id).position.map(str::to_owned);
            }
        }
    }
    assert!(ours >= 10 && events >= 10, "{ours} parts of ours, {events} events of rmcp");
}
