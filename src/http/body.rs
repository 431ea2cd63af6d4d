//! Response bodies, rewritten on their way out.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::Error;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;

use super::escape::Escaper;
use super::events::{Framer, Priming};
use crate::session::rmcp::{Handoff, PrimingEvent};

/// A response body that passes through the framer, or through the escaper alone.
pub(super) struct RewrittenBody {
    inner: BoxBody,
    rewriter: Option<Rewriter>,
    /// Bytes that go out before all others.
    first: Option<Bytes>,
}

enum Rewriter {
    Events(Framer),
    Json(Escaper),
}

impl RewrittenBody {
    /// A body of type `text/event-stream`.
    pub(super) fn events(inner: BoxBody, handoff: Handoff, reads_priming: bool) -> Self {
        let (priming, first) = match handoff.priming {
            _ if !reads_priming => (Priming::Drop, None),
            Some(event) => (Priming::Replaced, Some(priming_event(&event))),
            None => (Priming::Pass, None),
        };
        Self { inner, rewriter: Some(Rewriter::Events(Framer::new(priming))), first }
    }

    /// A body of type `application/json`.
    pub(super) fn json(inner: BoxBody) -> Self {
        Self { inner, rewriter: Some(Rewriter::Json(Escaper::default())), first: None }
    }
}

fn priming_event(PrimingEvent { id, retry }: &PrimingEvent) -> Bytes {
    Bytes::from(format!("data: \nid: {id}\nretry: {}\n\n", retry.as_millis()))
}

impl Rewriter {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Events(framer) => framer.push(bytes, out),
            Self::Json(escaper) => escaper.push(bytes, out),
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Events(framer) => framer.finish(out),
            Self::Json(escaper) => escaper.finish(out),
        }
    }
}

impl MessageBody for RewrittenBody {
    type Error = Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        loop {
            let Some(rewriter) = &mut this.rewriter else { return Poll::Ready(None) };
            let chunk = ready!(Pin::new(&mut this.inner).poll_next(context));
            let mut out = Vec::new();
            match chunk {
                Some(Ok(chunk)) => rewriter.push(&chunk, &mut out),
                Some(Err(error)) => {
                    this.rewriter = None;
                    return Poll::Ready(Some(Err(actix_web::error::ErrorInternalServerError(error))));
                }
                None => {
                    rewriter.finish(&mut out);
                    this.rewriter = None;
                }
            }
            // An empty chunk would end a chunked body.
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Bytes::from(out))));
            }
        }
    }
}
