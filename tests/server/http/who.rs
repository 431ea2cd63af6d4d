//! Which requests are served: by host, by origin and by protocol version.

use mcp_courier_testing::in_own_process;
use mcp_courier_testing::log;
use mcp_courier_testing::mcp_server::{Builder, McpServer};
use mcp_courier_testing::wire::{VERSION, initialize, post, text};
use serde_json::{Value, json};

use super::courier;

async fn server(set: impl FnOnce(Builder) -> Builder) -> McpServer {
    McpServer::with(courier().await, set)
}

async fn status(url: &str, headers: &[(&str, &str)]) -> u16 {
    let request = post(url, initialize(VERSION).to_string());
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.send().await.unwrap().status().as_u16()
}

#[actix_web::test]
async fn only_allowed_hosts_are_served() {
    let closed = server(|server| server).await;
    let open = server(|server| server.allow_host("chat.example.com").allow_host("backend")).await;
    for (host, by_default, allowed) in
        [("localhost", 200, 200), ("chat.example.com", 403, 200), ("backend:81", 403, 200), ("evil.example", 403, 403)]
    {
        assert_eq!(status(&closed.url, &[("host", host)]).await, by_default, "{host}");
        assert_eq!(status(&open.url, &[("host", host)]).await, allowed, "{host}");
    }
    let any = server(Builder::allow_any_host).await;
    assert_eq!(status(&any.url, &[("host", "evil.example")]).await, 200);
}

#[actix_web::test]
async fn foreign_origins_are_refused_by_default() {
    let closed = server(|server| server).await;
    let open = server(|server| server.allow_origin("https://chat.example.com")).await;
    for (origin, by_default, allowed) in [
        ("http://evil.example", 403, 403),
        ("null", 403, 403),
        ("https://chat.example.com", 403, 200),
        ("http://chat.example.com", 403, 403),
        ("http://localhost:1", 403, 403),
    ] {
        assert_eq!(status(&closed.url, &[("origin", origin)]).await, by_default, "{origin}");
        assert_eq!(status(&open.url, &[("origin", origin)]).await, allowed, "{origin}");
    }
    assert_eq!(status(&closed.url, &[]).await, 200);
    let own = closed.url.trim_end_matches("/mcp");
    let any_host = server(Builder::allow_any_host).await;
    for (site, wanted) in [("same-origin", 200), ("cross-site", 403)] {
        let own = [("origin", own), ("sec-fetch-site", site)];
        assert_eq!(status(&closed.url, &own).await, wanted, "{site}: a page of this very server");
        let host = ("host", own[0].1.strip_prefix("http://").unwrap());
        assert_eq!(status(&any_host.url, &[own[0], own[1], host]).await, wanted, "{site}: any host");
    }
    assert_eq!(status(&closed.url, &[("origin", own)]).await, 200, "MCP's conformance suite does not say so");
    // Every method is checked.
    let get = reqwest::Client::new().get(&closed.url).header("origin", "null").send().await.unwrap();
    assert_eq!(get.status(), 403);
}

#[actix_web::test]
async fn refused_requests_do_not_flood_the_log() {
    in_own_process!();
    log::begin();
    let server = server(|server| server).await;
    let long = "x".repeat(1000);
    for _ in 0..20 {
        assert_eq!(status(&server.url, &[("host", &format!("flood-{long}"))]).await, 403);
        assert_eq!(status(&server.url, &[("origin", &format!("http://deluge-{long}"))]).await, 403);
    }
    for flood in ["flood-", "deluge-"] {
        let lines = log::lines(&["WARN", flood]);
        assert_eq!(lines.len(), 5, "the 1st, 2nd, 4th, 8th and 16th: {lines:?}");
        assert!(lines.iter().all(|line| line.len() < 400), "{lines:?}");
    }
}

/// Asserts that a response makes clients of newer versions fall back.
async fn falls_back(response: reqwest::Response, what: &str) {
    assert_eq!(response.status(), 400, "{what}");
    let text = text(response).await;
    assert!(
        serde_json::from_str::<Value>(&text).is_err(),
        "{what}: a JSON-RPC error says that the version is known: {text}"
    );
}

#[actix_web::test]
async fn requests_of_versions_without_sessions_get_a_plain_400() {
    let server = server(|server| server).await;
    let meta = |version: &str| {
        json!({"io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {}, "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"}})
    };
    let discover = |params: Value| json!({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": params});
    let list =
        |version: &str| json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta(version)}});
    let newer = "2026-07-28";
    for (body, header) in [
        (discover(json!({"_meta": meta(newer)})), Some(newer)),
        (discover(json!({"_meta": meta(newer)})), None),
        (discover(json!({})), None),
        (discover(json!({})), Some(VERSION)),
        (list(newer), Some(newer)),
        (list(newer), None),
        (list("2027-01-01"), Some("2027-01-01")),
        (json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}), Some(newer)),
        (json!([]), Some(newer)),
    ] {
        let mut request = post(&server.url, body.to_string());
        if let Some(version) = header {
            request = request.header("mcp-protocol-version", version);
        }
        falls_back(request.send().await.unwrap(), &format!("{body}, {header:?}")).await;
    }
    for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
        let request = reqwest::Client::new().request(method.clone(), &server.url);
        let request = request.header("accept", "text/event-stream").header("mcp-protocol-version", newer);
        falls_back(request.send().await.unwrap(), method.as_str()).await;
    }
}

#[actix_web::test]
async fn initialize_negotiates_whatever_it_names() {
    let server = server(|server| server).await;
    for version in ["2026-07-28", "2027-01-01"] {
        for header in [None, Some(version)] {
            let mut request = post(&server.url, initialize(version).to_string());
            if let Some(header) = header {
                request = request.header("mcp-protocol-version", header);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 200, "{version}, {header:?}");
            assert!(text(response).await.contains(r#""protocolVersion":"2025-11-25""#), "{version}, {header:?}");
        }
    }
}

#[actix_web::test]
async fn rmcps_own_client_falls_back_by_itself() {
    use rmcp::model::{ClientConfig, ProtocolVersion};
    use rmcp::service::{ClientLifecycleMode, ClientServiceExt};
    use rmcp::transport::StreamableHttpClientTransport;

    let server = server(|server| server).await;
    let transport = StreamableHttpClientTransport::from_uri(server.url.as_str());
    let auto =
        ClientLifecycleMode::Auto { preferred_versions: vec![ProtocolVersion::V_2026_07_28], legacy_version: None };
    let client = ClientConfig::default().serve_with_lifecycle(transport, auto).await.unwrap();
    assert_eq!(client.list_all_tools().await.unwrap().len(), 1);
    client.cancel().await.unwrap();
}
