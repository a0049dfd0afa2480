//! `bailiwick stdio --url` and `login`: the real binary logs in at a running demo; the test is its browser.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::free_address;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::{self, Scripted};

/// A process whose lines are read as they come; killed when the test ends.
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        BufReader::new(from).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    lines
}

/// Our binary in that directory, without anything of the environment that could decide for it.
pub fn bailiwick(directory: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bailiwick"));
    command.args(words).current_dir(directory).env("XDG_STATE_HOME", directory.join("logins"));
    command.env_remove("BAILIWICK_CONFIG").env_remove("BAILIWICK_TOKEN").env_remove("CARGO");
    command
}

impl Process {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, errors) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { input: child.stdin.take(), child, lines, errors }
    }

    pub fn write(&mut self, message: &Value) {
        self.write_line(&message.to_string());
    }

    pub fn write_line(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
        input.flush().unwrap();
    }

    /// The next line of standard output, which must be a message.
    pub fn read(&self) -> Value {
        let line = self.lines.recv_timeout(Duration::from_secs(30)).expect("a line on standard output");
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no message: {line}"));
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        message
    }

    /// The next response; notifications before it are passed over.
    pub fn response(&self) -> Value {
        loop {
            let message = self.read();
            if message.get("method").is_none() {
                return message;
            }
        }
    }

    pub fn ask(&mut self, message: &Value) -> Value {
        self.write(message);
        self.response()
    }

    pub fn wait_for(&self, wanted: &str) -> String {
        wait_for(&self.lines, wanted)
    }

    pub fn wait_for_error(&self, wanted: &str) -> String {
        wait_for(&self.errors, wanted)
    }

    /// What was written to standard error and not read yet.
    pub fn errors(&self) -> String {
        self.errors.try_iter().collect::<Vec<_>>().join("\n")
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Closes the input; answers how and after how long the process ended, and what it still wrote.
    pub fn end(mut self) -> (std::process::ExitStatus, Duration, Vec<String>) {
        drop(self.input.take());
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let rest = self.lines.iter().collect();
                return (status, started.elapsed(), rest);
            }
            assert!(started.elapsed() < Duration::from_secs(40), "it goes on after its input has ended");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn wait_for(lines: &Receiver<String>, wanted: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = lines.recv_timeout(left).unwrap_or_else(|_| panic!("no line with {wanted:?}"));
        if line.contains(wanted) {
            return line;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A demo with the repository's own files, and its MCP endpoint.
fn demo(directory: &Path) -> (Process, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copied =
        Command::new("cp").args(["-r", "servers.toml", "policies"]).arg(directory).current_dir(root).status().unwrap();
    assert!(copied.success());
    let address = free_address().to_string();
    let demo = Process::start(bailiwick(directory, &["demo", "--quiet", "--listen", &address]));
    demo.wait_for("serving");
    (demo, format!("http://{address}/mcp"))
}

fn bridge(directory: &Path, url: &str) -> Process {
    Process::start(bailiwick(directory, &["stdio", "--url", url, "--no-browser"]))
}

fn ran(directory: &Path, words: &[&str]) -> Output {
    bailiwick(directory, words).stdin(Stdio::null()).output().unwrap()
}

fn initialize() -> Value {
    let params =
        json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    json!({ "jsonrpc": "2.0", "id": "i", "method": "initialize", "params": params })
}

pub fn modern(id: u64, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

/// A browser without a person: what it is shown, and where it is sent.
struct Browser(reqwest::Client);

impl Browser {
    #[expect(clippy::disallowed_methods, reason = "a test's browser needs no SSRF guard")]
    fn new() -> Self {
        let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Self(builder.build().unwrap())
    }

    async fn get(&self, url: &str) -> (u16, String) {
        let response = self.0.get(url).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Opens the page, clicks on that user (nobody if empty), and answers where the click leads.
    async fn click(&self, page: &str, user: &str) -> String {
        let (status, text) = self.get(page).await;
        assert_eq!(status, 200, "{text}");
        let request = text.split("name=\"request\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let origin = url::Url::parse(page).unwrap().origin().ascii_serialization();
        let clicked = self.0.post(format!("{origin}/authorize")).header("origin", &origin);
        let response = clicked.form(&[("request", request.as_str()), ("user", user)]).send().await.unwrap();
        assert_eq!(response.status(), 303);
        response.headers()["location"].to_str().unwrap().to_owned()
    }

    async fn log_in(&self, page: &str, user: &str) {
        let back = self.click(page, user).await;
        assert_eq!(self.get(&back).await.0, 200);
    }
}

/// The page that a process asks to open.
fn page(process: &Process) -> String {
    process.wait_for_error("/authorize?").trim().to_owned()
}

fn kept(directory: &Path) -> (PathBuf, Value) {
    let logins = directory.join("logins/bailiwick/logins");
    let files: Vec<PathBuf> = std::fs::read_dir(logins).unwrap().map(|entry| entry.unwrap().path()).collect();
    let file = files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "json"));
    let file = file.expect("a kept login");
    let kept = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    (file, kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_logs_in_by_itself_keeps_the_login_for_its_user_alone_and_renews_it() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let (_demo, url) = demo(place);
    let browser = Browser::new();

    let mut first = bridge(place, &url);
    first.write(&initialize());
    let page = page(&first);
    let asked: std::collections::HashMap<String, String> =
        url::Url::parse(&page).unwrap().query_pairs().into_owned().collect();
    assert_eq!((asked["code_challenge_method"].as_str(), &asked["resource"]), ("S256", &url));
    let redirect = &asked["redirect_uri"];
    assert!(redirect.starts_with("http://127.0.0.1:"), "{redirect}");
    // Whoever finds the port does not get in, and does not end the login either.
    for strange in ["?code=x&state=wrong", "?error=access_denied", "?code=x", ""] {
        assert_eq!(browser.get(&format!("{redirect}{strange}")).await.0, 400, "{strange}");
    }
    browser.log_in(&page, "alice").await;
    assert_eq!(first.response()["result"]["protocolVersion"], "2025-11-25");
    first.write(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    let tools = first.ask(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }));
    assert!(tools["result"]["tools"].to_string().contains("deploy__rollout"), "alice sees it: {tools}");

    let (file, login) = kept(place);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = login["access_token"].as_str().unwrap().to_owned();
    assert!(!first.errors().contains(&secret));
    let (status, _, rest) = first.end();
    assert!(status.success() && rest.is_empty(), "{rest:?}");

    // What can be spoilt in a kept login is mended without anybody: a token that ends, and one that is refused.
    for (member, spoilt) in [("expires_at", json!(1)), ("access_token", json!("e30.e30.x"))] {
        let (_, mut login) = kept(place);
        let before = login["refresh_token"].clone();
        login[member] = spoilt;
        std::fs::write(&file, login.to_string()).unwrap();
        let mut again = bridge(place, &url);
        let answer = again.ask(&modern(1, "tools/call", json!({ "name": "notes__list_notes", "arguments": {} })));
        assert!(answer["result"]["content"].is_array(), "{member}: {answer}");
        let errors = again.errors();
        assert!(!errors.contains("/authorize?"), "{member}: {errors}");
        let (_, login) = kept(place);
        assert_ne!(login["refresh_token"], before, "{member}: a refresh token works once, and its successor is kept");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    let called = ran(place, &["call", "notes__list_notes", "--url", &url]);
    assert!(called.status.success(), "{}", String::from_utf8_lossy(&called.stderr));
    let out = ran(place, &["logout", "--url", &url, "--json"]);
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&said["was_logged_in"], &said["given_back"]), (&json!(true), &json!(true)), "{said}");
    assert!(!file.exists());
    let called = ran(place, &["call", "notes__list_notes", "--url", &url]);
    let problem = String::from_utf8_lossy(&called.stderr).into_owned();
    assert!(called.status.code() == Some(2) && problem.contains("bailiwick login --url"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_refused_answers_every_request_and_opens_no_second_page() {
    let directory = tempfile::tempdir().unwrap();
    let (_demo, url) = demo(directory.path());
    let browser = Browser::new();
    let mut bridge = bridge(directory.path(), &url);
    for id in 1..=3 {
        bridge.write(&modern(id, "tools/list", json!({})));
    }
    let page = page(&bridge);
    browser.log_in(&page, "").await;
    let mut answered = Vec::new();
    for _ in 1..=3 {
        let answer = bridge.response();
        let message = answer["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("the login was refused") && message.contains("bailiwick login --url"), "{message}");
        answered.push(answer["id"].as_u64().unwrap());
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 2, 3]);
    assert!(bridge.ask(&modern(4, "tools/list", json!({})))["error"].is_object());
    let errors = bridge.errors();
    assert!(!errors.contains("/authorize?"), "{errors}");
    assert!(
        !directory
            .path()
            .join("logins/bailiwick/logins")
            .read_dir()
            .unwrap()
            .any(|entry| { entry.unwrap().path().extension().is_some_and(|extension| extension == "json") })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_are_one_login() {
    let directory = tempfile::tempdir().unwrap();
    let (_demo, url) = demo(directory.path());
    let mut bridge = bridge(directory.path(), &url);
    for id in 1..=5 {
        bridge.write(&modern(id, "tools/list", json!({})));
    }
    let page = page(&bridge);
    Browser::new().log_in(&page, "bob").await;
    for _ in 1..=5 {
        assert!(bridge.response()["result"]["tools"].is_array());
    }
    let errors = bridge.errors();
    assert!(!errors.contains("/authorize?"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn login_prints_what_was_kept_and_never_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let (_demo, url) = demo(directory.path());
    let login = Process::start(bailiwick(directory.path(), &["login", "--url", &url, "--no-browser", "--json"]));
    Browser::new().log_in(&page(&login), "alice").await;
    let (status, _, printed) = login.end();
    assert!(status.success());
    let printed = printed.join("\n");
    let said: Value = serde_json::from_str(&printed).unwrap();
    let (file, kept) = kept(directory.path());
    assert_eq!((said["gateway"].as_str(), said["file"].as_str()), (Some(url.as_str()), file.to_str()));
    assert_eq!((&said["issuer"], &said["renewable"]), (&kept["issuer"], &json!(true)));
    for secret in ["access_token", "refresh_token"] {
        assert!(!printed.contains(kept[secret].as_str().unwrap()), "{secret}");
    }
    let mut bridge = bridge(directory.path(), &url);
    assert!(bridge.ask(&modern(1, "tools/list", json!({})))["result"]["tools"].is_array());
}

/// A bridge with a token of its own to a gateway in front of one server with one tool.
async fn governed(region_is_annotated: bool) -> (Issuer, Scripted, Gateway, Process) {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([roll_out(region_is_annotated)]), |call| {
        scripted::result(call, scripted::text(&call["params"]["arguments"].to_string()))
    })
    .await;
    let gateway = Setup::new(&issuer)
        .http_server("ops", &upstream.url, "list_refresh_min = \"1ms\"\npins = \"off\"")
        .start()
        .await;
    let mut command = bailiwick(&gateway.state(), &["stdio", "--url", &gateway.resource()]);
    command.env("BAILIWICK_TOKEN", issuer.token("alice", &["developers"], &gateway.resource()));
    let bridge = Process::start(command);
    (issuer, upstream, gateway, bridge)
}

fn roll_out(region_is_annotated: bool) -> Value {
    let mut region = json!({ "type": "string" });
    if region_is_annotated {
        region["x-mcp-header"] = json!("Region");
    }
    json!({ "name": "roll_out", "inputSchema": { "type": "object", "properties": { "region": region } } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_call_carries_the_headers_that_repeat_its_arguments() {
    let (_issuer, upstream, _gateway, mut bridge) = governed(true).await;
    let call =
        |id, arguments: Value| modern(id, "tools/call", json!({ "name": "ops__roll_out", "arguments": arguments }));
    // Nobody has listed anything: the bridge asks once by itself, and its client does not see that.
    let answer = bridge.ask(&call(1, json!({ "region": "eu-grün" })));
    assert_eq!((&answer["id"], answer["result"]["isError"].as_bool()), (&json!(1), None), "{answer}");
    assert_eq!(upstream.calls()[0].message["params"]["arguments"], json!({ "region": "eu-grün" }));
    // Without the argument there is no header either.
    assert!(bridge.ask(&call(2, json!({})))["result"]["content"].is_array());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_whose_schema_has_changed_is_called_with_the_headers_that_it_wants_now() {
    let (issuer, upstream, gateway, mut bridge) = governed(false).await;
    let call = |id| modern(id, "tools/call", json!({ "name": "ops__roll_out", "arguments": { "region": "eu" } }));
    assert!(bridge.ask(&call(1))["result"]["content"].is_array());
    upstream.set_tools(json!([roll_out(true)]));
    // Some list of somebody else's makes the gateway look again.
    crate::support::eventually("the gateway lists the annotation", || {
        let (gateway, issuer) = (&gateway, &issuer);
        async move {
            let token = issuer.token("carol", &["developers"], &gateway.resource());
            gateway.client(&token).modern("tools/list", json!({})).await.text.contains("x-mcp-header")
        }
    })
    .await;
    let answer = bridge.ask(&call(2));
    assert!(answer["result"]["content"].is_array(), "{answer}");
    assert_eq!(upstream.calls().len(), 2, "what was refused for its headers never went out");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_written_standard_output_has_messages_only() {
    let (_issuer, _upstream, _gateway, mut bridge) = governed(false).await;
    for line in [
        "nonsense",
        "[1]",
        "{}",
        "\u{1b}[2J",
        "{\"jsonrpc\":\"2.0\"",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"x\"}",
    ] {
        bridge.write_line(line);
        assert_eq!(bridge.read()["error"]["code"], -32700, "{line}");
    }
    let long = modern(
        7,
        "tools/call",
        json!({ "name": "ops__roll_out", "arguments": { "region": "x".repeat(8 * 1024 * 1024) } }),
    );
    bridge.write(&long);
    assert!(bridge.read()["error"].is_object());
    assert!(bridge.ask(&modern(8, "tools/list", json!({})))["result"]["tools"].is_array());
    let (status, _, rest) = bridge.end();
    assert!(status.success() && rest.is_empty(), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_whose_issuer_binds_tokens_proves_its_key_with_every_request() {
    let (issuer, upstream, home) = (Issuer::start().await, Scripted::echo().await, tempfile::tempdir().unwrap());
    issuer.binds();
    issuer.logs_in(issuer.claims("alice", &["developers"], ""));
    let gateway = Setup::new(&issuer)
        .gateway("dpop = \"nonce\"\n")
        .issuer_lines("sender_constraint = \"dpop\"\n")
        .http_server("tools", &upstream.url, "")
        .start()
        .await;
    let url = gateway.resource();
    let words = ["stdio", "--url", &url, "--device", "--client-id", "bridge"];
    let call = |id: u64| modern(id, "tools/call", json!({ "name": "tools__echo", "arguments": { "n": id } }));
    let mut bridge = Process::start(bailiwick(home.path(), &words));
    for id in 1..=3 {
        let answer = bridge.ask(&call(id));
        assert_eq!(answer["result"]["content"][0]["text"], format!("{{\"n\":{id}}}"), "{answer} {}", bridge.errors());
    }
    // In the older protocol there are a session and a stream of it as well.
    let begun = bridge.ask(&initialize());
    assert!(begun["result"]["serverInfo"].is_object(), "{begun}");
    assert!(bridge.end().0.success());
    // The key is kept with the token, for its user alone, and the next process has both.
    let (file, kept) = kept(home.path());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(kept["key"].is_string(), "a key beside the token");
    let mut again = Process::start(bailiwick(home.path(), &words));
    assert_eq!(again.ask(&call(4))["result"]["content"][0]["text"], "{\"n\":4}", "{}", again.errors());
    assert_eq!(issuer.asked().len(), 1, "one login");
    // Whoever takes the token without the key has nothing.
    let token = kept["access_token"].as_str().unwrap();
    let stolen = gateway.client(token).call_tool("tools__echo", json!({})).await;
    assert_eq!((stolen.status, stolen.text.contains("token_bound")), (401, true), "{}", stolen.text);
    let called = bailiwick(home.path(), &["call", "tools__echo", "{}", "--url", &url]).output().unwrap();
    assert!(called.status.success(), "{}", String::from_utf8_lossy(&called.stderr));
    assert_eq!(upstream.calls().len(), 5);
    for intent in gateway.records("intent") {
        assert_eq!(intent["subject"]["id"], "user:test/alice", "{intent}");
    }
}
