//! Listening to the news, over a connection of its own that is made again whenever it is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{Client, Cmd, PushInfo, PushKind, Value};
use tokio::sync::Notify;

use crate::backend::fleet::{News, NewsSender};
use crate::backend::redis::connection::{CONNECT_TIMEOUT, tracking, within};
use crate::backend::redis::primary::{self, CHECK_EVERY};
use crate::failure::QueueErrorKind;
use crate::retry::Backoff;

/// Listens for as long as there is a receiver.
pub(super) async fn listen(client: Client, channels: [String; 2], probe: Cmd, backoff: Backoff, sender: NewsSender) {
    let mut failures = 0;
    while !sender.is_closed() {
        if let Err(error) = hear(&client, &channels, &probe, &sender, &mut failures).await {
            let pause = backoff.pause(failures, fastrand::f64());
            failures = failures.saturating_add(1);
            tracing::warn!(%error, ?pause, "listening to news of other processes failed; trying again");
            tokio::time::sleep(pause).await;
        }
    }
}

/// Listens until the connection is lost, or there is no receiver any more.
async fn hear(
    client: &Client,
    channels: &[String; 2],
    probe: &Cmd,
    sender: &NewsSender,
    failures: &mut u32,
) -> Result<(), QueueErrorKind> {
    let lost = Arc::new(Notify::new());
    let pushed = {
        let (lost, sender, unreadable) = (Arc::clone(&lost), sender.clone(), AtomicU64::new(0));
        move |push: PushInfo| match push.kind {
            PushKind::Message => match news(&push.data) {
                Some(news) => sender.send(news),
                None => warn_of_unreadable(unreadable.fetch_add(1, Ordering::Relaxed) + 1),
            },
            PushKind::Disconnection => lost.notify_one(),
            _ => {}
        }
    };
    let mut connection = within(CONNECT_TIMEOUT, tracking(client, pushed)).await?;
    // Before the failures are forgotten: a replica accepts subscriptions, and hears nothing of the primary's messages.
    primary::check(&mut connection, probe).await?;
    within(Duration::ZERO, connection.subscribe(channels)).await?;
    if std::mem::take(failures) > 0 {
        sender.send(News::Again);
    }
    loop {
        tokio::select! {
            () = lost.notified() => return Err(QueueErrorKind::Broken("the connection is lost".into())),
            () = sender.closed() => return Ok(()),
            () = tokio::time::sleep(CHECK_EVERY) => {}
        }
        // A dead connection says nothing by itself, and one to a replica never fails.
        primary::check(&mut connection, probe).await?;
    }
}

/// Reads a message: its channel, and what was said there.
fn news(data: &[Value]) -> Option<News> {
    let [_, Value::BulkString(text)] = data else { return None };
    News::decode(text)
}

/// Logs the first message of a connection that cannot be read, and then each time that there have been twice as many.
fn warn_of_unreadable(so_far: u64) {
    if so_far.is_power_of_two() {
        tracing::warn!(so_far, "a message on the news channel of the fleet cannot be read; it is ignored");
    }
}
