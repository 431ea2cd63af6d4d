//! Client that shows the bytes of its streams.
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// Protocol version that clients negotiate.
pub const VERSION: &str = "2025-11-25";

/// Time limit of a wait for bytes that must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Session whose requests a test makes one by one.
#[derive(Debug, Clone)]
pub struct Wire {
    http: reqwest::Client,
    url: String,
    /// Id of the session.
    pub session: String,
    version: String,
}

/// Returns the request that begins a session of a protocol version.
pub fn initialize(version: &str) -> Value {
    let params = json!({"protocolVersion": version, "capabilities": {"elicitation": {}},
        "clientInfo": {"name": "wire", "version": "0"}});
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
}

/// Returns a POST with the headers that MCP requires, without a session.
pub fn post(url: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    // A connection of its own for each request: nothing depends on how long one is kept.
    let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let request = http.request(Method::POST, url).header(ACCEPT, "application/json, text/event-stream");
    request.header(CONTENT_TYPE, "application/json").body(body)
}

impl Wire {
    /// Begins a session of a protocol version.
    pub async fn connect(url: &str, version: &str) -> Self {
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

    /// Returns the same session at another server.
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// Sends a body with the headers of the session.
    pub async fn post(&self, body: impl Into<reqwest::Body>) -> Response {
        let request = post(&self.url, body).header("mcp-session-id", &self.session);
        tokio::time::timeout(PATIENCE, request.header("mcp-protocol-version", &self.version).send())
            .await
            .unwrap()
            .unwrap()
    }

    /// Opens the standalone stream. Without a version the header is left out.
    pub async fn get(&self, version: Option<&str>, last_event_id: Option<&str>) -> Stream {
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

    /// Opens the standalone stream with the version of the session.
    pub async fn stream(&self) -> Stream {
        self.get(Some(&self.version), None).await
    }
}

/// Returns the text of a response.
pub async fn text(response: Response) -> String {
    tokio::time::timeout(PATIENCE, response.text()).await.unwrap().unwrap()
}

/// Returns the id for the real stream, where a text is an early close: its only event has a short `retry`.
pub fn early_close(text: &str) -> Option<&str> {
    text.lines().find(|line| *line == "retry: 10")?;
    text.lines().find_map(|line| line.strip_prefix("id: "))
}

/// Stream, with its bytes so far.
#[derive(Debug)]
pub struct Stream {
    wire: Wire,
    response: Response,
    /// Text so far.
    pub text: String,
    answered: usize,
}

impl Stream {
    /// Returns the headers of the response.
    pub fn headers(&self) -> &reqwest::header::HeaderMap {
        self.response.headers()
    }

    /// Reads, and answers pings, until the text satisfies a condition.
    pub async fn until(&mut self, is_enough: impl Fn(&str) -> bool) -> &str {
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
    pub async fn until_end(&mut self) {
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

    /// Returns the whole events so far.
    pub fn events(&self) -> Vec<&str> {
        let whole = self.text.rfind("\n\n").map_or("", |end| &self.text[..end]);
        whole.split("\n\n").filter(|event| !event.is_empty()).collect()
    }

    /// Returns the JSON-RPC messages so far.
    pub fn messages(&self) -> Vec<Value> {
        let lines = self.events().into_iter().flat_map(str::lines);
        let data = lines.filter_map(|line| line.strip_prefix("data:").map(str::trim)).filter(|data| !data.is_empty());
        // A message with a number that no `f64` holds is left out; its text remains.
        data.filter_map(|data| serde_json::from_str(data).ok()).collect()
    }

    /// Waits for a request of the server, and returns the request.
    pub async fn request(&mut self, method: &str) -> Value {
        self.until(|text| text.contains(&format!("\"method\":\"{method}\"")) && text.ends_with("\n\n")).await;
        self.messages().into_iter().find(|message| message["method"] == method).unwrap()
    }
}
