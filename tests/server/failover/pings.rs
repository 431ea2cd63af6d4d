//! Confirmations: answers to pings that are lost or late, and streams that are dead while their client is back already.

use super::*;

#[actix::test]
async fn a_ping_whose_answer_was_lost_on_the_way_is_asked_again() {
    let redis = RedisServer::start();
    let member = || Member::with(&redis, config().hand_over_timeout(Duration::from_secs(3)), Duration::from_secs(300));
    let (a, b) = (member().await, member().await);
    let client = RawClient::connect(&a.url).await;
    let mut stream = client.open_stream_answering_at(&b.url).await;
    // The first comes while A does not hear.
    redis.command::<usize>(&["CLIENT", "KILL", "TYPE", "PUBSUB"]).await;
    push(&b.courier.publisher(), &id(&client), 0..1).await;
    redis.command::<usize>(&["CLIENT", "KILL", "TYPE", "PUBSUB"]).await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
    push(&b.courier.publisher(), &id(&client), 1..2).await;
    assert_eq!(numbers(&mut stream, 1).await, [1], "and not once more the first, on another stream");
}

#[actix::test]
async fn two_lost_answers_delay_no_notification_and_cut_no_stream() {
    let redis = RedisServer::start();
    // The default time for a confirmation, 30 s.
    let a = Member::start(&redis).await;
    let client = RawClient::connect(&a.url).await;
    let mut stream = client.open_stream().await;
    stream.answer_pings(false);
    let publisher = a.courier.publisher();
    for n in 0..4 {
        push(&publisher, &id(&client), n..n + 1).await;
        assert_eq!(numbers(&mut stream, 1).await, [n], "while no other is confirmed");
    }
    assert_eq!(length_of_queue(&redis, &client).await, 4);
    eventually("a ping that is repeated", SOON, async || stream.pings() > 4).await;
    stream.answer_pings(true);
    eventually("confirmed", SOON, async || length_of_queue(&redis, &client).await == 0).await;
    push(&publisher, &id(&client), 4..5).await;
    assert_eq!(numbers(&mut stream, 1).await, [4], "on the same stream, and nothing is repeated");
}

#[actix::test]
async fn a_newer_stream_at_the_same_server_gets_at_once_what_a_dead_one_did_not_confirm() {
    let redis = RedisServer::start();
    let a = Member::start(&redis).await;
    let client = RawClient::connect(&a.url).await;
    let mut dead = client.open_stream().await;
    dead.answer_pings(false);
    push(&a.courier.publisher(), &id(&client), 0..1).await;
    assert_eq!(numbers(&mut dead, 1).await, [0]);
    // The third ping would come 3 s later.
    eventually("the second ping", SOON, async || dead.pings() == 2).await;
    push(&a.courier.publisher(), &id(&client), 1..2).await;
    // Its connection stays open: nothing says that nobody is there any more.
    let begun = Instant::now();
    let mut newer = client.open_stream().await;
    assert_eq!(numbers(&mut newer, 2).await, [0, 1]);
    assert!(begun.elapsed() < Duration::from_secs(2), "after {:?}", begun.elapsed());
    eventually("confirmed", SOON, async || length_of_queue(&redis, &client).await == 0).await;
}

#[actix::test]
async fn g2_a_late_answer_to_a_ping_of_an_ended_session_object_confirms_nothing_of_the_next_one() {
    let redis = RedisServer::start();
    let idle = Duration::from_millis(200);
    let a = Member::with(&redis, config(), idle).await;
    let client = RawClient::connect(&a.url).await;
    let mut stream = client.open_stream().await;
    stream.answer_pings(false);
    push(&a.courier.publisher(), &id(&client), 0..1).await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
    eventually("a ping", SOON, async || stream.pings() > 0).await;
    let late = stream.last_ping_id().unwrap();
    drop(stream);
    // It ends here for being idle, and is restored here: a new object for the same session.
    let initialized = a.initialized();
    tokio::time::sleep(idle * 4).await;
    let mut stream = client.open_stream().await;
    stream.answer_pings(false);
    eventually("the session is restored", SOON, async || a.initialized() > initialized).await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
    eventually("a ping", SOON, async || stream.pings() > 0).await;
    let pong = json!({"jsonrpc": "2.0", "id": late, "result": {}});
    assert_eq!(client.send(&pong).await, StatusCode::ACCEPTED);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(length_of_queue(&redis, &client).await, 1, "it is not confirmed");
}

#[actix::test]
async fn g2_who_may_publish_confirms_nothing() {
    let redis = RedisServer::start();
    let a = Member::start(&redis).await;
    let client = RawClient::connect(&a.url).await;
    let mut stream = client.open_stream().await;
    stream.answer_pings(false);
    push(&a.courier.publisher(), &id(&client), 0..1).await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
    eventually("a ping", SOON, async || stream.pings() > 0).await;
    let ping = stream.last_ping_id().unwrap();
    let (process, nonce) = ping.strip_prefix("mcp-courier:ping:").unwrap().split_once(':').unwrap();
    let channels: Vec<String> = redis.command(&["PUBSUB", "CHANNELS", &format!("*{process}")]).await;
    let [channel] = channels.as_slice() else { panic!("{channels:?}") };
    let publish = async |ping: &str| {
        let news = format!("confirmed {} {ping}", id(&client));
        assert_eq!(redis.command::<usize>(&["PUBLISH", channel, &news]).await, 1, "it is listened to");
    };
    for guessed in 0..100 {
        publish(&guessed.to_string()).await;
    }
    publish(&nonce[1..]).await;
    publish(&format!("{nonce}0")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(length_of_queue(&redis, &client).await, 1, "it is not confirmed");
    // The way for the answers that arrive at another server.
    publish(stream.last_ping_id().unwrap().rsplit(':').next().unwrap()).await;
    eventually("its confirmation", SOON, async || length_of_queue(&redis, &client).await == 0).await;
}
