//! A session manager in rmcp's own service, with the session store mounted beside it.

use mcp_courier::CourierSessionManager;
use mcp_courier_testing::mcp_server::Handler;
use rmcp::transport::streamable_http_server::session::SessionManager;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp_actix_web::transport::StreamableHttpService;

use super::*;

/// rmcp's service on a port of its own, its manager, and the number of handlers that it made.
struct ByHand {
    url: String,
    manager: Arc<CourierSessionManager<LocalSessionManager>>,
    handlers: Calls,
}

async fn by_hand(redis: &RedisServer, idle: Duration) -> ByHand {
    let courier = courier(redis).await;
    let handlers = Calls::default();
    let factory = {
        let handlers = handlers.clone();
        move || {
            handlers.next();
            Ok(Handler::default())
        }
    };
    let manager = Arc::new(courier.session_manager().idle_timeout(idle).store_sessions(factory.clone()).build());
    let service = StreamableHttpService::builder()
        .service_factory(Arc::new(factory))
        .session_manager(Arc::clone(&manager))
        .maybe_session_store(manager.session_store())
        .stateful_mode(true)
        .build();
    let app = move || actix_web::App::new().service(actix_web::web::scope("/mcp").service(service.clone().scope()));
    let http = actix_web::HttpServer::new(app).workers(2).disable_signals().bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", http.addrs()[0]);
    actix::spawn(http.run());
    ByHand { url, manager, handlers }
}

#[actix::test]
async fn a_manager_without_the_layer_restores_sessions_and_ends_them_for_all() {
    let redis = RedisServer::start();
    let idle = Duration::from_secs(300);
    let (a, b) = (by_hand(&redis, idle).await, by_hand(&redis, idle).await);
    let client = RawClient::connect(&a.url).await;
    let mut stream = client.open_stream().await;
    let at_b = client.at(&b.url);
    let statuses = burst(&at_b, 12).await;
    assert!(statuses.iter().all(StatusCode::is_success), "{statuses:?}");
    assert_eq!(b.handlers.next(), 1);
    assert_eq!(at_b.delete().await, StatusCode::ACCEPTED);
    stream.ended().await;
    for url in [&a.url, &b.url] {
        assert_eq!(client.at(url).send(&ping()).await, StatusCode::NOT_FOUND);
    }
}

#[actix::test]
async fn what_rmcp_closes_late_is_not_the_session_that_was_restored_since() {
    let redis = RedisServer::start();
    let a = by_hand(&redis, Duration::from_secs(1)).await;
    let client = RawClient::connect(&a.url).await;
    eventually("it is ended for being idle", SOON, async || format!("{:?}", a.manager).contains("sessions: 0")).await;
    let mut stream = client.open_stream().await;
    assert_eq!(a.handlers.next(), 2, "it was restored");
    // As rmcp does when it no longer serves the first one.
    a.manager.close_session(&client.session_id().into()).await.unwrap();
    assert_eq!(client.send(&ping()).await, StatusCode::OK);
    assert_eq!(stream.notification_within(Duration::from_millis(50)).await, None);
    assert_eq!(a.handlers.next(), 3, "it was not restored again");
}
