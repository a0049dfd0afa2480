//! The console in a real browser: every page, by keyboard, on a phone, in the dark, and what is done with it.
//!
//! A script drives Chromium (`tests/console/drive.mjs`, with `playwright-core` of `tests/interop/parts`) and fails on any
//! error in the browser's console, any violation of the content policy and any request that fails. Where the parts or
//! Chromium are not installed, the test says so and passes; in CI it fails. The pictures are in `target/console/`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test says what must hold, and fails where it does not"
)]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;
use support::client::Client;
use support::door::Person;
use support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use support::issuer::Issuer;
use support::scripted::{Scripted, result, text, tool};

#[path = "../interop/parts.rs"]
#[expect(dead_code, reason = "shared with the tests in tests/interop, which use all of it")]
mod parts;
#[path = "../it/support/mod.rs"]
#[expect(dead_code, clippy::expect_used, reason = "shared with the tests in tests/it, which use all of it")]
mod support;

const RULES: &str = "\
g, group:test/admins, role:admin, *
p, role:admin, *, bailiwick/*, admin, -, allow
p, user:test/mallory, *, tools/echo, call, -, deny
";

const CONSOLE: &str = "acr = [\"strong\"]\nclients = [{ issuer = \"test\", client_id = \"test-admin\", approves = true }]\n\
                       [admin.console]\nissuer = \"test\"\nclient_id = \"test-console\"";

const GATES: &str = "[gates.pay]\nobjects = [\"tools/pay\"]\napprovers = [\"group:test/admins\"]\n";
const CONDITIONS: &str = "[small]\nonly = [\"to\", \"n\"]\n\
                          all = [{ argument = \"to\", equals = \"staging\" }, { argument = \"n\", at_most = 1000 }]\n";
const TEMPLATES: &str = "[templates.nightly]\ntitle = \"the nightly run\"\ntools = [\"tools/echo\"]\n\
                         environments = [\"development\"]\nagents = [\"nightly\"]\nbudget = { calls = 7 }\n";

const AGENTS: &str = r#"
[agents.assistant]
owner = "user:test/owner"
owner_person = "owner"
purpose = "the assistant that everybody has on their desk"
kind = "interactive"
environments = ["development"]
review = 2027-03-31

[agents.nightly]
owner = "user:test/paula"
owner_person = "paula"
purpose = "opens the issues that the nightly build finds"
kind = "autonomous"
environments = ["development"]
clients = [{ issuer = "test", client_id = "nightly-build-client", proof = "private_key" }]
expires = 2027-06-30

[agents.helper]
owner = "user:test/anna"
owner_person = "anna"
purpose = "proposed by a team, looked at by nobody yet"
kind = "interactive"
environments = ["development"]
state = "proposed"
"#;

/// What dora has called is carried from then on.
const LABELS: &str = "[[label]]\nobjects = [\"tools/*\"]\nreads = \"private\"\ncontent = \"untrusted\"\n";

/// Chromium, wherever it is installed.
fn chromium() -> Option<PathBuf> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let installed = std::env::split_paths(&path).flat_map(|place| names.map(|name| place.join(name)));
    let found = named.into_iter().chain(installed).find(|path| path.exists());
    assert!(found.is_some() || std::env::var_os("CI").is_none(), "Chromium is missing; install the package chromium");
    if found.is_none() {
        eprintln!("skipped: there is no Chromium; install the package chromium, or name it in CHROMIUM");
    }
    found
}

#[tokio::test]
async fn the_console_works_in_a_browser_by_keyboard_on_a_phone_and_in_the_dark() {
    let (Some(parts), Some(chromium)) = (parts::Parts::installed(), chromium()) else { return };
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([tool("echo"), tool("pay")]), |call| result(call, text("done"))).await;
    // What it lists says something that cannot be seen, and waits for somebody who looks.
    let mut odd = tool("pay");
    odd["description"] = json!("Pays what is asked\u{200b} <b>at once</b>");
    let payroll = Scripted::start(json!([odd]), |call| result(call, text("done"))).await;
    issuer.seat(vec![Person::new("ann", &["admins"]), Person::new("dora", &["developers"])]);
    let hostile = "title = \"Payroll \\u202e<img src=x onerror=alert(1)> of a very-long-name-that-does-not-end-anywhere-soon-and-goes-on\"\ndiscoverable = true";
    let gateway = Setup::new(&issuer)
        .policy(&format!("{DEVELOPERS_MAY}{RULES}"))
        .policy_file("agents.toml", AGENTS)
        .policy_file("labels.toml", LABELS)
        .claims("person = \"person\"\n")
        .policy_file("gates.toml", GATES)
        .policy_file("conditions.toml", CONDITIONS)
        .policy_file("mandates.toml", TEMPLATES)
        .http_server("tools", &upstream.url, "title = \"Tools of the platform team\"")
        .http_server("gone", "http://127.0.0.1:9/mcp", "title = \"Ticket system\"")
        .http_server("payroll", &payroll.url, hostile)
        .admin(CONSOLE)
        // Another site than the issuer's, as in life.
        .admin_origin("http://localhost")
        .start()
        .await;
    gateway.write_policy(&format!("{DEVELOPERS_MAY}{RULES}p, user:test/eve, *, */*, call, -, deny\n"));
    assert!(gateway.command(&["reload", "--config", "servers.toml"]).status.success());
    let review = gateway.command(&["review", "open", "--json", "--config", "servers.toml"]);
    let review: serde_json::Value = serde_json::from_slice(&review.stdout).unwrap();
    let token = issuer.token("dora", &["developers"], &gateway.resource());
    let filled = fill(&gateway, &issuer, &token).await;
    let params = json!({ "name": "tools__echo", "arguments": { "text": "hello" } });
    let (headers, body) = support::client::modern_request("tools/call", params);
    let headers: serde_json::Map<_, _> =
        headers.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/console");
    std::fs::create_dir_all(&pictures).unwrap();
    let told = json!({
        "base": gateway.admin, "chromium": chromium, "pictures": pictures, "review": review["id"], "filled": filled,
        "call": { "url": gateway.resource(), "token": token, "headers": headers, "body": body.to_string() },
    });
    drive(&parts, &told).await;
}

#[tokio::test]
async fn over_tls_the_browser_keeps_the_cookie_for_this_host_alone() {
    let (Some(parts), Some(chromium)) = (parts::Parts::installed(), chromium()) else { return };
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    issuer.seat(vec![Person::new("ann", &["admins"])]);
    let fixture = format!("{}/src/front/fixture/localhost", env!("CARGO_MANIFEST_DIR"));
    let tls = format!("{CONSOLE}\n[admin.tls]\ncertificate = \"{fixture}.crt\"\nkey = \"{fixture}.key\"");
    let gateway = Setup::new(&issuer)
        .policy(&format!("{DEVELOPERS_MAY}{RULES}"))
        .http_server("tools", &upstream.url, "")
        .admin(&tls)
        .admin_origin("https://localhost")
        .start()
        .await;
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/console");
    drive(&parts, &json!({ "base": gateway.admin, "chromium": chromium, "pictures": pictures, "tls": true })).await;
}

/// Has something on every page: a call that waits, a standing approval, a task and a definition that nobody has looked at.
/// Answers what each page must show of it.
async fn fill(gateway: &Gateway, issuer: &Issuer, token: &str) -> serde_json::Value {
    let ann = issuer.sign(&issuer.administrator("ann", &["admins"], &gateway.admin));
    let order = async |path: &str, body: serde_json::Value| {
        let answer =
            Client::new(&format!("{}/api/v1{path}", gateway.admin), Some(&ann)).post(&[], body.to_string()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.response().clone()
    };
    let dora = gateway.client(token);
    let waits = dora.call_tool("tools__pay", json!({ "to": "staging", "n": 7 })).await;
    let request =
        waits.result()["structuredContent"]["approval_id"].as_str().unwrap_or_else(|| panic!("{}", waits.text));
    let wish = json!({ "like": request, "condition": "small", "uses": 3, "seconds": 3600, "note": "the migration" });
    let standing = order("/standing", wish).await;
    let task = json!({ "template": "nightly", "agent": "nightly", "purpose": "echoes what was built" });
    let mandate = order("/mandates", task).await;
    let found = || {
        let listed = gateway.command(&["pins", "list", "--server", "payroll", "--json", "--config", "servers.toml"]);
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
        let pins = listed["pins"].as_array().cloned().unwrap_or_default();
        pins.iter().find(|pin| pin["name"] == "pay").map_or(json!(null), |pin| pin["digest"].clone())
    };
    support::eventually("a definition that waits", async || found().is_string()).await;
    let (standing, mandate) = (&standing["id"], &mandate["mandate"]["id"]);
    let path = |page: &str, id: &serde_json::Value| format!("{page}/{}", id.as_str().unwrap());
    json!({
        "approvals": ["user:test/dora", "tools/pay"],
        path("approvals", &json!(request)): ["user:test/dora", "staging"],
        "standing": ["tools/pay", "small", "proposed"],
        path("standing", standing): ["the migration", "small"],
        "mandates": ["nightly", "echoes what was built"],
        path("mandates", mandate): ["echoes what was built", "7"],
        "definitions": ["payroll", "pay"],
        path("definitions", &found()): ["Pays what is asked", "<b>at once</b>"],
    })
}

/// Runs the script to its end.
async fn drive(parts: &parts::Parts, told: &serde_json::Value) {
    // Beside the Node packages, where the script finds them; a copy of its own for each process.
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/interop/{}-drive.mjs", ulid::Ulid::generate()));
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console/drive.mjs"), &script).unwrap();
    let mut command = tokio::process::Command::new(parts.node());
    command.arg(&script).arg(told.to_string()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(std::time::Duration::from_secs(170), command.output()).await;
    std::fs::remove_file(&script).unwrap();
    let output = output.unwrap_or_else(|_| panic!("the script did not end")).unwrap();
    let (text, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{complaint}");
    assert_eq!(text.lines().last(), Some("all is well"), "{text}\n{complaint}");
}
