//! Operations on the queue, as futures. One operation runs for each idle subscriber, so each future holds no more than
//! it needs.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;

use crate::actors::post::{Memory, Post};
use crate::backend::{Consumer, Queues};
use crate::failure::{QueueError, QueueErrorKind};
use crate::subscription::{Event, Operation};

/// Future that runs for a subscriber, on the subscriber's arbiter.
pub(super) type Running<T> = Pin<Box<dyn Future<Output = T>>>;

/// Event that ends an operation, with the connection where the connection can be used further.
pub(super) type Answer = (Option<Box<dyn Consumer>>, Event);

/// Begins an operation. The operation gets the subscriber's connection, and returns the connection with its event.
pub(super) fn begin(
    operation: Operation,
    connection: Option<Box<dyn Consumer>>,
    post: Arc<Post>,
    queues: Arc<dyn Queues>,
    memory: &Memory,
) -> Running<Answer> {
    match operation {
        Operation::Open => {
            let (permit, limit) = (Arc::clone(memory.machine.permit()), Arc::clone(&memory.limit));
            Box::pin(async move {
                match queues.open(&post.session_id, post.owner, permit).await {
                    Ok(mut consumer) => {
                        consumer.share_limit(limit);
                        (Some(consumer), Event::Opened)
                    }
                    Err(error) => (None, Event::Failed(error)),
                }
            })
        }
        Operation::Claim => over(connection, &post, async |consumer: &mut dyn Consumer| {
            consumer.claim().await?;
            Ok(Event::Claimed)
        }),
        Operation::Renew => {
            over(connection, &post, async |consumer: &mut dyn Consumer| Ok(Event::Renewed(consumer.renew().await?)))
        }
        Operation::Take { delivered, behind } => over(connection, &post, async move |consumer: &mut dyn Consumer| {
            Ok(Event::Taken(consumer.take_behind(delivered.as_ref(), behind.as_ref()).await?))
        }),
        Operation::Wait(block) => over(connection, &post, async move |consumer: &mut dyn Consumer| {
            Ok(Event::Taken(consumer.wait(block).await?))
        }),
        Operation::Rewrite { oldest, replacement } => {
            over(connection, &post, async move |consumer: &mut dyn Consumer| {
                Ok(Event::Rewritten(consumer.replace_oldest(&oldest, replacement).await?))
            })
        }
        Operation::ReadQuestions => Box::pin(async move {
            match queues.open_questions(&post.session_id).await {
                Ok(questions) => (connection, Event::Questions(questions)),
                Err(error) => (None, Event::Failed(error)),
            }
        }),
        Operation::ClaimIfAbsent => Box::pin(async move {
            let lease = queues.claim_if_absent(&post.session_id, post.owner).await;
            (None, lease.map_or_else(Event::Failed, Event::Renewed))
        }),
        Operation::CancelQuestions => Box::pin(async move {
            post.cancel_open_questions().await;
            (None, Event::Cancelled)
        }),
        Operation::Release => Box::pin(async move {
            post.release(&*queues).await;
            (None, Event::Released)
        }),
        Operation::Settle => Box::pin(async move {
            post.settled().await;
            (None, Event::Settled)
        }),
    }
}

/// Performs an operation over a connection. A failed operation closes its connection. Without a connection the
/// operation fails at once.
fn over(
    connection: Option<Box<dyn Consumer>>,
    post: &Post,
    operation: impl AsyncFnOnce(&mut dyn Consumer) -> Result<Event, QueueError> + 'static,
) -> Running<Answer> {
    let Some(mut consumer) = connection else {
        let closed = QueueErrorKind::Broken("the subscriber has no connection".into());
        let error = QueueError::new(format!("serving the queue of {:?}", post.session_id), closed);
        return Box::pin(ready((None, Event::Failed(error))));
    };
    Box::pin(async move {
        match operation(&mut *consumer).await {
            Ok(event) => (Some(consumer), event),
            Err(error) => (None, Event::Failed(error)),
        }
    })
}
