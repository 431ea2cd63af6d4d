//! Pages of other origins, as browsers let them use a server (CORS).

use actix_web::error::ErrorUnauthorized;
use mcp_courier_testing::mcp_server::{Builder, McpServer};
use mcp_courier_testing::wire::{VERSION, initialize, post};
use reqwest::header::HeaderMap;
use reqwest::{Method, Response};
use serde_json::json;

use super::courier;

const PAGE: &str = "https://chat.example.com";

async fn server(set: impl FnOnce(Builder) -> Builder) -> McpServer {
    McpServer::with(courier().await, set)
}

/// Sends a preflight, as a browser does before a page's POST.
async fn preflight(url: &str, headers: &[(&str, &str)]) -> Response {
    let request = reqwest::Client::new().request(Method::OPTIONS, url).header("access-control-request-method", "POST");
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
}

fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

fn has_cors(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("access-control-"))
}

#[actix_web::test]
async fn a_preflight_is_answered_before_authentication() {
    let refuse = async |_: &actix_web::HttpRequest| Err(ErrorUnauthorized("a token is needed"));
    let server = server(|server| server.allow_origin(PAGE).authenticate(refuse)).await;
    let asked = "authorization,content-type,last-event-id,mcp-method,mcp-protocol-version,mcp-session-id,x-api-key";
    let answer = preflight(&server.url, &[("origin", PAGE), ("access-control-request-headers", asked)]).await;
    assert_eq!(answer.status(), 204);
    let headers = answer.headers();
    assert_eq!(all(headers, "access-control-allow-origin"), [PAGE]);
    assert_eq!(all(headers, "access-control-allow-methods"), ["GET, POST, DELETE"]);
    assert_eq!(all(headers, "access-control-max-age"), ["7200"]);
    assert_eq!(all(headers, "access-control-allow-credentials"), [""; 0]);
    assert!(all(headers, "vary")[0].starts_with("Origin"), "{headers:?}");
    let permitted = all(headers, "access-control-allow-headers")[0].to_lowercase();
    let permitted: Vec<_> = permitted.split(", ").collect();
    for name in asked.split(',') {
        assert_eq!(permitted.contains(&name), name != "x-api-key", "{name}: {permitted:?}");
    }
    // The same page without a token: it is refused, and can read the refusal.
    let refused = post(&server.url, initialize(VERSION).to_string()).header("origin", PAGE).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(all(refused.headers(), "access-control-allow-origin"), [PAGE]);
}

#[actix_web::test]
async fn a_preflight_of_another_origin_or_for_another_host_is_refused() {
    let server = server(|server| server.allow_origin(PAGE)).await;
    for headers in [
        &[("origin", "https://evil.example")][..],
        &[("origin", "null")],
        &[("origin", "http://chat.example.com")],
        &[("origin", PAGE), ("host", "evil.example")],
    ] {
        let answer = preflight(&server.url, headers).await;
        assert_eq!(answer.status(), 403, "{headers:?}");
        assert_eq!(all(answer.headers(), "access-control-allow-methods"), [""; 0], "{headers:?}");
    }
    let evil = preflight(&server.url, &[("origin", "https://evil.example")]).await;
    assert!(!has_cors(evil.headers()), "{:?}", evil.headers());
}

#[actix_web::test]
async fn a_page_of_a_named_origin_can_read_every_answer() {
    let server = server(|server| server.allow_origin(PAGE).stream_limit(1)).await;
    let begun = post(&server.url, initialize(VERSION).to_string()).header("origin", PAGE).send().await.unwrap();
    assert_eq!(begun.status(), 200);
    let session = begun.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    let exposed = all(begun.headers(), "access-control-expose-headers")[0].to_lowercase();
    assert!(exposed.split(", ").any(|name| name == "mcp-session-id"), "{exposed}");
    let mut answers = vec![("initialize", begun, 200)];
    let unknown = post(&server.url, json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string());
    let unknown = unknown.header("origin", PAGE).header("mcp-session-id", "0").send().await.unwrap();
    answers.push(("unknown session", unknown, 404));
    let get = async |session: &str| {
        let request = reqwest::Client::new().get(&server.url).header("accept", "text/event-stream");
        request.header("mcp-session-id", session).header("origin", PAGE).send().await.unwrap()
    };
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let initialized = post(&server.url, initialized.to_string()).header("mcp-session-id", &session);
    answers.push(("initialized", initialized.header("origin", PAGE).send().await.unwrap(), 202));
    let stream = get(&session).await;
    answers.push(("stream", stream, 200));
    answers.push(("one stream too many", get(&session).await, 503));
    let retry_after = &answers.last().unwrap().1.headers()["retry-after"];
    assert_eq!(retry_after, "5");
    for (what, answer, status) in answers {
        assert_eq!(answer.status(), status, "{what}");
        assert_eq!(all(answer.headers(), "access-control-allow-origin"), [PAGE], "{what}");
        assert!(all(answer.headers(), "vary").contains(&"Origin"), "{what}: {:?}", answer.headers());
    }
}

#[actix_web::test]
async fn no_other_answer_has_the_headers() {
    let closed = server(|server| server).await;
    let any = server(Builder::allow_any_origin).await;
    let named = server(|server| server.allow_origin(PAGE)).await;
    let own = named.url.trim_end_matches("/mcp").to_owned();
    let send = async |url: &str, origin: Option<&str>| {
        let request = post(url, initialize(VERSION).to_string());
        let request = origin.into_iter().fold(request, |request, origin| request.header("origin", origin));
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.headers().clone())
    };
    for (what, server, origin, status, varies) in [
        ("by default", &closed, None, 200, false),
        ("by default, a page", &closed, Some(PAGE), 403, false),
        ("any origin: the proxy in front sends them", &any, Some(PAGE), 200, false),
        ("no page", &named, None, 200, true),
        ("a page of this server", &named, Some(own.as_str()), 200, true),
        ("a foreign page", &named, Some("https://evil.example"), 403, true),
    ] {
        let (answered, headers) = send(&server.url, origin).await;
        assert_eq!(answered, status, "{what}");
        assert!(!has_cors(&headers), "{what}: {headers:?}");
        // Caches must not give one origin what another got.
        assert_eq!(headers.contains_key("vary"), varies, "{what}");
    }
    assert!(!has_cors(preflight(&closed.url, &[("origin", PAGE)]).await.headers()));
}
