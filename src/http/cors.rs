//! CORS: the headers by which browsers let pages of other origins use a server.
//!
//! *Which origins.* Those that [`allow_origin`](super::McpServer::allow_origin) names, as `origin` decides: one list
//! says who is served, and who may read the answers. Without a named origin this step does nothing. Where every origin
//! is served, a proxy in front checks them, and sends these headers too.
//!
//! *Preflights* are the requests by which a browser asks for permission. They have no session and no token, so they are
//! answered before authentication (`a_preflight_is_answered_before_authentication`). Their host is checked.
//!
//! *All responses* to a named origin get the headers, also refusals: a page must be able to read 401, 404 and 503
//! (`a_page_of_a_named_origin_can_read_every_answer`). Therefore this step is the outermost.
//!
//! *Why not actix-cors.* That middleware compares origins as text, and would be a second list beside the one of the
//! Origin check. It also refuses a preflight that names a header which is not in its list, but newer clients add
//! headers that begin with `Mcp-`.

use std::sync::Arc;

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, VARY,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse};

use super::layer::{Layer, refuse};

/// Request headers that a page may send, besides those that begin with [`MCP`].
const HEADERS: &str = "Accept, Authorization, Content-Type, Last-Event-ID, Mcp-Session-Id, MCP-Protocol-Version, \
                       traceparent, tracestate, baggage";

/// Beginning of the names of MCP's own headers, in lower case. Newer versions of MCP add some that depend on the request.
const MCP: &str = "mcp-";

/// Methods of MCP's Streamable HTTP.
const METHODS: &str = "GET, POST, DELETE";

/// Response headers that a page may read.
const EXPOSED: &str = "Mcp-Session-Id, MCP-Protocol-Version, WWW-Authenticate, Retry-After";

/// Time for which a browser may remember the answer to a preflight, in seconds. Chrome allows no more.
const MAX_AGE: &str = "7200";

/// Request headers on which the answer to a preflight depends.
const PREFLIGHT_VARIES: &str = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

/// Serves one request. Adds the headers for a named origin, and answers its preflights.
pub(super) async fn serve(
    layer: Arc<Layer>,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if !layer.access.names_origins() {
        return next.call(request).await;
    }
    let origin = layer.access.named_origin(request.headers()).cloned();
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if !is_preflight {
        next.call(request).await?
    } else if let Err(refusal) = layer.access.check(request.uri(), request.headers()) {
        refuse(request, refusal)
    } else {
        let permitted = permitted_headers(request.headers());
        let mut response = request.into_response(HttpResponse::NoContent());
        response.headers_mut().insert(VARY, HeaderValue::from_static(PREFLIGHT_VARIES));
        if origin.is_some() {
            let headers = response.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, permitted);
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
        }
        response
    };
    let headers = response.headers_mut();
    if !is_preflight {
        // Also for requests without an origin: their answers must not be reused for those with one.
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    Ok(response)
}

/// Returns the request headers that are permitted, as the answer to a preflight lists them.
fn permitted_headers(headers: &HeaderMap) -> HeaderValue {
    let mut permitted = HEADERS.to_owned();
    let named = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).filter_map(|value| value.to_str().ok());
    for name in named.flat_map(|names| names.split(',')).map(str::trim) {
        let name = name.to_ascii_lowercase();
        if name.starts_with(MCP) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            permitted.push_str(", ");
            permitted.push_str(&name);
        }
    }
    // The text consists of name characters, commas and spaces, so the conversion cannot fail.
    HeaderValue::try_from(permitted).unwrap_or_else(|_| HeaderValue::from_static(HEADERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_mcp_are_permitted_and_no_others() {
        let permitted = |asked: &[&str]| {
            let mut headers = HeaderMap::new();
            for names in asked {
                headers.append(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_str(names).unwrap());
            }
            permitted_headers(&headers).to_str().unwrap().to_owned()
        };
        assert_eq!(permitted(&[]), HEADERS);
        assert_eq!(permitted(&["x-api-key, cookie,mcp", "authorization"]), HEADERS);
        assert_eq!(
            permitted(&["content-type, Mcp-Method", "mcp-param-a"]),
            format!("{HEADERS}, mcp-method, mcp-param-a")
        );
        assert_eq!(permitted(&["mcp-a b, mcp-;x, mcp-é, ,"]), HEADERS);
    }
}
