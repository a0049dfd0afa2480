//! What a newcomer sees: the demo in one process, and the commands that it tells them to type.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::free_address;

mod acts;

/// The repository's own files, beside which a demo would keep its state.
fn files(directory: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copied =
        Command::new("cp").args(["-r", "servers.toml", "policies"]).arg(directory).current_dir(root).status().unwrap();
    assert!(copied.success());
}

fn bailiwick(directory: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bailiwick"));
    command.args(words).current_dir(directory).env_remove("BAILIWICK_CONFIG").env_remove("BAILIWICK_TOKEN");
    command.env_remove("CARGO").stdin(Stdio::null());
    command
}

fn ran(directory: &Path, words: &[&str]) -> Output {
    bailiwick(directory, words).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A demo that goes on; killed when the test ends.
struct Running {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Running {
    fn start(directory: &Path, words: &[&str]) -> Self {
        let mut child = bailiwick(directory, words).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    fn wait_for(&self, wanted: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no line with {wanted:?}"));
            if line.contains(wanted) {
                return line;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_demo_shows_everything_within_ten_seconds_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    files(directory.path());
    let started = Instant::now();
    let output = ran(directory.path(), &["demo", "--once", "--listen", &free_address().to_string()]);
    assert!(started.elapsed() < Duration::from_secs(10), "it took {:?}", started.elapsed());
    let shown = out(&output);
    assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    // Two people, two lists.
    assert!(rows.contains(&vec!["notes__add_note", "-"]), "{shown}");
    assert!(rows.contains(&vec!["notes__read_note", "notes__read_note"]), "{shown}");
    // What was allowed, denied and refused, each with the line of the record and the rule in it.
    let journal = |effect: &str, what: &str, rule: &str| {
        rows.iter().any(|row| {
            row.first() == Some(&"journal") && row.contains(&effect) && {
                let line = row.join(" ");
                line.contains("demo/alice deploy/rollout") && line.contains(what) && line.contains(rule)
            }
        })
    };
    assert!(journal("allow", " ms ", "policy.csv:"), "{shown}");
    assert!(journal("deny", "denied_by_rule", "servers/deploy.csv:"), "{shown}");
    assert!(journal("deny", "condition_unmet", "policy.csv:"), "{shown}");
    assert!(shown.contains("condition_unmet: roll out to at most 5 replicas at a time"), "{shown}");
    assert!(!shown.contains("decide otherwise"), "{shown}");
    // What to type next, for this gateway.
    assert!(shown.contains("claude mcp add --transport http bailiwick http://127.0.0.1:"), "{shown}");
    assert!(shown.contains("bailiwick logs -f"), "{shown}");
    for line in shown.lines() {
        assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
    }
    assert!(!shown.contains('\u{1b}'), "colour is for terminals");
    assert!(!directory.path().join("state").exists());
}

#[test]
fn whoever_runs_a_demo_can_be_the_assistant() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    files(place);
    let address = free_address().to_string();
    let url = format!("http://{address}/mcp");
    let mut demo = Running::start(place, &["demo", "--listen", &address]);
    demo.wait_for("serving");
    let token = |words: &[&str]| {
        let output = ran(place, &[&["token"], words].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        out(&output).trim().to_owned()
    };
    let call = |token: &str, words: &[&str]| {
        bailiwick(place, &[&["call"], words, &["--url", &url]].concat()).env("BAILIWICK_TOKEN", token).output().unwrap()
    };
    let status = call(&token(&["alice"]), &["deploy__status", r#"{"service":"search"}"#]);
    assert!(status.status.success() && out(&status).contains("discovery"), "{status:?}");
    demo.wait_for("deploy/status");
    let refused = call(&token(&["bob"]), &["notes__add_note", r#"{"title":"x","text":"y"}"#]);
    assert_eq!((refused.status.code(), out(&refused).as_str()), (Some(1), ""));
    assert!(demo.wait_for("notes/add_note").contains("not_allowed"), "the record knows why, the client does not");
    let refused =
        call(&token(&["alice"]), &["deploy__rollout", r#"{"service":"search","replicas":50,"region":"eu-west"}"#]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("condition_unmet"), "{refused:?}");
    let one = call(&token(&["alice", "--server", "notes"]), &["list_notes", "--server", "notes", "--json"]);
    let result: serde_json::Value = serde_json::from_slice(&one.stdout).unwrap();
    assert!(one.status.success() && result["structuredContent"]["notes"].is_array(), "{result}");
    assert_eq!(call("nonsense", &["notes__list_notes"]).status.code(), Some(2));
    let absent = ran(place, &["token", "mallory"]);
    assert_eq!((absent.status.code(), out(&absent).as_str()), (Some(2), ""));

    // The other commands find the demo's record and its gateway without being told where.
    let logs = out(&ran(place, &["logs", "--decision", "deny"]));
    assert!(logs.contains("condition_unmet") && logs.contains("demo/alice"), "{logs}");
    let follower = Running::start(place, &["logs", "-f", "-n", "0"]);
    let before = token(&["alice"]);
    let revoked = ran(place, &["revoke", "subject", "user:demo/alice"]);
    assert!(revoked.status.success(), "{revoked:?}");
    assert_eq!(call(&before, &["deploy__status", r#"{"service":"search"}"#]).status.code(), Some(2));
    follower.wait_for("demo/alice");
    let reloaded = ran(place, &["reload"]);
    assert!(reloaded.status.success() && out(&reloaded).contains("revision"), "{reloaded:?}");

    let stopped = Command::new("kill").args(["-INT", &demo.child.id().to_string()]).status().unwrap();
    assert!(stopped.success() && demo.child.wait().unwrap().success());
    assert!(!place.join("state").exists(), "the state is removed at the end");
}

#[test]
fn tools_lists_what_somebody_would_see() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    files(place);
    // The samples of a demo of our own, wherever they are.
    let demo = Running::start(place, &["demo", "--quiet", "--listen", &free_address().to_string()]);
    let notes = demo.wait_for("notes ");
    let deploy = demo.wait_for("deploy ");
    demo.wait_for("serving");
    let servers = std::fs::read_to_string(place.join("servers.toml")).unwrap();
    let url = |line: &str| line.split_whitespace().nth(1).unwrap().to_owned();
    let servers =
        servers.replace("http://127.0.0.1:7801/mcp", &url(&notes)).replace("http://127.0.0.1:7802/mcp", &url(&deploy));
    std::fs::write(place.join("elsewhere.toml"), servers).unwrap();
    let shown = |words: &[&str]| {
        let output = ran(place, &[&["tools", "-c", "elsewhere.toml"], words].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stderr).contains("connecting to"));
        out(&output).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let bob = shown(&["--as", "user:demo/bob", "--group", "group:demo/auditors"]);
    assert_eq!(
        bob,
        ["notes/list_notes", "notes/read_note", "notes/search_notes", "deploy/list_services", "deploy/status"]
    );
    let alice = shown(&["--as", "user:demo/alice", "--group", "group:demo/developers", "--server", "deploy"]);
    assert_eq!(
        alice,
        ["deploy/announce", "deploy/list_services", "deploy/rollback", "deploy/rollout", "deploy/status"]
    );
}

#[test]
fn a_demo_touches_no_state_that_is_not_a_demo_s() {
    let directory = tempfile::tempdir().unwrap();
    files(directory.path());
    let state = directory.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("precious"), "record").unwrap();
    let output = ran(directory.path(), &["demo", "--once", "--listen", &free_address().to_string()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--state"), "{output:?}");
    assert!(state.join("precious").exists());
}

#[test]
fn the_show_explains_only_what_the_rules_really_said() {
    let directory = tempfile::tempdir().unwrap();
    files(directory.path());
    // Without the freeze, checkout is like any other service.
    std::fs::remove_dir_all(directory.path().join("policies/servers")).unwrap();
    std::fs::remove_file(directory.path().join("policies/tests.toml")).unwrap();
    let shown = out(&ran(directory.path(), &["demo", "--once", "--listen", &free_address().to_string()]));
    assert!(!shown.contains("denied_by_rule") && !shown.contains("froze"), "{shown}");
    assert_eq!(shown.matches("decide otherwise").count(), 1, "{shown}");
}
