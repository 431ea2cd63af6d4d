//! Clients that are away while much is pushed.

use mcp_courier::SessionStatus;

use super::*;

#[actix::test]
async fn a_client_that_was_away_gets_the_newest_progress_and_all_others_in_order() {
    const LINES: usize = 10_000;
    const EVERY: usize = 1000;
    let redis = RedisServer::start();
    let servers = [Member::start(&redis).await, Member::start(&redis).await];
    let client = RawClient::connect(&servers[0].url).await;
    let publisher = servers[0].courier.publisher();
    let progress = |n: usize| Notification::progress("report", n as f64, Some(LINES as f64), Some("writing")).unwrap();

    let mut stream = client.open_stream().await;
    push(&publisher, &id(&client), 0..1).await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
    eventually("the confirmation", SOON, async || length_of_queue(&redis, &client).await == 0).await;
    let last = stream.last_event_id().unwrap().to_owned();
    drop(stream);
    // The probe waits for the client's return, as all that is pushed under an owner.
    let probe = || Notification::new("notifications/probe").unwrap();
    eventually("the end of the lease", SOON, async || {
        publisher.push(&id(&client), probe()).await.unwrap().session != SessionStatus::Owned
    })
    .await;
    let before = length_of_queue(&redis, &client).await;

    // As a worker that reports each step, and has something to say now and then.
    let mut deepest = 0;
    for begin in (0..LINES).step_by(EVERY) {
        let lines = (begin..begin + EVERY).map(|n| (id(&client), progress(n)));
        for pushed in publisher.push_many(lines).await {
            deepest = deepest.max(pushed.unwrap().waiting);
        }
        push(&publisher, &id(&client), begin..begin + 1).await;
        publisher.push(&id(&client), Notification::resource_updated("file:///report")).await.unwrap();
    }
    publisher.push(&id(&client), progress(LINES)).await.unwrap();
    let others = LINES / EVERY;
    let depth = length_of_queue(&redis, &client).await;
    assert_eq!(depth, before + others + 2, "one line of progress, and one update");
    assert!(deepest <= before + others + 2, "{deepest}");

    // It returns to the other server, and names what it has.
    let mut stream = client.at(&servers[1].url).come_back(&last).await;
    let got = stream.notifications(depth).await;
    let (probes, rest): (Vec<_>, Vec<_>) = got.iter().partition(|got| got["method"] == "notifications/probe");
    assert_eq!(probes.len(), before);
    let (newest, others_got) = rest.split_last().unwrap();
    assert_eq!(newest["params"]["progress"], LINES);
    let (update, others_got) = others_got.split_last().unwrap();
    assert_eq!(update["params"]["uri"], "file:///report");
    let order: Vec<usize> = others_got.iter().map(|got| number(got)).collect();
    assert_eq!(order, (0..LINES).step_by(EVERY).collect::<Vec<_>>());

    // Under an owner each line arrives.
    for n in 0..5 {
        publisher.push(&id(&client), progress(n)).await.unwrap();
    }
    let lines: Vec<_> = stream.notifications(5).await.iter().map(|got| got["params"]["progress"].clone()).collect();
    assert_eq!(lines, [0, 1, 2, 3, 4]);
}
