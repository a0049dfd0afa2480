//! The examples, each run as its page says, with the installed parts in the place of what `uvx` and `npx` would download.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::parts::Parts;
use crate::support::client::Client;
use crate::support::{eventually_within, free_address};
use crate::upstreams::both_eras;

/// An example that runs as a demo; it is killed when the test ends.
struct Example {
    place: tempfile::TempDir,
    files: String,
    url: String,
    _demo: Child,
    _lines: Lines<BufReader<ChildStdout>>,
}

impl Example {
    /// Runs a copy of it, with a directory of the test's where the example names one of the reader's.
    async fn start(parts: &Parts, name: &str, theirs: &str, ours: &Path) -> Self {
        let place = tempfile::tempdir().unwrap();
        let files = format!("examples/{name}/servers.toml");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let copy = place.path().join("examples").join(name);
        std::fs::create_dir_all(copy.join("policies")).unwrap();
        for directory in ["", "policies"] {
            for entry in std::fs::read_dir(source.join(directory)).unwrap() {
                let entry = entry.unwrap();
                if entry.path().is_file() {
                    let text = std::fs::read_to_string(entry.path()).unwrap();
                    let text = text.replace(theirs, ours.to_str().unwrap());
                    std::fs::write(copy.join(directory).join(entry.file_name()), text).unwrap();
                }
            }
        }
        let servers = std::fs::read_to_string(copy.join("servers.toml")).unwrap();
        assert!(servers.contains("network = true") && servers.contains("connect_timeout = \"60s\""), "it downloads");
        let address = free_address().to_string();
        let mut demo = command(place.path())
            .args(["demo", "--quiet", "-c", &files, "--listen", &address])
            .env("PATH", runners(parts))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
        let serving = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains("serving") {
                    return true;
                }
            }
            false
        };
        assert!(tokio::time::timeout(Duration::from_secs(60), serving).await.unwrap(), "{name}: the demo ended");
        Self { place, files, url: format!("http://{address}/mcp"), _demo: demo, _lines: lines }
    }

    /// A client of Alice's, once the server has begun.
    async fn alice(&self) -> Client {
        let token = command(self.place.path()).args(["token", "alice", "-c", &self.files]).output().await.unwrap();
        assert!(token.status.success(), "{}", String::from_utf8_lossy(&token.stderr));
        let client = Client::new(&self.url, Some(std::str::from_utf8(&token.stdout).unwrap().trim()));
        eventually_within(Duration::from_secs(60), "a list of the server's tools", async || {
            client.modern("tools/list", json!({})).await.response()["result"].is_object()
        })
        .await;
        client
    }
}

/// The real binary, in that directory.
fn command(place: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bailiwick"));
    command.current_dir(place).env_remove("BAILIWICK_CONFIG").env_remove("BAILIWICK_TOKEN").env_remove("CARGO");
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A `PATH` whose `uvx` and `npx` run the installed parts. Each stands beside what it runs, so that the sandbox gives it
/// that and nothing else, as it gives a downloaded package to what has downloaded it.
fn runners(parts: &Parts) -> std::ffi::OsString {
    let (python, node) = (parts.python_command("python"), parts.node());
    let uvx = format!(
        "#!{python}\nimport importlib.metadata, os, sys\nname, version = sys.argv[1].split('==')\n\
         found = importlib.metadata.version(name)\nassert found == version, f'{{name}} {{found}} is installed'\n\
         os.execv(os.path.join(os.path.dirname(sys.argv[0]), name), [name, *sys.argv[2:]])\n"
    );
    // `-y`, the package, and its arguments.
    let server = parts.node_command("mcp-server-filesystem");
    let npx = format!("#!/bin/sh\nshift 2\nexec '{node}' '{server}' \"$@\"\n");
    let beside = |file: String| PathBuf::from(file).parent().map(Path::to_path_buf).unwrap();
    let places = [beside(python), beside(parts.node_file("npx"))];
    for (place, name, text) in [(&places[0], "uvx", uvx), (&places[1], "npx", npx)] {
        // Another test may be starting the last one.
        let fresh = place.join(format!("{name}-{}", ulid::Ulid::generate()));
        std::fs::write(&fresh, text).unwrap();
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(fresh, place.join(name)).unwrap();
    }
    let machine = std::env::var_os("PATH").unwrap();
    std::env::join_paths(places.into_iter().chain(std::env::split_paths(&machine))).unwrap()
}

#[tokio::test]
async fn the_clock_runs_as_it_is_written() {
    let Some(parts) = Parts::installed() else { return };
    let example = Example::start(&parts, "time", "/nothing/of/the/readers", Path::new("/")).await;
    let conversion = json!({ "source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo" });
    let (names, texts) = both_eras(&example.alice().await, "time__convert_time", conversion).await;
    assert!(names.contains(&"time__get_current_time".to_owned()), "{names:?}");
    assert!(texts.iter().all(|text| text.contains("T21:00:00+09:00")), "{texts:?}");
}

#[tokio::test]
async fn the_repository_is_read_and_gets_branches_as_it_is_written() {
    let Some(parts) = Parts::installed() else { return };
    let directory = tempfile::tempdir().unwrap();
    let handbook = directory.path().canonicalize().unwrap();
    let git = |words: &[&str]| {
        let who = ["-c", "user.name=Alice", "-c", "user.email=alice@example.com"];
        let output = std::process::Command::new("git").args(who).args(words).current_dir(&handbook).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    git(&["init", "--quiet"]);
    git(&["commit", "--quiet", "--allow-empty", "--message", "The first page"]);
    let example = Example::start(&parts, "git", "/srv/git/handbook", &handbook).await;
    let client = example.alice().await;
    let (names, texts) = both_eras(&client, "git__git_log", json!({ "repo_path": handbook })).await;
    assert!(texts.iter().all(|text| text.contains("The first page")), "{texts:?}");
    assert!(!names.contains(&"git__git_reset".to_owned()), "{names:?}");
    let branch = |name: &str| json!({ "repo_path": handbook, "branch_name": name });
    let refused = client.call_tool("git__git_create_branch", branch("main2")).await;
    assert!(refused.text.contains("condition_unmet"), "{}", refused.text);
    let made = client.call_tool("git__git_create_branch", branch("assistant/typo")).await;
    assert!(made.tool_text().contains("assistant/typo"), "{}", made.text);
    assert!(git(&["branch", "--list"]).contains("assistant/typo"));
}

#[tokio::test]
async fn shared_files_are_read_and_drafts_are_written_as_it_is_written() {
    let Some(parts) = Parts::installed() else { return };
    let directory = tempfile::tempdir().unwrap();
    let shared = directory.path().canonicalize().unwrap();
    std::fs::create_dir(shared.join("drafts")).unwrap();
    std::fs::write(shared.join("handbook.md"), "the handbook").unwrap();
    // The version that the example names is the one that runs here.
    let package = parts.node_file("@modelcontextprotocol/server-filesystem/package.json");
    let package: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(package).unwrap()).unwrap();
    let named = format!("{}@{}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
    let example = Example::start(&parts, "filesystem", "/srv/shared", &shared).await;
    let servers = std::fs::read_to_string(example.place.path().join(&example.files)).unwrap();
    assert!(servers.contains(&named), "{named}");
    let client = example.alice().await;
    let handbook = shared.join("handbook.md");
    let (_, texts) = both_eras(&client, "files__read_text_file", json!({ "path": handbook })).await;
    assert_eq!(texts, ["the handbook", "the handbook"]);
    let draft = shared.join("drafts/plan.md");
    let written = client.call_tool("files__write_file", json!({ "path": draft, "content": "a plan" })).await;
    assert!(written.result()["isError"] != true, "{}", written.text);
    assert_eq!(std::fs::read_to_string(draft).unwrap(), "a plan");
    let refused = client.call_tool("files__write_file", json!({ "path": handbook, "content": "x" })).await;
    assert!(refused.text.contains("condition_unmet"), "{}", refused.text);
}
