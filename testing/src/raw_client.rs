//! Raw MCP client: shows the events of a stream in the order of their bytes, and can misbehave.
//!
//! rmcp's own client handles each notification in a task of its own, so it cannot show their order.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::sse::{self, Parser};

const VERSION: &str = "2025-11-25";

/// Time limit of a wait for an event that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Session at one server. Clones are the same session.
#[derive(Debug, Clone)]
pub struct RawClient {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
    session: String,
    next_id: Arc<AtomicU64>,
}

impl RawClient {
    /// Begins a session: `initialize` and `notifications/initialized`. No stream is open yet.
    pub async fn connect(url: &str) -> Self {
        Self::connect_with(url, json!({})).await
    }

    /// Begins a session of a client that declares capabilities.
    pub async fn connect_with(url: &str, capabilities: Value) -> Self {
        Self::attach(url, "").initialize(capabilities).await
    }

    /// Begins a session of a user with a bearer token.
    pub async fn connect_as(url: &str, token: &str) -> Self {
        Self::attach(url, "").with_token(token).initialize(json!({})).await
    }

    async fn initialize(self, capabilities: Value) -> Self {
        let mut client = self;
        let params = json!({
            "protocolVersion": VERSION,
            "capabilities": capabilities,
            "clientInfo": {"name": "raw", "version": "0"},
        });
        let request = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let response = client.post(&request).await;
        let id = response.headers().get("mcp-session-id").expect("a session id").to_str().unwrap();
        client.session = id.to_owned();
        let answer = answer(response, &json!(0)).await;
        assert_eq!(answer["result"]["protocolVersion"], VERSION, "{answer}");
        let status = client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        client
    }

    /// Returns a session that exists already, perhaps begun at another server.
    pub fn attach(url: &str, session: &str) -> Self {
        // A connection of its own for each request: one that is kept may be closed by the server just as it is used
        // again.
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let next_id = Arc::new(AtomicU64::new(1));
        Self { http, url: url.to_owned(), token: None, session: session.to_owned(), next_id }
    }

    /// Returns the same session at another server.
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// Returns the same session, used with another token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// Returns the id of the session.
    pub fn session_id(&self) -> &str {
        &self.session
    }

    /// Opens the standalone stream. The stream is read in the background, and pings are answered.
    pub async fn open_stream(&self) -> EventStream {
        self.open_stream_after(None).await.unwrap_or_else(|status| panic!("no stream: {status}"))
    }

    /// Opens the standalone stream here, and answers its pings at another server.
    pub async fn open_stream_answering_at(&self, url: &str) -> EventStream {
        let response = self.get(None).await;
        assert_eq!(response.status(), StatusCode::OK);
        EventStream::new(self.at(url), response)
    }

    async fn get(&self, last_event_id: Option<&str>) -> Response {
        let mut request = self.headers(self.http.get(&self.url)).header(ACCEPT, "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        request.send().await.unwrap()
    }

    /// Opens the standalone stream with a `Last-Event-ID`, or returns the status of the refusal.
    pub async fn open_stream_after(&self, last_event_id: Option<&str>) -> Result<EventStream, StatusCode> {
        let response = self.get(last_event_id).await;
        if response.status() != StatusCode::OK {
            return Err(response.status());
        }
        Ok(EventStream::new(self.clone(), response))
    }

    /// Opens the standalone stream as a client whose stream broke: an early close comes first, and names the id for the
    /// real stream.
    pub async fn come_back(&self, last_event_id: &str) -> EventStream {
        let mut closed = self.open_stream_after(Some(last_event_id)).await.unwrap();
        let id = closed.next_event().await.unwrap().id.unwrap();
        assert!(closed.next_event().await.is_none(), "it goes on");
        self.open_stream_after(Some(&id)).await.unwrap()
    }

    /// Sends a request, and returns the whole answer, with `result` or `error`.
    pub async fn request(&self, method: &str, params: Value) -> Value {
        let id = json!(self.next_id.fetch_add(1, Ordering::Relaxed));
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let response = self.post(&request).await;
        assert_eq!(response.status(), StatusCode::OK, "{method}");
        answer(response, &id).await
    }

    /// Calls a tool, and returns its result, which may be an error of the tool.
    pub async fn call_tool(&self, name: &str, arguments: Value) -> Value {
        let answer = self.request("tools/call", json!({"name": name, "arguments": arguments})).await;
        assert!(answer["error"].is_null(), "{name}: {answer}");
        answer["result"].clone()
    }

    /// Sends a notification or an answer.
    pub async fn send(&self, message: &Value) -> StatusCode {
        self.post(message).await.status()
    }

    /// Answers a request of the server.
    pub async fn answer(&self, request: &Value, result: Value) -> StatusCode {
        self.send(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).await
    }

    /// Answers a request of the server with an error.
    pub async fn refuse(&self, request: &Value, message: &str) -> StatusCode {
        let error = json!({"code": -32603, "message": message});
        self.send(&json!({"jsonrpc": "2.0", "id": request["id"], "error": error})).await
    }

    /// Ends the session.
    pub async fn delete(&self) -> StatusCode {
        self.headers(self.http.delete(&self.url)).send().await.unwrap().status()
    }

    async fn post(&self, message: &Value) -> Response {
        let request = self.headers(self.http.post(&self.url));
        let request = request.header(ACCEPT, "application/json, text/event-stream");
        let sent = request.header(CONTENT_TYPE, "application/json").body(message.to_string()).send();
        tokio::time::timeout(PATIENCE, sent).await.expect("an answer in time").unwrap()
    }

    fn headers(&self, mut request: RequestBuilder) -> RequestBuilder {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if self.session.is_empty() {
            return request;
        }
        request.header("mcp-session-id", &self.session).header("mcp-protocol-version", VERSION)
    }
}

/// Returns the answer in a response, which is JSON or a stream of its own.
async fn answer(response: Response, id: &Value) -> Value {
    let body = tokio::time::timeout(PATIENCE, response.text()).await.expect("an answer in time").unwrap();
    if let Ok(answer) = serde_json::from_str::<Value>(&body) {
        return answer;
    }
    let mut parser = Parser::default();
    parser.feed(body.as_bytes());
    let mut messages = parser.filter_map(|event| Event::from(event).message);
    messages.find(|message| message["id"] == *id).unwrap_or_else(|| panic!("no answer in {body:?}"))
}

/// Event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Id for `Last-Event-ID`.
    pub id: Option<String>,
    /// Pause before the client opens its next stream, in milliseconds.
    pub retry: Option<u64>,
    /// JSON-RPC message; priming events have none.
    pub message: Option<Value>,
}

impl From<sse::Event> for Event {
    fn from(sse::Event { id, retry, data }: sse::Event) -> Self {
        let message = (!data.is_empty()).then(|| serde_json::from_str(&data).unwrap());
        Self { id, retry, message }
    }
}

/// Standalone stream. Dropping this closes the connection.
#[derive(Debug)]
pub struct EventStream {
    events: mpsc::UnboundedReceiver<Event>,
    reading: watch::Sender<bool>,
    answering: watch::Sender<bool>,
    pings: Arc<AtomicUsize>,
    last_ping: watch::Receiver<Option<String>>,
    last_event_id: Option<String>,
    reader: JoinHandle<()>,
}

impl EventStream {
    fn new(client: RawClient, response: Response) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let (reading, is_reading) = watch::channel(true);
        let (answering, is_answering) = watch::channel(true);
        let pings = Arc::new(AtomicUsize::new(0));
        let (pinged, last_ping) = watch::channel(None);
        let reader = Reader { client, is_reading, is_answering, pings: Arc::clone(&pings), pinged, sender };
        let reader = tokio::spawn(reader.run(response));
        Self { events, reading, answering, pings, last_ping, last_event_id: None, reader }
    }

    /// Sets whether pings are answered, as every client does by itself. At first they are.
    pub fn answer_pings(&self, answer: bool) {
        self.answering.send_replace(answer);
    }

    /// Sets whether the socket is read. At first it is. A socket that is not read fills up, as that of a client that
    /// hangs.
    pub fn read(&self, read: bool) {
        self.reading.send_replace(read);
    }

    /// Returns the number of pings that came, answered or not.
    pub fn pings(&self) -> usize {
        self.pings.load(Ordering::Relaxed)
    }

    /// Returns the JSON-RPC id of the last ping.
    pub fn last_ping_id(&self) -> Option<String> {
        self.last_ping.borrow().clone()
    }

    /// Closes the connection, as dropping the stream does.
    pub fn close(&self) {
        self.reader.abort();
    }

    /// Returns the id of the last event that was returned.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// Returns the next event that is not a ping, or `None` at the end of the stream.
    pub async fn next_event(&mut self) -> Option<Event> {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event in time")?;
        if event.id.is_some() {
            self.last_event_id.clone_from(&event.id);
        }
        Some(event)
    }

    /// Returns the next notification, as a whole JSON-RPC message, or `None` at the end of the stream.
    pub async fn next_notification(&mut self) -> Option<Value> {
        while let Some(event) = self.next_event().await {
            match event.message {
                Some(message) if message["id"].is_null() => return Some(message),
                _ => {}
            }
        }
        None
    }

    /// Returns the next request that is not a ping, without the notifications before it, or `None` at the end of the
    /// stream.
    pub async fn next_request(&mut self) -> Option<Value> {
        while let Some(event) = self.next_event().await {
            match event.message {
                Some(message) if !message["id"].is_null() && !message["method"].is_null() => return Some(message),
                _ => {}
            }
        }
        None
    }

    /// Returns the next notifications, in this number.
    pub async fn notifications(&mut self, count: usize) -> Vec<Value> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            let Some(next) = self.next_notification().await else {
                panic!("the stream ended after {} of {count}", all.len());
            };
            all.push(next);
        }
        all
    }

    /// Returns a notification that comes within a time, to show that none comes.
    pub async fn notification_within(&mut self, time: Duration) -> Option<Value> {
        tokio::time::timeout(time, self.next_notification()).await.ok().flatten()
    }

    /// Waits for the end of the stream.
    pub async fn ended(&mut self) {
        while self.next_event().await.is_some() {}
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

struct Reader {
    client: RawClient,
    is_reading: watch::Receiver<bool>,
    is_answering: watch::Receiver<bool>,
    pings: Arc<AtomicUsize>,
    pinged: watch::Sender<Option<String>>,
    sender: mpsc::UnboundedSender<Event>,
}

impl Reader {
    async fn run(mut self, mut response: Response) {
        let mut parser = Parser::default();
        loop {
            // The sender lives as long as this task.
            if self.is_reading.wait_for(|reading| *reading).await.is_err() {
                return;
            }
            let chunk = tokio::select! {
                chunk = response.chunk() => chunk,
                _ = self.is_reading.changed() => continue,
            };
            // An end that is not clean is an end.
            let Ok(Some(chunk)) = chunk else { return };
            parser.feed(&chunk);
            while let Some(event) = parser.next().map(Event::from) {
                match event.message {
                    Some(ref message) if message["method"] == "ping" => self.pinged(&message["id"]).await,
                    _ => drop(self.sender.send(event)),
                }
            }
        }
    }

    async fn pinged(&self, id: &Value) {
        self.pinged.send_replace(id.as_str().map(str::to_owned));
        self.pings.fetch_add(1, Ordering::Relaxed);
        if *self.is_answering.borrow() {
            self.client.send(&json!({"jsonrpc": "2.0", "id": id, "result": {}})).await;
        }
    }
}
