//! A client: MCP over HTTP. The client keeps a stream open at some server. When the stream ends, the client continues
//! with its session id at the next server.
//!
//! A notification is recorded before the ping behind it is answered, together with its event id. The client sends the
//! recorded id as `Last-Event-ID` with its next stream, also after it was killed.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mcp_courier::{Cause, Outbound};
use mcp_courier_testing::sse::Parser;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::record::{Record, last_event_id};
use crate::roles::{orders, say};

const VERSION: &str = "2025-11-25";

/// Longest time that an answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// Longest silence of a stream. Servers of this fleet send something each second.
const SILENCE: Duration = Duration::from_millis(2500);

/// Pause before a failed request is tried again.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Args)]
pub(crate) struct ClientArgs {
    #[arg(long)]
    url: String,
    #[arg(long)]
    record: PathBuf,
    /// Session to continue with.
    #[arg(long)]
    session: Option<String>,
    /// Takes no event ids, and sends none.
    #[arg(long)]
    without_last_event_id: bool,
}

#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    url: String,
    session: Option<String>,
    /// Newest event id that is recorded, with all that came before it.
    last_event_id: Option<String>,
    takes_event_ids: bool,
}

pub(crate) fn run(args: ClientArgs) -> Result<(), Cause> {
    crate::block_on(false, live(args))
}

async fn live(ClientArgs { url, record, session, without_last_event_id }: ClientArgs) -> Result<(), Cause> {
    let _ends_with_its_parent = orders();
    let last_event_id = last_event_id(&record)?;
    let record = Record::append(&record)?;
    // A connection for each request: one that is kept may be closed by the server just as it is used again.
    let http = reqwest::Client::builder().pool_max_idle_per_host(0).tcp_nodelay(true).build()?;
    let mut client = Client { http, url, session, last_event_id, takes_event_ids: !without_last_event_id };
    loop {
        if client.session.is_none() {
            let Some(session) = client.initialize().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            record.write(&format!("S {} {session}\n", record.clock.now()))?;
            say(&format!("session {session}"))?;
            client.session = Some(session);
        }
        match client.open().await {
            Ok(stream) => {
                record.write(&format!("O {}\n", record.clock.now()))?;
                let why = client.read(stream, &record).await?;
                record.write(&format!("E {} {why}\n", record.clock.now()))?;
            }
            Err(Some(StatusCode::NOT_FOUND)) => {
                record.write(&format!("N {}\n", record.clock.now()))?;
                (client.session, client.last_event_id) = (None, None);
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

impl Client {
    /// A new session's id.
    async fn initialize(&self) -> Option<String> {
        let params = json!({
            "protocolVersion": VERSION,
            "capabilities": {},
            "clientInfo": {"name": "chaos", "version": "0"},
        });
        let request = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let response = self.post(&request).await?;
        let session = response.headers().get("mcp-session-id")?.to_str().ok()?.to_owned();
        timeout(ANSWER, response.bytes()).await.ok()?.ok()?;
        let new = Self { session: Some(session.clone()), ..self.clone() };
        let initialized = new.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
        (initialized.status() == StatusCode::ACCEPTED).then_some(session)
    }

    /// Opens the stream, or says how that is refused.
    async fn open(&self) -> Result<Response, Option<StatusCode>> {
        let mut request = self.request(self.http.get(&self.url)).header(ACCEPT, "text/event-stream");
        if let Some(id) = &self.last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = timeout(ANSWER, request.send()).await.map_err(|_| None)?.map_err(|_| None)?;
        match response.status() {
            StatusCode::OK => Ok(response),
            other => Err(Some(other)),
        }
    }

    /// Reads a stream to its end, and says what that was.
    async fn read(&mut self, mut stream: Response, record: &Record) -> Result<&'static str, Cause> {
        let mut events = Parser::default();
        loop {
            let chunk = match timeout(SILENCE, stream.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => return Ok("end"),
                Ok(Err(_)) => return Ok("cut"),
                Err(_) => return Ok("silence"),
            };
            let (mut got, mut pings, mut newest) = (String::new(), Vec::new(), None);
            let now = record.clock.now();
            events.feed(&chunk);
            for event in events.by_ref() {
                newest = event.id.or(newest);
                let Ok(message) = serde_json::from_str::<Value>(&event.data) else { continue };
                let params = &message["params"];
                match message["method"].as_str() {
                    Some("notifications/chaos") => {
                        let id = params["_meta"][Outbound::ID_KEY].as_str().unwrap_or("-");
                        let worker = params["worker"].as_str().unwrap_or("-");
                        writeln!(got, "G {now} {worker} {} {id}", params["n"])?;
                    }
                    Some("ping") => pings.push(message["id"].clone()),
                    _ => {}
                }
            }
            let newest = newest.filter(|_| self.takes_event_ids);
            if let Some(id) = &newest {
                writeln!(got, "I {id}")?;
            }
            // Before the answer, and in one step with the id: a confirmed message is not repeated.
            record.write(&got)?;
            self.last_event_id = newest.or(self.last_event_id.take());
            for id in pings {
                let client = self.clone();
                tokio::spawn(async move { client.post(&json!({"jsonrpc": "2.0", "id": id, "result": {}})).await });
            }
        }
    }

    async fn post(&self, message: &Value) -> Option<Response> {
        let request = self
            .request(self.http.post(&self.url))
            .header(ACCEPT, "application/json, text/event-stream")
            .header(CONTENT_TYPE, "application/json")
            .body(message.to_string());
        timeout(ANSWER, request.send()).await.ok()?.ok()
    }

    fn request(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.session {
            Some(session) => request.header("mcp-session-id", session).header("mcp-protocol-version", VERSION),
            None => request,
        }
    }
}
