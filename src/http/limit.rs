//! [`StreamLimit`]: bound on the streams that a server holds open.
//!
//! *Why a limit of its own*. Each stream holds a descriptor for as long as its client likes. A process without free
//! descriptors accepts no further connection. Answers to pings may then not arrive, and their streams would be cut. The
//! place of a stream is held by its response body, so it is released however the stream ends
//! (`a_stream_beyond_the_limit_is_refused_until_another_ends`, `a_request_that_opens_no_stream_takes_no_place`).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::RETRY_AFTER;
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use actix_web::{Error, HttpResponse};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics;

/// Time after which a refused client may try again, in seconds.
pub(super) const RETRY: &str = "5";

/// File in which Linux shows the limits of the process.
const LIMITS: &str = "/proc/self/limits";

/// Bound on the streams of a server, over all the `App`s that mount it.
#[derive(Debug)]
pub(super) struct StreamLimit {
    limit: usize,
    /// Permits: one for each stream that may still open.
    free: Arc<Semaphore>,
    /// Number of streams that were refused.
    refused: AtomicU64,
}

impl StreamLimit {
    /// Makes a bound: the configured number, or else one that suits the number of sessions and the descriptors of this
    /// process.
    pub(super) fn new(set: Option<usize>, session_limit: usize) -> Self {
        // A quarter of the descriptors is kept for requests and for the queue.
        let possible = descriptors().map(|descriptors| descriptors / 4 * 3);
        // A quarter more than sessions: a returning client opens its next stream before the server sees the end of the
        // last.
        let suitable = session_limit.saturating_add(session_limit / 4);
        let limit = set.unwrap_or_else(|| possible.map_or(suitable, |possible| suitable.min(possible)));
        if let Some(possible) = possible
            && limit > possible
        {
            tracing::warn!(
                limit,
                possible,
                "stream_limit needs more descriptors than the process may open (ulimit -n); connections beyond them will wait"
            );
        }
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self { limit, free: Arc::new(Semaphore::new(limit)), refused: AtomicU64::new(0) }
    }

    /// Serves one request. Refuses a GET, which would open a stream, where too many streams are open.
    pub(super) async fn serve(
        self: Arc<Self>,
        request: ServiceRequest,
        next: Next<BoxBody>,
    ) -> Result<ServiceResponse<BoxBody>, Error> {
        if request.method() != Method::GET {
            return next.call(request).await;
        }
        let Ok(place) = Arc::clone(&self.free).try_acquire_owned() else { return Ok(self.refuse(request)) };
        let response = next.call(request).await?;
        if response.status() != StatusCode::OK {
            return Ok(response);
        }
        Ok(response.map_body(|_, body| StreamBody { body, _place: place }.boxed()))
    }

    fn refuse(&self, request: ServiceRequest) -> ServiceResponse<BoxBody> {
        let (limit, so_far) = (self.limit, self.refused.fetch_add(1, Ordering::Relaxed) + 1);
        metrics::STREAMS_REFUSED.count(1);
        if so_far.is_power_of_two() {
            tracing::warn!(limit, so_far, "stream_limit is reached; a client's stream is refused");
        }
        let text = format!("Service Unavailable: this server has {limit} open streams, which is its stream_limit");
        request.into_response(HttpResponse::ServiceUnavailable().insert_header((RETRY_AFTER, RETRY)).body(text))
    }
}

/// Body of a stream, which holds its place among the open ones.
struct StreamBody {
    body: BoxBody,
    /// Permit of the stream, released when the body is dropped.
    _place: OwnedSemaphorePermit,
}

impl MessageBody for StreamBody {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

/// Returns the number of descriptors that this process may open, where Linux shows the number.
fn descriptors() -> Option<usize> {
    let limits = std::fs::read_to_string(LIMITS).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_set_holds_and_the_default_leaves_descriptors_free() {
        assert_eq!(StreamLimit::new(Some(3), 10).limit, 3);
        assert_eq!(StreamLimit::new(None, 8).limit, 10);
        let most = StreamLimit::new(None, usize::MAX).limit;
        assert!(descriptors().is_none_or(|descriptors| most < descriptors), "{most}");
    }
}
