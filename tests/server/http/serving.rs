//! Connections, settings, and the end of a server.

use std::time::{Duration, Instant};

use actix_web::{App, HttpServer, web};
use mcp_courier::ServeError;
use mcp_courier_testing::wire::{VERSION, Wire, initialize, post};
use rmcp::ServerHandler;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::courier;

#[derive(Clone)]
struct Plain;

impl ServerHandler for Plain {}

/// Reads one response with a chunked body.
async fn exchange(connection: &mut TcpStream) {
    let body = initialize(VERSION).to_string();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: application/json, text/event-stream\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all((head + &body).as_bytes()).await.unwrap();
    let mut response = Vec::new();
    while !response.ends_with(b"0\r\n\r\n") {
        assert_ne!(connection.read_buf(&mut response).await.unwrap(), 0, "closed");
    }
    assert!(response.starts_with(b"HTTP/1.1 200"));
}

/// Bound well above actix's default of 5 s, and below the limit of a test.
#[actix_web::test]
async fn an_idle_connection_outlives_the_patience_of_actix() {
    let server = courier().await.mcp_server(|| Ok(Plain)).bind("127.0.0.1:0").unwrap();
    let address = server.addresses()[0];
    let running = actix::spawn(server.run());
    let mut connection = TcpStream::connect(address).await.unwrap();
    exchange(&mut connection).await;
    let idle = tokio::time::timeout(Duration::from_secs(9), connection.read_u8()).await;
    assert!(idle.is_err(), "closed after at most 9 s: {idle:?}");
    exchange(&mut connection).await;
    running.abort();
}

#[actix_web::test]
async fn the_keep_alive_can_be_set() {
    let keep_alive = Duration::from_secs(1);
    let server = courier().await.mcp_server(|| Ok(Plain)).keep_alive(keep_alive).bind("127.0.0.1:0").unwrap();
    let address = server.addresses()[0];
    let running = actix::spawn(server.run());
    let mut connection = TcpStream::connect(address).await.unwrap();
    exchange(&mut connection).await;
    let begun = Instant::now();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), connection.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "open after 20 s");
    assert!(begun.elapsed() > Duration::from_millis(500), "closed at once");
    running.abort();
}

#[actix_web::test]
async fn settings_are_checked() {
    let begin = async || courier().await.mcp_server(|| Ok(Plain));
    for (wrong, says) in [
        (begin().await.allow_host("http://chat.example.com"), "allow_host"),
        (begin().await.allow_host(""), "allow_host"),
        (begin().await.allow_host("*"), "allow_host"),
        (begin().await.allow_origin("chat.example.com"), "allow_origin"),
        (begin().await.allow_origin("https://chat.example.com/path"), "allow_origin"),
        (begin().await.allow_origin("null"), "allow_origin"),
        (begin().await.allow_origin("*"), "allow_origin"),
        (begin().await.allow_origin("https://*.example.com"), "allow_origin"),
        (begin().await.allow_origin("https://chat.example.com/"), "allow_origin"),
        (begin().await.allow_origin("https://bücher.example"), "allow_origin"),
        (begin().await.path("mcp"), "path"),
        (begin().await.keep_alive(Duration::ZERO), "keep_alive"),
        (begin().await.max_body_bytes(0), "max_body_bytes"),
        (begin().await.sse_keep_alive(Duration::ZERO), "sse_keep_alive"),
    ] {
        let error = wrong.build().unwrap_err();
        assert_eq!(error.field, says, "{error}");
        assert!(says != "allow_origin" || error.to_string().contains("scheme://host or scheme://host:port"), "{error}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = begin().await.bind(taken.local_addr().unwrap()).unwrap_err();
    assert!(matches!(error, ServeError::Bind(_)), "{error}");
}

#[actix_web::test]
async fn a_server_with_an_open_stream_stops_without_waiting_for_it() {
    let (stop, stopped) = oneshot::channel::<()>();
    let courier = courier().await;
    let server = courier.mcp_server(|| Ok(Plain)).bind("127.0.0.1:0").unwrap();
    let url = server.url();
    let running = actix::spawn(server.run_until(async move { drop(stopped.await) }));
    let wire = Wire::connect(&url, VERSION).await;
    let mut stream = wire.stream().await;
    stream.until(|text| text.contains("retry:")).await;
    let began = Instant::now();
    stop.send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), running).await.expect("it ends").unwrap();
    ended.unwrap();
    // Requests would be waited for 5 s; a stream that does not end is one.
    assert!(began.elapsed() < Duration::from_secs(4), "it took {:?}", began.elapsed());
    assert!(post(&url, "").send().await.is_err(), "it still listens");
}

#[actix_web::test]
async fn what_a_shutdown_begins_with_comes_while_the_streams_are_open() {
    let (stop, stopped) = oneshot::channel::<()>();
    let courier = courier().await;
    let publisher = courier.publisher();
    let (tell, session) = tokio::sync::watch::channel(None);
    let (seen, is_seen) = tokio::sync::watch::channel(false);
    let server = courier.mcp_server(|| Ok(Plain)).before_shutdown(move || {
        let (publisher, session, mut is_seen) = (publisher.clone(), session.clone(), is_seen.clone());
        async move {
            let session: mcp_courier::SessionId = session.borrow().clone().unwrap();
            publisher.push(&session, mcp_courier::Notification::tools_list_changed()).await.unwrap();
            is_seen.wait_for(|is_seen| *is_seen).await.unwrap();
        }
    });
    let server = server.bind("127.0.0.1:0").unwrap();
    let url = server.url();
    let running = actix::spawn(server.run_until(async move { drop(stopped.await) }));
    let wire = Wire::connect(&url, VERSION).await;
    tell.send_replace(Some(mcp_courier::SessionId::new(&wire.session).unwrap()));
    let mut stream = wire.stream().await;
    stream.until(|text| text.contains("retry:")).await;
    stop.send(()).unwrap();
    stream.until(|text| text.contains("notifications/tools/list_changed") && text.ends_with("\n\n")).await;
    seen.send_replace(true);
    drop(stream);
    tokio::time::timeout(Duration::from_secs(20), running).await.expect("it ends").unwrap().unwrap();
}

#[actix_web::test]
async fn an_app_with_other_routes_mounts_the_service() {
    let service = courier().await.mcp_server(|| Ok(Plain)).build().unwrap();
    let mounted = service.clone();
    let app = move || App::new().service(mounted.scope("/mcp")).route("/health", web::get().to(async || "ok"));
    let http = HttpServer::new(app).workers(1).bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", http.addrs()[0]);
    let running = actix::spawn(async move { service.run(http).await });
    let health = reqwest::get(format!("{url}/health")).await.unwrap();
    assert_eq!(health.text().await.unwrap(), "ok");
    let wire = Wire::connect(&format!("{url}/mcp"), VERSION).await;
    wire.stream().await.until(|text| text.contains("retry:")).await;
    running.abort();
}
