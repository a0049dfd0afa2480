//! The fixture as an upstream, in each of its four ways, and a gateway in front of it.
//!
//! Invariant: what a test starts ends with it.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;

/// Everything on every server, for whoever calls: the suite cannot send a token.
const EVERYONE_MAY: &str = "\
p, anyone, *, */*, call, -, allow
p, anyone, *, */*, get, -, allow
p, anyone, *, */*, complete, -, allow
p, anyone, *, */*, elicit, -, allow
p, anyone, *, */*, sample, -, allow
p, anyone, *, */*, roots, -, allow
p, anyone, *, fixture/*, method:skills/list, -, allow
p, anyone, *, fixture/*, method:skills/get, -, allow
p, anyone, *, fixture/*, method:resources/directory/read, -, allow
p, anyone, *, */**, read, -, allow
p, anyone, *, */**, complete, -, allow
p, anyone, *, */**, subscribe, -, allow
";

/// The fixture over HTTP; it ends when its standard input does.
pub struct Fixture {
    child: Child,
    pub url: String,
}

impl Fixture {
    pub fn start(legacy_only: bool) -> Self {
        let mut command = Command::new(program());
        command.arg("http").args(legacy_only.then_some("--legacy"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim().to_owned() }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command of the fixture over its standard streams.
pub fn stdio(legacy_only: bool) -> Vec<String> {
    let mut command = vec![program().display().to_string(), "stdio".to_owned()];
    command.extend(legacy_only.then(|| "--legacy".to_owned()));
    command
}

/// A gateway that accepts callers without a token, once its servers are written down; returns when they answer.
pub async fn gateway(servers: impl FnOnce(Setup) -> Setup) -> Gateway {
    let issuer = Issuer::start().await;
    let limits = "requests_per_second = 10000\nrequests_burst = 10000\nstreams_max = 64\n[anonymous]\nenabled = true\n";
    let gateway = servers(Setup::new(&issuer).limits(limits).policy(EVERYONE_MAY)).start().await;
    let client = Client::new(&gateway.resource(), None);
    // On a busy machine the first look at a server may take longer than a list waits for it.
    eventually("a list of the servers' tools", async || {
        client.modern("tools/list", serde_json::json!({})).await.result().is_object()
    })
    .await;
    gateway
}

/// `cargo test` builds it; a test binary that is run by itself needs `cargo build --example conformance_fixture`.
fn program() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples/conformance_fixture");
    assert!(path.exists(), "{} is missing: cargo build --example conformance_fixture", path.display());
    path
}
