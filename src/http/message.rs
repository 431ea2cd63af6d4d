//! Parts of a request body that the layer must know: its protocol version, and the id of an answer.
//!
//! The body of an answer that cannot be read may be broken JSON, or may be cut because it is too large. The id of its
//! question is therefore searched in the text: workers must learn of the refusal
//! (`the_id_of_an_unreadable_answer_is_found`).

use std::borrow::Cow;

use serde::Deserialize;

/// First protocol version without sessions. The server refuses it, because notifications are addressed to sessions.
pub(super) const FIRST_WITHOUT_SESSIONS: &str = "2026-07-28";

/// Version that MCP assumes where a request names none.
pub(super) const ASSUMED: &str = "2025-03-26";

/// Parts of a JSON-RPC message that decide its kind. Borrowed, as bodies may be large and nothing else is read.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<Params<'a>>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, rename = "_meta")]
    meta: Option<Meta<'a>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<Cow<'a, str>>,
}

/// Kinds of request bodies that the layer treats differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `initialize`, which negotiates its version, whichever version the client prefers.
    Initialize,
    /// Message of a protocol version without sessions.
    WithoutSession,
    /// Answer of the client.
    Answer,
    /// Any other body, also one that is no JSON.
    Other,
}

/// Returns the kind of a body.
pub(super) fn kind(body: &[u8]) -> Kind {
    let Ok(Envelope { method, params }) = serde_json::from_slice(body) else { return Kind::Other };
    let version = params.and_then(|params| params.meta).and_then(|meta| meta.version);
    match method.as_deref() {
        Some("initialize") => Kind::Initialize,
        Some("server/discover") => Kind::WithoutSession,
        _ if version.is_some_and(|version| is_without_sessions(&version)) => Kind::WithoutSession,
        None => Kind::Answer,
        _ => Kind::Other,
    }
}

/// Returns whether a protocol version is 2026-07-28 or newer. Versions are dates, and compare as text.
pub(super) fn is_without_sessions(version: &str) -> bool {
    let is_date = version.len() == 10 && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    is_date && version >= FIRST_WITHOUT_SESSIONS
}

/// Returns the JSON-RPC id of an answer, if the id is a text.
pub(super) fn id_of(body: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    serde_json::from_slice(body).ok().map(|Answer { id }| id)
}

/// Finds the JSON-RPC id of an answer that cannot be parsed: the first `"id"` whose value begins with `prefix`.
pub(super) fn id_of_unreadable<'a>(body: &'a [u8], prefix: &str) -> Option<&'a str> {
    let key = b"\"id\"";
    let mut rest = body;
    while let Some(at) = rest.windows(key.len()).position(|window| window == key) {
        rest = &rest[at + key.len()..];
        let value = rest.trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start);
        let Some(text) = value.and_then(|value| value.strip_prefix(b"\"")) else { continue };
        let end = text.iter().position(|byte| *byte == b'"')?;
        match std::str::from_utf8(&text[..end]) {
            Ok(id) if id.starts_with(prefix) => return Some(id),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        let version = r#""io.modelcontextprotocol/protocolVersion""#;
        for (body, wanted) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2026-07-28"}}"#
                    .to_owned(),
                Kind::Initialize,
            ),
            (r#"{"jsonrpc":"2.0","id":1,"method":"server/discover"}"#.to_owned(), Kind::WithoutSession),
            (r#"{"method":"server\/discover","params":{}}"#.to_owned(), Kind::WithoutSession),
            (
                format!(r#"{{"method":"tools/list","params":{{"_meta":{{{version}:"2026-07-28"}}}}}}"#),
                Kind::WithoutSession,
            ),
            (
                format!(r#"{{"params":{{"_meta":{{"x":[1],{version}:"2027-01-01"}},"y":{{}}}},"method":"x"}}"#),
                Kind::WithoutSession,
            ),
            (format!(r#"{{"method":"tools/list","params":{{"_meta":{{{version}:"2025-11-25"}}}}}}"#), Kind::Other),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"method":"server/discover"}}"#.to_owned(), Kind::Answer),
            (r#"{"method":"x","params":[1]}"#.to_owned(), Kind::Other),
            ("[]".to_owned(), Kind::Other),
            (String::new(), Kind::Other),
        ] {
            assert_eq!(kind(body.as_bytes()), wanted, "{body}");
        }
    }

    #[test]
    fn versions_without_sessions_are_dates() {
        for (version, wanted) in [
            ("2026-07-28", true),
            ("2027-01-01", true),
            ("2025-11-25", false),
            ("2024-11-05", false),
            ("draft", false),
            ("", false),
            ("2026-07-28x", false),
        ] {
            assert_eq!(is_without_sessions(version), wanted, "{version}");
        }
    }

    #[test]
    fn the_id_of_an_unreadable_answer_is_found() {
        for (body, wanted) in [
            (r#"{"jsonrpc":"2.0","id":"q:1","result":{"#, Some("q:1")),
            (r#"{"result": oops, "id" : "q:2"}"#, Some("q:2")),
            (r#"{"result":{"id":"other"},"id":"q:3"}"#, Some("q:3")),
            (r#"[{"id":"q:4"}]"#, Some("q:4")),
            (r#"{"id":"q:5"#, None),
            (r#"{"id":7,"result":"q:6"}"#, None),
            (r#"{"id""#, None),
            ("", None),
        ] {
            assert_eq!(id_of_unreadable(body.as_bytes(), "q:"), wanted, "{body}");
        }
    }
}
