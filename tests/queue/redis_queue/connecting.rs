//! URLs, passwords and sockets.

use std::sync::Arc;
use std::time::Duration;

use mcp_courier::testing::backend::connect;
use mcp_courier::{Config, ConnectError, Publisher, QueueErrorKind};
use mcp_courier_testing::eventually::SOON;
use mcp_courier_testing::redis_server::RedisServer;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::fixture::{LONG, note, session};

async fn refused(url: &str) -> ConnectError {
    connect(url, Arc::new(Config::default())).await.expect_err(url)
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_named_with_its_rule() {
    let wrong = [
        ("rediss://h/?insecure", "it has an unknown option insecure"),
        ("http://h/", "it must begin with redis://"),
        ("h:6379", "it must begin with redis://"),
        ("", "it must begin with redis://"),
        ("memory://", "a queue in memory needs a name"),
        ("redis://h:notaport/", "it cannot be read"),
        ("redis://h/notadatabase", "it cannot be read"),
        ("redis+sentinel://h", "it must name the service"),
        ("redis+cluster://h/1", "database"),
    ];
    for (url, rule) in wrong {
        let error = refused(url).await;
        assert!(matches!(error, ConnectError::Url(_)), "{error:?}");
        assert!(error.to_string().contains(rule), "{error}");
    }
}

#[tokio::test]
async fn no_error_shows_a_password() {
    for url in [
        "rediss://u:secret@127.0.0.1:1/",
        "http://u:secret@h/",
        "redis://u:secret@h:x/",
        "redis://u:secret@127.0.0.1:1/",
        "redis+sentinel://u:secret@127.0.0.1:1,127.0.0.1:2/my",
        "redis+cluster://u:secret@127.0.0.1:1,127.0.0.1:2",
    ] {
        let error = refused(url).await;
        let shown = format!("{error} {error:?} {:?}", std::error::Error::source(&error).map(ToString::to_string));
        assert!(!shown.contains("secret"), "{shown}");
    }
}

#[tokio::test]
async fn where_nothing_listens_the_queue_is_unreachable() {
    let mut server = RedisServer::start();
    server.kill();
    for url in [server.url(), server.unix_url(), "unix:///no/such/socket".to_owned()] {
        let error = refused(&url).await;
        let ConnectError::Backend(queue) = &error else { panic!("{error:?}") };
        assert!(matches!(queue.kind, QueueErrorKind::Unreachable(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_a_right_one_is_not() {
    let server = RedisServer::with(&["--requirepass", "right"]);
    let at = |login: &str| format!("redis://{login}127.0.0.1:{}/", server.port());
    for (login, said) in [(":wrong@", "WRONGPASS"), ("nobody:right@", "WRONGPASS"), ("", "NOAUTH")] {
        let error = refused(&at(login)).await;
        let ConnectError::Backend(queue) = &error else { panic!("{error:?}") };
        assert!(matches!(queue.kind, QueueErrorKind::Refused(_)), "{error:?}");
        assert!(error.to_string().contains(said), "{error}");
        assert!(!error.to_string().contains("wrong@"), "{error}");
    }
    let publisher = Publisher::connect(&at(":right@"), Config::default()).await.unwrap();
    assert_eq!(publisher.push(&session(), note(0)).await.unwrap().waiting, 1);
}

#[tokio::test]
async fn a_unix_socket_works() {
    let server = RedisServer::start();
    let publisher = Publisher::connect(&server.unix_url(), Config::default()).await.unwrap();
    publisher.push(&session(), note(0)).await.unwrap();
    let queue = connect(&server.unix_url(), Arc::new(Config::default())).await.unwrap();
    let mut consumer =
        queue.open(&session(), mcp_courier::testing::backend::OwnerToken::new(), Default::default()).await.unwrap();
    consumer.claim().await.unwrap();
    assert_eq!(consumer.take(None).await.unwrap().items.len(), 1);
    server.assert_no_key_without_expiry().await;
}

#[tokio::test]
async fn databases_are_apart() {
    let server = RedisServer::start();
    let [zero, one] = [0, 1].map(|n| format!("{}{n}", server.url()));
    Publisher::connect(&zero, Config::default()).await.unwrap().push(&session(), note(0)).await.unwrap();
    let there = Publisher::connect(&one, Config::default()).await.unwrap().push(&session(), note(0)).await.unwrap();
    assert_eq!(there.waiting, 1);
}

#[tokio::test]
async fn where_no_redis_answers_the_queue_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    let answering = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    // Nothing of ours was sent, so a push would not be uncertain.
    let error = refused(&url).await;
    let ConnectError::Backend(queue) = &error else { panic!("{error:?}") };
    assert!(matches!(queue.kind, QueueErrorKind::Unreachable(_)), "{error:?}");
    answering.abort();
}

// Two threads, so that the failure is heard of while the test waits for Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_nobody_waited_for_and_that_failed_is_nobodys_failure_later() {
    let mut server = RedisServer::start();
    let publisher = Publisher::connect(&server.url(), Config::default()).await.unwrap();
    server.kill();
    let silent = TcpListener::bind(("127.0.0.1", server.port())).await.unwrap();
    let begun = std::time::Instant::now();
    while tokio::time::timeout(Duration::from_millis(200), publisher.push(&session(), note(0))).await.is_ok() {
        assert!(begun.elapsed() < SOON, "every push is answered");
    }
    drop(silent);
    server.start_again();
    publisher.push(&session(), note(1)).await.unwrap();
}

#[tokio::test]
async fn a_runtime_that_stands_still_holds_nobody_up_for_ever() {
    let server = RedisServer::start();
    let url = server.url();
    let (runtime, publisher) = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let publisher = runtime.block_on(Publisher::connect(&url, Config::default())).unwrap();
        (runtime, publisher)
    })
    .await
    .unwrap();
    // The connection is driven there, so the first push gets no answer.
    tokio::time::timeout(LONG, async { while publisher.push(&session(), note(0)).await.is_err() {} }).await.unwrap();
    runtime.shutdown_background();
}
