//! [`Client`]: a process that is one client or many, on one thread.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;

use futures_util::future::join_all;
use mcp_courier_testing::process::Process;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::{Notify, mpsc};

use super::connection::Connection;
use super::frames::Frames;
use super::part::Part;
use super::stream::{Session, post};
use crate::support::messages::now;

/// Most connections over which all clients of the process answer pings, each one's over the same connection.
const ANSWERING: usize = 200;

/// Request to the process. Each is answered when it is done.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    /// Begins so many sessions at a server; the answer is their ids.
    Begin { address: SocketAddr, sessions: usize },
    /// Opens the streams of all, and waits until each has had its first event.
    Open,
    /// Waits until all together had so many notifications; the answer is when the last came, in nanoseconds since 1970.
    Until { count: usize },
    /// Waits for the first so many notifications, and answers how long each took from its making, in microseconds.
    Times { count: usize },
    /// Has broken streams come back to a server.
    ComeBack { to: SocketAddr },
    /// Waits until each client had a notification that was made since it came back; the answer is when the last had.
    CaughtUp,
    /// Answers a notification and a ping as they came.
    Frames,
}

/// A process of clients.
#[derive(Debug)]
pub(crate) struct Client(Part);

impl Client {
    /// Starts the process, and begins so many sessions at a server. Returns their ids too.
    pub(crate) fn begin(address: SocketAddr, sessions: usize) -> (Self, Vec<String>) {
        let mut part = Part::start(&["clients"]);
        let ids = part.ask(&Ask::Begin { address, sessions });
        (Self(part), ids)
    }

    pub(crate) fn open(&mut self) {
        self.0.ask(&Ask::Open)
    }

    pub(crate) fn until(&mut self, count: usize) -> u64 {
        self.0.ask(&Ask::Until { count })
    }

    /// Returns how long the first so many notifications took, in their order. `send` has them sent meanwhile.
    pub(crate) fn times(&mut self, count: usize, send: impl FnOnce()) -> Vec<f64> {
        self.0.write(&Ask::Times { count });
        send();
        self.0.read()
    }

    pub(crate) fn come_back(&mut self, to: SocketAddr) {
        self.0.ask(&Ask::ComeBack { to })
    }

    pub(crate) fn caught_up(&mut self) -> u64 {
        self.0.ask(&Ask::CaughtUp)
    }

    pub(crate) fn frames(&mut self) -> Frames {
        self.0.ask(&Ask::Frames)
    }

    pub(crate) fn process(&self) -> Process {
        self.0.process()
    }
}

/// Number that is waited for.
#[derive(Debug, Default)]
pub(super) struct Count {
    count: Cell<usize>,
    awaited: Cell<usize>,
    reached_at: Cell<u64>,
    reached: Notify,
}

impl Count {
    pub(super) fn add(&self, more: usize) {
        self.count.set(self.count.get() + more);
        if self.count.get() == self.awaited.get() {
            self.reached_at.set(now());
            self.reached.notify_one();
        }
    }

    /// Waits until so many are counted, and returns when that was.
    async fn until(&self, count: usize) -> u64 {
        self.awaited.set(count);
        if self.count.get() >= count {
            return now();
        }
        self.reached.notified().await;
        self.reached_at.get()
    }
}

/// First events that came.
#[derive(Debug, Default)]
pub(super) struct Seen(Frames);

impl Seen {
    pub(super) fn see_notification(&mut self, text: &[u8]) {
        see(&mut self.0.notification, text);
    }

    pub(super) fn see_ping(&mut self, text: &[u8]) {
        see(&mut self.0.ping, text);
    }
}

fn see(seen: &mut String, text: &[u8]) {
    if seen.is_empty() {
        *seen = String::from_utf8(text.to_vec()).unwrap();
    }
}

/// State of the process.
#[derive(Debug)]
pub(super) struct Shared {
    /// Server of new streams and of answers.
    pub(super) address: Cell<SocketAddr>,
    sessions: RefCell<Vec<Rc<Session>>>,
    answering: Vec<mpsc::UnboundedSender<(Rc<Session>, String)>>,
    pub(super) opened: Count,
    pub(super) received: Count,
    pub(super) caught_up: Count,
    /// Times of notifications, where they are noted.
    pub(super) times: RefCell<Option<Vec<f64>>>,
    /// Time from which on the clients wait for a notification that was made later.
    pub(super) since: Cell<Option<u64>>,
    pub(super) frames: RefCell<Seen>,
    refused: Cell<usize>,
}

impl Shared {
    /// Has a ping answered.
    pub(super) fn answer(&self, session: &Rc<Session>, ping: String) {
        let at = session.number % self.answering.len();
        let _ = self.answering[at].send((Rc::clone(session), ping));
    }

    /// Says that a stream was refused: the first time, the second, the fourth and so on.
    pub(super) fn refused(&self, error: &std::io::Error) {
        self.refused.set(self.refused.get() + 1);
        if self.refused.get().is_power_of_two() {
            eprintln!("{} streams were refused, the last: {error}", self.refused.get());
        }
    }

    async fn ask(self: &Rc<Self>, ask: Ask) -> serde_json::Value {
        let sessions = self.sessions.borrow().clone();
        match ask {
            Ask::Begin { .. } => unreachable!("it is the first"),
            Ask::Open => {
                for session in &sessions {
                    actix_rt::spawn(Rc::clone(session).keep_open(Rc::clone(self)));
                }
                self.opened.until(sessions.len()).await;
                serde_json::Value::Null
            }
            Ask::Until { count } => self.received.until(count).await.into(),
            Ask::Times { count } => {
                *self.times.borrow_mut() = Some(Vec::with_capacity(count));
                self.received.until(count).await;
                self.times.borrow_mut().take().into()
            }
            Ask::ComeBack { to } => {
                self.address.set(to);
                self.since.set(Some(now()));
                sessions.iter().for_each(|session| session.is_behind.set(true));
                self.caught_up.count.set(0);
                serde_json::Value::Null
            }
            Ask::CaughtUp => self.caught_up.until(sessions.len()).await.into(),
            Ask::Frames => serde_json::to_value(&self.frames.borrow().0).unwrap(),
        }
    }
}

/// Does what each line of the input asks.
pub(super) async fn serve() {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut shared = None;
    while let Some(line) = lines.next_line().await.unwrap() {
        let answer = match serde_json::from_str(&line).unwrap() {
            Ask::Begin { address, sessions } => {
                let begun = shared.insert(begin(address, sessions).await);
                begun.sessions.borrow().iter().map(|session| session.id.clone()).collect()
            }
            ask => shared.as_ref().expect("sessions").ask(ask).await,
        };
        let mut output = std::io::stdout().lock();
        writeln!(output, "{answer}").unwrap();
        output.flush().unwrap();
    }
}

async fn begin(address: SocketAddr, sessions: usize) -> Rc<Shared> {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..sessions.min(ANSWERING)).map(|_| mpsc::unbounded_channel()).unzip();
    let begun = (0..senders.len()).map(|first| async move {
        let mut connection = Connection::open(address).await.unwrap();
        let mut begun = Vec::new();
        for number in (first..sessions).step_by(ANSWERING) {
            begun.push(Rc::new(Session::begin(&mut connection, address, number).await.unwrap()));
        }
        begun
    });
    let shared = Rc::new(Shared {
        address: Cell::new(address),
        sessions: RefCell::new(join_all(begun).await.into_iter().flatten().collect()),
        answering: senders,
        opened: Count::default(),
        received: Count::default(),
        caught_up: Count::default(),
        times: RefCell::default(),
        since: Cell::default(),
        frames: RefCell::default(),
        refused: Cell::default(),
    });
    for receiver in receivers {
        actix_rt::spawn(answer(Rc::clone(&shared), receiver));
    }
    shared
}

/// Answers pings over one connection, one after the other. An answer whose server is gone is lost, as a client's would be.
async fn answer(shared: Rc<Shared>, mut pings: mpsc::UnboundedReceiver<(Rc<Session>, String)>) {
    let mut kept = None;
    while let Some((session, ping)) = pings.recv().await {
        let address = shared.address.get();
        let answer = format!(r#"{{"jsonrpc":"2.0","id":"{ping}","result":{{}}}}"#);
        let mut connection = match kept.take() {
            Some((at, connection)) if at == address => connection,
            _ => match Connection::open(address).await {
                Ok(connection) => connection,
                Err(_) => continue,
            },
        };
        if connection.exchange(&post(address, Some(&session.id), &answer)).await.is_ok() {
            kept = Some((address, connection));
        }
    }
}
