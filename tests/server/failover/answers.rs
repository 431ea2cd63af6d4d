//! Answers that cannot be read, at a server that does not hold the session.

use super::*;

#[actix::test]
async fn a_client_that_hangs_up_behind_its_unreadable_answer_does_not_stop_the_cancelling() {
    let redis = RedisServer::start();
    let (a, b) = (Member::start(&redis).await, Member::start(&redis).await);
    let client = RawClient::connect_with(&a.url, json!({"elicitation": {}})).await;
    let mut stream = client.open_stream().await;
    let (elicitor, session) = (a.courier.publisher().elicitor(), id(&client));
    let asked = actix::spawn(async move {
        let schema = json!({"type": "object", "properties": {}});
        let task = TaskKey::anonymous("t").unwrap();
        elicitor.elicit(&session, &task, Elicitation::form("?", schema).unwrap(), Duration::from_secs(300)).await
    });
    let question = stream.next_request().await.unwrap();
    // B needs more than one command for its part, and Redis answers none before the client has gone.
    redis.command::<()>(&["SCRIPT", "FLUSH"]).await;
    redis.command::<()>(&["CLIENT", "PAUSE", "1000", "ALL"]).await;
    let body = format!(r#"{{"jsonrpc":"2.0","id":{},"result":oops}}"#, question["id"]);
    let post = reqwest::Client::new().post(&b.url).header("accept", "application/json, text/event-stream");
    let post = post.header("content-type", "application/json").header("mcp-session-id", client.session_id());
    let post = post.header("mcp-protocol-version", "2025-11-25").body(body);
    let hung_up = post.timeout(Duration::from_millis(300)).send().await;
    assert!(hung_up.unwrap_err().is_timeout(), "B waits for Redis");
    let answer = tokio::time::timeout(Duration::from_secs(20), asked).await.expect("told at once").unwrap().unwrap();
    assert!(matches!(&answer, Answer::Cancel { reason: Some(_) }), "{answer:?}");
}
