//! Checks of the `Host` and `Origin` headers, against DNS rebinding and foreign web pages.
//!
//! *Host*. A page of a foreign name can be made to resolve to this server's address (DNS rebinding). Its browser then
//! sends requests here, and names the foreign host. So a server serves only the hosts that it knows
//! (`only_allowed_hosts_are_served`).
//!
//! *Origin*. Requests of web pages name the page's origin; requests of other clients have none. Pages of this server on
//! loopback are allowed, unless the browser says that the page is another's
//! (`a_page_is_of_this_server_only_where_its_browser_does_not_deny_it`).
//!
//! Two `Host` headers are refused: a proxy and this server could believe different ones (`two_hosts_are_none`).

use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::http::StatusCode;
use actix_web::http::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use actix_web::http::uri::{Authority, Uri};

/// Relation between the requesting page and the server, as the browser states it. No page can set or change this
/// header.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Number of characters of a refused header that are logged.
const SHOWN: usize = 100;

/// Host, and its port where one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// Name or address in lower case, without brackets.
    name: String,
    port: Option<u16>,
}

impl Host {
    /// Reads `name`, `name:port`, `address` or `[address]:port`; `None` for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        // IPv6 addresses are often written without their brackets.
        if let Ok(address) = text.parse::<std::net::Ipv6Addr>() {
            return Some(Self { name: address.to_string(), port: None });
        }
        let authority: Authority = text.parse().ok()?;
        let name = authority.host();
        let port = text.strip_prefix(name)?;
        let port = match port.strip_prefix(':') {
            Some(digits) => Some(digits.parse().ok()?),
            None if port.is_empty() => None,
            None => return None,
        };
        let name = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
            None => name.to_ascii_lowercase(),
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
        (!name.is_empty() && name.chars().all(is_plain)).then_some(Self { name, port })
    }

    fn is_loopback(&self) -> bool {
        matches!(self.name.as_str(), "localhost" | "127.0.0.1" | "::1")
    }
}

/// Web origin: scheme, host and port. Without a port it has the default port of its scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: String,
    host: Host,
}

impl Origin {
    /// Reads `scheme://host` or `scheme://host:port`; `None` for anything else, above all for `null`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, host) = text.split_once("://")?;
        let is_scheme = scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        let host = Host::parse(host).filter(|_| is_scheme && !scheme.is_empty())?;
        let scheme = scheme.to_ascii_lowercase();
        Some(Self { host: with_default_port(&scheme, host), scheme })
    }
}

fn with_default_port(scheme: &str, host: Host) -> Host {
    let default = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    Host { port: host.port.or(default), ..host }
}

/// Allowed hosts and origins.
#[derive(Debug)]
pub(super) struct Access {
    /// `None` allows every host.
    pub(super) hosts: Option<Vec<Host>>,
    /// `None` allows every origin.
    pub(super) origins: Option<Vec<Origin>>,
    /// Numbers of requests that were refused for their host, and for their origin.
    refused: [AtomicU64; 2],
}

impl Default for Access {
    fn default() -> Self {
        let loopback = ["localhost", "127.0.0.1", "::1"].map(|name| Host { name: name.to_owned(), port: None });
        Self { hosts: Some(loopback.into()), origins: Some(Vec::new()), refused: Default::default() }
    }
}

/// Status and text of a response that refuses a request.
pub(super) type Refusal = (StatusCode, &'static str);

impl Access {
    /// Checks the headers of a request.
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = self.check_host(uri, headers)?;
        self.check_origin(host.as_ref(), headers)
    }

    /// Returns whether origins are named, so that browsers need CORS headers.
    pub(super) fn names_origins(&self) -> bool {
        self.origins.as_ref().is_some_and(|origins| !origins.is_empty())
    }

    /// Returns the `Origin` of a request, where it is one that is named. A request with two `Origin` headers has none.
    pub(super) fn named_origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let mut origins = headers.get_all(ORIGIN);
        let (Some(header), None) = (origins.next(), origins.next()) else { return None };
        let origin = Origin::parse(header.to_str().ok()?)?;
        self.origins.as_ref()?.contains(&origin).then_some(header)
    }

    /// Returns the host that the request names; `None` only where hosts are not checked.
    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<Option<Host>, Refusal> {
        let mut named = headers.get_all(HOST);
        let named = match (named.next(), named.next()) {
            (Some(host), None) => host.to_str().ok(),
            (None, _) => uri.authority().map(Authority::as_str),
            (Some(_), Some(_)) => None,
        };
        let host = named.and_then(Host::parse);
        let Some(allowed) = &self.hosts else { return Ok(host) };
        let Some(host) = host else {
            return Err((StatusCode::BAD_REQUEST, "Bad Request: exactly one valid Host header is needed"));
        };
        let is_allowed =
            |allowed: &Host| allowed.name == host.name && (allowed.port.is_none() || allowed.port == host.port);
        if allowed.iter().any(is_allowed) {
            return Ok(Some(host));
        }
        if let Some(so_far) = count(&self.refused[0]) {
            let (host, port) = (shown(&host.name), host.port);
            tracing::warn!(
                so_far,
                host,
                port,
                "a request names a Host that is not allowed; the request is refused with 403"
            );
        }
        Err((StatusCode::FORBIDDEN, "Forbidden: the Host header is not allowed by this server's allow_host"))
    }

    /// Checks each `Origin` header. Allowed are configured origins, and pages that this server itself serves on
    /// loopback.
    fn check_origin(&self, host: Option<&Host>, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(allowed) = &self.origins else { return Ok(()) };
        // The names alone do not prove that. nginx names its upstream, as in `Host: 127.0.0.1:8080`, which on a
        // visitor's machine is another server. Browsers since 2023 send `Sec-Fetch-Site`, which decides. Requests
        // without this header are believed, as MCP's conformance suite demands.
        let is_own = headers.get_all(SEC_FETCH_SITE).all(|site| site == "same-origin");
        let is_allowed = |origin: Origin| {
            // Origin of a page that this very server serves on this machine. Pages of other ports are foreign.
            let own = host.filter(|host| is_own && host.is_loopback()).cloned();
            let own = own.map(|host| with_default_port(&origin.scheme, host));
            let is_of_web = matches!(origin.scheme.as_str(), "http" | "https");
            allowed.contains(&origin) || (is_of_web && own.as_ref() == Some(&origin.host))
        };
        for header in headers.get_all(ORIGIN) {
            if !header.to_str().ok().and_then(Origin::parse).is_some_and(&is_allowed) {
                if let Some(so_far) = count(&self.refused[1]) {
                    let origin = shown(&String::from_utf8_lossy(header.as_bytes()));
                    tracing::warn!(
                        so_far,
                        ?origin,
                        "a request comes from an Origin that is not allowed; the request is refused with 403"
                    );
                }
                let why = "Forbidden: the Origin header is not allowed by this server's allow_origin";
                return Err((StatusCode::FORBIDDEN, why));
            }
        }
        Ok(())
    }
}

/// Counts one more request. Returns the number where it must be logged: the first, and each doubling.
fn count(refused: &AtomicU64) -> Option<u64> {
    let so_far = refused.fetch_add(1, Ordering::Relaxed) + 1;
    so_far.is_power_of_two().then_some(so_far)
}

/// Shortens a header value for the log.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status(access: &Access, host: &str, origin: Option<&str>) -> u16 {
        status_of_site(access, host, origin, Some("same-origin"))
    }

    fn status_of_site(access: &Access, host: &str, origin: Option<&str>, site: Option<&str>) -> u16 {
        let mut headers = HeaderMap::new();
        if let Some(site) = site {
            headers.insert(SEC_FETCH_SITE, HeaderValue::from_str(site).unwrap());
        }
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        access.check(&Uri::from_static("/mcp"), &headers).map_or_else(|(status, _)| status.as_u16(), |()| 200)
    }

    #[test]
    fn by_default_loopback_hosts_are_served_and_no_foreign_origin() {
        let access = Access::default();
        for (host, origin, wanted) in [
            ("localhost", None, 200),
            ("LOCALHOST:8080", None, 200),
            ("127.0.0.1:1", None, 200),
            ("[::1]:8080", None, 200),
            ("chat.example.com", None, 403),
            ("localhost.evil.example", None, 403),
            ("127.0.0.2", None, 403),
            ("user@localhost", None, 400),
            ("", None, 400),
            ("localhost:", None, 400),
            ("localhost:99999", None, 400),
            ("localhost", Some("null"), 403),
            ("localhost", Some(""), 403),
            ("localhost", Some("http://evil.example"), 403),
            ("localhost:8080", Some("http://localhost:8080"), 200),
            ("localhost:8080", Some("http://localhost:9090"), 403),
            ("localhost:8080", Some("http://127.0.0.1:8080"), 403),
            ("localhost", Some("http://localhost:80"), 200),
            ("localhost:443", Some("https://localhost"), 200),
            ("localhost:8080", Some("evil://localhost:8080"), 403),
            ("localhost:8080", Some("httpx://localhost:8080"), 403),
            ("localhost:8080", Some("HTTP://localhost:8080"), 200),
            ("[::1]:8080", Some("http://[::1]:8080"), 200),
            ("evil.example", Some("http://evil.example"), 403),
        ] {
            assert_eq!(status(&access, host, origin), wanted, "{host} {origin:?}");
        }
    }

    #[test]
    fn allowed_hosts_and_origins_are_served() {
        let parsed = |text: &str| Host::parse(text).unwrap();
        let access = Access {
            hosts: Some(vec![parsed("Chat.example.com"), parsed("backend:81")]),
            origins: Some(vec![Origin::parse("https://Chat.example.com").unwrap()]),
            ..Access::default()
        };
        for (host, origin, wanted) in [
            ("chat.example.com", None, 200),
            ("chat.example.com:8443", None, 200),
            ("backend:81", None, 200),
            ("backend", None, 403),
            ("localhost", None, 403),
            ("backend:81", Some("https://chat.example.com"), 200),
            ("backend:81", Some("https://chat.example.com:443"), 200),
            ("backend:81", Some("http://chat.example.com"), 403),
            ("backend:81", Some("https://chat.example.com:8443"), 403),
            ("backend:81", Some("https://chat.example.com.evil.example"), 403),
            // This is no loopback host: a page of the same name may have come over another scheme.
            ("chat.example.com", Some("http://chat.example.com"), 403),
        ] {
            assert_eq!(status(&access, host, origin), wanted, "{host} {origin:?}");
        }
        // Whoever may read the answers is served.
        let is_named = |origins: &[&'static str]| {
            let mut headers = HeaderMap::new();
            origins.iter().for_each(|origin| headers.append(ORIGIN, HeaderValue::from_static(origin)));
            access.named_origin(&headers).is_some()
        };
        assert!(is_named(&["https://chat.example.com"]) && is_named(&["https://CHAT.example.com:443"]));
        for others in [&["http://chat.example.com"][..], &["null"], &[], &["https://chat.example.com"; 2]] {
            assert!(!is_named(others), "{others:?}");
        }
        let any = Access { hosts: None, origins: None, ..Access::default() };
        assert!(access.names_origins() && !any.names_origins() && !Access::default().names_origins());
        assert_eq!(status(&any, "a.example", Some("null")), 200);
    }

    #[test]
    fn a_page_is_of_this_server_only_where_its_browser_does_not_deny_it() {
        let any_host = || Access { hosts: None, ..Access::default() };
        for (access, what) in [(Access::default(), "by default"), (any_host(), "any host")] {
            let status = |site| status_of_site(&access, "127.0.0.1:8080", Some("http://127.0.0.1:8080"), site);
            for site in [None, Some("same-origin")] {
                assert_eq!(status(site), 200, "{what}: {site:?}");
            }
            for site in ["cross-site", "same-site", "none", ""] {
                assert_eq!(status(Some(site)), 403, "{what}: {site}");
            }
        }
        assert_eq!(status(&any_host(), "a.example", Some("http://a.example")), 403);
        assert_eq!(status(&any_host(), "", None), 200);
    }

    #[test]
    fn two_hosts_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("localhost"));
        headers.append(HOST, HeaderValue::from_static("evil.example"));
        assert!(Access::default().check(&Uri::from_static("/"), &headers).is_err());
        assert!(Access::default().check(&Uri::from_static("/"), &HeaderMap::new()).is_err());
    }

    proptest! {
        #[test]
        fn headers_of_any_kind_are_survived(host in "\\PC{0,30}", origin in "\\PC{0,30}") {
            let mut headers = HeaderMap::new();
            if let (Ok(host), Ok(origin)) = (HeaderValue::from_str(&host), HeaderValue::from_str(&origin)) {
                headers.insert(HOST, host);
                headers.insert(ORIGIN, origin);
            }
            prop_assert!(Access::default().check(&Uri::from_static("/"), &headers).is_err());
        }
    }
}
