//! `bailiwick init`: what assistants had becomes a gateway, and no secret goes where it should not.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::support::scripted::Scripted;

const SECRETS: [&str; 4] =
    ["ghp_0123456789abcdefghijklm", "hunter2hunter2", "s3cret-of-the-header", "another-one-4711"];

/// A home with what five assistants have in it, and a project.
struct Home {
    place: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let home = Self { place: tempfile::tempdir().unwrap() };
        home.write(
            ".config/Claude/claude_desktop_config.json",
            &json!({"mcpServers": {
                "GitHub": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-github@2026.8.31"], "env": {"GITHUB_TOKEN": SECRETS[0]}},
                "files": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem@2026.8.31", home.path("shared").display().to_string()]},
                "leaky": {"command": "server", "args": ["--api-key", SECRETS[3]]},
                "boxed": {"command": "docker", "args": ["run", "-e", format!("API_KEY={}", SECRETS[3]), "img"]},
                "headed": {"command": "server", "args": ["--header", format!("X-Custom: {}", SECRETS[3])]},
                "bridged": {"command": "npx", "args": ["mcp-remote", "https://b.example.com/mcp", "--static-oauth-client-info",
                    json!({"client_secret": SECRETS[3]}).to_string()]}}})
            .to_string(),
        );
        std::fs::create_dir(home.path("shared")).unwrap();
        home.write(
            ".claude.json",
            &json!({"numStartups": 7, "mcpServers": {"crm": {"type": "http", "url": "https://crm.example.com/mcp", "headers": {"Authorization": format!("Bearer {}", SECRETS[2])}}},
                "projects": {"/p": {"history": ["x"], "mcpServers": {"local": {"command": "mcp-server-git", "args": []}}}}})
            .to_string(),
        );
        home.write(".cursor/mcp.json", &json!({"mcpServers": {"github": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-github@2026.8.31"], "env": {"GITHUB_TOKEN": SECRETS[0]}}}}).to_string());
        home.write("project/.vscode/mcp.json", "{\n  // ours\n  \"servers\": {\n    \"db\": {\"type\": \"stdio\", \"command\": \"mcp-db\", \"env\": {\"DB_PASSWORD\": \"${input:db-password}\"}},\n  },\n}\n");
        home.write(".codex/config.toml", &format!("# mine\nmodel = \"x\"\n\n[mcp_servers.search]\ncommand = \"mcp-search\"\nenv = {{ SEARCH_KEY = \"{}\" }}\n\n[mcp_servers.off]\ncommand = \"x\"\nenabled = false\n", SECRETS[1]));
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn run(&self, words: &[&str]) -> Output {
        std::process::Command::new(env!("CARGO_BIN_EXE_bailiwick"))
            .args(words)
            .current_dir(self.path("project"))
            .env("HOME", self.place.path())
            .env_remove("BAILIWICK_CONFIG")
            .output()
            .unwrap()
    }

    fn init(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = self.run(&[&["init"], words].concat());
        (output.status.code(), said(&output))
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn holds_no_secret(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

/// Every file below a directory.
fn everything(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { everything(&path) } else { vec![path] }).collect()
}

#[test]
fn what_assistants_have_becomes_files_that_check_accepts_and_no_secret_is_in_them() {
    let home = Home::new();
    let (code, text) = home.init(&["--directory", "../gateway"]);
    assert_eq!(code, Some(0), "{text}");
    holds_no_secret(&text);
    for hint in [
        "leaky: a secret stands in its command line (--api-key)",
        "boxed: a secret stands in its command line (API_KEY)",
        "headed: a secret stands in its command line (--header)",
        "bridged: its mcp-remote has the option --static-oauth-client-info",
        "off: it is disabled there",
        "GITHUB_TOKEN",
        "SEARCH_KEY",
        "CRM_TOKEN",
        "db_password",
        "--rewrite",
    ] {
        assert!(text.contains(hint), "{hint}: {text}");
    }
    for path in everything(&home.path("gateway")) {
        holds_no_secret(&std::fs::read_to_string(&path).unwrap());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    let servers = home.read("gateway/servers.toml");
    for line in [
        "[servers.github]",
        "[servers.files]",
        "[servers.crm]",
        "[servers.local]",
        "[servers.db]",
        "[servers.search]",
        "secret = \"env:CRM_TOKEN\"",
        "prefix = \"Bearer \"",
    ] {
        assert!(servers.contains(line), "{line}: {servers}");
    }
    assert!(!servers.contains("[servers.github-2]"), "what two assistants have alike is one server: {servers}");
    let checked = home.run(&["check", "--standalone", "-c", "../gateway/servers.toml"]);
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));

    let (code, text) = home.init(&["--directory", "../gateway", "--from", "cursor"]);
    assert!(code == Some(1) && text.contains("--force"), "nothing is overwritten: {text}");
    assert_eq!(home.read("gateway/servers.toml"), servers);
    let (code, text) = home.init(&["--directory", "../gateway"]);
    assert_eq!(code, Some(0), "the same again overwrites nothing: {text}");
}

#[test]
fn with_an_issuer_the_files_are_for_serve() {
    let home = Home::new();
    let words = ["--directory", "../gateway", "--issuer", "https://login.example.com", "--user", "alice"];
    let (code, text) = home.init(&words);
    assert_eq!(code, Some(0), "{text}");
    let checked = home.run(&["check", "-c", "../gateway/servers.toml"]);
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
    let asked = |who: &str| {
        home.run(&["explain", "github/create_issue", "--as", who, "-c", "../gateway/servers.toml"]).status.code()
    };
    assert_eq!((asked("user:corp/alice"), asked("user:corp/bob")), (Some(0), Some(1)));
    assert_eq!(home.init(&["--issuer", "https://login.example.com"]).0, Some(2), "who is that?");
}

#[test]
fn a_dry_run_shows_a_diff_without_a_secret_and_writes_nothing() {
    let home = Home::new();
    let before = everything(home.place.path());
    let (code, text) = home.init(&[
        "--directory",
        "../gateway",
        "--secrets-to",
        "../kept",
        "--rewrite",
        "--dry-run",
        "--from",
        "claude-desktop",
        "--from",
        "cursor",
    ]);
    assert_eq!(code, Some(0), "{text}");
    holds_no_secret(&text);
    for line in
        ["+[servers.github]", "+GITHUB_TOKEN=(kept back)", "-mcpServers.GitHub = {", "+mcpServers.bailiwick = {"]
    {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(everything(home.place.path()), before);
}

#[test]
fn assistants_are_pointed_at_the_gateway_and_the_commands_that_are_printed_lead_back() {
    let home = Home::new();
    let names = [
        ".config/Claude/claude_desktop_config.json",
        ".claude.json",
        ".cursor/mcp.json",
        "project/.vscode/mcp.json",
        ".codex/config.toml",
    ];
    let before: Vec<String> = names.iter().map(|name| home.read(name)).collect();
    let refused = home.init(&["--directory", "../gateway", "--rewrite"]);
    assert!(refused.0 == Some(2) && refused.1.contains("--secrets-to"), "{refused:?}");

    // What only the editor asks for cannot be handed over, and is set where it starts.
    let issuer = ["--issuer", "https://login.example.com", "--user", "alice"];
    let words =
        [&["--directory", "../gateway", "--secrets-to", "../kept", "--rewrite", "--json"][..], &issuer].concat();
    let output = home.run(&[&["init"], words.as_slice()].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    holds_no_secret(&said(&output));
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(done["rewritten"].as_array().unwrap().len(), 5, "{done:#}");

    let kept = home.path("kept");
    assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let lines = home.read("kept");
    assert!(lines.contains(&format!("GITHUB_TOKEN={}\n", SECRETS[0])) && !lines.contains(SECRETS[3]), "{lines}");
    let read =
        std::process::Command::new("/usr/bin/sed").args(["-n", "s/^GITHUB_TOKEN=//p"]).arg(&kept).output().unwrap();
    assert_eq!(String::from_utf8(read.stdout).unwrap().trim_end(), SECRETS[0], "as the reference reads it");

    let claude: Value = serde_json::from_str(&home.read(".claude.json")).unwrap();
    assert_eq!(claude["mcpServers"], json!({"bailiwick": {"type": "http", "url": "http://127.0.0.1:7800/mcp"}}));
    assert!(claude["numStartups"] == 7 && claude["projects"]["/p"]["history"][0] == "x");
    assert_eq!(claude["projects"]["/p"]["mcpServers"], json!({}));
    let desktop: Value = serde_json::from_str(&home.read(names[0])).unwrap();
    assert!(desktop["mcpServers"]["leaky"].is_object(), "what was left out stays where it was");
    assert_eq!(desktop["mcpServers"]["bailiwick"]["args"], json!(["stdio", "--url", "http://127.0.0.1:7800/mcp"]));
    assert!(home.read("project/.vscode/mcp.json").contains("// ours"));
    let codex: toml::Table = home.read(".codex/config.toml").parse().unwrap();
    assert_eq!(codex["mcp_servers"]["bailiwick"]["url"].as_str(), Some("http://127.0.0.1:7800/mcp"));
    assert!(codex["mcp_servers"].get("off").is_some());

    for rewritten in done["rewritten"].as_array().unwrap() {
        let back = rewritten["back"].as_str().unwrap();
        assert!(std::process::Command::new("sh").args(["-c", back]).status().unwrap().success(), "{back}");
    }
    let after: Vec<String> = names.iter().map(|name| home.read(name)).collect();
    assert_eq!(after, before);
}

#[test]
fn a_home_without_servers_ends_with_1_and_writes_nothing() {
    let home = Home { place: tempfile::tempdir().unwrap() };
    std::fs::create_dir(home.path("project")).unwrap();
    home.write(".cursor/mcp.json", "{ not json");
    let (code, text) = home.init(&[]);
    assert!(code == Some(1) && text.contains("it is not JSON (line 1)"), "{text}");
    assert!(!home.path("project/servers.toml").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_server_is_reached_through_the_gateway_with_its_secret_from_the_file() {
    let upstream = Scripted::echo().await;
    let home = Home { place: tempfile::tempdir().unwrap() };
    std::fs::create_dir(home.path("project")).unwrap();
    let entry = json!({"mcpServers": {"echo": {"url": upstream.url, "headers": {"X-Key": SECRETS[1]}}}});
    home.write(".cursor/mcp.json", &entry.to_string());
    let (code, text) = home.init(&["--directory", "../gateway", "--secrets-to", "../kept", "--rewrite"]);
    assert_eq!(code, Some(0), "{text}");
    let cursor: Value = serde_json::from_str(&home.read(".cursor/mcp.json")).unwrap();
    let own = &cursor["mcpServers"]["bailiwick"];
    let mut command = std::process::Command::new(own["command"].as_str().unwrap());
    command.args(own["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()));
    let request = |id: u32, method: &str, params: Value| {
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string() + "\n"
    };
    let input = request(
        1,
        "initialize",
        json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}),
    ) + "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n"
        + request(2, "tools/call", json!({"name": "echo__echo", "arguments": {}})).as_str();
    let answered = tokio::task::spawn_blocking(move || {
        use std::io::Write as _;
        let piped = std::process::Stdio::piped;
        let mut child = command.stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    })
    .await
    .unwrap();
    let text = said(&answered);
    let calls = upstream.calls();
    assert_eq!(calls.len(), 1, "{text}");
    assert_eq!(calls[0].headers.get("x-key").map(String::as_str), Some(SECRETS[1]), "{text}");
}
