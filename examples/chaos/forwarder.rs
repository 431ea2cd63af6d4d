//! A TCP forwarder on loopback, which can be cut, silenced and slowed down.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Function that returns the target of a connection. Arguments: whether the connection begins with a GET, which opens a
/// stream, and the number of targets that have failed already.
pub(crate) type Route = Arc<dyn Fn(bool, usize) -> Option<SocketAddr> + Send + Sync>;

/// Treatment of the bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Flow {
    /// At once.
    Open,
    /// Each piece this much later.
    Slow(Duration),
    /// Not at all. They are held back, and nothing ends.
    Silent,
}

pub(crate) struct Forwarder {
    pub(crate) address: SocketAddr,
    flow: watch::Sender<Flow>,
    cuts: watch::Sender<u64>,
}

impl Forwarder {
    /// Starts a forwarder. Where it is `without_ids`, it leaves the ids out of the events that pass.
    pub(crate) async fn start(route: Route, without_ids: bool) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (flow, cuts) = (watch::Sender::new(Flow::Open), watch::Sender::new(0));
        let (flows, cut) = (flow.subscribe(), cuts.subscribe());
        tokio::spawn(async move {
            loop {
                let Ok((from, _)) = listener.accept().await else { continue };
                let (route, flows, mut cut) = (Arc::clone(&route), flows.clone(), cut.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        () = forward(from, route, flows, without_ids) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Ok(Self { address, flow, cuts })
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub(crate) fn flow(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

async fn forward(from: TcpStream, route: Route, mut flow: watch::Receiver<Flow>, without_ids: bool) {
    let mut first = [0; 4];
    let Ok(read) = from.peek(&mut first).await else { return };
    let is_stream = first[..read] == *b"GET ";
    for failed in 0.. {
        if flow.wait_for(|flow| *flow != Flow::Silent).await.is_err() {
            return;
        }
        let Some(target) = route(is_stream, failed) else { return };
        let Ok(to) = TcpStream::connect(target).await else { continue };
        if from.set_nodelay(true).and(to.set_nodelay(true)).is_err() {
            return;
        }
        let ((read_from, write_from), (read_to, write_to)) = (from.into_split(), to.into_split());
        // The end of one direction is not the end of the other, but an error is.
        let up = copy(read_from, write_to, flow.clone(), false);
        let _ = tokio::try_join!(up, copy(read_to, write_from, flow, without_ids && is_stream));
        return;
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut flow: watch::Receiver<Flow>,
    without_ids: bool,
) -> io::Result<()> {
    let (mut buffer, mut last) = (vec![0; 16 * 1024], b'\n');
    loop {
        let read = from.read(&mut buffer).await?;
        let now = *flow.wait_for(|flow| *flow != Flow::Silent).await.map_err(io::Error::other)?;
        if let Flow::Slow(pause) = now {
            tokio::time::sleep(pause).await;
        }
        if read == 0 {
            return to.shutdown().await;
        }
        if without_ids {
            last = leave_out_ids(&mut buffer[..read], last);
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// Makes comments of the ids of events. Returns the last byte, behind which the next piece begins.
fn leave_out_ids(piece: &mut [u8], mut before: u8) -> u8 {
    for byte in piece {
        // No other line of an event stream, of its chunks or its head begins with this letter.
        if before == b'\n' && *byte == b'i' {
            *byte = b':';
        }
        before = *byte;
    }
    before
}
