//! Clients that resume: each sends the id of the last event that it has, and gets nothing twice and nothing too few.

use std::collections::HashMap;
use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::session::{EventStore, EventStoreError, ServerSseMessage};
use tokio::sync::broadcast;

use super::*;

/// Opens a stream as a client whose last one broke, after whatever early close. Returns the stream and the ids before it.
async fn come_back(client: &RawClient, last_event_id: &str) -> (EventStream, Vec<String>) {
    let mut ids = Vec::new();
    let mut last = last_event_id.to_owned();
    loop {
        let mut stream = client.open_stream_after(Some(&last)).await.unwrap();
        let first = stream.next_event().await.unwrap();
        assert!(first.message.is_none(), "a stream begins with an event without data: {first:?}");
        let id = first.id.expect("an id that carries on");
        ids.push(id.clone());
        if first.retry.is_some_and(|retry| retry >= 100) {
            return (stream, ids);
        }
        assert!(stream.next_event().await.is_none(), "an early close goes on");
        last = id;
    }
}

/// Reads so many notifications of the courier's, and their ids.
async fn read(stream: &mut EventStream, count: usize) -> (Vec<usize>, Vec<String>) {
    let (mut got, mut ids) = (Vec::new(), Vec::new());
    while got.len() < count {
        let event = stream.next_event().await.expect("more");
        ids.extend(event.id);
        got.extend(event.message.filter(|message| message["method"] == "notifications/x").as_ref().map(number));
    }
    (got, ids)
}

async fn changed(client: &RawClient) {
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    assert_eq!(client.send(&changed).await, StatusCode::ACCEPTED);
}

#[actix::test]
async fn g3_a_client_that_resumes_gets_nothing_twice_wherever_it_goes_and_every_id_is_new() {
    let redis = RedisServer::start();
    let servers = [Member::start(&redis).await, Member::start(&redis).await];
    let client = RawClient::connect(&servers[0].url).await;
    let publisher = servers[0].courier.publisher();
    let (mut all, mut ids) = (Vec::new(), Vec::new());
    let mut stream = client.open_stream().await;
    let pushed = 1000;
    push(&publisher, &id(&client), 0..pushed).await;
    for round in 0.. {
        // Whatever it reads, it confirms only sometimes: its answers may get lost with its server.
        stream.answer_pings(round % 3 == 0);
        let (got, new) = read(&mut stream, 25.min(pushed - all.len())).await;
        all.extend(got);
        ids.extend(new);
        stream.close();
        // What had arrived until then, and was perhaps confirmed.
        while let Some(event) = stream.next_event().await {
            ids.extend(event.id);
            all.extend(event.message.filter(|message| message["method"] == "notifications/x").as_ref().map(number));
        }
        let last = stream.last_event_id().unwrap().to_owned();
        let (next, new) = come_back(&client.at(&servers[(round + round / 2) % 2].url), &last).await;
        ids.extend(new);
        stream = next;
        if all.len() >= pushed {
            break;
        }
    }
    assert_eq!(all, (0..pushed).collect::<Vec<_>>());
    assert_eq!(stream.notification_within(Duration::from_millis(200)).await, None);
    eventually("all is acknowledged", SOON, async || length_of_queue(&redis, &client).await == 0).await;
    let count = ids.len();
    assert!(count > pushed);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "ids are unique within a session");
}

#[actix::test]
async fn g3_ids_without_a_message_carry_on_what_the_client_has() {
    let redis = RedisServer::start();
    let servers = [Member::start(&redis).await, Member::start(&redis).await];
    let client = RawClient::connect(&servers[0].url).await;
    let mut stream = client.open_stream().await;
    stream.answer_pings(false);
    push(&servers[0].courier.publisher(), &id(&client), 0..5).await;
    assert_eq!(read(&mut stream, 3).await.0, [0, 1, 2]);
    let mut last = stream.last_event_id().unwrap().to_owned();
    drop(stream);
    // Streams that break before their first message, at alternating servers: the id is that of an event without data.
    for round in 0..4 {
        let (stream, ids) = come_back(&client.at(&servers[round % 2].url), &last).await;
        stream.answer_pings(false);
        last = ids.last().unwrap().clone();
    }
    let (mut stream, _) = come_back(&client.at(&servers[1].url), &last).await;
    assert_eq!(read(&mut stream, 2).await.0, [3, 4]);
    assert_eq!(stream.notification_within(Duration::from_millis(200)).await, None);
}

#[actix::test]
async fn g3_an_id_of_rmcps_own_event_names_the_messages_before_it() {
    let redis = RedisServer::start();
    let (a, b) = (Member::start(&redis).await, Member::start(&redis).await);
    let client = RawClient::connect(&a.url).await;
    let mut stream = client.open_stream().await;
    stream.answer_pings(false);
    push(&a.courier.publisher(), &id(&client), 0..3).await;
    assert_eq!(read(&mut stream, 3).await.0, [0, 1, 2]);
    changed(&client).await;
    let of_rmcp = stream.next_event().await.unwrap();
    assert_eq!(of_rmcp.message.unwrap()["method"], "notifications/tools/list_changed");
    push(&a.courier.publisher(), &id(&client), 3..5).await;
    drop(stream);
    let (mut stream, _) = come_back(&client.at(&b.url), &of_rmcp.id.clone().unwrap()).await;
    assert_eq!(read(&mut stream, 2).await.0, [3, 4]);
    let last = stream.last_event_id().unwrap().to_owned();
    drop(stream);
    // Its own server still knows rmcp's position, which the other server carried on: its event is not repeated either.
    let (mut stream, _) = come_back(&client, &last).await;
    changed(&client).await;
    let next = stream.next_event().await.unwrap();
    assert_eq!(next.message.unwrap()["method"], "notifications/tools/list_changed");
    assert_eq!(stream.notification_within(Duration::from_millis(200)).await, None);
}

#[actix::test]
async fn g2_old_forged_and_foreign_ids_lose_nothing() {
    let redis = RedisServer::start();
    let (a, b) = (Member::start(&redis).await, Member::start(&redis).await);
    let (client, other) = (RawClient::connect(&a.url).await, RawClient::connect(&a.url).await);
    let publisher = a.courier.publisher();
    push(&publisher, &id(&client), 0..2).await;
    push(&publisher, &id(&other), 0..1).await;
    let mut stream = client.open_stream().await;
    assert_eq!(read(&mut stream, 2).await.0, [0, 1]);
    let old = stream.last_event_id().unwrap().to_owned();
    let mut of_other = other.open_stream().await;
    assert_eq!(read(&mut of_other, 1).await.0, [0]);
    let foreign = of_other.last_event_id().unwrap().to_owned();
    eventually("the first are acknowledged", SOON, async || length_of_queue(&redis, &client).await == 0).await;
    drop(stream);
    let (front, message) = old.rsplit_once('~').unwrap();
    let (notification, at) = message.split_once('.').unwrap();
    let ids = [
        format!("{front}~"),
        format!("{front}~0191d4c0a1b27c3d8e4f5061728394a5.{at}"),
        format!("{front}~{notification}.1"),
        format!("{front}~{message}0"),
        format!("{front}~{}", message.to_uppercase()),
        format!("{}~e0.0~{message}", "x".repeat(4000)),
        message.to_owned(),
        "0".to_owned(),
        foreign,
        old,
    ];
    for (n, named) in ids.iter().enumerate() {
        let server = if n % 2 == 0 { &a } else { &b };
        push(&publisher, &id(&client), 2 + n..3 + n).await;
        let (mut stream, begun) = come_back(&client.at(&server.url), named).await;
        assert!(begun.iter().all(|id| id.len() < 1000), "a long id is not repeated");
        assert_eq!(read(&mut stream, 1).await.0, [2 + n], "after {}", &named[..named.len().min(90)]);
        eventually("acknowledged", SOON, async || length_of_queue(&redis, &client).await == 0).await;
    }
}

#[actix::test]
async fn g3_a_redriven_letter_is_another_message_and_comes_once() {
    let redis = RedisServer::start();
    let config = || config().dead_letters(10);
    let a = Member::with(&redis, config(), Duration::from_secs(300)).await;
    let b = Member::with(&redis, config(), Duration::from_secs(300)).await;
    let client = RawClient::connect(&a.url).await;
    let (publisher, session) = (a.courier.publisher(), id(&client));
    let expired = Notification::new("notifications/x").unwrap().with_params(json!({"n": 0})).unwrap();
    // The time begins anew when it is redriven.
    let life = Duration::from_secs(2);
    publisher.push(&session, expired.with_time_to_live(life).unwrap()).await.unwrap();
    push(&publisher, &session, 1..3).await;
    tokio::time::sleep(life + Duration::from_millis(20)).await;
    let mut stream = client.open_stream().await;
    stream.answer_pings(false);
    assert_eq!(read(&mut stream, 2).await.0, [1, 2]);
    let last = stream.last_event_id().unwrap().to_owned();
    drop(stream);
    assert_eq!(publisher.dead_letters().redrive(&session).await.unwrap().redriven, 1);
    let (mut stream, _) = come_back(&client.at(&b.url), &last).await;
    stream.answer_pings(false);
    assert_eq!(read(&mut stream, 1).await.0, [0], "and those before it do not come again");
    let last = stream.last_event_id().unwrap().to_owned();
    drop(stream);
    push(&publisher, &session, 3..4).await;
    let (mut stream, _) = come_back(&client, &last).await;
    assert_eq!(read(&mut stream, 1).await.0, [3]);
    eventually("all is acknowledged", SOON, async || length_of_queue(&redis, &client).await == 0).await;
}

/// Events of a whole fleet, whose ids have every character that the courier's own use.
struct Events {
    streams: Mutex<HashMap<String, Vec<(String, ServerSseMessage)>>>,
    appended: broadcast::Sender<(String, ServerSseMessage)>,
}

impl Events {
    fn new() -> Arc<Self> {
        Arc::new(Self { streams: Mutex::default(), appended: broadcast::Sender::new(1000) })
    }
}

#[mcp_courier::async_trait]
impl EventStore for Events {
    async fn store_event(&self, stream: &str, event: &ServerSseMessage) -> Result<String, EventStoreError> {
        let mut event = event.clone();
        let mut streams = self.streams.lock().unwrap();
        let events = streams.entry(stream.to_owned()).or_default();
        let id = format!("{stream}~e{:016x}.{:x}~|", 7, events.len());
        event.event_id = Some(id.clone());
        events.push((id.clone(), event.clone()));
        let _ = self.appended.send((stream.to_owned(), event));
        Ok(id)
    }

    async fn replay_events_after(
        &self,
        last: &str,
    ) -> Result<Pin<Box<dyn Stream<Item = ServerSseMessage> + Send + Sync>>, EventStoreError> {
        let streams = self.streams.lock().unwrap();
        let appended = self.appended.subscribe();
        let found = streams.iter().find_map(|(stream, events)| {
            let at = events.iter().position(|(id, _)| id == last)?;
            Some((stream.clone(), events[at + 1..].iter().map(|(_, event)| event.clone()).collect::<Vec<_>>()))
        });
        let Some((stream, missed)) = found else { return Err("no such event".into()) };
        let live =
            stream::unfold(appended, |mut appended| async move { Some((appended.recv().await.ok()?, appended)) });
        let live = live.filter_map(move |(of, event)| std::future::ready((of == stream).then_some(event)));
        let (sender, receiver) = tokio::sync::mpsc::channel(100);
        tokio::spawn(stream::iter(missed).chain(live).for_each(move |event| {
            let sender = sender.clone();
            async move { drop(sender.send(event).await) }
        }));
        Ok(Box::pin(stream::unfold(receiver, |mut events| async { Some((events.recv().await?, events)) })))
    }
}

#[actix::test]
async fn g3_a_client_with_an_event_store_gets_rmcps_events_and_the_couriers_once() {
    let (redis, events) = (RedisServer::start(), Events::new());
    let member = async || {
        let courier = Courier::start(&redis.url(), config().build().unwrap()).await.unwrap();
        let local = LocalSessionManager::default().with_event_store(Arc::clone(&events) as Arc<dyn EventStore>);
        let manager = courier.decorate(local);
        McpServer::of_fleet(courier, manager)
    };
    let servers = [member().await, member().await];
    let client = RawClient::connect(&servers[0].url).await;
    let publisher = servers[0].courier.publisher();
    let mut stream = client.open_stream().await;
    let (mut got, mut changes, mut ids) = (Vec::new(), 0, Vec::new());
    for round in 0..8 {
        stream.answer_pings(round % 3 == 0);
        push(&publisher, &id(&client), round * 3..round * 3 + 3).await;
        let at = client.at(&servers[round % 2].url);
        changed(&at).await;
        while got.len() < round * 3 + 3 || changes < round + 1 {
            let event = stream.next_event().await.expect("more");
            ids.extend(event.id);
            match event.message {
                Some(message) if message["method"] == "notifications/x" => got.push(number(&message)),
                Some(_) => changes += 1,
                None => {}
            }
        }
        let last = stream.last_event_id().unwrap().to_owned();
        stream.close();
        // What comes meanwhile is not missed.
        changed(&at).await;
        let (next, new) = come_back(&client.at(&servers[(round + 1) % 2].url), &last).await;
        ids.extend(new);
        stream = next;
        let missed = stream.next_event().await.unwrap();
        assert_eq!(missed.message.unwrap()["method"], "notifications/tools/list_changed");
        ids.extend(missed.id);
    }
    assert_eq!(got, (0..24).collect::<Vec<_>>());
    assert_eq!(changes, 8);
    assert_eq!(stream.notification_within(Duration::from_millis(200)).await, None);
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "ids are unique within a session");
}
