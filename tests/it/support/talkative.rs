//! An upstream of any era and transport that speaks up by itself: `upstream.py`, and a gateway in front of it.

use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::client::{Client, Stream, modern_request};
use super::gateway::{Gateway, Setup};
use super::issuer::Issuer;

/// Every way in which an upstream can be reached.
pub const UPSTREAMS: [(&str, &str); 4] =
    [("modern", "http"), ("legacy", "http"), ("modern", "stdio"), ("legacy", "stdio")];

/// Developers may do everything, but for one resource.
pub const RULES: &str = "\
g, group:test/developers, role:developer, *
p, role:developer, *, */*, call, -, allow
p, role:developer, *, */*, get, -, allow
p, role:developer, *, */**, read, -, allow
p, role:developer, *, */**, subscribe, -, allow
p, agent:assistant, *, */*, call, -, allow
p, agent:assistant, *, */*, get, -, allow
p, agent:assistant, *, */**, read, -, allow
p, agent:assistant, *, */**, subscribe, -, allow
p, anyone, *, */test://secret, read, -, deny
p, anyone, *, */test://secret, subscribe, -, deny
";

/// A gateway with one such upstream, called `up`.
pub struct Talkative {
    pub issuer: Issuer,
    pub gateway: Gateway,
    pub token: String,
    upstream: Option<Child>,
}

impl Drop for Talkative {
    fn drop(&mut self) {
        if let Some(mut upstream) = self.upstream.take() {
            let _ = upstream.kill();
            let _ = upstream.wait();
        }
    }
}

impl Talkative {
    pub async fn start(upstream: (&str, &str)) -> Self {
        Self::with(upstream, &[], "").await
    }

    /// The same with options of the script and further lines of the server's table.
    pub async fn with(upstream: (&str, &str), options: &[&str], more: &str) -> Self {
        Self::of(upstream, options, more, |setup| setup).await
    }

    /// The same with whatever else the gateway needs.
    pub async fn of(
        (era, transport): (&str, &str),
        options: &[&str],
        more: &str,
        also: impl FnOnce(Setup) -> Setup,
    ) -> Self {
        // It changes what it lists, which is what these tests are about.
        let more = &format!("pins = \"off\"\n{more}");
        let issuer = Issuer::start().await;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/upstream.py");
        let python = super::python();
        let setup = also(Setup::new(&issuer).policy(RULES));
        let (setup, upstream) = if transport == "stdio" {
            let command: Vec<&str> =
                [&python, script, era, transport].into_iter().chain(options.iter().copied()).collect();
            (setup.stdio_server("up", &command, more), None)
        } else {
            let mut child = Command::new(&python)
                .args([script, era, transport])
                .args(options)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            let path = if transport == "sse" { "sse" } else { "mcp" };
            let url = format!("http://127.0.0.1:{}/{path}", line.trim());
            (setup.http_server("up", &url, more), Some(child))
        };
        let gateway = setup.start().await;
        let token = issuer.token("alice", &["developers"], &gateway.resource());
        // A resource that was not listed yet is one that does not exist.
        let client = gateway.client(&token);
        super::eventually("the upstream's lists", async || {
            let answer = client.modern("resources/list", serde_json::json!({})).await;
            answer.result()["resources"].as_array().is_some_and(|resources| !resources.is_empty())
        })
        .await;
        Self { issuer, gateway, token, upstream }
    }

    pub fn client(&self) -> Client {
        self.gateway.client(&self.token)
    }

    /// Calls a tool of the upstream as a modern client of the same caller's.
    pub async fn tool(&self, name: &str, arguments: Value) -> String {
        let answer = self.client().call_tool(&format!("up__{name}"), arguments).await;
        answer.tool_text().to_owned()
    }

    /// How often the upstream was asked this.
    pub async fn asked(&self, method: &str) -> Vec<Value> {
        let seen: Value = serde_json::from_str(&self.tool("seen", json!({})).await).unwrap();
        let messages = seen["messages"].as_array().unwrap();
        messages.iter().filter(|message| message[0] == method).map(|message| message[1].clone()).collect()
    }

    /// How many requests the upstream knows to be cancelled.
    pub async fn cancelled(&self) -> usize {
        let seen: Value = serde_json::from_str(&self.tool("seen", json!({})).await).unwrap();
        seen["cancelled"].as_array().unwrap().len()
    }

    /// A modern listen, before its acknowledgement.
    pub async fn listen(&self, token: &str, notifications: Value) -> Stream {
        let (headers, body) = modern_request("subscriptions/listen", json!({ "notifications": notifications }));
        self.gateway.client(token).stream(&headers, Some(body.to_string())).await
    }

    /// A legacy session, and its stream.
    pub async fn session(&self, token: &str) -> (String, Stream) {
        let client = self.gateway.client(token);
        let (_, session) = client.initialize("2025-11-25").await;
        let headers = [("mcp-session-id", session.clone()), ("accept", "text/event-stream".to_owned())];
        let stream = client.stream(&headers, None).await;
        (session, stream)
    }
}
