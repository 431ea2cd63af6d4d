//! A TCP forwarder on loopback that can go silent: its connections stay open and carry nothing more, as those of a machine
//! that lost its network. No FIN, no RST.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) struct Forwarder {
    address: SocketAddr,
    silent: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Forwarder {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (silent, is_silent) = watch::channel(false);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, target, is_silent.clone()));
            }
        });
        Self { address, silent, accepting }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Nothing more goes through, either way.
    pub(crate) fn go_silent(&self) {
        self.silent.send_replace(true);
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn forward(mut client: TcpStream, target: SocketAddr, mut silent: watch::Receiver<bool>) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
        Ok(_) = silent.wait_for(|silent| *silent) => {}
    }
    // Both sockets are held, until the forwarder is dropped.
    let _ = silent.wait_for(|silent| !*silent).await;
}
