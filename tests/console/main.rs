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
use support::door::Person;
use support::gateway::{DEVELOPERS_MAY, Setup};
use support::issuer::Issuer;
use support::scripted::Scripted;

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

const CONSOLE: &str = "acr = [\"strong\"]\n[admin.console]\nissuer = \"test\"\nclient_id = \"test-console\"";

const AGENTS: &str = r#"
[agents.assistant]
owner = "user:test/owner"
purpose = "the assistant that everybody has on their desk"
kind = "interactive"
environments = ["development"]
review = 2027-03-31

[agents.nightly]
owner = "user:test/paula"
purpose = "opens the issues that the nightly build finds"
kind = "autonomous"
environments = ["development"]
clients = [{ issuer = "test", client_id = "nightly-build-client", proof = "private_key" }]
expires = 2027-06-30

[agents.helper]
owner = "user:test/anna"
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
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    issuer.seat(vec![Person::new("ann", &["admins"]), Person::new("dora", &["developers"])]);
    let hostile = "title = \"Payroll \\u202e<img src=x onerror=alert(1)> of a very-long-name-that-does-not-end-anywhere-soon-and-goes-on\"\ndiscoverable = true";
    let gateway = Setup::new(&issuer)
        .policy(&format!("{DEVELOPERS_MAY}{RULES}"))
        .policy_file("agents.toml", AGENTS)
        .policy_file("labels.toml", LABELS)
        .http_server("tools", &upstream.url, "title = \"Tools of the platform team\"")
        .http_server("gone", "http://127.0.0.1:9/mcp", "title = \"Ticket system\"")
        .http_server("payroll", &upstream.url, hostile)
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
    let params = json!({ "name": "tools__echo", "arguments": { "text": "hello" } });
    let (headers, body) = support::client::modern_request("tools/call", params);
    let headers: serde_json::Map<_, _> =
        headers.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/console");
    std::fs::create_dir_all(&pictures).unwrap();
    let told = json!({
        "base": gateway.admin, "chromium": chromium, "pictures": pictures, "review": review["id"],
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
