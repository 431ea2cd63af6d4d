//! Handlers of restored sessions: their view of the request, and the effects of their faults.

use mcp_courier::McpService;
use rmcp::ServerHandler;
use rmcp::model::{InitializeRequestParams, InitializeResult};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::SessionRestoreMarker;
use rmcp::{ErrorData, RoleServer};

use super::*;

/// Values that handlers saw in `initialize`: the session, the id in rmcp's marker of a restore, and a header of the
/// request.
type Seen = Arc<Mutex<Vec<(SessionId, Option<String>, Option<String>)>>>;

#[derive(Clone)]
struct Watching(Seen);

impl ServerHandler for Watching {
    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        let session = context.extensions.get::<SessionId>().unwrap().clone();
        let marker = context.extensions.get::<SessionRestoreMarker>().map(|marker| marker.id.to_string());
        let head = context.extensions.get::<http::request::Parts>().unwrap();
        let tenant = head.headers.get("x-tenant").map(|value| value.to_str().unwrap().to_owned());
        assert!(head.headers.get("authorization").is_none());
        self.0.lock().unwrap().push((session, marker, tenant));
        assert_eq!(request.client_info.name, "raw");
        Ok(self.get_info())
    }
}

/// Serves a factory as one of a fleet.
pub(super) async fn serve<S: ServerHandler>(
    redis: &RedisServer,
    factory: impl Fn() -> Result<S, std::io::Error> + Send + Sync + 'static,
) -> (String, McpService<S>) {
    let service = courier(redis).await.mcp_server(factory).build().unwrap();
    let mounted = service.clone();
    let http = actix_web::HttpServer::new(move || actix_web::App::new().service(mounted.scope("/mcp")));
    let http = http.workers(2).disable_signals().bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", http.addrs()[0]);
    actix::spawn(http.run());
    (url, service)
}

#[actix::test]
async fn a_handler_finds_its_session_the_marker_and_the_head_of_the_request() {
    let redis = RedisServer::start();
    let (at_a, at_b) = (Seen::default(), Seen::default());
    let (seen_a, seen_b) = (Watching(Arc::clone(&at_a)), Watching(Arc::clone(&at_b)));
    let (a, _a) = serve(&redis, move || Ok(seen_a.clone())).await;
    let (b, _b) = serve(&redis, move || Ok(seen_b.clone())).await;
    let client = RawClient::connect(&a).await;
    let request = reqwest::Client::new().post(&b).body(ping().to_string());
    let request = request.header("accept", "application/json, text/event-stream");
    let request = request.header("content-type", "application/json").bearer_auth("secret");
    let request = request.header("mcp-session-id", client.session_id()).header("x-tenant", "one");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    let id = client.session_id();
    let session = || SessionId::new(id).unwrap();
    assert_eq!(*at_a.lock().unwrap(), [(session(), None, None)]);
    assert_eq!(*at_b.lock().unwrap(), [(session(), Some(id.to_owned()), Some("one".to_owned()))]);
}

/// Fails at its first restore in one way or another.
#[derive(Clone)]
struct Failing {
    how: How,
    calls: Calls,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    PanicsInItsFactory,
    HasNoHandler,
    RefusesTheClient,
    PanicsInItsHandler,
}

impl ServerHandler for Failing {
    async fn initialize(
        &self,
        _request: InitializeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        match (self.how, self.calls.next()) {
            (How::PanicsInItsHandler, 0) => panic!("on purpose"),
            (How::RefusesTheClient, 0) => Err(ErrorData::invalid_request("on purpose", None)),
            _ => Ok(self.get_info()),
        }
    }
}

#[actix::test]
async fn a_restore_that_failed_leaves_nothing_and_the_next_succeeds() {
    let redis = RedisServer::start();
    let origin = origin(&redis).await;
    for how in [How::PanicsInItsFactory, How::HasNoHandler, How::RefusesTheClient, How::PanicsInItsHandler] {
        let (handler, made) = (Failing { how, calls: Calls::default() }, Calls::default());
        let factory = move || match (how, made.next()) {
            (How::PanicsInItsFactory, 0) => panic!("on purpose"),
            (How::HasNoHandler, 0) => Err(std::io::Error::other("on purpose")),
            _ => Ok(handler.clone()),
        };
        let (b, _service) = serve(&redis, factory).await;
        let client = RawClient::connect(&origin.url).await.at(&b);
        assert_eq!(client.send(&ping()).await, StatusCode::INTERNAL_SERVER_ERROR, "{how:?}");
        assert_eq!(client.send(&ping()).await, StatusCode::OK, "{how:?}");
    }
}
