//! Response bodies on their way out: standalone streams, and rewritten responses of rmcp.
//!
//! *Framing*. rmcp's response of a standalone stream contains comments only, which keep the connection alive. They may
//! follow whole events and never stand within one. Therefore the events are polled first, and rmcp's body only where no
//! event is there (`messages_of_rmcp_and_of_the_courier_do_not_mix`).
//!
//! *Empty parts* are never sent: an empty chunk ends a chunked body, and the client would see the end of its stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::Error;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;

use super::events::{Framer, Priming};
use crate::session::rmcp::{Escaper, Part, Standalone, push_event};

/// Body of a standalone stream.
pub(super) struct StreamBody {
    stream: Standalone,
    /// Body of rmcp's response: the comments that keep the connection alive, and the end when the server shuts down.
    rmcp: BoxBody,
    /// Set where the client can read events without data. Clients of versions before 2025-11-25 report an error for
    /// each.
    reads_priming: bool,
}

impl StreamBody {
    pub(super) fn new(stream: Standalone, rmcp: BoxBody, reads_priming: bool) -> Self {
        Self { stream, rmcp, reads_priming }
    }

    /// Polls for the next events of the stream; `None` where the stream must end.
    fn poll_stream(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            let events = match ready!(self.stream.poll_next(context)) {
                None => return Poll::Ready(None),
                Some(Part::Frames(frames)) => frames,
                Some(Part::Event(event)) if event.message.is_none() && !self.reads_priming => continue,
                Some(Part::Event(event)) => {
                    let mut frame = String::new();
                    push_event(&mut frame, &event);
                    frame
                }
            };
            // An empty chunk would end a chunked body.
            if !events.is_empty() {
                return Poll::Ready(Some(Bytes::from(events)));
            }
        }
    }
}

impl MessageBody for StreamBody {
    type Error = Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let this = self.get_mut();
        match this.poll_stream(context) {
            Poll::Ready(events) => Poll::Ready(events.map(Ok)),
            // Only whole events went out so far, so a comment may follow.
            Poll::Pending => {
                let comment = Pin::new(&mut this.rmcp).poll_next(context);
                if matches!(comment, Poll::Ready(None)) {
                    this.stream.note_shutdown();
                }
                comment.map_err(internal)
            }
        }
    }
}

/// Response body that passes through the framer, or through the escaper alone.
pub(super) struct RewrittenBody {
    inner: BoxBody,
    /// `None` at the end of the body.
    rewriter: Option<Rewriter>,
}

/// Rewriter of a response body, by the body's type.
enum Rewriter {
    Events(Framer),
    Json(Escaper),
}

impl RewrittenBody {
    /// Makes a body of type `text/event-stream`. `is_answer` says that the stream is the answer to a request.
    pub(super) fn events(inner: BoxBody, reads_priming: bool, is_answer: bool) -> Self {
        let priming = if reads_priming { Priming::Pass } else { Priming::Drop };
        Self { inner, rewriter: Some(Rewriter::Events(Framer::new(priming, is_answer))) }
    }

    /// Makes a body of type `application/json`.
    pub(super) fn json(inner: BoxBody) -> Self {
        Self { inner, rewriter: Some(Rewriter::Json(Escaper::default())) }
    }
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
        loop {
            let Some(rewriter) = &mut this.rewriter else { return Poll::Ready(None) };
            let chunk = ready!(Pin::new(&mut this.inner).poll_next(context));
            let mut out = Vec::new();
            match chunk {
                Some(Ok(chunk)) => rewriter.push(&chunk, &mut out),
                Some(Err(error)) => {
                    this.rewriter = None;
                    return Poll::Ready(Some(Err(internal(error))));
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

fn internal(error: Box<dyn std::error::Error>) -> Error {
    actix_web::error::ErrorInternalServerError(error)
}
