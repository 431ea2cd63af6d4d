//! Listener to the news of the fleet, over a link of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::backend::fleet::{News, NewsSender};
use crate::backend::redis::link::{CHECK_EVERY, Link, LinkEvent};

/// Pause after a lost connection. News of that time are lost anyway, and the receiver makes up for them by looking
/// everything up.
const AFTER_LOSS: Duration = Duration::from_millis(100);

/// Listens to these channels until the receiver is dropped.
pub(super) async fn listen(link: Link, channels: [String; 2], sender: NewsSender) {
    let (lost, unreadable) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
    let _watches = channels.map(|channel| {
        let (lost, unreadable, sender) = (Arc::clone(&lost), Arc::clone(&unreadable), sender.clone());
        link.watch(channel, move |event| match event {
            LinkEvent::Message(text) => match News::decode(text) {
                Some(news) => sender.send(news),
                None => warn_of_unreadable(unreadable.fetch_add(1, Ordering::Relaxed) + 1),
            },
            LinkEvent::Lost => lost.notify_one(),
            LinkEvent::Changed => {}
        })
    });
    let mut last = 1;
    while !sender.is_closed() {
        // A dead connection is silent, and a connection to a replica never fails. A replica accepts subscriptions, but
        // receives none of the primary's messages. Only a check finds either.
        match link.check().await {
            Ok(connection) => {
                if connection != last {
                    sender.send(News::Missed);
                }
                last = connection;
            }
            Err(error) => {
                tracing::warn!(%error, "listening to news of other processes failed; trying again");
                continue;
            }
        }
        tokio::select! {
            // Without this pause connections that are lost at once would follow each other in a tight loop.
            () = lost.notified() => tokio::time::sleep(AFTER_LOSS).await,
            () = sender.closed() => return,
            () = tokio::time::sleep(CHECK_EVERY) => {}
        }
    }
}

/// Logs the first unreadable message, and then whenever their number has doubled.
fn warn_of_unreadable(so_far: u64) {
    if so_far.is_power_of_two() {
        tracing::warn!(so_far, "a message on the news channel of the fleet cannot be read; it is ignored");
    }
}
