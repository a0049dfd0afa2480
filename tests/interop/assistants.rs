//! The command lines of the assistants that most people have: each is told of the gateway, and lists what it has there.
//!
//! None of them needs an account of its maker's for that. Two of them log in by themselves, with the document that their
//! maker publishes, which the provider of these tests has in the maker's place; a script is the person.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::onboard::REGISTRATION;
use crate::parts::Parts;
use crate::provider::Provider;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::scripted::Scripted;

async fn start(provider: &Provider, lines: &str) -> Gateway {
    let upstream = Scripted::echo().await;
    // Who asks for no scope gets nothing from a strict provider, and Claude Code asks for those that the gateway names.
    let scopes =
        "scopes = \"required\"\nscope_rules = [{ scope = \"mcp\", object = \"tools/*\", actions = [\"call\"] }]\n";
    let setup = Setup::with_issuer(&provider.url).issuer_lines(scopes);
    setup.http_server("tools", &upstream.url, "").sections(lines).start().await
}

/// A gateway whose people log in at the provider, and a place where one of the assistants is at home.
struct Desk {
    parts: Parts,
    provider: Provider,
    gateway: Gateway,
    url: String,
    /// The token of the person there.
    token: String,
    home: tempfile::TempDir,
}

impl Desk {
    /// Nothing where the assistants are not installed.
    async fn open() -> Option<Self> {
        let parts = Parts::installed()?;
        let provider = Provider::start(&parts).await;
        let gateway = start(&provider, "").await;
        let url = gateway.resource();
        let token = provider.person("alice", &url).await;
        let home = home(&parts, &token);
        Some(Self { parts, provider, gateway, url, token, home })
    }

    async fn run(&self, line: &[&str]) -> String {
        run(&self.parts, self.home.path(), line).await
    }

    /// Whoever logged in is known by a document of its maker's (CIMD), and registered nowhere.
    async fn assert_by_document(&self) {
        let (registered, described) = self.provider.clients().await;
        assert!(registered == 0 && described > 0, "{registered} {described}");
    }

    /// What Codex says its servers have.
    async fn assert_codex_has_the_tool(&self) {
        let (python, codex) = (self.parts.python_command("python"), self.parts.node_command("codex"));
        let said = self.run(&[&python, &Parts::script("mcp_status.py"), &codex]).await;
        let has: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("no JSON: {said}"));
        assert_eq!(has, json!({ "gateway": ["tools__echo"] }));
    }
}

/// Runs one of them to its end, with a home of its own; what it printed.
async fn run(parts: &Parts, home: &Path, line: &[&str]) -> String {
    let (program, arguments) = line.split_first().unwrap();
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::join_paths([parts.node_directory(), "/usr/bin".into(), "/bin".into()]).unwrap())
        .env("HOME", home)
        .env("NO_PROXY", "*")
        .env("BROWSER", home.join("browser"))
        .env("GATEWAY_TOKEN", std::fs::read_to_string(home.join("token")).unwrap_or_default())
        // Nobody is called at home.
        .env("DISABLE_AUTOUPDATER", "1")
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("GEMINI_TELEMETRY_ENABLED", "false")
        .current_dir(home)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(90), command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{line:?} did not end")).unwrap();
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line:?}: {}\n{text}\n{said}", output.status);
    // What is for people goes to either.
    if text.is_empty() { said.into_owned() } else { text.into_owned() }
}

/// A home with the token of a person in it, and with a browser that does what its person would.
fn home(parts: &Parts, token: &str) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("token"), token).unwrap();
    let browser = home.path().join("browser");
    let (python, script) = (parts.python_command("python"), Parts::script("browse.py"));
    std::fs::write(&browser, format!("#!/bin/sh\nexec {python} {script} \"$1\"\n")).unwrap();
    std::fs::set_permissions(&browser, std::fs::Permissions::from_mode(0o755)).unwrap();
    home
}

/// How often the gateway showed somebody its tools, and how many.
fn shown(gateway: &Gateway) -> Vec<Value> {
    let lists = gateway.records("list");
    let tools = lists.iter().filter(|line| line["mcp"]["method"] == "tools/list");
    tools.map(|line| line["list"]["shown"].clone()).collect()
}

#[tokio::test]
async fn codex_lists_the_tools_with_a_token_and_with_a_login_of_its_own() {
    let Some(desk) = Desk::open().await else { return };
    let (codex, url) = (desk.parts.node_command("codex"), desk.url.as_str());
    desk.run(&[&codex, "mcp", "add", "gateway", "--url", url, "--bearer-token-env-var", "GATEWAY_TOKEN"]).await;
    desk.assert_codex_has_the_tool().await;
    // Without one it finds the provider, shows its maker's document there, and logs in.
    desk.run(&[&codex, "mcp", "remove", "gateway"]).await;
    let store = "mcp_oauth_credentials_store=\"file\"";
    desk.run(&[&codex, "-c", store, "mcp", "add", "gateway", "--url", url]).await;
    std::fs::remove_file(desk.home.path().join("token")).unwrap();
    let config = desk.home.path().join(".codex/config.toml");
    let written = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{store}\n{written}")).unwrap();
    desk.run(&[&codex, "mcp", "login", "gateway"]).await;
    desk.assert_by_document().await;
    desk.assert_codex_has_the_tool().await;
    // Where the provider has one client for all it registers at the gateway, and its person is asked.
    let other = start(&desk.provider, REGISTRATION).await;
    desk.run(&[&codex, "mcp", "remove", "gateway"]).await;
    desk.run(&[&codex, "mcp", "add", "gateway", "--url", &other.resource()]).await;
    desk.assert_codex_has_the_tool().await;
    let told = other.records("admin");
    assert!(told.iter().any(|record| record.to_string().to_lowercase().contains("codex")), "{told:?}");
}

#[tokio::test]
async fn claude_code_connects_with_a_token_and_with_a_login_of_its_own() {
    let Some(desk) = Desk::open().await else { return };
    // Its install script, which nobody runs, would put the program in the place of this.
    let claude = [desk.parts.node(), desk.parts.node_file("@anthropic-ai/claude-code/cli-wrapper.cjs")];
    let with = async |more: &[&str]| {
        let line: Vec<&str> = claude.iter().map(String::as_str).chain(more.iter().copied()).collect();
        desk.run(&line).await
    };
    let header = format!("Authorization: Bearer {}", desk.token);
    with(&["mcp", "add", "--transport", "http", "gateway", &desk.url, "--header", &header]).await;
    let listed = with(&["mcp", "list"]).await;
    assert!(listed.contains("gateway: ") && listed.contains("Connected"), "{listed}");
    eventually("it to have listed the tools", async || shown(&desk.gateway).contains(&json!(1))).await;
    with(&["mcp", "remove", "gateway"]).await;
    with(&["mcp", "add", "--transport", "http", "gateway", &desk.url]).await;
    let listed = with(&["mcp", "list"]).await;
    assert!(listed.contains("Needs authentication"), "it knows that it has to log in: {listed}");
    // It logs in where it is in front of a terminal alone.
    let login = format!("{} {} mcp login gateway", claude[0], claude[1]);
    desk.run(&["script", "-qec", &login, "/dev/null"]).await;
    desk.assert_by_document().await;
    let listed = with(&["mcp", "list"]).await;
    assert!(listed.contains("Connected"), "{listed}");
}

#[tokio::test]
async fn gemini_connects_with_a_token() {
    let Some(desk) = Desk::open().await else { return };
    let place = desk.home.path().join(".gemini");
    std::fs::create_dir(&place).unwrap();
    let headers = json!({ "Authorization": format!("Bearer {}", desk.token) });
    let settings = json!({
        "security": { "folderTrust": { "enabled": false } },
        "mcpServers": { "gateway": { "httpUrl": desk.url, "headers": headers } },
    });
    std::fs::write(place.join("settings.json"), settings.to_string()).unwrap();
    let listed = desk.run(&[&desk.parts.node_command("gemini"), "mcp", "list"]).await;
    assert!(listed.contains("gateway: ") && listed.contains("Connected"), "{listed}");
}
