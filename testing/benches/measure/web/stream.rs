//! [`Session`]: one client's session, its stream and its answers.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Result};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::client::Shared;
use super::connection::{Connection, header};
use super::events::Event;
use crate::support::messages::{made_at, now};

pub(super) const VERSION: &str = "2025-11-25";

/// Time that a client waits after a stream that was refused.
const REFUSED: Duration = Duration::from_millis(5);

/// A session of one client.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) number: usize,
    last_event_id: RefCell<Vec<u8>>,
    /// Time that the last stream said to wait before the next.
    retry: Cell<Duration>,
    /// No message that was made since the mark has come.
    pub(super) is_behind: Cell<bool>,
}

impl Session {
    /// Begins a session over a connection.
    pub(super) async fn begin(connection: &mut Connection, address: SocketAddr, number: usize) -> Result<Self> {
        let initialize = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{VERSION}","capabilities":{{}},"clientInfo":{{"name":"bench","version":"0"}}}}}}"#
        );
        let head = connection.exchange(&post(address, None, &initialize)).await?;
        let id = header(&head, "mcp-session-id").expect("a session id").to_owned();
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        connection.exchange(&post(address, Some(&id), initialized)).await?;
        let (retry, is_behind) = (Cell::new(Duration::ZERO), Cell::new(false));
        Ok(Self { id, number, last_event_id: RefCell::default(), retry, is_behind })
    }

    /// Keeps a stream open for ever. After the end of a stream the client waits for the stream's `retry`, and opens the next.
    /// A client that has been sent to another server meanwhile opens the next stream at once.
    pub(super) async fn keep_open(self: Rc<Self>, shared: Rc<Shared>) {
        let mut kept = None;
        loop {
            let sent_to = shared.address.get();
            let (pause, connection) = match self.stream(&shared, kept).await {
                Ok(connection) => (self.retry.get(), Some(connection)),
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::Other) => {
                    shared.refused(&error);
                    (REFUSED, None)
                }
                // The connection has ended, and its stream with it.
                Err(_) => (self.retry.get(), None),
            };
            if shared.address.get() == sent_to {
                tokio::time::sleep(pause).await;
            }
            kept = connection.filter(|_| shared.address.get() == sent_to);
        }
    }

    /// Reads one stream to its clean end, and returns its connection.
    async fn stream(self: &Rc<Self>, shared: &Rc<Shared>, kept: Option<Connection>) -> Result<Connection> {
        let address = shared.address.get();
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(address).await?,
        };
        connection.send(&self.get(address)).await?;
        let head = connection.head().await?;
        if !head.starts_with("HTTP/1.1 200") {
            return Err(std::io::Error::other(head));
        }
        let mut is_first = true;
        let events = connection.events(&head, |event| {
            if std::mem::take(&mut is_first) {
                shared.opened.add(1);
            }
            self.event(shared, &event);
        });
        events.await?;
        Ok(connection)
    }

    fn get(&self, address: SocketAddr) -> String {
        let last = self.last_event_id.borrow();
        let last = match std::str::from_utf8(&last) {
            Ok("") | Err(_) => String::new(),
            Ok(id) => format!("last-event-id: {id}\r\n"),
        };
        format!(
            "GET /mcp HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\nmcp-session-id: {}\r\n\
             mcp-protocol-version: {VERSION}\r\n{last}\r\n",
            self.id
        )
    }

    fn event(self: &Rc<Self>, shared: &Shared, event: &Event<'_>) {
        if let Some(id) = event.id {
            let mut last = self.last_event_id.borrow_mut();
            last.clear();
            last.extend_from_slice(id);
        }
        if let Some(milliseconds) = event.retry.and_then(|retry| std::str::from_utf8(retry).ok()?.parse().ok()) {
            self.retry.set(Duration::from_millis(milliseconds));
        }
        if event.data.is_empty() {
            return;
        }
        if event.data.ends_with(br#""method":"ping"}"#) {
            shared.frames.borrow_mut().see_ping(event.text);
            return shared.answer(self, ping_id(event.data));
        }
        shared.frames.borrow_mut().see_notification(event.text);
        if let Some(since) = shared.since.get()
            && made_at(event.data) >= since
            && self.is_behind.replace(false)
        {
            shared.caught_up.add(1);
        }
        if let Some(times) = &mut *shared.times.borrow_mut() {
            times.push((now() - made_at(event.data)) as f64 / 1000.0);
        }
        shared.received.add(1);
    }
}

fn ping_id(data: &[u8]) -> String {
    let text = std::str::from_utf8(data).unwrap();
    let begin = text.find("\"id\":\"").expect("the id of a ping") + 6;
    text[begin..].split('"').next().unwrap().to_owned()
}

/// Returns the request that sends a message.
pub(super) fn post(address: SocketAddr, session: Option<&str>, message: &str) -> String {
    let session =
        session.map(|id| format!("mcp-session-id: {id}\r\nmcp-protocol-version: {VERSION}\r\n")).unwrap_or_default();
    format!(
        "POST /mcp HTTP/1.1\r\nhost: {address}\r\naccept: application/json, text/event-stream\r\n\
         content-type: application/json\r\n{session}content-length: {}\r\n\r\n{message}",
        message.len()
    )
}
