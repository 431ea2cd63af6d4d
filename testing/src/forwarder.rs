//! TCP forwarder on loopback with the faults of networks and proxies: late, silent, narrow, cut, led to another server.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

/// Largest number of bytes that pass a narrow line at once.
const PACKET: usize = 1448;

/// Treatment of the bytes that are sent.
#[derive(Debug, Clone, Copy)]
pub enum Mode {
    /// Bytes pass.
    Pass,
    /// Answers are delayed by this time.
    Late(Duration),
    /// Nothing passes in either direction, and no connection is closed. Bytes are held until another mode is set.
    Silent,
    /// Requests pass, answers are held.
    OneWay,
    /// This number of bytes passes in a second, in each direction, for all connections together.
    Narrow(u32),
    /// A connection that sends this text is cut, as by a proxy that does not know a command.
    CutAt(&'static str),
}

/// Forwarder to one port. It ends when this is dropped.
#[derive(Debug)]
pub struct Forwarder {
    port: u16,
    target: Arc<AtomicU16>,
    control: watch::Sender<Control>,
}

#[derive(Debug, Clone)]
struct Control {
    mode: Mode,
    /// Number of connections until now.
    made: u64,
    /// Connections up to this number are silent for ever.
    forsaken: u64,
    /// Connections up to this number are closed.
    cut: u64,
}

impl Forwarder {
    /// Forwards to a port of this host, on a thread of its own.
    pub fn to(target: u16) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        listener.set_nonblocking(true).expect("a nonblocking listener");
        let port = listener.local_addr().expect("its address").port();
        let control = watch::Sender::new(Control { mode: Mode::Pass, made: 0, forsaken: 0, cut: 0 });
        let target = Arc::new(AtomicU16::new(target));
        let (sender, leads_to) = (control.clone(), Arc::clone(&target));
        let mut dropped = control.subscribe();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(&listener, &leads_to, &sender) => {}
                    // Dropping sets the number that no connection has.
                    _ = dropped.wait_for(|control| control.cut == u64::MAX) => {}
                }
            });
        });
        Self { port, target, control }
    }

    /// Returns the port on which the forwarder listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL of a Redis behind the forwarder.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Sets the treatment of all bytes from now on, also of those that are held.
    pub fn set(&self, mode: Mode) {
        self.control.send_modify(|control| control.mode = mode);
    }

    /// Silences the present connections for ever: no byte, no FIN, no RST. New connections are as before.
    pub fn forsake(&self) {
        self.control.send_modify(|control| control.forsaken = control.made);
    }

    /// Closes the present connections.
    pub fn cut(&self) {
        self.control.send_modify(|control| control.cut = control.made);
    }

    /// Leads new connections to another port.
    pub fn lead_to(&self, target: u16) {
        self.target.store(target, Ordering::Relaxed);
    }

    /// Returns the number of connections that were made until now.
    pub fn made(&self) -> u64 {
        self.control.borrow().made
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.control.send_modify(|control| control.cut = u64::MAX);
    }
}

async fn accept(listener: &TcpListener, target: &AtomicU16, control: &watch::Sender<Control>) {
    // Moment at which the line is free again, in each direction.
    let lines = [(); 2].map(|()| Arc::new(Mutex::new(Instant::now())));
    while let Ok((client, _)) = listener.accept().await {
        let [line_there, line_back] = lines.clone();
        let target = target.load(Ordering::Relaxed);
        control.send_modify(|control| control.made += 1);
        let (number, control) = (control.borrow().made, control.subscribe());
        tokio::spawn(async move {
            // While nobody listens there the client is closed, which is as good as a refusal.
            let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            let mut requests = Pump { number, answers: false, control: control.clone(), line: line_there };
            let mut answers = Pump { number, answers: true, control, line: line_back };
            // The first that ends drops all four, and so closes both.
            tokio::select! {
                _ = requests.run(from_client, to_server) => {}
                _ = answers.run(from_server, to_client) => {}
            }
        });
    }
}

struct Pump {
    number: u64,
    answers: bool,
    control: watch::Receiver<Control>,
    line: Arc<Mutex<Instant>>,
}

impl Pump {
    async fn run(&mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let number = self.number;
        let mut cut = self.control.clone();
        loop {
            // That one end is gone is held back too, as whatever it sends.
            let read = tokio::select! {
                read = from.read(&mut buffer) => read.unwrap_or(0),
                _ = cut.wait_for(|control| number <= control.cut) => return Ok(()),
            };
            let passes = self.passes(&buffer[..read]).await;
            if !passes || read == 0 {
                return Ok(());
            }
            // Whoever closes meanwhile has what is left thrown away, as by a reset.
            let end = async {
                let _ = cut.wait_for(|control| number <= control.cut).await;
            };
            tokio::select! {
                written = self.write(&buffer[..read], &mut to) => written?,
                () = end => return Ok(()),
            }
        }
    }

    async fn write(&self, bytes: &[u8], to: &mut OwnedWriteHalf) -> io::Result<()> {
        for packet in bytes.chunks(PACKET) {
            let mode = self.control.borrow().mode;
            if let Mode::Narrow(rate) = mode {
                let lasts = Duration::from_secs_f64(packet.len() as f64 / f64::from(rate));
                let free = {
                    let mut line = self.line.lock().expect("nobody panics with it");
                    *line = (*line).max(Instant::now()) + lasts;
                    *line
                };
                tokio::time::sleep_until(free).await;
            }
            to.write_all(packet).await?;
        }
        Ok(())
    }

    /// Waits while the bytes are held. Returns `false` where the connection is to be closed.
    async fn passes(&mut self, bytes: &[u8]) -> bool {
        loop {
            let Control { mode, forsaken, cut, .. } = self.control.borrow_and_update().clone();
            if self.number <= cut {
                return false;
            }
            match mode {
                _ if self.number <= forsaken => {}
                Mode::CutAt(words) if bytes.windows(words.len()).any(|w| w == words.as_bytes()) => return false,
                Mode::Late(by) if self.answers => {
                    tokio::time::sleep(by).await;
                    return true;
                }
                Mode::Silent => {}
                Mode::OneWay if self.answers => {}
                Mode::Pass | Mode::Late(_) | Mode::OneWay | Mode::Narrow(_) | Mode::CutAt(_) => return true,
            }
            if self.control.changed().await.is_err() {
                return false;
            }
        }
    }
}
