//! A client by hand, for what must be seen in the very bytes.
#![allow(dead_code)] // each test file uses a part of it

use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

pub(crate) const VERSION: &str = "2025-11-25";

/// How long anything that must come is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One session, whose requests are made by hand.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    http: reqwest::Client,
    url: String,
    pub(crate) session: String,
    version: String,
}

pub(crate) fn initialize(version: &str) -> Value {
    let params = json!({"protocolVersion": version, "capabilities": {"elicitation": {}},
        "clientInfo": {"name": "wire", "version": "0"}});
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
}

/// A POST as MCP wants it, without a session.
pub(crate) fn post(url: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    // A connection of its own for each request: nothing depends on how long one is kept.
    let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let request = http.request(Method::POST, url).header(ACCEPT, "application/json, text/event-stream");
    request.header(CONTENT_TYPE, "application/json").body(body)
}

impl Wire {
    /// Begins a session of a protocol version.
    pub(crate) async fn connect(url: &str, version: &str) -> Self {
        let response = post(url, initialize(version).to_string()).send().await.unwrap();
        assert_eq!(response.status(), 200, "{:?}", response.text().await);
        let session = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        assert!(text(response).await.contains(version));
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let wire = Self { http, url: url.to_owned(), session, version: version.to_owned() };
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(wire.post(initialized.to_string()).await.status(), 202);
        wire
    }

    /// The same session at another server.
    pub(crate) fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    pub(crate) async fn post(&self, body: impl Into<reqwest::Body>) -> Response {
        let request = post(&self.url, body).header("mcp-session-id", &self.session);
        tokio::time::timeout(PATIENCE, request.header("mcp-protocol-version", &self.version).send())
            .await
            .unwrap()
            .unwrap()
    }

    /// Opens the standalone stream. A version of `None` is not said.
    pub(crate) async fn get(&self, version: Option<&str>, last_event_id: Option<&str>) -> Stream {
        let mut request = self.http.get(&self.url).header(ACCEPT, "text/event-stream");
        request = request.header("mcp-session-id", &self.session);
        if let Some(version) = version {
            request = request.header("mcp-protocol-version", version);
        }
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        Stream { wire: self.clone(), response, text: String::new(), answered: 0 }
    }

    /// Opens the standalone stream as this session's client does.
    pub(crate) async fn stream(&self) -> Stream {
        self.get(Some(&self.version), None).await
    }
}

/// The text of a response.
pub(crate) async fn text(response: Response) -> String {
    tokio::time::timeout(PATIENCE, response.text()).await.unwrap().unwrap()
}

/// The id for the real stream, where this one is an early close: its only event has a short `retry`.
pub(crate) fn early_close(text: &str) -> Option<&str> {
    text.lines().find(|line| *line == "retry: 10")?;
    text.lines().find_map(|line| line.strip_prefix("id: "))
}

/// A stream as its bytes come.
pub(crate) struct Stream {
    wire: Wire,
    response: Response,
    pub(crate) text: String,
    answered: usize,
}

impl Stream {
    pub(crate) fn headers(&self) -> &reqwest::header::HeaderMap {
        self.response.headers()
    }

    /// Reads, and answers pings, until the text satisfies a condition.
    pub(crate) async fn until(&mut self, is_enough: impl Fn(&str) -> bool) -> &str {
        let begun = Instant::now();
        loop {
            self.answer_pings().await;
            if is_enough(&self.text) {
                return &self.text;
            }
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let chunk = tokio::time::timeout(left, self.response.chunk()).await;
            let chunk = chunk.unwrap_or_else(|_| panic!("not in time: {:?}", self.text)).unwrap();
            let chunk = chunk.unwrap_or_else(|| panic!("it ended: {:?}", self.text));
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
    }

    /// Reads, and answers pings, until the server ends the stream.
    pub(crate) async fn until_end(&mut self) {
        while let Some(chunk) = tokio::time::timeout(PATIENCE, self.response.chunk()).await.unwrap().unwrap() {
            self.text += std::str::from_utf8(&chunk).unwrap();
            self.answer_pings().await;
        }
    }

    async fn answer_pings(&mut self) {
        let pings: Vec<Value> = self.messages().into_iter().filter(|message| message["method"] == "ping").collect();
        for ping in &pings[self.answered..] {
            let answer = json!({"jsonrpc": "2.0", "id": ping["id"], "result": {}});
            assert_eq!(self.wire.post(answer.to_string()).await.status(), 202);
        }
        self.answered = pings.len();
    }

    /// The whole events so far.
    pub(crate) fn events(&self) -> Vec<&str> {
        let whole = self.text.rfind("\n\n").map_or("", |end| &self.text[..end]);
        whole.split("\n\n").filter(|event| !event.is_empty()).collect()
    }

    /// The JSON-RPC messages so far.
    pub(crate) fn messages(&self) -> Vec<Value> {
        let lines = self.events().into_iter().flat_map(str::lines);
        let data = lines.filter_map(|line| line.strip_prefix("data:").map(str::trim)).filter(|data| !data.is_empty());
        // What no `f64` holds cannot be read so; its text can be looked at.
        data.filter_map(|data| serde_json::from_str(data).ok()).collect()
    }

    /// Waits for a request of the server's, and returns it.
    pub(crate) async fn request(&mut self, method: &str) -> Value {
        self.until(|text| text.contains(&format!("\"method\":\"{method}\"")) && text.ends_with("\n\n")).await;
        self.messages().into_iter().find(|message| message["method"] == method).unwrap()
    }
}
