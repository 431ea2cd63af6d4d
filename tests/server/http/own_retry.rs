//! A server's own code closes a stream by rmcp, and says when its client is to come back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use mcp_courier::{Notification, SessionId};
use mcp_courier_testing::wire::{VERSION, Wire, early_close};
use rmcp::ServerHandler;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::session::{ServerSseMessage, SessionId as RmcpSessionId, SessionManager};

use super::courier;

#[derive(Clone)]
struct Plain;

impl ServerHandler for Plain {}

/// rmcp's own manager, whose sessions this process can close too.
struct Shared(Arc<LocalSessionManager>);

type Local = LocalSessionManager;
type Result<T> = std::result::Result<T, <Local as SessionManager>::Error>;

impl SessionManager for Shared {
    type Error = <Local as SessionManager>::Error;
    type Transport = <Local as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(RmcpSessionId, Self::Transport)> {
        self.0.create_session().await
    }

    async fn initialize_session(
        &self,
        id: &RmcpSessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage> {
        self.0.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &RmcpSessionId) -> Result<bool> {
        self.0.has_session(id).await
    }

    async fn close_session(&self, id: &RmcpSessionId) -> Result<()> {
        self.0.close_session(id).await
    }

    async fn create_stream(
        &self,
        id: &RmcpSessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static> {
        self.0.create_stream(id, message).await
    }

    async fn accept_message(&self, id: &RmcpSessionId, message: ClientJsonRpcMessage) -> Result<()> {
        self.0.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &RmcpSessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static> {
        self.0.create_standalone_stream(id).await
    }

    async fn resume(
        &self,
        id: &RmcpSessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static> {
        self.0.resume(id, last_event_id).await
    }
}

#[actix_web::test]
async fn a_retry_of_the_servers_own_code_reaches_the_client() {
    let (courier, local) = (courier().await, Arc::new(LocalSessionManager::default()));
    let server = courier.mcp_server(|| Ok(Plain)).session_manager(courier.decorate(Shared(Arc::clone(&local))));
    let server = server.bind("127.0.0.1:0").unwrap();
    let url = server.url();
    let running = actix::spawn(server.run());

    let wire = Wire::connect(&url, VERSION).await;
    let close = async |seconds| {
        let sessions = local.sessions.read().await;
        let session = &sessions[wire.session.as_str()];
        session.close_standalone_sse_stream(Some(Duration::from_secs(seconds))).await.unwrap();
    };
    let mut stream = wire.stream().await;
    stream.until(|text| text.contains("retry: 3000") && text.ends_with("\n\n")).await;
    courier
        .publisher()
        .push(&SessionId::new(&wire.session).unwrap(), Notification::tools_list_changed())
        .await
        .unwrap();
    stream.until(|text| text.contains("list_changed") && text.ends_with("\n\n")).await;
    close(9).await;
    stream.until_end().await;
    assert_eq!(stream.text.matches("retry: 9000").count(), 1, "{:?}", stream.text);

    // rmcp begins a resumed stream by the last event again, and that of a fresh one for an unknown id by none.
    let last = |text: &str| text.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    let mut resumed = wire.get(Some(VERSION), Some(&last(&stream.text))).await;
    resumed.until(|text| text.contains("retry:") && text.ends_with("\n\n")).await;
    if let Some(closed) = early_close(&resumed.text) {
        resumed = wire.get(Some(VERSION), Some(closed)).await;
        resumed.until(|text| text.contains("retry:") && text.ends_with("\n\n")).await;
    }
    close(8).await;
    resumed.until_end().await;
    assert_eq!(resumed.text.matches("retry: 8000").count(), 1, "{:?}", resumed.text);
    assert_eq!(resumed.text.matches("retry: 9000").count(), 0, "{:?}", resumed.text);
    running.abort();
}
