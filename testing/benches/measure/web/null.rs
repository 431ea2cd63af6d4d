//! The null courier: an actix server that does of a courier's work what a client sees, and nothing else.
//!
//! The null courier sends the same frames in batches of as many messages, each batch as one chunk with a ping at its end. As many
//! batches may be unconfirmed as in a courier's window, and the answers come by POST. The messages are in its memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use actix_web::web::{self, Bytes};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use futures_util::stream;
use mcp_courier::Config;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use super::frames::Frames;
use super::servers::run;
use crate::support::messages::now;

/// Messages that are sent before their confirmation, in batches.
const WINDOW: usize = 4;

/// First event of a stream, as long as a courier's.
const PRIMING: &str =
    "data: \nid: resumed-0123456789abcdef0123456789abcdef-0123456789abcdef0123456789abcdef-0\nretry: 3000\n\n";

/// Content of the server's streams.
#[derive(Debug)]
pub(super) struct Null {
    frames: Frames,
    /// Number of messages that each stream begins with.
    count: usize,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
}

#[derive(Debug)]
struct Session {
    /// Has a permit for each batch that may be sent.
    window: Semaphore,
    /// Sender to the newest stream, which gets the pushed messages.
    pushes: Mutex<Option<mpsc::UnboundedSender<String>>>,
}

/// Stream of one client.
struct Stream {
    null: Arc<Null>,
    session: Arc<Session>,
    pushes: mpsc::UnboundedReceiver<String>,
    is_primed: bool,
    /// The client has come back: it gets one message and no ping.
    is_back: bool,
    left: usize,
    pings: u64,
}

impl Null {
    pub(super) fn new(frames: Frames, count: usize) -> Arc<Self> {
        Arc::new(Self { frames, count, sessions: Mutex::default() })
    }

    fn session(&self, id: &str) -> Arc<Session> {
        let new = || Arc::new(Session { window: Semaphore::new(WINDOW), pushes: Mutex::default() });
        Arc::clone(self.sessions.lock().unwrap().entry(id.to_owned()).or_insert_with(new))
    }

    /// Opens a stream of a session.
    fn open(self: &Arc<Self>, id: &str, is_back: bool) -> Stream {
        let (session, (sender, pushes)) = (self.session(id), mpsc::unbounded_channel());
        *session.pushes.lock().unwrap() = Some(sender);
        Stream { null: Arc::clone(self), session, pushes, is_primed: false, is_back, left: self.count, pings: 0 }
    }
}

impl Stream {
    /// Returns what goes out next, in one piece.
    async fn next(&mut self) -> Bytes {
        if !std::mem::replace(&mut self.is_primed, true) {
            return Bytes::from_static(PRIMING.as_bytes());
        }
        let (frames, batch) = (&self.null.frames, Config::default().batch_messages());
        let mut out = Vec::new();
        if std::mem::take(&mut self.is_back) {
            frames.write(&frames.data_made(now()), &mut out);
            return out.into();
        }
        if self.left > 0 {
            self.confirmable().await;
            let count = self.left.min(batch);
            out.reserve((count + 1) * frames.notification.len());
            (0..count).for_each(|_| frames.write(frames.data(), &mut out));
            self.left -= count;
        } else {
            let mut pushed = Vec::new();
            if self.pushes.recv_many(&mut pushed, batch).await == 0 {
                return std::future::pending().await;
            }
            self.confirmable().await;
            pushed.iter().for_each(|data| frames.write(data, &mut out));
        }
        self.pings += 1;
        frames.write_ping(self.pings, &mut out);
        out.into()
    }

    /// Waits until one more batch may be unconfirmed.
    async fn confirmable(&self) {
        self.session.window.acquire().await.unwrap().forget();
    }
}

/// Serves until the input ends.
pub(super) async fn serve(frames: Frames, count: usize) {
    let null = web::Data::from(Null::new(frames, count));
    let http = HttpServer::new(move || {
        let mcp = web::resource("/mcp").get(get).post(post).to(HttpResponse::MethodNotAllowed);
        App::new().app_data(null.clone()).service(mcp).route("/push", web::post().to(push))
    });
    run(http).await;
}

async fn get(request: HttpRequest, null: web::Data<Null>) -> HttpResponse {
    let null = null.into_inner();
    let stream = null.open(session_of(&request), request.headers().contains_key("last-event-id"));
    let events =
        stream::unfold(stream, async |mut stream| Some((Ok::<_, actix_web::Error>(stream.next().await), stream)));
    let mut response = HttpResponse::Ok();
    response.content_type("text/event-stream").insert_header(("cache-control", "no-cache")).force_close();
    let mut response = response.streaming(events);
    // As a courier's stream, which ends with its connection.
    response.head_mut().no_chunking(true);
    response
}

/// Takes `initialize`, which names no session, and answers to pings.
async fn post(request: HttpRequest, body: Bytes, null: web::Data<Null>) -> HttpResponse {
    let id = session_of(&request);
    if id.is_empty() {
        let id = Uuid::new_v4().to_string();
        return HttpResponse::Ok()
            .insert_header(("mcp-session-id", id))
            .json(json!({"jsonrpc": "2.0", "id": 0, "result": {}}));
    }
    let message: serde_json::Value = serde_json::from_slice(&body).unwrap();
    if message.get("result").is_some() {
        null.session(id).window.add_permits(1);
    }
    HttpResponse::Accepted().finish()
}

/// Takes a message of a producer, which goes to the newest stream.
async fn push(request: HttpRequest, body: String, null: web::Data<Null>) -> HttpResponse {
    let session = null.session(session_of(&request));
    let is_sent = session.pushes.lock().unwrap().as_ref().is_some_and(|pushes| pushes.send(body).is_ok());
    if is_sent { HttpResponse::Ok().finish() } else { HttpResponse::NotFound().finish() }
}

fn session_of(request: &HttpRequest) -> &str {
    request.headers().get("mcp-session-id").and_then(|id| id.to_str().ok()).unwrap_or_default()
}
