//! The example `chat` as its users see it: real processes, real clients.
use std::collections::HashSet;
use std::time::{Duration, Instant};

use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::examples::ChatProcess;
use mcp_courier_testing::raw_client::{EventStream, RawClient};
use mcp_courier_testing::redis_server::RedisServer;
use rmcp::model::{
    CallToolRequestParams, CustomNotification, ProtocolVersion, ResourceUpdatedNotificationParam,
    SubscribeRequestParams,
};
use rmcp::service::NotificationContext;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt, RoleClient};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// A client with an open stream.
async fn client(server: &ChatProcess) -> (RawClient, EventStream) {
    let client = RawClient::connect(&server.url).await;
    let stream = client.open_stream().await;
    (client, stream)
}

/// A client with an open stream that has joined room `r`.
pub(super) async fn member(server: &ChatProcess, name: &str) -> (RawClient, EventStream) {
    let (client, stream) = client(server).await;
    let joined = client.call_tool("join", json!({"room": "r", "name": name})).await;
    assert_eq!(joined["isError"], false, "{joined}");
    (client, stream)
}

async fn members(client: &RawClient) -> Value {
    client.call_tool("who", json!({"room": "r"})).await["structuredContent"]["members"].clone()
}

/// All speak at once, and each must get everything once, in order.
async fn all_speak_and_all_hear(mut clients: Vec<(RawClient, EventStream)>, each: usize) {
    let speakers: Vec<_> = clients.iter().map(|(client, _)| client.clone()).collect();
    let speaking: Vec<_> = speakers
        .into_iter()
        .map(|client| {
            tokio::spawn(async move {
                for n in 1..=each {
                    let said = client.call_tool("say", json!({"room": "r", "text": n.to_string()})).await;
                    assert_eq!(said["isError"], false, "{said}");
                    assert_eq!(said["structuredContent"]["errors"], Value::Null, "{said}");
                }
            })
        })
        .collect();
    for speaker in speaking {
        speaker.await.unwrap();
    }
    let total = clients.len() * each;
    let mut heard: Option<Vec<Value>> = None;
    for (_, stream) in &mut clients {
        let all = stream.notifications(total).await;
        let ids: HashSet<_> = all.iter().map(|n| n["params"]["_meta"]["mcp-courier/id"].to_string()).collect();
        assert_eq!(ids.len(), total, "one came twice");
        let data: Vec<_> = all.into_iter().map(|notification| notification["params"]["data"].clone()).collect();
        let seqs: Vec<_> = data.iter().map(|data| data["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (1..=total as u64).collect::<Vec<_>>());
        match &heard {
            Some(first) => assert_eq!(*first, data, "not everyone heard the same"),
            None => heard = Some(data),
        }
        assert_eq!(stream.notification_within(Duration::from_millis(100)).await, None);
    }
    // Each speaker's own words are in their order.
    let heard = heard.unwrap();
    for from in heard.iter().map(|data| &data["from"]).collect::<HashSet<_>>() {
        let texts: Vec<_> = heard.iter().filter(|data| data["from"] == *from).collect();
        let numbers: Vec<usize> = texts.iter().map(|data| data["text"].as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(numbers, (1..=each).collect::<Vec<_>>(), "{from}");
    }
}

#[tokio::test]
async fn said_messages_reach_every_member_in_seq_order() {
    let server = ChatProcess::start(&[]).await;
    let clients = vec![member(&server, "a").await, member(&server, "b").await, member(&server, "c").await];
    all_speak_and_all_hear(clients, 40).await;
}

#[tokio::test]
async fn two_servers_on_one_redis_form_one_chat() {
    let redis = RedisServer::start();
    let one = ChatProcess::start(&["--redis", &redis.url(), "--prefix", "two"]).await;
    let other = ChatProcess::start(&["--redis", &redis.url(), "--prefix", "two"]).await;
    let clients =
        vec![member(&one, "a").await, member(&other, "b").await, member(&one, "c").await, member(&other, "d").await];
    assert_eq!(members(&clients[0].0).await, json!(["a", "b", "c", "d"]));
    all_speak_and_all_hear(clients, 40).await;
    redis.assert_no_key_without_expiry().await;
}

#[tokio::test]
async fn servers_with_different_prefixes_are_different_chats() {
    let redis = RedisServer::start();
    let one = ChatProcess::start(&["--redis", &redis.url(), "--prefix", "one"]).await;
    let other = ChatProcess::start(&["--redis", &redis.url(), "--prefix", "other"]).await;
    let (_a, _stream) = member(&one, "a").await;
    let (b, _stream) = member(&other, "b").await;
    assert_eq!(members(&b).await, json!(["b"]));
}

#[tokio::test]
async fn an_ended_session_leaves_its_rooms() {
    let redis = RedisServer::start();
    for args in [&[][..], &["--redis", &redis.url()][..]] {
        let server = ChatProcess::start(args).await;
        let (a, _stream) = member(&server, "a").await;
        let (b, mut stream) = member(&server, "b").await;
        b.request("resources/subscribe", json!({"uri": "chat://rooms/r"})).await;
        assert!(a.delete().await.is_success());
        eventually("a has left", SOON, async || members(&b).await == json!(["b"])).await;
        let told = stream.next_notification().await.unwrap();
        assert_eq!(told["method"], "notifications/resources/updated");
        // Its name is free again, and the room is not the last one's to keep.
        let (_c, _stream) = member(&server, "a").await;
    }
}

#[tokio::test]
async fn a_room_ends_with_its_last_member() {
    let redis = RedisServer::start();
    for args in [&[][..], &["--redis", &redis.url()][..]] {
        let server = ChatProcess::start(args).await;
        let (a, _stream) = member(&server, "a").await;
        let said = a.call_tool("say", json!({"room": "r", "text": "hello"})).await;
        assert_eq!(said["structuredContent"], json!({"seq": 1, "members": 1}));
        let listed = a.request("resources/list", json!({})).await;
        assert_eq!(listed["result"]["resources"][0]["uri"], "chat://rooms/r");
        a.call_tool("leave", json!({"room": "r"})).await;
        let listed = a.request("resources/list", json!({})).await;
        assert_eq!(listed["result"]["resources"], json!([]));
        a.call_tool("join", json!({"room": "r", "name": "a"})).await;
        let said = a.call_tool("say", json!({"room": "r", "text": "hello"})).await;
        assert_eq!(said["structuredContent"]["seq"], 1);
    }
}

#[tokio::test]
async fn subscribers_get_resources_updated_until_they_unsubscribe() {
    let redis = RedisServer::start();
    for args in [&[][..], &["--redis", &redis.url()][..]] {
        let server = ChatProcess::start(args).await;
        let (watcher, mut seen) = client(&server).await;
        let uri = json!({"uri": "chat://rooms/caf%C3%A9%20%2F"});
        // One may wait for a room that does not exist yet.
        assert!(watcher.request("resources/subscribe", uri.clone()).await["error"].is_null());
        assert!(watcher.request("resources/read", uri.clone()).await["result"].is_null());

        let (speaker, _stream) = client(&server).await;
        speaker.call_tool("join", json!({"room": "café /", "name": "a"})).await;
        speaker.call_tool("say", json!({"room": "café /", "text": "hello"})).await;
        for told in seen.notifications(2).await {
            assert_eq!(told["method"], "notifications/resources/updated");
            assert_eq!(told["params"]["uri"], uri["uri"]);
        }
        let read = watcher.request("resources/read", uri.clone()).await;
        let text = read["result"]["contents"][0]["text"].as_str().unwrap();
        let room: Value = serde_json::from_str(text).unwrap();
        assert_eq!(room, json!({"room": "café /", "members": ["a"], "seq": 1}));

        assert!(watcher.request("resources/unsubscribe", uri).await["error"].is_null());
        speaker.call_tool("say", json!({"room": "café /", "text": "hello"})).await;
        assert_eq!(seen.notification_within(Duration::from_millis(200)).await, None);
        let wrong = watcher.request("resources/subscribe", json!({"uri": "file:///r"})).await;
        assert!(wrong["error"]["message"].as_str().unwrap().contains("chat://rooms/"), "{wrong}");
    }
}

#[tokio::test]
async fn bad_arguments_get_tool_errors_that_name_them() {
    let redis = RedisServer::start();
    for args in [&[][..], &["--redis", &redis.url()][..]] {
        let server = ChatProcess::start(args).await;
        let (_a, _a_stream) = member(&server, "a").await;
        let (b, _b_stream) = member(&server, "b").await;
        let long = "x".repeat(65);
        let wrong = [
            ("join", json!({"room": "", "name": "c"}), "room: it must have 1 to 64 characters, and this one has 0"),
            ("join", json!({"room": long, "name": "c"}), "room: it must have 1 to 64 characters, and this one has 65"),
            ("join", json!({"room": "r", "name": ""}), "name: it must have 1 to 64"),
            ("join", json!({"room": "r", "name": "a\u{7}"}), "name: it must have no control characters"),
            ("join", json!({"room": "r", "name": "a"}), "name: \"a\" is taken in room \"r\""),
            ("say", json!({"room": "r", "text": ""}), "text: it must have 1 to 4096 characters, and this one has 0"),
            ("say", json!({"room": "r", "text": "x".repeat(4097)}), "this one has 4097"),
            ("say", json!({"room": "elsewhere", "text": "x"}), "room: you are not a member of \"elsewhere\""),
            ("leave", json!({"room": "elsewhere"}), "room: you are not a member of \"elsewhere\""),
            ("who", json!({"room": ""}), "room: it must have 1 to 64"),
            ("join", json!({"room": "r"}), "missing field `name`"),
            ("say", json!({"room": "r", "text": 7}), "expected a string"),
        ];
        for (tool, arguments, expected) in wrong {
            let result = b.call_tool(tool, arguments.clone()).await;
            assert_eq!(result["isError"], true, "{tool} {arguments}");
            let text = result["content"][0]["text"].as_str().unwrap();
            assert!(text.contains(expected), "{tool} {arguments}: {text}");
        }
        // The longest are fine, in characters and not in bytes, and so is what nobody asked for.
        let fine = json!({"room": "é".repeat(64), "name": "ü".repeat(64), "colour": "red"});
        assert_eq!(b.call_tool("join", fine).await["isError"], false);
        let fine = json!({"room": "é".repeat(64), "text": "ß".repeat(4096)});
        assert_eq!(b.call_tool("say", fine).await["isError"], false);
        assert_eq!(members(&b).await, json!(["a", "b"]));
    }
}

#[tokio::test]
async fn members_of_a_killed_server_vanish_and_watchers_are_told() {
    let redis = RedisServer::start();
    let args = ["--redis", &redis.url(), "--member-ttl", "3"];
    let one = ChatProcess::start(&args).await;
    let mut other = ChatProcess::start(&args).await;
    let (a, mut stream) = member(&one, "a").await;
    let (_b, _stream) = member(&other, "b").await;
    a.request("resources/subscribe", json!({"uri": "chat://rooms/r"})).await;
    // Those of a server that lives do not.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        assert_eq!(members(&a).await, json!(["a", "b"]));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    other.kill();
    let told = stream.next_notification().await.unwrap();
    assert_eq!(told["method"], "notifications/resources/updated");
    assert_eq!(members(&a).await, json!(["a"]));
    drop(one);
    // With nobody left, nothing stays in Redis.
    let connection = redis.connection().await;
    eventually("no key of the chat is left", SOON, || {
        let mut connection = connection.clone();
        async move {
            let keys: Vec<String> = redis::cmd("KEYS").arg("*:chat:*").query_async(&mut connection).await.unwrap();
            keys.is_empty()
        }
    })
    .await;
}

/// rmcp's own client, which reports the notifications that it gets.
pub(super) struct Told(pub(super) mpsc::UnboundedSender<Value>);

impl ClientHandler for Told {
    #[expect(deprecated, reason = "2025-11-25 has it")]
    async fn on_logging_message(
        &self,
        params: rmcp::model::LoggingMessageNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        let _ = self.0.send(params.data);
    }

    async fn on_resource_updated(
        &self,
        params: ResourceUpdatedNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        let _ = self.0.send(json!(params.uri));
    }

    async fn on_custom_notification(&self, custom: CustomNotification, _context: NotificationContext<RoleClient>) {
        panic!("{} is one that rmcp knows", custom.method);
    }
}

#[tokio::test]
async fn an_rmcp_client_speaks_and_is_told() {
    an_rmcp_client_in(ClientLifecycleMode::Initialize).await;
}

/// The client asks for 2026-07-28 first, which has no sessions.
#[tokio::test]
async fn an_rmcp_client_that_would_rather_speak_a_newer_version_falls_back_and_is_told() {
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    an_rmcp_client_in(ClientLifecycleMode::Auto { preferred_versions, legacy_version: None }).await;
}

async fn an_rmcp_client_in(lifecycle: ClientLifecycleMode) {
    let server = ChatProcess::start(&[]).await;
    let (sender, mut told) = mpsc::unbounded_channel();
    let transport = StreamableHttpClientTransport::from_uri(server.url.as_str());
    let client = Told(sender).serve_with_lifecycle(transport, lifecycle).await.unwrap();
    let call = async |tool: &'static str, arguments: Value| {
        let params = CallToolRequestParams::new(tool).with_arguments(arguments.as_object().unwrap().clone());
        client.call_tool(params).await.unwrap().structured_content.unwrap()
    };
    call("join", json!({"room": "r", "name": "a"})).await;
    #[expect(deprecated, reason = "2025-11-25 has it")]
    client.subscribe(SubscribeRequestParams::new("chat://rooms/r")).await.unwrap();
    let said = call("say", json!({"room": "r", "text": "hello"})).await;
    assert_eq!(said, json!({"seq": 1, "members": 1}));
    // It handles each notification in a task of its own, so either may come first.
    let heard = [told.recv().await.unwrap(), told.recv().await.unwrap()];
    assert!(heard.contains(&json!({"room": "r", "from": "a", "text": "hello", "seq": 1})), "{heard:?}");
    assert!(heard.contains(&json!("chat://rooms/r")), "{heard:?}");
    client.cancel().await.unwrap();
}

#[tokio::test]
async fn a_member_who_does_not_read_delays_nobody_and_gets_it_all_by_its_next_stream() {
    const COUNT: u64 = 2000;
    let mut server = ChatProcess::start(&[]).await;
    let (a, mut heard) = member(&server, "a").await;
    let (b, mut stalled) = member(&server, "b").await;
    stalled.read(false);
    // More than the sockets hold.
    let text = "x".repeat(4096);
    for seq in 1..=COUNT {
        let said = a.call_tool("say", json!({"room": "r", "text": text})).await;
        assert_eq!(said["structuredContent"], json!({"seq": seq, "members": 2}));
        assert_eq!(heard.next_notification().await.unwrap()["params"]["data"]["seq"], seq);
    }
    // It may have read a little, and confirmed it, before it stalled.
    let mut before = 0;
    while let Some(read) = stalled.notification_within(Duration::from_millis(50)).await {
        before = read["params"]["data"]["seq"].as_u64().unwrap();
    }
    drop(stalled);
    let mut later = b.open_stream().await;
    let first = later.next_notification().await.unwrap()["params"]["data"]["seq"].as_u64().unwrap();
    assert!(first <= before + 1, "{first} after {before}");
    for seq in first + 1..=COUNT {
        assert_eq!(later.next_notification().await.unwrap()["params"]["data"]["seq"], seq);
    }
    // Nor does it hold up the server's end.
    later.read(false);
    for _ in 1..=COUNT {
        a.call_tool("say", json!({"room": "r", "text": text})).await;
    }
    let began = Instant::now();
    assert_eq!(server.terminate().await.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
}

#[tokio::test]
async fn while_redis_is_away_tools_say_so_and_afterwards_the_chat_goes_on() {
    let mut redis = RedisServer::start();
    let server = ChatProcess::start(&["--redis", &redis.url()]).await;
    let (a, mut heard) = member(&server, "a").await;
    redis.kill();
    let said = a.call_tool("say", json!({"room": "r", "text": "anyone?"})).await;
    assert_eq!(said["isError"], true, "{said}");
    redis.start_again();
    // This Redis has forgotten who was where.
    eventually("a can join again", SOON, async || {
        a.call_tool("join", json!({"room": "r", "name": "a"})).await["isError"] == false
    })
    .await;
    eventually("a can speak again", SOON, async || {
        let said = a.call_tool("say", json!({"room": "r", "text": "again"})).await;
        said["isError"] == false
    })
    .await;
    assert_eq!(heard.next_notification().await.unwrap()["params"]["data"]["text"], "again");
}
