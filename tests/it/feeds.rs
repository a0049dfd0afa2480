//! What identity providers tell takes access back, and nothing that somebody else says does.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

mod ended;
mod events;
mod logout;
mod poll;
mod scim;

const SECRET: &str = "a secret that only the provider knows";

/// A gateway with one tool and a feed of these lines.
struct Fed {
    issuer: Issuer,
    upstream: Scripted,
    gateway: Gateway,
}

/// What a feed was answered.
#[derive(Debug)]
struct Answered {
    status: u16,
    headers: reqwest::header::HeaderMap,
    text: String,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

impl Fed {
    async fn start(lines: &str) -> Self {
        Self::with(lines, |setup| setup).await
    }

    async fn with(lines: &str, more: impl FnOnce(Setup) -> Setup) -> Self {
        let issuer = Issuer::start().await;
        let upstream = Scripted::echo().await;
        let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "").sections(lines);
        let setup = more(setup);
        std::fs::write(setup.directory().join("feed-secret"), SECRET).unwrap();
        let gateway = setup.start().await;
        Self { issuer, upstream, gateway }
    }

    /// A person's client with a token of a moment ago, which a sign-out of now reaches.
    fn person(&self, name: &str) -> Client {
        self.gateway.client(&self.issuer.token(name, &["developers"], &self.gateway.resource()))
    }

    /// The same in a login session.
    fn in_session(&self, name: &str, session: &str) -> Client {
        let mut claims = self.issuer.claims(name, &["developers"], &self.gateway.resource());
        claims["sid"] = json!(session);
        self.gateway.client(&self.issuer.sign(&claims))
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answered {
        self.send(reqwest::Method::POST, path, headers, body).await
    }

    #[expect(clippy::disallowed_methods, reason = "a test's client needs no SSRF guard")]
    async fn send(&self, method: reqwest::Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answered {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = http.request(method, format!("{}{path}", self.gateway.url)).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Answered { status, headers, text: answer.text().await.unwrap() }
    }

    /// The revocations on the record that feeds ordered.
    fn ordered(&self) -> Vec<Value> {
        let ours = |record: &Value| record["revocation"]["actor"].as_str().is_some_and(|by| by.starts_with("feed:"));
        self.gateway.records("revocation").into_iter().filter(ours).collect()
    }
}

async fn works(client: &Client) -> bool {
    client.call_tool("tools__echo", json!({})).await.status == 200
}

/// Fails unless this client is refused within a second from then.
async fn refused_within_a_second(began: Instant, client: &Client) {
    while works(client).await {
        assert!(began.elapsed() < Duration::from_secs(1), "it still works a second after the message was received");
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

fn bearer() -> (&'static str, &'static str) {
    static VALUE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    ("authorization", VALUE.get_or_init(|| format!("Bearer {SECRET}")))
}
