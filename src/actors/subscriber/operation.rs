//! Operations on the queue, as futures. One operation runs for each idle subscriber, so each future holds no more than
//! it needs.
//!
//! *Who has the connection*. An operation takes it, and returns it only where it may be used further. A failed or
//! dropped operation keeps it, and thereby closes it: the state of the connection is unknown then. The next operation
//! without a connection fails at once, which the machine answers by opening another.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;

use tracing::Instrument;

use crate::actors::subscriber_context::{RetainedState, SubscriberContext};
use crate::backend::{Consumer, Queues};
use crate::failure::{QueueError, QueueErrorKind};
use crate::metrics;
use crate::spans;
use crate::subscription::{Event, Operation};

/// Future that runs for a subscriber, on the subscriber's arbiter.
pub(super) type Running<T> = Pin<Box<dyn Future<Output = T>>>;

/// Event that ends an operation, with the connection where the connection can be used further.
pub(super) type Answer = (Option<Box<dyn Consumer>>, Event);

/// Begins an operation. The operation gets the subscriber's connection, and returns the connection with its event.
pub(super) fn begin(
    operation: Operation,
    connection: Option<Box<dyn Consumer>>,
    context: Arc<SubscriberContext>,
    queues: Arc<dyn Queues>,
    retained: &RetainedState,
) -> Running<Answer> {
    match operation {
        Operation::Open => {
            let (permit, limit) = (Arc::clone(retained.machine.permit()), Arc::clone(&retained.limit));
            Box::pin(async move {
                match queues.open(&context.session_id, context.owner, permit).await {
                    Ok(mut consumer) => {
                        consumer.share_limit(limit);
                        (Some(consumer), Event::Opened)
                    }
                    Err(error) => (None, Event::Failed(error)),
                }
            })
        }
        Operation::Claim => over_connection(connection, &context, async |consumer: &mut dyn Consumer| {
            if consumer.claim().await? {
                metrics::TAKEOVERS.add("won", 1);
            }
            Ok(Event::Claimed)
        }),
        Operation::Renew => over_connection(connection, &context, async |consumer: &mut dyn Consumer| {
            Ok(Event::Renewed(consumer.renew().await?))
        }),
        Operation::Take { delivered, behind } => {
            let acknowledged = delivered.as_ref().map_or(0, |delivered| delivered.count);
            let span = spans::take(context.common.queue.system(), &context.session_id, acknowledged);
            over_connection(connection, &context, async move |consumer: &mut dyn Consumer| {
                let taken = consumer.take_behind(delivered.as_ref(), behind.as_ref()).instrument(span.clone()).await;
                spans::record_taken(&span, &taken);
                Ok(Event::Taken(taken?))
            })
        }
        Operation::Wait(block) => {
            let waits_for = Arc::clone(&context);
            over_connection(connection, &context, async move |consumer: &mut dyn Consumer| {
                let taken = consumer.wait(block).await;
                // The wait itself belongs to no message and may be long, so a span begins where messages have come.
                if !matches!(&taken, Ok(taken) if taken.items.is_empty()) {
                    let span = spans::take(waits_for.common.queue.system(), &waits_for.session_id, 0);
                    spans::record_taken(&span, &taken);
                }
                Ok(Event::Taken(taken?))
            })
        }
        Operation::Rewrite { oldest, replacement } => {
            over_connection(connection, &context, async move |consumer: &mut dyn Consumer| {
                Ok(Event::Rewritten(consumer.replace_oldest(&oldest, replacement).await?))
            })
        }
        Operation::ReadQuestions => Box::pin(async move {
            match queues.open_questions(&context.session_id).await {
                Ok(questions) => (connection, Event::Questions(questions)),
                Err(error) => (None, Event::Failed(error)),
            }
        }),
        Operation::ClaimIfAbsent => Box::pin(async move {
            let lease = queues.claim_if_absent(&context.session_id, context.owner).await;
            (None, lease.map_or_else(Event::Failed, Event::Renewed))
        }),
        Operation::CancelQuestions => Box::pin(async move {
            context.cancel_open_questions().await;
            (None, Event::Cancelled)
        }),
        Operation::Release => Box::pin(async move {
            context.release(&*queues).await;
            (None, Event::Released)
        }),
        Operation::Settle => Box::pin(async move {
            context.settled().await;
            (None, Event::Settled)
        }),
    }
}

/// Performs an operation over a connection. A failed operation closes its connection. Without a connection the
/// operation fails at once.
fn over_connection(
    connection: Option<Box<dyn Consumer>>,
    context: &SubscriberContext,
    operation: impl AsyncFnOnce(&mut dyn Consumer) -> Result<Event, QueueError> + 'static,
) -> Running<Answer> {
    let Some(mut consumer) = connection else {
        let closed = QueueErrorKind::Broken("the subscriber has no connection".into());
        let error = QueueError::new(format!("serving the queue of {:?}", context.session_id), closed);
        return Box::pin(ready((None, Event::Failed(error))));
    };
    Box::pin(async move {
        match operation(&mut *consumer).await {
            Ok(event) => (Some(consumer), event),
            Err(error) => (None, Event::Failed(error)),
        }
    })
}
