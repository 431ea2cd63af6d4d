//! TCP forwarder on loopback with the faults of networks and proxies: late, silent, narrow, cut, led to another server.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
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
    /// Requests and answers are delayed by this time.
    Slow(Duration),
    /// Nothing passes in either direction, and no connection is closed. Bytes are held until another mode is set.
    Silent,
    /// Requests pass, answers are held.
    OneWay,
    /// This number of bytes passes in a second, in each direction, for all connections together.
    Narrow(u32),
    /// A connection that sends this text is cut, as by a proxy that does not know a command.
    CutAt(&'static str),
}

/// Connection that a route leads to a server.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// The connection begins with a GET, which opens a stream.
    pub is_stream: bool,
    /// Number of targets of this connection that refused it.
    pub refused: usize,
}

/// Target of each new connection. `None` closes the connection.
pub type Route = Arc<dyn Fn(Opening) -> Option<SocketAddr> + Send + Sync>;

/// Way to find the target of a connection.
#[derive(Clone)]
enum Target {
    /// A port of this host. Nothing of the connection has to be read.
    Port(Arc<AtomicU16>),
    /// A route, which looks at the first bytes.
    Route { route: Route, leaves_out_ids: bool },
}

/// Forwarder on a port of its own. The forwarder and its connections end when this is dropped.
pub struct Forwarder {
    address: SocketAddr,
    target: Target,
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

/// Returns the runtime of all forwarders of the process. A test may block its own thread meanwhile.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("forwarder").enable_all().build().expect("a runtime")
    })
}

impl Forwarder {
    /// Forwards to a port of this host.
    #[must_use]
    pub fn to(target: u16) -> Self {
        Self::start(Target::Port(Arc::new(AtomicU16::new(target))))
    }

    /// Forwards each connection by a route.
    #[must_use]
    pub fn by(route: Route) -> Self {
        Self::start(Target::Route { route, leaves_out_ids: false })
    }

    /// Forwards each connection by a route, and leaves out the ids of the events on streams.
    #[must_use]
    pub fn by_without_event_ids(route: Route) -> Self {
        Self::start(Target::Route { route, leaves_out_ids: true })
    }

    fn start(target: Target) -> Self {
        let _runtime = runtime().enter();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        listener.set_nonblocking(true).expect("a nonblocking listener");
        let address = listener.local_addr().expect("its address");
        let listener = TcpListener::from_std(listener).expect("a listener");
        let control = watch::Sender::new(Control { mode: Mode::Pass, made: 0, forsaken: 0, cut: 0 });
        let (sender, leads_to, mut dropped) = (control.clone(), target.clone(), control.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                () = accept(&listener, &leads_to, &sender) => {}
                // Dropping sets the number that no connection has.
                _ = dropped.wait_for(|control| control.cut == u64::MAX) => {}
            }
        });
        Self { address, target, control }
    }

    /// Returns the address on which the forwarder listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the port on which the forwarder listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the URL of a Redis behind the forwarder.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
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
    ///
    /// # Panics
    /// Where a route leads them.
    pub fn lead_to(&self, port: u16) {
        match &self.target {
            Target::Port(target) => target.store(port, Ordering::Relaxed),
            Target::Route { .. } => panic!("a route leads the connections"),
        }
    }

    /// Returns the number of connections that were made until now.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.control.borrow().made
    }
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.control.send_modify(|control| control.cut = u64::MAX);
    }
}

async fn accept(listener: &TcpListener, target: &Target, control: &watch::Sender<Control>) {
    // Moment at which the line is free again, in each direction.
    let lines = [(); 2].map(|()| Arc::new(Mutex::new(Instant::now())));
    while let Ok((client, _)) = listener.accept().await {
        let (lines, target) = (lines.clone(), target.clone());
        control.send_modify(|control| control.made += 1);
        let (number, control) = (control.borrow().made, control.subscribe());
        tokio::spawn(async move {
            let mut cut = control.clone();
            let opened = tokio::select! {
                opened = open(&client, &target, control.clone()) => opened,
                _ = cut.wait_for(|control| number <= control.cut) => None,
            };
            // A connection that leads nowhere is closed, which is as good as a refusal.
            let Some((server, leaves_out_ids)) = opened else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            let [line_there, line_back] = lines;
            let mut requests =
                Pump { number, answers: false, control: control.clone(), line: line_there, leaves_out_ids: false };
            let mut answers = Pump { number, answers: true, control, line: line_back, leaves_out_ids };
            // The end of one direction is not the end of the other. An error is, and so is a cut: both connections are closed.
            let _ = tokio::try_join!(requests.run(from_client, to_server), answers.run(from_server, to_client));
        });
    }
}

/// Connects a client to its server. Returns also whether the ids of events are left out.
async fn open(client: &TcpStream, target: &Target, mut control: watch::Receiver<Control>) -> Option<(TcpStream, bool)> {
    let (route, leaves_out_ids) = match target {
        Target::Port(port) => {
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port.load(Ordering::Relaxed)));
            return Some((server.await.ok()?, false));
        }
        Target::Route { route, leaves_out_ids } => (route, *leaves_out_ids),
    };
    let mut first = [0; 4];
    let read = client.peek(&mut first).await.ok()?;
    let is_stream = first[..read] == *b"GET ";
    let mut refused = 0;
    loop {
        // The route is asked when the bytes pass, and not before: it knows the servers of that moment.
        control.wait_for(|control| !matches!(control.mode, Mode::Silent)).await.ok()?;
        match TcpStream::connect(route(Opening { is_stream, refused })?).await {
            Ok(server) => return Some((server, leaves_out_ids && is_stream)),
            Err(_) => refused += 1,
        }
    }
}

struct Pump {
    number: u64,
    answers: bool,
    control: watch::Receiver<Control>,
    line: Arc<Mutex<Instant>>,
    leaves_out_ids: bool,
}

impl Pump {
    /// Forwards one direction up to its end. Fails where both directions are to end.
    async fn run(&mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let (mut buffer, mut last) = (vec![0; 1 << 16], b'\n');
        let number = self.number;
        let mut control = self.control.clone();
        let mut cut = async || {
            let _ = control.wait_for(|control| number <= control.cut).await;
            io::Error::from(io::ErrorKind::ConnectionAborted)
        };
        loop {
            // The end of one side is held back as its bytes are.
            let read = tokio::select! {
                read = from.read(&mut buffer) => read,
                error = cut() => return Err(error),
            };
            let bytes = &mut buffer[..*read.as_ref().unwrap_or(&0)];
            self.until_passed(bytes).await?;
            if read? == 0 {
                return to.shutdown().await;
            }
            if self.leaves_out_ids {
                last = leave_out_ids(bytes, last);
            }
            // Bytes that a cut finds here are lost, as by a reset.
            tokio::select! {
                written = self.write(bytes, &mut to) => written?,
                error = cut() => return Err(error),
            }
        }
    }

    async fn write(&self, bytes: &[u8], to: &mut OwnedWriteHalf) -> io::Result<()> {
        for packet in bytes.chunks(PACKET) {
            let mode = self.control.borrow().mode;
            if let Mode::Narrow(rate) = mode {
                let lasts = Duration::from_secs_f64(packet.len() as f64 / f64::from(rate));
                let free = {
                    let mut line = self.line.lock().expect("nobody panics with the lock");
                    *line = (*line).max(Instant::now()) + lasts;
                    *line
                };
                tokio::time::sleep_until(free).await;
            }
            to.write_all(packet).await?;
        }
        Ok(())
    }

    /// Waits while the bytes are held. Fails where the connection is to be closed.
    async fn until_passed(&mut self, bytes: &[u8]) -> io::Result<()> {
        let closed = || Err(io::ErrorKind::ConnectionAborted.into());
        loop {
            let Control { mode, forsaken, cut, .. } = self.control.borrow_and_update().clone();
            if self.number <= cut {
                return closed();
            }
            match mode {
                _ if self.number <= forsaken => {}
                Mode::CutAt(words) if bytes.windows(words.len()).any(|w| w == words.as_bytes()) => return closed(),
                Mode::Late(by) if self.answers => {
                    tokio::time::sleep(by).await;
                    return Ok(());
                }
                Mode::Slow(by) => {
                    tokio::time::sleep(by).await;
                    return Ok(());
                }
                Mode::Silent => {}
                Mode::OneWay if self.answers => {}
                Mode::Pass | Mode::Late(_) | Mode::OneWay | Mode::Narrow(_) | Mode::CutAt(_) => return Ok(()),
            }
            if self.control.changed().await.is_err() {
                return closed();
            }
        }
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
