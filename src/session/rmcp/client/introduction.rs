//! Introduction of a client: its own description in `initialize`, as far as it is kept.
//!
//! *What it is for*. Another server restores the session from these params. The courier also learns from them which
//! events the client can read, and how it can be asked. A client may send any amount. Beyond the limit its icons,
//! description, website and `_meta` are left out first, then its experimental capabilities. An introduction that is too
//! large even then is refused (`what_exceeds_the_limit_is_left_out_and_the_rest_is_kept`).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, ElicitationCapability, InitializeRequestParams, PingRequest, RequestId,
    ServerJsonRpcMessage, ServerRequest, ServerResult,
};
use rmcp::transport::streamable_http_server::session::ServerSseMessage;
use rmcp::transport::streamable_http_server::session::store::SessionState;
use serde::Deserialize;

use super::ClientSession;
use super::pings::{self, nonce};
use crate::lock::lock;
use crate::session::rmcp::event_id::EventId;

/// First protocol version whose clients can read events without data.
pub(crate) const FIRST_WITH_PRIMING: &str = "2025-11-25";

/// Kept part of a client's introduction.
#[derive(Debug, Default)]
pub(super) struct Introduction {
    /// State from which another server restores the session; `None` before the client has introduced itself. Does not
    /// contain the negotiated version, which is stored beside the state.
    state: Option<String>,
    /// Set where the fleet remembers that state, as far as this process knows.
    is_stored: bool,
    /// Negotiated protocol version.
    version: Option<String>,
    modes: Modes,
    /// Head of the request for which the session was loaded. Kept until rmcp serves the session, for the handler made
    /// then.
    head: Option<Box<Parts>>,
}

/// Stored state of a session, as far as its streams need it.
#[derive(Deserialize)]
struct Stored<'a> {
    initialize_params: Introduced,
    /// Missing in the state that earlier versions stored.
    #[serde(borrow)]
    negotiated: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Introduced {
    capabilities: Declared,
}

#[derive(Deserialize)]
struct Declared {
    elicitation: Option<ElicitationCapability>,
}

/// Modes of elicitation that a client has declared.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Modes {
    pub(super) form: bool,
    pub(super) url: bool,
}

/// Error of an introduction that exceeds the limit, even without the parts that are left out first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the params of `initialize` have {bytes} bytes, and at most session_state_max_bytes ({limit}) are accepted")]
pub(in crate::session::rmcp) struct IntroductionTooLarge {
    bytes: usize,
    limit: usize,
}

impl ClientSession {
    /// Notes the client's introduction, which a restored session gave at another server. Leaves out of the message the
    /// parts that would exceed the limit. Otherwise rmcp would keep them too, for as long as the session lives.
    pub(in crate::session::rmcp) fn initialized(
        &self,
        message: &mut ClientJsonRpcMessage,
    ) -> Result<(), IntroductionTooLarge> {
        let ClientJsonRpcMessage::Request(request) = message else { return Ok(()) };
        let ClientRequest::InitializeRequest(initialize) = &mut request.request else { return Ok(()) };
        let (kept, is_whole) = within(&mut initialize.params, self.state_max_bytes)?;
        if !is_whole {
            tracing::warn!(session = ?self.session_id, limit = self.state_max_bytes,
                "the params of initialize exceed the limit; icons, descriptions and experimental capabilities are dropped");
        }
        let mut introduction = lock(&self.introduction);
        introduction.state = Some(kept);
        introduction.modes = Modes::of(initialize.params.capabilities.elicitation.as_ref());
        Ok(())
    }

    /// Notes the state of the client that another server stored, and whether it need not be stored anew.
    pub(in crate::session::rmcp) fn loaded(&self, stored: String, is_stored: bool) -> Result<(), serde_json::Error> {
        let Stored { initialize_params, negotiated } = serde_json::from_str(&stored)?;
        let mut introduction = lock(&self.introduction);
        introduction.modes = Modes::of(initialize_params.capabilities.elicitation.as_ref());
        introduction.version = negotiated.map(Cow::into_owned);
        (introduction.state, introduction.is_stored) = (Some(stored), is_stored);
        Ok(())
    }

    /// Returns the kept part of the introduction.
    pub(in crate::session::rmcp) fn state(&self) -> Option<String> {
        lock(&self.introduction).state.clone()
    }

    /// Returns the state that the fleet does not remember yet, with the negotiated version.
    pub(in crate::session::rmcp) fn state_to_store(&self) -> Option<String> {
        let introduction = lock(&self.introduction);
        let state = introduction.state.as_ref().filter(|_| !introduction.is_stored)?;
        let Some(version) = &introduction.version else { return Some(state.clone()) };
        let mut state: serde_json::Map<_, _> = serde_json::from_str(state).ok()?;
        state.insert("negotiated".to_owned(), version.as_str().into());
        serde_json::to_string(&state).ok()
    }

    /// Keeps the head of a request for the handler that rmcp makes later.
    pub(in crate::session::rmcp) fn set_head(&self, head: Option<Parts>) {
        lock(&self.introduction).head = head.map(Box::new);
    }

    /// Takes the kept head.
    pub(in crate::session::rmcp) fn take_head(&self) -> Option<Parts> {
        lock(&self.introduction).head.take().map(|head| *head)
    }

    /// Returns whether the client has introduced itself.
    pub(in crate::session::rmcp) fn is_initialized(&self) -> bool {
        lock(&self.introduction).state.is_some()
    }

    /// Returns the negotiated protocol version.
    pub(in crate::session::rmcp) fn version(&self) -> Option<String> {
        lock(&self.introduction).version.clone()
    }

    /// Returns whether the client can read events without data, as far as is known.
    pub(in crate::session::rmcp) fn reads_priming(&self) -> bool {
        lock(&self.introduction).version.as_deref().is_none_or(|version| version >= FIRST_WITH_PRIMING)
    }

    /// Makes the first event of a stream. The client takes from it an id, and the time until its next stream, and need
    /// not act.
    ///
    /// Clients of older versions report an error for an event without data, and get a ping instead. They need the id:
    /// TypeScript's oldest do not come back after a stream without one, and no client keeps the id of the stream
    /// before.
    pub(in crate::session::rmcp) fn priming(&self, id: &EventId<'_>, retry: Duration) -> ServerSseMessage {
        let mut event = ServerSseMessage::priming(id.to_string(), retry);
        if !self.reads_priming() {
            let id = RequestId::String(pings::id(self.process, nonce()).into());
            let ping = ServerRequest::PingRequest(PingRequest::default());
            event.message = Some(Arc::new(ServerJsonRpcMessage::request(ping, id)));
        }
        event
    }

    /// Notes the negotiated protocol version, which the answer to `initialize` contains.
    pub(in crate::session::rmcp) fn negotiated(&self, answer: &ServerJsonRpcMessage) {
        if let ServerJsonRpcMessage::Response(response) = answer
            && let ServerResult::InitializeResult(result) = &response.result
        {
            lock(&self.introduction).version = Some(result.protocol_version.to_string());
        }
    }

    /// Returns whether the fleet remembers the session, as far as this process knows.
    pub(in crate::session::rmcp) fn is_stored(&self) -> bool {
        lock(&self.introduction).is_stored
    }

    pub(in crate::session::rmcp) fn set_stored(&self, is_stored: bool) {
        lock(&self.introduction).is_stored = is_stored;
    }

    /// Returns the modes of elicitation that the client has declared.
    pub(super) fn modes(&self) -> Modes {
        lock(&self.introduction).modes
    }
}

impl Modes {
    fn of(capability: Option<&ElicitationCapability>) -> Self {
        let Some(capability) = capability else { return Self::default() };
        let url = capability.url.is_some();
        // MCP: a client that names no mode supports forms.
        Self { form: capability.form.is_some() || !url, url }
    }
}

/// Cuts the params to a number of bytes. Returns them in their stored form, and whether nothing was left out.
fn within(params: &mut InitializeRequestParams, limit: usize) -> Result<(String, bool), IntroductionTooLarge> {
    let stored = |params: &InitializeRequestParams| {
        serde_json::to_string(&SessionState::new(params.clone())).map_err(|_| IntroductionTooLarge { bytes: 0, limit })
    };
    let whole = stored(params)?;
    if whole.len() <= limit {
        return Ok((whole, true));
    }
    // Parts for the human eye are left out first: an icon may be a whole picture.
    let about = &mut params.client_info;
    (about.icons, about.description, about.website_url, params.meta) = (None, None, None, None);
    let mut kept = stored(params)?;
    if kept.len() > limit {
        params.capabilities.experimental = None;
        kept = stored(params)?;
    }
    match kept.len() {
        bytes if bytes > limit => Err(IntroductionTooLarge { bytes, limit }),
        _ => Ok((kept, false)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn params(client_info: Value, experimental: Value) -> InitializeRequestParams {
        serde_json::from_value(json!({"protocolVersion": "2025-11-25", "clientInfo": client_info,
            "capabilities": {"elicitation": {}, "experimental": experimental}}))
        .unwrap()
    }

    #[test]
    fn what_exceeds_the_limit_is_left_out_and_the_rest_is_kept() {
        let large = "x".repeat(2000);
        let mut fits = params(json!({"name": "c", "version": "1", "description": "d"}), json!({}));
        assert!(within(&mut fits, 1000).unwrap().1);
        assert!(fits.client_info.description.is_some());
        let mut icons = params(
            json!({"name": "c", "version": "1", "icons": [{"src": format!("data:,{large}")}]}),
            json!({"a": {}}),
        );
        let (kept, is_whole) = within(&mut icons, 1000).unwrap();
        assert!(!is_whole && kept.len() < 1000 && icons.client_info.icons.is_none());
        assert!(icons.capabilities.experimental.is_some() && icons.capabilities.elicitation.is_some());
        let mut experimental = params(json!({"name": "c", "version": "1"}), json!({"a": {"b": large.clone()}}));
        assert!(!within(&mut experimental, 1000).unwrap().1);
        assert!(experimental.capabilities.experimental.is_none() && experimental.capabilities.elicitation.is_some());
        let mut name = params(json!({"name": large, "version": "1"}), json!({}));
        let refused = within(&mut name, 1000).unwrap_err().to_string();
        assert!(refused.contains("session_state_max_bytes (1000)"), "{refused}");
    }
}
