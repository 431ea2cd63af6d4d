//! URLs, passwords and sockets.

use std::sync::Arc;

use mcp_courier::queue::connect;
use mcp_courier::{Config, ConnectError, Publisher, QueueErrorKind};

use crate::fixture::{note, session};
use crate::redis_server::RedisServer;

async fn refused(url: &str) -> ConnectError {
    connect(url, Arc::new(Config::default())).await.expect_err(url)
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_named_with_its_rule() {
    let wrong = [
        ("rediss://h/", "TLS is not supported"),
        ("valkeys://h/", "TLS is not supported"),
        ("http://h/", "it must begin with redis://"),
        ("h:6379", "it must begin with redis://"),
        ("", "it must begin with redis://"),
        ("memory://", "it must begin with redis://"),
        ("redis://h:notaport/", "it cannot be read"),
        ("redis://h/notadatabase", "it cannot be read"),
    ];
    for (url, rule) in wrong {
        let error = refused(url).await;
        assert!(matches!(error, ConnectError::Url(_)), "{error:?}");
        assert!(error.to_string().contains(rule), "{error}");
    }
}

#[tokio::test]
async fn no_error_shows_a_password() {
    for url in ["rediss://u:secret@h/", "http://u:secret@h/", "redis://u:secret@h:x/", "redis://u:secret@127.0.0.1:1/"]
    {
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
        let ConnectError::Queue(queue) = &error else { panic!("{error:?}") };
        assert!(matches!(queue.kind, QueueErrorKind::Unreachable(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_a_right_one_is_not() {
    let server = RedisServer::with(&["--requirepass", "right"]);
    let at = |login: &str| format!("redis://{login}127.0.0.1:{}/", server.port());
    for (login, said) in [(":wrong@", "WRONGPASS"), ("nobody:right@", "WRONGPASS"), ("", "NOAUTH")] {
        let error = refused(&at(login)).await;
        let ConnectError::Queue(queue) = &error else { panic!("{error:?}") };
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
    let mut consumer = queue.open(&session(), mcp_courier::queue::OwnerToken::new(), Default::default()).await.unwrap();
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
