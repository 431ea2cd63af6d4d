//! Response bodies, rewritten on their way out.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::Error;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;

use super::escape::Escaper;
use super::events::{Framer, Priming, message_event};
use crate::session::rmcp::{Handoff, Messages, PrimingEvent};

/// A response body that passes through the framer, or through the escaper alone.
pub(super) struct RewrittenBody {
    inner: BoxBody,
    /// `None` at the end of the body.
    rewriter: Option<Rewriter>,
    /// Bytes that go out before all others.
    first: Option<Bytes>,
    /// Messages of the courier, which are merged with rmcp's.
    messages: Option<Messages>,
    /// Whose turn it is, so that neither starves the other.
    messages_first: bool,
}

enum Rewriter {
    Events(Framer),
    Json(Escaper),
}

impl RewrittenBody {
    /// A body of type `text/event-stream`.
    pub(super) fn events(inner: BoxBody, handoff: Handoff, reads_priming: bool) -> Self {
        let (event, messages) = handoff.standalone.unzip();
        let (priming, first) = match event {
            _ if !reads_priming => (Priming::Drop, None),
            Some(event) if event.replaces => (Priming::Replaced, Some(priming_event(&event))),
            Some(event) => (Priming::Pass, Some(priming_event(&event))),
            None => (Priming::Pass, None),
        };
        Self { inner, rewriter: Some(Rewriter::Events(Framer::new(priming))), first, messages, messages_first: true }
    }

    /// A body of type `application/json`.
    pub(super) fn json(inner: BoxBody) -> Self {
        let rewriter = Some(Rewriter::Json(Escaper::default()));
        Self { inner, rewriter, first: None, messages: None, messages_first: true }
    }

    /// Polls for the next message of the courier, as an event; `None` where the stream must end.
    fn poll_messages(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        match (&mut self.messages, &self.rewriter) {
            (Some(messages), Some(Rewriter::Events(framer))) if framer.is_between_events() => {
                let message = ready!(messages.poll_next(context));
                if message.is_none() {
                    self.rewriter = None;
                }
                Poll::Ready(message.map(|json| Ok(Bytes::from(message_event(&json)))))
            }
            _ => Poll::Pending,
        }
    }

    /// Polls for the next part of rmcp's body, rewritten.
    fn poll_inner(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            let Some(rewriter) = &mut self.rewriter else { return Poll::Ready(None) };
            let chunk = ready!(Pin::new(&mut self.inner).poll_next(context));
            let mut out = Vec::new();
            match chunk {
                Some(Ok(chunk)) => rewriter.push(&chunk, &mut out),
                Some(Err(error)) => {
                    self.rewriter = None;
                    return Poll::Ready(Some(Err(actix_web::error::ErrorInternalServerError(error))));
                }
                None => {
                    rewriter.finish(&mut out);
                    self.rewriter = None;
                }
            }
            // An empty chunk would end a chunked body.
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Bytes::from(out))));
            }
        }
    }
}

fn priming_event(PrimingEvent { id, retry, .. }: &PrimingEvent) -> Bytes {
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
        if this.rewriter.is_none() {
            return Poll::Ready(None);
        }
        this.messages_first = !this.messages_first;
        let first = if this.messages_first { this.poll_messages(context) } else { this.poll_inner(context) };
        // The end of either ends the body: the stream is cut, or rmcp's session is over.
        if first.is_ready() {
            return first;
        }
        if this.messages_first { this.poll_inner(context) } else { this.poll_messages(context) }
    }
}
