//! An MCP client that says exactly what a test wants it to say, in either era.

use serde_json::{Value, json};

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    /// Every message of the answer: one for JSON, all for a stream.
    pub messages: Vec<Value>,
    pub text: String,
}

impl Answer {
    /// The response message.
    pub fn response(&self) -> &Value {
        self.messages.last().unwrap_or_else(|| panic!("no message in {} {:?}", self.status, self.text))
    }

    pub fn result(&self) -> &Value {
        &self.response()["result"]
    }

    pub fn error_code(&self) -> i64 {
        self.response()["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error in {}", self.text))
    }

    /// The text of a tool's answer.
    pub fn tool_text(&self) -> &str {
        self.result()["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A client of one endpoint.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    pub url: String,
    pub token: Option<String>,
}

impl Client {
    #[expect(clippy::disallowed_methods, reason = "a test's client needs no SSRF guard")]
    pub fn new(url: &str, token: Option<&str>) -> Self {
        let http = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build().unwrap();
        Self { http, url: url.to_owned(), token: token.map(str::to_owned) }
    }

    /// A client that shows a certificate: its PEM, and that of its key.
    #[expect(clippy::disallowed_methods, reason = "a test's client needs no SSRF guard")]
    pub fn with_certificate(url: &str, pem: &str) -> Self {
        let identity = reqwest::Identity::from_pem(pem.as_bytes()).unwrap();
        let http = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).identity(identity);
        Self { http: http.build().unwrap(), url: url.to_owned(), token: None }
    }

    /// Whether no answer comes at all.
    pub async fn refused(&self) -> bool {
        self.http.get(&self.url).send().await.is_err()
    }

    /// A modern request with everything that the specification wants.
    pub async fn modern(&self, method: &str, params: Value) -> Answer {
        let (headers, body) = modern_request(method, params);
        self.post(&headers, body.to_string()).await
    }

    pub async fn call_tool(&self, name: &str, arguments: Value) -> Answer {
        self.modern("tools/call", json!({ "name": name, "arguments": arguments })).await
    }

    /// The names of a list, in order.
    pub async fn tool_names(&self) -> Vec<String> {
        let answer = self.modern("tools/list", json!({})).await;
        let tools = answer.result()["tools"].as_array().unwrap_or_else(|| panic!("no list in {}", answer.text));
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    /// A POST exactly as given, with the token.
    pub async fn post(&self, headers: &[(&str, String)], body: String) -> Answer {
        let mut request = self
            .http
            .post(&self.url)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        self.send(request.body(body)).await
    }

    /// The messages that a POST is answered with, as they came.
    pub async fn texts(&self, headers: &[(&str, String)], body: String) -> Vec<String> {
        let mut request = self.http.post(&self.url).header("content-type", "application/json");
        request = request.header("accept", "application/json, text/event-stream").body(body);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.bearer_auth(self.token.as_deref().unwrap_or_default());
        let text = request.timeout(std::time::Duration::from_secs(30)).send().await.unwrap().text().await.unwrap();
        if text.starts_with('{') {
            return vec![text];
        }
        let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
        lines.filter(|data| !data.is_empty()).map(str::to_owned).collect()
    }

    /// A GET or DELETE.
    pub async fn bare(&self, method: reqwest::Method, headers: &[(&str, String)]) -> Answer {
        let mut request = self.http.request(method, &self.url);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        self.send(request).await
    }

    /// Whether it answers a GET well; whoever begins or ends just now does not.
    pub async fn is_well(&self) -> bool {
        let answer = self.http.get(&self.url).timeout(std::time::Duration::from_secs(30)).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    /// A modern tool call over a connection of its own: its status and its answer, or that there was no connection,
    /// or none to the end.
    #[expect(clippy::disallowed_methods, reason = "a test's client needs no SSRF guard")]
    pub async fn try_tool(&self, name: &str, arguments: Value) -> Result<(u16, String), Lost> {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let (headers, body) = modern_request("tools/call", json!({ "name": name, "arguments": arguments }));
        let mut request = http.post(&self.url).header("content-type", "application/json").body(body.to_string());
        request = request.header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.bearer_auth(self.token.as_deref().unwrap_or_default());
        let sent = request.timeout(std::time::Duration::from_secs(20)).send().await;
        let answer = sent.map_err(|error| if error.is_connect() { Lost::Unsent } else { Lost::Midway })?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await.map_err(|_| Lost::Midway)?))
    }

    async fn send(&self, mut request: reqwest::RequestBuilder) -> Answer {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        whole(request.timeout(std::time::Duration::from_secs(30)).send().await.unwrap()).await
    }

    /// Opens a stream: a POST with a body, a GET without.
    pub async fn stream(&self, headers: &[(&str, String)], body: Option<String>) -> Stream {
        self.try_stream(headers, body).await.unwrap_or_else(|answer| panic!("{} {}", answer.status, answer.text))
    }

    /// The same, or the answer where that is no stream of events.
    pub async fn try_stream(&self, headers: &[(&str, String)], body: Option<String>) -> Result<Stream, Answer> {
        let mut request = match body {
            Some(body) => self.http.post(&self.url).header("content-type", "application/json").body(body),
            None => self.http.get(&self.url),
        };
        request = request.header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.bearer_auth(self.token.as_deref().unwrap_or_default()).send().await.unwrap();
        if is_stream(response.headers()) {
            assert_eq!(response.status(), 200);
            return Ok(Stream { response, rest: String::new(), over: false });
        }
        Err(whole(response).await)
    }

    /// An open stream after a POST exactly as given, without the token.
    pub async fn stream_as_given(&self, headers: &[(&str, String)], body: String) -> Stream {
        let mut request = self.http.post(&self.url).header("content-type", "application/json");
        request = request.header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.body(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        Stream { response, rest: String::new(), over: false }
    }

    /// Begins a legacy session; the second value is its id.
    pub async fn initialize(&self, version: &str) -> (Answer, String) {
        let params =
            json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } });
        let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
        let answer = self.post(&[], body.to_string()).await;
        let session = answer.header("mcp-session-id").to_owned();
        (answer, session)
    }

    /// A request in a legacy session.
    pub async fn legacy(&self, session: &str, method: &str, params: Value) -> Answer {
        let body = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        let headers = [("mcp-session-id", session.to_owned()), ("mcp-protocol-version", "2025-11-25".to_owned())];
        self.post(&headers, body.to_string()).await
    }
}

fn is_stream(headers: &reqwest::header::HeaderMap) -> bool {
    headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Everything of an answer.
async fn whole(response: reqwest::Response) -> Answer {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let text = response.text().await.unwrap();
    let messages = if is_stream(&headers) {
        text.lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    } else {
        serde_json::from_str(&text).into_iter().collect()
    };
    Answer { status, headers, messages, text }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    Unsent,
    Midway,
}

/// An open stream of events.
#[derive(Debug)]
pub struct Stream {
    response: reqwest::Response,
    rest: String,
    over: bool,
}

impl Stream {
    /// The next message; fails after ten seconds.
    pub async fn next(&mut self) -> Value {
        self.next_within(std::time::Duration::from_secs(10)).await.expect("a message within ten seconds")
    }

    /// The next message, if one comes in time.
    pub async fn next_within(&mut self, time: std::time::Duration) -> Option<Value> {
        tokio::time::timeout(time, async {
            loop {
                while let Some((line, rest)) = self.rest.split_once('\n') {
                    let message =
                        line.trim_end().strip_prefix("data: ").map(|data| serde_json::from_str(data).unwrap());
                    self.rest = rest.to_owned();
                    if message.is_some() {
                        return message;
                    }
                }
                let chunk = self.response.chunk().await.unwrap();
                self.over = chunk.is_none();
                self.rest.push_str(std::str::from_utf8(&chunk?).unwrap());
            }
        })
        .await
        .ok()
        .flatten()
    }

    /// Whether the end was seen.
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// The next event or comment as it stands, without the empty line behind it.
    pub async fn block(&mut self) -> String {
        tokio::time::timeout(std::time::Duration::from_secs(10), async {
            loop {
                if let Some((block, rest)) = self.rest.split_once("\n\n") {
                    let block = block.to_owned();
                    self.rest = rest.to_owned();
                    return block;
                }
                let chunk = self.response.chunk().await.unwrap().expect("more of the stream");
                self.rest.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        })
        .await
        .expect("an event within ten seconds")
    }

    /// The next message as it stands.
    pub async fn text(&mut self) -> String {
        loop {
            let block = self.block().await;
            let data = block.lines().find_map(|line| line.strip_prefix("data: "));
            if let Some(data) = data.filter(|data| !data.is_empty()) {
                return data.to_owned();
            }
        }
    }

    /// Waits until the gateway ends the stream.
    pub async fn end(&mut self) {
        while let Ok(Some(_)) = self.response.chunk().await {}
    }
}

/// Headers and body of a modern request; tests spoil them.
pub fn modern_request(method: &str, mut params: Value) -> (Vec<(&'static str, String)>, Value) {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    let mut headers = vec![("mcp-protocol-version", "2026-07-28".to_owned()), ("mcp-method", method.to_owned())];
    if let Some(name) = params["name"].as_str().or_else(|| params["uri"].as_str()) {
        headers.push(("mcp-name", name.to_owned()));
    }
    (headers, json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }))
}
