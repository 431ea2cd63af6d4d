//! Head of a request in the types of rmcp. rmcp uses another version of the crate `http` than actix.
//!
//! A restore runs in a service of its own, which has no request of the client. Handlers expect the head of a request in
//! the extensions of `initialize`. Therefore the head of the request that caused the restore is kept, without the
//! client's token (`a_handler_finds_its_session_the_marker_and_the_head_of_the_request`).

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::AUTHORIZATION;
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri};

use crate::session::rmcp;

/// Serves a request within which rmcp-actix-web calls [`offer`].
pub(super) async fn scope(request: ServiceRequest, next: Next<BoxBody>) -> Result<ServiceResponse<BoxBody>, Error> {
    rmcp::with_head(next.call(request)).await
}

/// Offers the head of a request for a session that is restored. Only here: actix may change a request until it has
/// found the handler, and needs the only reference to the request for that.
pub(super) fn offer(request: &HttpRequest) {
    let request = request.clone();
    rmcp::offer(move || convert(&request));
}

/// Converts a head as rmcp-actix-web does. Leaves out the header `Authorization`: MCP forbids passing a client's token
/// on.
fn convert(request: &HttpRequest) -> Option<Parts> {
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = Method::from_bytes(request.method().as_str().as_bytes()).ok()?;
    head.uri = Uri::try_from(request.uri().to_string()).ok()?;
    for (name, value) in request.headers().iter().filter(|(name, _)| *name != AUTHORIZATION) {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            head.headers.append(name, value);
        }
    }
    Some(head)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_head_keeps_all_but_the_token_of_its_client() {
        let request = TestRequest::post().uri("/mcp?a=%20b").insert_header(("x-tenant", "one"));
        let request = request.append_header(("x-tenant", "two")).insert_header(("authorization", "Bearer secret"));
        let head = convert(&request.to_http_request()).unwrap();
        assert_eq!((head.method, head.uri.to_string().as_str()), (Method::POST, "/mcp?a=%20b"));
        assert_eq!(head.headers.get_all("x-tenant").iter().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(head.headers.get("authorization"), None);
    }
}
