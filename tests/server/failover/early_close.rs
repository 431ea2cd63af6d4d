//! Each broken stream is followed by one early close, at whatever server of the fleet its client comes back.

use super::*;

/// A client that comes back to one server after the other, whose streams are all cut.
struct Wanderer {
    /// Set where the client takes the ids of events without data, as Python's does.
    takes_ids_without_data: bool,
    last_event_id: Option<String>,
    cuts: usize,
    most_cuts_in_a_row: usize,
    served: usize,
}

impl Wanderer {
    fn new(takes_ids_without_data: bool) -> Self {
        Self { takes_ids_without_data, last_event_id: None, cuts: 0, most_cuts_in_a_row: 0, served: 0 }
    }

    /// Opens a stream, and has it cut where it does not end cleanly by itself.
    async fn visit(&mut self, at: &RawClient) {
        let mut stream = at.open_stream_after(self.last_event_id.as_deref()).await.unwrap();
        let first = stream.next_event().await.unwrap();
        let is_closed_early = first.retry.is_some_and(|retry| retry < 100);
        if is_closed_early {
            assert!(stream.next_event().await.is_none(), "an early close goes on");
            self.cuts = 0;
        } else {
            self.served += 1;
            self.cuts += 1;
        }
        self.most_cuts_in_a_row = self.most_cuts_in_a_row.max(self.cuts);
        if self.takes_ids_without_data || self.last_event_id.is_none() {
            self.last_event_id = Some(stream.last_event_id().unwrap_or("0").to_owned());
        }
    }
}

async fn wander(servers: usize, takes_ids_without_data: bool) -> Wanderer {
    let redis = RedisServer::start();
    let mut members = Vec::new();
    for _ in 0..servers {
        members.push(Member::start(&redis).await);
    }
    let client = RawClient::connect(&members[0].url).await;
    let mut wanderer = Wanderer::new(takes_ids_without_data);
    for n in 0..12 * servers {
        wanderer.visit(&client.at(&members[n % servers].url)).await;
    }
    wanderer
}

#[actix::test]
async fn a_client_that_alternates_between_two_servers_is_never_cut_twice_in_a_row() {
    let wanderer = wander(2, true).await;
    assert_eq!((wanderer.most_cuts_in_a_row, wanderer.served), (1, 12));
}

#[actix::test]
async fn a_client_that_goes_round_three_servers_is_never_cut_twice_in_a_row() {
    let wanderer = wander(3, true).await;
    assert_eq!((wanderer.most_cuts_in_a_row, wanderer.served), (1, 18));
}

#[actix::test]
async fn a_client_that_ignores_ids_of_events_without_data_is_served_all_the_same() {
    for servers in 1..=3 {
        let wanderer = wander(servers, false).await;
        assert!(wanderer.served >= 6 * servers, "served {} times by {servers} servers", wanderer.served);
    }
}

#[actix::test]
async fn an_early_close_at_one_server_is_known_at_another_by_the_id_of_its_event() {
    let redis = RedisServer::start();
    let (a, b) = (Member::start(&redis).await, Member::start(&redis).await);
    let at_a = RawClient::connect(&a.url).await;
    let at_b = at_a.at(&b.url);
    let mut closed = at_b.open_stream_after(Some("0")).await.unwrap();
    let event = closed.next_event().await.unwrap();
    let (closed_id, retry) = (event.id.unwrap(), event.retry.unwrap());
    assert!(retry < 100, "the client comes back at once");
    assert!(closed.next_event().await.is_none());
    let mut stream = at_a.open_stream_after(Some(&closed_id)).await.unwrap();
    let event = stream.next_event().await.unwrap();
    let resumed_id = event.id.unwrap();
    assert!(event.retry >= Some(500), "no early close: {:?}", event.retry);
    assert!(resumed_id.starts_with("0~e") && closed_id.starts_with("0~c"), "{closed_id}, {resumed_id}");
    push(&a.courier.publisher(), &id(&at_a), 0..1).await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
    eventually("confirmed", SOON, async || length_of_queue(&redis, &at_a).await == 0).await;
    drop(stream);
    // That stream broke, so the next one is closed early, at whatever server.
    let mut closed = at_b.open_stream_after(Some(&resumed_id)).await.unwrap();
    assert!(closed.next_event().await.unwrap().id.unwrap() != closed_id, "ids are unique within a session");
    assert!(closed.next_event().await.is_none());
}

#[actix::test]
async fn an_early_close_asks_neither_redis_nor_rmcp_for_the_session() {
    let redis = RedisServer::start();
    let (a, b) = (Member::start(&redis).await, Member::start(&redis).await);
    let client = RawClient::connect(&a.url).await;
    let mut stream = client.open_stream().await;
    let last = stream.next_event().await.unwrap().id.unwrap();
    drop(stream);
    let at_b = client.at(&b.url);
    let mut closed = at_b.open_stream_after(Some(&last)).await.unwrap();
    let event = closed.next_event().await.unwrap();
    assert!(event.retry < Some(100) && closed.next_event().await.is_none());
    assert_eq!(redis.calls().await.get("getex"), None, "B has loaded the session");
    let mut stream = at_b.open_stream_after(event.id.as_deref()).await.unwrap();
    push(&a.courier.publisher(), &id(&client), 0..1).await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
    assert_eq!(redis.calls().await.get("getex"), Some(&1));
}

/// Time that a fresh stream at a server tells its client to wait before the next.
async fn retry_at(server: &McpServer) -> u64 {
    let mut stream = RawClient::connect(&server.url).await.open_stream().await;
    stream.next_event().await.unwrap().retry.unwrap()
}

#[actix::test]
async fn a_client_is_to_come_back_soon_where_another_server_is_there_and_later_where_its_own_has_to_be_started() {
    let redis = RedisServer::start();
    let a = Member::start(&redis).await;
    assert_eq!(retry_at(&a).await, 3000);
    // The other counts before its first request: a balancer may keep it in reserve.
    let _b = Member::start(&redis).await;
    eventually("one knows of the other", SOON, async || retry_at(&a).await == 500).await;
}
