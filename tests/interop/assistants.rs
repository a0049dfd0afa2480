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

/// Whoever logged in is known by a document of its maker's (CIMD), and registered nowhere.
async fn assert_by_document(provider: &Provider) {
    let (registered, described) = provider.clients().await;
    assert!(registered == 0 && described > 0, "{registered} {described}");
}

/// What Codex says its servers have.
async fn codex_has(parts: &Parts, home: &Path) -> Value {
    let line = [parts.python_command("python"), Parts::script("mcp_status.py"), parts.node_command("codex")];
    let said = run(parts, home, &line.each_ref().map(String::as_str)).await;
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("no JSON: {said}"))
}

#[tokio::test]
async fn codex_lists_the_tools_with_a_token_and_with_a_login_of_its_own() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let gateway = start(&provider, "").await;
    let (codex, url) = (parts.node_command("codex"), gateway.resource());
    let home = home(&parts, &provider.person("alice", &url).await);
    run(
        &parts,
        home.path(),
        &[&codex, "mcp", "add", "gateway", "--url", &url, "--bearer-token-env-var", "GATEWAY_TOKEN"],
    )
    .await;
    assert_eq!(codex_has(&parts, home.path()).await, json!({ "gateway": ["tools__echo"] }));
    // Without one it finds the provider, shows its maker's document there, and logs in.
    run(&parts, home.path(), &[&codex, "mcp", "remove", "gateway"]).await;
    let store = "mcp_oauth_credentials_store=\"file\"";
    run(&parts, home.path(), &[&codex, "-c", store, "mcp", "add", "gateway", "--url", &url]).await;
    std::fs::remove_file(home.path().join("token")).unwrap();
    let config = home.path().join(".codex/config.toml");
    let written = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{store}\n{written}")).unwrap();
    run(&parts, home.path(), &[&codex, "mcp", "login", "gateway"]).await;
    assert_by_document(&provider).await;
    assert_eq!(codex_has(&parts, home.path()).await, json!({ "gateway": ["tools__echo"] }));
    // Where the provider has one client for all it registers at the gateway, and its person is asked.
    let other = start(&provider, REGISTRATION).await;
    run(&parts, home.path(), &[&codex, "mcp", "remove", "gateway"]).await;
    run(&parts, home.path(), &[&codex, "mcp", "add", "gateway", "--url", &other.resource()]).await;
    assert_eq!(codex_has(&parts, home.path()).await, json!({ "gateway": ["tools__echo"] }));
    let told = other.records("admin");
    assert!(told.iter().any(|record| record.to_string().to_lowercase().contains("codex")), "{told:?}");
}

#[tokio::test]
async fn claude_code_connects_with_a_token_and_with_a_login_of_its_own() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let gateway = start(&provider, "").await;
    let url = gateway.resource();
    let token = provider.person("alice", &url).await;
    let home = home(&parts, &token);
    // Its install script, which nobody runs, would put the program in the place of this.
    let wrapper = parts.node_file("@anthropic-ai/claude-code/cli-wrapper.cjs");
    let claude = [parts.node(), wrapper];
    let with = async |more: &[&str]| {
        let line: Vec<&str> = claude.iter().map(String::as_str).chain(more.iter().copied()).collect();
        run(&parts, home.path(), &line).await
    };
    let header = format!("Authorization: Bearer {token}");
    with(&["mcp", "add", "--transport", "http", "gateway", &url, "--header", &header]).await;
    let listed = with(&["mcp", "list"]).await;
    assert!(listed.contains("gateway: ") && listed.contains("Connected"), "{listed}");
    eventually("it to have listed the tools", async || shown(&gateway).contains(&json!(1))).await;
    with(&["mcp", "remove", "gateway"]).await;
    with(&["mcp", "add", "--transport", "http", "gateway", &url]).await;
    let listed = with(&["mcp", "list"]).await;
    assert!(listed.contains("Needs authentication"), "it knows that it has to log in: {listed}");
    // It logs in where it is in front of a terminal alone.
    let login = format!("{} {} mcp login gateway", claude[0], claude[1]);
    run(&parts, home.path(), &["script", "-qec", &login, "/dev/null"]).await;
    assert_by_document(&provider).await;
    let listed = with(&["mcp", "list"]).await;
    assert!(listed.contains("Connected"), "{listed}");
}

#[tokio::test]
async fn gemini_connects_with_a_token() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let gateway = start(&provider, "").await;
    let url = gateway.resource();
    let token = provider.person("alice", &url).await;
    let home = home(&parts, &token);
    std::fs::create_dir(home.path().join(".gemini")).unwrap();
    let settings = json!({
        "security": { "folderTrust": { "enabled": false } },
        "mcpServers": { "gateway": { "httpUrl": url, "headers": { "Authorization": format!("Bearer {token}") } } },
    });
    std::fs::write(home.path().join(".gemini/settings.json"), settings.to_string()).unwrap();
    let listed = run(&parts, home.path(), &[&parts.node_command("gemini"), "mcp", "list"]).await;
    assert!(listed.contains("gateway: ") && listed.contains("Connected"), "{listed}");
}
