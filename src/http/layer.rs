//! [`Layer`]: all requests and responses between actix and rmcp's handler pass through it.
//!
//! The layer checks the host and the origin, and authenticates. It answers early closes and answers to pings itself,
//! repairs request bodies, and rewrites responses. Where an answer to a question cannot be read, the layer cancels that
//! question, so its worker need not wait.
//!
//! # What the layer does past rmcp, and why
//! - *Early closes and answers to pings* need no session of rmcp, and come by the thousand after a server has died.
//! - *Standalone streams* are written here, from the bytes of the session. rmcp's event type would lose digits of
//!   numbers, and its events have no name.
//! - *Versions without sessions* (2026-07-28) get a plain 400. A JSON-RPC error would make clients believe that the
//!   server knows their version; after a plain 400 all of them fall back to `initialize`
//!   (`requests_of_versions_without_sessions_get_a_plain_400`).
//! - *Lone surrogates* in bodies are replaced: rmcp would refuse the whole answer of a user who typed half an emoji
//!   (`half_a_surrogate_pair_in_an_answer_becomes_a_replacement_character`).
//! - *A refused answer* cancels its question, also where its body was too large to read. The worker would otherwise
//!   wait until its timeout (`an_answer_that_cannot_be_read_cancels_its_question_at_once`).
//! - *DELETE* is answered with 204, as Python's clients warn of 202.
//! - *Streams have no chunked encoding* for newer clients: a killed server then looks like a clean end, and clients
//!   return (`a_stream_ends_with_its_connection_but_for_clients_older_than_2025_11_25`).

use std::sync::Arc;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use actix_web::http::{ConnectionType, Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::{Bytes, BytesMut};
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse};
use futures_util::future::{BoxFuture, LocalBoxFuture};
use futures_util::{StreamExt, stream};

use super::body::{RewrittenBody, StreamBody};
use super::limit::RETRY;
use super::message::{self, Kind};
use super::origin::{Access, Refusal};
use super::surrogates;
use crate::principal::Principal;
use crate::session::rmcp::{Demand, EarlyCloseDecision, FIRST_WITH_PRIMING, acting_as, collect};

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Media type of streams.
const EVENT_STREAM: &str = "text/event-stream";

/// Text that makes clients of newer versions begin with `initialize`. A JSON-RPC error would tell them that this server
/// knows their version, above all -32022 with a list of versions.
const FALL_BACK: &str = "Bad Request: this server speaks MCP 2025-11-25 and older; begin with initialize";

/// Multiple of the allowed body size up to which a body that is too large is read. An answer's id may stand near its
/// end.
const READ_ON: usize = 4;

/// Number of bytes at each end of such a body in which the id is searched.
const TAIL: usize = 1024;

/// Function that returns the user on whose behalf a request is served.
pub(super) type Authenticate =
    dyn for<'a> Fn(&'a HttpRequest) -> LocalBoxFuture<'a, Result<Option<Principal>, Error>> + Send + Sync;

/// Function that cancels the question to which an unreadable answer came. Arguments: session id, JSON-RPC id and
/// reason.
pub(super) type CancelQuestion = dyn Fn(String, String, String) -> BoxFuture<'static, ()> + Send + Sync;

/// Function that decides by a session id and a `Last-Event-ID` whether a stream is closed early.
pub(super) type EarlyClose = dyn Fn(&str, &str) -> EarlyCloseDecision + Send + Sync;

/// Function that takes the answer to a ping, by a session id and the JSON-RPC id. Returns whether the ping was one of
/// this process.
pub(super) type Pong = dyn Fn(&str, &str) -> bool + Send + Sync;

/// Settings of the layer.
pub(super) struct Layer {
    pub(super) access: Access,
    pub(super) authenticate: Option<Arc<Authenticate>>,
    /// Largest request body, in bytes.
    pub(super) max_body_bytes: usize,
    /// Prefix of the JSON-RPC ids of our questions.
    pub(super) question_prefix: &'static str,
    pub(super) cancel_question: Box<CancelQuestion>,
    pub(super) early_close: Box<EarlyClose>,
    pub(super) pong: Box<Pong>,
}

/// Result of reading a body.
enum Read {
    Whole(Bytes),
    /// Beginning and end of a body that is too large.
    TooLarge(BytesMut),
    Broken,
}

impl Layer {
    /// Serves one request.
    pub(super) async fn serve(
        self: Arc<Self>,
        request: ServiceRequest,
        next: Next<BoxBody>,
    ) -> Result<ServiceResponse<BoxBody>, Error> {
        if let Err(refusal) = self.access.check(request.uri(), request.headers()) {
            return Ok(refuse(request, refusal));
        }
        let Some(authenticate) = &self.authenticate else { return self.exchange(request, next).await };
        match authenticate(request.request()).await {
            Ok(principal) => acting_as(principal, self.exchange(request, next)).await,
            Err(error) => Ok(request.error_response(error)),
        }
    }

    /// Serves a request whose sender is known. The order matters: version, early close or body, answer to a ping, and
    /// last rmcp.
    async fn exchange(
        &self,
        mut request: ServiceRequest,
        next: Next<BoxBody>,
    ) -> Result<ServiceResponse<BoxBody>, Error> {
        let is_newer = header(request.headers(), &PROTOCOL_VERSION).is_some_and(message::is_without_sessions);
        if request.method() != Method::POST {
            if is_newer {
                return Ok(refuse(request, (StatusCode::BAD_REQUEST, FALL_BACK)));
            }
            let is_delete = request.method() == Method::DELETE;
            let is_for_courier = request.method() == Method::GET;
            let early =
                if is_for_courier { self.decide_early_close(request.headers()) } else { EarlyCloseDecision::Undecided };
            let is_decided = match early {
                EarlyCloseDecision::Close(events) => return Ok(request.into_response(closed_early(events))),
                EarlyCloseDecision::Serve => true,
                EarlyCloseDecision::Undecided => false,
            };
            let mut response = self.respond(request, next, Demand { is_for_courier, is_decided }).await?;
            // rmcp answers 202. Python's clients accept 200 and 204 only, and warn of anything else at each close.
            if is_delete && response.status() == StatusCode::ACCEPTED {
                *response.response_mut().status_mut() = StatusCode::NO_CONTENT;
            }
            return Ok(response);
        }
        let body = match self.read(request.take_payload()).await {
            Read::Whole(body) => body,
            Read::TooLarge(parts) => {
                let why = format!("the request body exceeds {} bytes", self.max_body_bytes);
                self.answer_refused(request.headers(), &parts, &why).await;
                return Ok(
                    request.into_response(HttpResponse::PayloadTooLarge().body(format!("Payload Too Large: {why}")))
                );
            }
            Read::Broken => {
                return Ok(refuse(request, (StatusCode::BAD_REQUEST, "Bad Request: the body is incomplete")));
            }
        };
        let kind = message::kind(&body);
        match kind {
            // `initialize` negotiates its version, so rmcp would refuse the header without need.
            Kind::Initialize if is_newer => drop(request.headers_mut().remove(PROTOCOL_VERSION)),
            Kind::Initialize => {}
            Kind::Answer | Kind::Other if !is_newer => {}
            _ => return Ok(refuse(request, (StatusCode::BAD_REQUEST, FALL_BACK))),
        }
        if kind == Kind::Answer && self.takes_pong(request.headers(), &body) {
            return Ok(request.into_response(HttpResponse::Accepted().finish()));
        }
        request.set_payload(Payload::from(body.clone()));
        let demand = Demand { is_for_courier: kind == Kind::Answer, is_decided: false };
        let response = self.respond(request, next, demand).await?;
        if !response.status().is_client_error() {
            return Ok(response);
        }
        let why = match serde_json::from_slice::<serde::de::IgnoredAny>(&body) {
            Err(error) => format!("the body is no JSON that can be read: {error}"),
            Ok(_) if response.status() == UNREADABLE => format!("the request was refused with status {UNREADABLE}"),
            // The answer itself can be read. Its user may still give it, at the right server.
            Ok(_) => return Ok(response),
        };
        if self.answer_refused(response.request().headers(), &body, &why).await && response.status() == UNREADABLE {
            let text = format!("Bad Request: the answer cannot be read, and its question is cancelled: {why}");
            let (request, _) = response.into_parts();
            return Ok(ServiceResponse::new(request, HttpResponse::BadRequest().body(text)));
        }
        Ok(response)
    }

    /// Reads a body, and repairs lone surrogates in it.
    async fn read(&self, mut payload: Payload) -> Read {
        let mut body = BytesMut::new();
        while let Some(chunk) = payload.next().await {
            let Ok(chunk) = chunk else { return Read::Broken };
            if chunk.len() > self.max_body_bytes - body.len() {
                body.extend_from_slice(&chunk);
                return self.read_on(payload, body).await;
            }
            body.extend_from_slice(&chunk);
        }
        surrogates::repair(&mut body);
        Read::Whole(body.freeze())
    }

    /// Reads a body that is too large to its end, within a bound, and keeps both ends of it.
    async fn read_on(&self, mut payload: Payload, mut body: BytesMut) -> Read {
        let (mut read, mut tail) = (body.len(), body.split_off(body.len() - body.len().min(TAIL)));
        body.truncate(TAIL);
        while read <= self.max_body_bytes.saturating_mul(READ_ON)
            && let Some(Ok(chunk)) = payload.next().await
        {
            read += chunk.len();
            tail.extend_from_slice(&chunk);
            tail = tail.split_off(tail.len() - tail.len().min(TAIL));
        }
        body.extend_from_slice(&tail);
        Read::TooLarge(body)
    }

    /// Cancels the question whose answer was refused, so that its worker learns of the refusal. Returns whether the
    /// body is such an answer.
    async fn answer_refused(&self, headers: &HeaderMap, body: &[u8], why: &str) -> bool {
        let session = header(headers, &SESSION_ID);
        let id = message::id_of_unreadable(body, self.question_prefix);
        let (Some(session), Some(id)) = (session, id) else { return false };
        (self.cancel_question)(session.to_owned(), id.to_owned(), format!("the client's answer was refused: {why}"))
            .await;
        true
    }

    /// Decides whether a stream is closed early, where the request contains everything needed for the decision.
    fn decide_early_close(&self, headers: &HeaderMap) -> EarlyCloseDecision {
        let accepts = header(headers, &ACCEPT).is_some_and(|types| types.contains(EVENT_STREAM));
        let version = header(headers, &PROTOCOL_VERSION);
        match (header(headers, &SESSION_ID), header(headers, &LAST_EVENT_ID)) {
            (Some(session), Some(last)) if accepts && version == Some(FIRST_WITH_PRIMING) => {
                (self.early_close)(session, last)
            }
            _ => EarlyCloseDecision::Undecided,
        }
    }

    /// Takes a body that is the answer to a ping of this process. Returns whether the body is one.
    fn takes_pong(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let session = header(headers, &SESSION_ID);
        session.zip(message::id_of(body)).is_some_and(|(session, id)| (self.pong)(session, &id))
    }

    /// Makes rmcp serve a request, and rewrites its response.
    async fn respond(
        &self,
        request: ServiceRequest,
        next: Next<BoxBody>,
        demand: Demand,
    ) -> Result<ServiceResponse<BoxBody>, Error> {
        let named = header(request.headers(), &PROTOCOL_VERSION).map(str::to_owned);
        let is_answer = request.method() == Method::POST;
        let (response, handoff) = collect(next.call(request), demand).await;
        let mut response = response?;
        if handoff.is_full && response.status() == StatusCode::INTERNAL_SERVER_ERROR {
            *response.response_mut().status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY));
        }
        let content_type =
            response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_stream = match content_type.split(';').next() {
            Some(EVENT_STREAM) => true,
            Some("application/json") => false,
            _ => return Ok(response),
        };
        let version = named.or_else(|| handoff.version.clone());
        let reads_priming = version.as_deref().unwrap_or(message::ASSUMED) >= FIRST_WITH_PRIMING;
        response.headers_mut().remove(CONTENT_LENGTH);
        if is_stream && handoff.standalone.is_some() && reads_priming {
            end_with_connection(&mut response);
        }
        Ok(response.map_body(|_, body| match handoff.standalone {
            Some(stream) if is_stream => StreamBody::new(stream, body, reads_priming).boxed(),
            _ if is_stream => RewrittenBody::events(body, reads_priming, is_answer).boxed(),
            _ => RewrittenBody::json(body).boxed(),
        }))
    }
}

/// Makes the response of a stream that is closed early. Its headers and chunks are those that rmcp would send.
fn closed_early(events: String) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_TYPE, EVENT_STREAM)).insert_header((CACHE_CONTROL, "no-cache"));
    let events = stream::once(async { Ok::<_, Error>(Bytes::from(events)) });
    response.insert_header(("x-accel-buffering", "no")).streaming(events)
}

/// Makes the end of a stream the end of its connection, without chunks. The stream of a killed process then ends
/// cleanly for its client, so Python's client may be refused once more before it gives up.
///
/// Clients of older versions come back only after a broken stream. Their streams have chunks, and therefore break.
fn end_with_connection(response: &mut ServiceResponse<BoxBody>) {
    let head = response.response_mut().head_mut();
    head.no_chunking(true);
    head.set_connection_type(ConnectionType::Close);
}

/// Status of rmcp's response to a body that is no JSON-RPC message.
const UNREADABLE: StatusCode = StatusCode::UNSUPPORTED_MEDIA_TYPE;

/// Makes the response that refuses a request.
pub(super) fn refuse(request: ServiceRequest, (status, text): Refusal) -> ServiceResponse<BoxBody> {
    request.into_response(HttpResponse::build(status).body(text))
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
