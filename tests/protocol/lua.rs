//! The Lua scripts in a real Redis.

use mcp_courier::testing::backend::lua_scripts;
use mcp_courier_testing::redis_server::RedisServer;
use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};

const KEYS: [&str; 4] = ["request", "response", "status", "asker"];

async fn command(connection: &mut MultiplexedConnection, words: &[&str]) -> RedisResult<Value> {
    redis::cmd(words[0]).arg(&words[1..]).query_async(connection).await
}

/// Runs a script.
async fn run(
    connection: &mut MultiplexedConnection,
    name: &str,
    keys: &[&str],
    arguments: &[&str],
) -> RedisResult<Value> {
    let (_, text) = lua_scripts().into_iter().find(|(known, _)| *known == name).unwrap();
    redis::cmd("EVAL").arg(text).arg(keys.len()).arg(keys).arg(arguments).query_async(connection).await
}

#[tokio::test]
async fn every_script_compiles() {
    let server = RedisServer::start();
    let mut connection = server.connection().await;
    for (name, text) in lua_scripts() {
        let loaded = command(&mut connection, &["SCRIPT", "LOAD", text]).await;
        assert!(loaded.is_ok(), "{name}: {loaded:?}");
    }
}

/// Commands that store something else than a request under the key of a request.
const GARBAGE: [&[&str]; 14] = [
    &["SET", "request", "7"],
    &["SET", "request", "-1.5e3"],
    &["SET", "request", "\"id\""],
    &["SET", "request", "id"],
    &["SET", "request", "[]"],
    &["SET", "request", "[{\"request_id\": \"id\"}]"],
    &["SET", "request", "null"],
    &["SET", "request", "true"],
    &["SET", "request", "{\"request_id\": "],
    &["SET", "request", "{\"request_id\": {\"id\": \"id\"}}"],
    &["SET", "request", "{\"request_id\": null}"],
    &["SET", "request", ""],
    &["SET", "request", "\u{0}"],
    &["RPUSH", "request", "{\"request_id\": \"id\"}"],
];

/// Scripts that check whether a question is still its task's, with their answers where it is another one.
async fn answers(connection: &mut MultiplexedConnection) -> Vec<(&'static str, RedisResult<Value>)> {
    let [request, response, status, asker] = KEYS;
    vec![
        ("touch", run(connection, "touch", &[asker, response, request], &["id", "60000"]).await),
        ("collect", run(connection, "collect", &KEYS, &["id", "take"]).await),
        ("settle", run(connection, "settle", &[request, response, status], &["id", "{}", "60000"]).await),
        ("waiting", run(connection, "waiting", &[request, status], &["id"]).await),
        ("withdraw", run(connection, "withdraw", &KEYS, &["id"]).await),
    ]
}

#[tokio::test]
async fn each_script_takes_whatever_else_lies_under_a_request_for_another_question() {
    let server = RedisServer::start();
    let mut connection = server.connection().await;
    let mut others = GARBAGE.to_vec();
    others.push(&["SET", "request", "{\"request_id\": \"another\"}"]);
    for garbage in others {
        command(&mut connection, &["FLUSHALL"]).await.unwrap();
        command(&mut connection, garbage).await.unwrap();
        command(&mut connection, &["SET", "status", "waiting"]).await.unwrap();
        command(&mut connection, &["RPUSH", "response", "{}"]).await.unwrap();
        let expected = [
            ("touch", Value::Int(1)),
            ("collect", Value::Int(1)),
            ("settle", Value::BulkString(b"other question".to_vec())),
            ("waiting", Value::Int(0)),
            ("withdraw", Value::Int(0)),
        ];
        let answers = answers(&mut connection).await;
        assert_eq!(answers, expected.map(|(name, answer)| (name, Ok(answer))), "{garbage:?}");
        assert_eq!(command(&mut connection, &["DBSIZE"]).await, Ok(Value::Int(3)), "nothing is touched: {garbage:?}");
        // And whoever asks anew has the place.
        let posed = run(&mut connection, "pose", &KEYS, &["id", "{\"request_id\": \"id\"}", "60000", "60000"]).await;
        assert!(matches!(posed, Ok(Value::Int(1..))), "{garbage:?}: {posed:?}");
        assert_eq!(run(&mut connection, "waiting", &["request", "status"], &["id"]).await, Ok(Value::Int(1)));
    }
}

#[tokio::test]
async fn each_script_knows_its_question_and_the_absence_of_one() {
    let server = RedisServer::start();
    let mut connection = server.connection().await;
    command(&mut connection, &["SET", "status", "waiting"]).await.unwrap();
    let expected = [
        ("touch", Value::Int(0)),
        ("collect", Value::Nil),
        ("settle", Value::BulkString(b"not waiting".to_vec())),
        ("waiting", Value::Int(0)),
        ("withdraw", Value::Int(0)),
    ];
    assert_eq!(answers(&mut connection).await, expected.map(|(name, answer)| (name, Ok(answer))));
    command(&mut connection, &["SET", "request", "{\"more\": [], \"request_id\": \"id\"}"]).await.unwrap();
    let expected = [
        ("touch", Value::Int(0)),
        ("collect", Value::Nil),
        ("settle", Value::BulkString(b"done".to_vec())),
        // It has its answer.
        ("waiting", Value::Int(0)),
        ("withdraw", Value::Int(4)),
    ];
    assert_eq!(answers(&mut connection).await, expected.map(|(name, answer)| (name, Ok(answer))));
}
