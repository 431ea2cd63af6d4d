//! The session manager in rmcp's own service, without the layer: it merges the two parts of a stream itself.

use std::sync::Arc;

use actix_web::{App, HttpServer};
use mcp_courier::{DiscardReason, Notification, Receipt, SessionId};
use mcp_courier_testing::wire::{PATIENCE, VERSION, Wire};
use rmcp::ServerHandler;
use rmcp::model::{ServerCapabilities, ServerConfig};
use rmcp_actix_web::transport::StreamableHttpService;
use serde_json::json;

use super::courier;

#[derive(Clone)]
struct Plain;

impl ServerHandler for Plain {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::default())
    }

    async fn on_roots_list_changed(&self, context: rmcp::service::NotificationContext<rmcp::RoleServer>) {
        context.peer.notify_tool_list_changed().await.unwrap();
    }
}

#[actix_web::test]
async fn a_manager_without_the_layer_delivers_and_has_the_delivery_confirmed() {
    let courier = courier().await;
    let service = StreamableHttpService::builder()
        .service_factory(Arc::new(|| Ok(Plain)))
        .session_manager(Arc::new(courier.session_manager().build()))
        .stateful_mode(true)
        .build();
    let app = move || App::new().service(actix_web::web::scope("/mcp").service(service.clone().scope()));
    let http = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", http.addrs()[0]);
    let running = http.run();
    let handle = running.handle();
    actix::spawn(running);

    let wire = Wire::connect(&url, VERSION).await;
    let mut stream = wire.stream().await;
    let session = SessionId::new(&wire.session).unwrap();
    let publisher = courier.publisher();
    let push = async |params: &str| {
        let notification = Notification::new("notifications/x").unwrap().with_params_json(params).unwrap();
        publisher.push(&session, notification.with_receipt()).await.unwrap().id
    };
    // Some of the stream is rmcp's own, the rest is the courier's.
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}).to_string();
    let mut last = push(r#"{"n":0}"#).await;
    for n in 1..5 {
        assert_eq!(wire.post(changed.clone()).await.status(), 202);
        last = push(&format!("{{\"n\":{n}}}")).await;
    }
    let own = |stream: &mcp_courier_testing::wire::Stream| -> Vec<_> {
        let messages = stream.messages().into_iter().filter(|message| message["method"] == "notifications/x");
        messages.map(|message| message["params"]["n"].clone()).collect()
    };
    // The stream answers each ping, as a client does.
    let settled = publisher.until_settled(&session, last, PATIENCE);
    let read = stream.until(|text| text.matches("list_changed").count() == 4 && text.contains(r#""n":4"#));
    read.await;
    assert_eq!(own(&stream), [0, 1, 2, 3, 4]);
    let reading = actix::spawn(async move {
        stream.until(|text| text.contains(r#""end""#) && text.ends_with("\n\n")).await;
        stream
    });
    let settled = settled.await.unwrap();
    assert!(matches!(settled, Receipt::Delivered { .. }), "{settled:?}");

    push(r#"{"n":18446744073709551616}"#).await;
    let beyond = push(r#"{"n":1E400}"#).await;
    let settled = publisher.until_settled(&session, beyond, PATIENCE).await.unwrap();
    assert!(matches!(settled, Receipt::Discarded { reason: DiscardReason::Rejected(_), .. }), "{settled:?}");
    push(r#"{"n":"end"}"#).await;
    assert_eq!(own(&reading.await.unwrap())[5..], [json!(18_446_744_073_709_551_616_f64), json!("end")]);
    handle.stop(false).await;
}
