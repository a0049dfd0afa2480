//! Processes that are started with somebody's credential: one for each of them, replaced when the use of it ends, gone
//! when it is taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use bailiwick::control::client::request;
use http::Method;
use serde_json::{Value, json};

use crate::input::reason;
use crate::stdio::{are_gone, lives, marked, python};
use crate::support::client::{Answer, Client};
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::sts::{Revocation, Sts, claims};
use crate::support::{eventually, eventually_within};

/// A server of the legacy era that tells what it was started with, waits until it is let go, and dies when it is told
/// to. Its one list names whose credential it has.
pub const SERVER: &str = r#"
import json, os, sys, threading, time

PLACE = sys.argv[1].removeprefix("mark=")
TOKEN = os.environ.get("SERVICE_TOKEN", "")

def token():
    return open(os.environ["SERVICE_FILE"]).read() if "SERVICE_FILE" in os.environ else TOKEN

def say(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()

def wait(answer, name):
    open(name + ".waits", "w").close()
    while not os.path.exists(name + ".go"):
        time.sleep(0.02)
    answer["result"] = {"content": [{"type": "text", "text": told()}]}
    say(answer)

def told():
    return json.dumps({"process": os.getpid(), "token": token(), "variables": sorted(os.environ), "arguments": sys.argv})

if os.path.exists(PLACE + "/broken") and open(PLACE + "/broken").read() in TOKEN:
    sys.exit(3)
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    method, params = message.get("method"), message.get("params", {})
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    if method == "initialize":
        answer["result"] = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                            "serverInfo": {"name": "service", "version": "1"}}
    elif method == "tools/list":
        answer["result"] = {"tools": [{"name": name, "description": "with " + token(), "inputSchema": {"type": "object"}}
                                      for name in ("whoami", "wait", "die")]}
    elif method == "tools/call":
        if params["name"] == "die":
            os._exit(1)
        if params["name"] == "wait":
            name = PLACE + "/" + params["arguments"]["name"]
            threading.Thread(target=wait, args=(answer, name), daemon=True).start()
            continue
        # What some servers do when they are debugged.
        print("called with", token(), file=sys.stderr, flush=True)
        answer["result"] = {"content": [{"type": "text", "text": told()}]}
    else:
        answer["error"] = {"code": -32601, "message": "method not found"}
    say(answer)
"#;

/// A gateway in front of the server, an authorization server that gives credentials for it, and a place for both.
struct Running {
    issuer: Issuer,
    sts: Sts,
    gateway: Gateway,
    place: tempfile::TempDir,
}

fn exchange(sts: &Sts, more: &str) -> String {
    format!(
        "credential = {{ kind = \"exchange\", issuer = \"{}\", client_id = \"gateway\", audience = \"https://s.example\"{more} }}\n",
        sts.url
    )
}

pub fn command(place: &Path) -> Vec<String> {
    vec![python(), "-c".to_owned(), SERVER.to_owned(), format!("mark={}", place.display())]
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

impl Running {
    /// With these lines more for the server's credential and for the server.
    async fn start(credential: &str, server: &str) -> Self {
        let (issuer, sts) = (Issuer::start().await, Sts::start(Revocation::Has).await);
        let place = tempfile::tempdir().unwrap();
        // Each caller's list names their own credential, so that no definition is anybody else's.
        let write = format!("pins = \"off\"\nwrite = [{:?}]\n{server}", place.path());
        let more = format!("{}{write}", exchange(&sts, credential));
        let gateway = Setup::new(&issuer).stdio_server("s", &words(&command(place.path())), &more).start().await;
        Self { issuer, sts, gateway, place }
    }

    async fn in_a_variable(credential: &str, server: &str) -> Self {
        Self::start(credential, &format!("credential_variable = \"SERVICE_TOKEN\"\n{server}")).await
    }

    fn client(&self, user: &str) -> Client {
        self.gateway.client(&self.issuer.token(user, &["developers"], &self.gateway.resource()))
    }

    fn let_go(&self, name: &str) {
        std::fs::write(self.place.path().join(format!("{name}.go")), "").unwrap();
    }

    /// A call that comes to its end when it is let go; under way when this returns.
    async fn waiting(&self, client: &Client, name: &str) -> tokio::task::JoinHandle<Answer> {
        let (client, arguments) = (client.clone(), json!({ "name": name }));
        let call = tokio::spawn(async move { client.call_tool("s__wait", arguments).await });
        let waits = self.place.path().join(format!("{name}.waits"));
        eventually("the call to be under way", async || waits.exists()).await;
        call
    }

    /// The processes that run, their supervisors aside.
    fn processes(&self) -> Vec<u64> {
        let has_server = |process: &u64| {
            let text = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            !String::from_utf8_lossy(&text).contains("supervise")
        };
        marked(&format!("mark={}", self.place.path().display())).into_iter().filter(has_server).collect()
    }
}

/// What a process told of itself.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    process: u64,
    token: String,
    all: Value,
}

fn told(answer: &Answer) -> Told {
    let all: Value = serde_json::from_str(answer.tool_text()).unwrap_or_else(|_| panic!("{}", answer.text));
    let token = all["token"].as_str().unwrap().to_owned();
    Told { process: all["process"].as_u64().unwrap(), token, all }
}

async fn whoami(client: &Client) -> Told {
    told(&client.call_tool("s__whoami", json!({})).await)
}

#[tokio::test]
async fn two_users_get_two_processes_with_two_credentials_and_the_record_says_which() {
    let running = Running::in_a_variable("", "").await;
    let (alice, bob) = (running.client("alice"), running.client("bob"));
    assert!(running.processes().is_empty(), "nobody's process is started for nobody");
    let (hers, his) = (whoami(&alice).await, whoami(&bob).await);
    assert_ne!(hers.process, his.process);
    assert_eq!((&claims(&hers.token)["sub"], &claims(&his.token)["sub"]), (&json!("alice"), &json!("bob")));
    assert_eq!(claims(&hers.token)["aud"], "https://s.example");
    assert_eq!((whoami(&alice).await, whoami(&bob).await), (hers.clone(), his.clone()), "theirs go on");
    assert_eq!(running.sts.asked().len(), 2);
    // Nothing but the variable that was written, and never on a command line.
    let variables: BTreeSet<&str> =
        hers.all["variables"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(variables.contains("SERVICE_TOKEN"), "{variables:?}");
    let known = ["SERVICE_TOKEN", "PATH", "HOME", "LC_CTYPE", "TMPDIR"];
    assert!(variables.iter().all(|name| known.contains(name)), "{variables:?}");
    for process in marked(&format!("mark={}", running.place.path().display())) {
        let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(&hers.token));
    }
    let inbound = running.sts.asked().iter().map(|form| form["subject_token"].clone()).collect::<Vec<_>>();
    assert!(!inbound.contains(&hers.token) && !inbound.contains(&his.token));
    // The record names the credential of each, as over HTTP, and no log has one.
    let intents = running.gateway.records("intent");
    for (user, told) in [("alice", &hers), ("bob", &his)] {
        let user = format!("user:test/{user}");
        let own: Vec<_> = intents.iter().filter(|intent| intent["subject"]["id"] == user).collect();
        assert_eq!(own.len(), 2, "{intents:?}");
        for intent in own {
            let credential = &intent["credential"];
            assert_eq!((&credential["kind"], &credential["id"]), (&json!("exchange"), &claims(&told.token)["jti"]));
            assert!(credential["used_until"].is_i64() && credential["issue"].is_string(), "{credential}");
        }
    }
    eventually("what it says to be shown", async || running.gateway.log().contains("called with [credential]")).await;
    assert!(!running.gateway.log().contains(&hers.token));
    assert_eq!(running.gateway.log().matches("a process was started").count(), 2, "{}", running.gateway.log());
}

/// Everything that two calls may differ in: whoever calls, with which login, by which agent, at which server.
#[tokio::test]
async fn callers_who_differ_in_one_input_never_share_a_process_nor_a_list() {
    let (issuer, sts, place) = (Issuer::start().await, Sts::start(Revocation::Has).await, tempfile::tempdir().unwrap());
    let more = format!("{}credential_variable = \"SERVICE_TOKEN\"\npins = \"off\"\n", exchange(&sts, ""));
    let agent = |id: &str, client: &str| {
        format!(
            "[agents.{id}]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\n\
             environments = [\"development\"]\nclients = [{{ issuer = \"test\", client_id = \"{client}\" }}]\n"
        )
    };
    let rows = format!("{DEVELOPERS_MAY}{}", DEVELOPERS_MAY.replace("agent:assistant", "agent:second"));
    let rows: BTreeSet<&str> = rows.lines().collect();
    let agents = format!("{}{}", agent("assistant", "test-assistant"), agent("second", "second-client"));
    let command = command(place.path());
    let gateway = Setup::new(&issuer)
        .stdio_server("one", &words(&command), &format!("{more}[servers.one.health]\nconnect_timeout = \"60s\"\n"))
        .stdio_server("two", &words(&command), &format!("{more}[servers.two.health]\nconnect_timeout = \"60s\"\n"))
        .policy(&(rows.into_iter().collect::<Vec<_>>().join("\n") + "\n"))
        .policy_file("agents.toml", &agents)
        .start()
        .await;
    let mut callers: Vec<(String, &str, Client)> = Vec::new();
    for user in ["alice", "bob"] {
        for client in ["test-assistant", "second-client"] {
            for number in [1, 2] {
                let mut login = issuer.claims(user, &["developers"], &gateway.resource());
                login["client_id"] = json!(client);
                login["jti"] = json!(format!("{user}-{client}-{number}"));
                let token = issuer.sign(&login);
                for server in ["one", "two"] {
                    callers.push((format!("{user} {client} {number}"), server, gateway.server_client(server, &token)));
                }
            }
        }
    }
    // Twice at once, so that two may come while one is being started.
    let calls = callers.iter().flat_map(|(_, _, client)| [client, client]);
    let answers = futures_util::future::join_all(calls.map(|client| client.call_tool("whoami", json!({})))).await;
    let (mut processes, mut tokens) = (BTreeMap::new(), BTreeMap::new());
    for ((who, server, client), answers) in callers.iter().zip(answers.chunks(2)) {
        let own = told(&answers[0]);
        assert_eq!(own, told(&answers[1]), "{who} {server}: one process for the same inputs");
        assert_eq!(own, told(&client.call_tool("whoami", json!({})).await));
        assert_eq!(claims(&own.token)["sub"], who.split(' ').next().unwrap());
        assert_eq!(processes.insert(own.process, (who, server)), None, "{who} {server}");
        assert_eq!(tokens.insert(own.token.clone(), (who, server)), None, "{who} {server}");
    }
    // A list is that of a process of the caller's own: the same user with the same client, at the same server.
    for (who, server, client) in &callers {
        let listed = client.modern("tools/list", json!({})).await;
        let with = listed.result()["tools"][0]["description"].as_str().unwrap().trim_start_matches("with ").to_owned();
        let (of, at) = tokens.get(&with).unwrap_or_else(|| panic!("{who} {server}: {}", listed.text));
        let same = |one: &str, other: &str| one.split(' ').take(2).eq(other.split(' ').take(2));
        assert!(same(of, who) && *at == server, "{who} {server} sees the list of {of} {at}");
    }
    assert_eq!(processes.len(), callers.len());
}

#[tokio::test]
async fn a_secret_that_is_changed_in_its_file_is_in_the_process_of_the_next_call_and_no_call_fails() {
    let (issuer, place, kept) = (Issuer::start().await, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Where no process may write.
    let secret = kept.path().join("secret");
    std::fs::write(&secret, "old").unwrap();
    let more = format!(
        "credential = {{ kind = \"static\", secret = \"file:{}\" }}\ncredential_variable = \"SERVICE_TOKEN\"\n\
         pins = \"off\"\nwrite = [{:?}]\n",
        secret.display(),
        place.path()
    );
    let gateway = Setup::new(&issuer).stdio_server("s", &words(&command(place.path())), &more).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let old = whoami(&client).await;
    assert_eq!(old.token, "old");
    let waiting = {
        let (client, waits) = (client.clone(), place.path().join("begun.waits"));
        let call = tokio::spawn(async move { client.call_tool("s__wait", json!({ "name": "begun" })).await });
        eventually("the call to be under way", async || waits.exists()).await;
        call
    };
    std::fs::write(&secret, "new").unwrap();
    eventually("the new one to be in use", async || whoami(&client).await.token == "new").await;
    assert_ne!(whoami(&client).await.process, old.process);
    std::fs::write(place.path().join("begun.go"), "").unwrap();
    assert_eq!(told(&waiting.await.unwrap()), old, "what was begun came to its end");
}

#[tokio::test]
async fn a_process_is_replaced_before_the_use_of_its_credential_ends_and_finishes_what_it_has_begun() {
    let running = Running::in_a_variable(", use_max = \"8s\"", "").await;
    let alice = running.client("alice");
    let began = Instant::now();
    let first = whoami(&alice).await;
    let finishes = running.waiting(&alice, "finishes").await;
    let second = loop {
        let now = whoami(&alice).await;
        if now.process != first.process {
            break now;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it is never replaced");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // A quarter of the use is left to what was begun.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_ne!(second.token, first.token);
    assert!(lives(first.process), "it has something to finish");
    running.let_go("finishes");
    assert_eq!(told(&finishes.await.unwrap()), first, "it came to its end in the process where it was begun");
    eventually("the first process to be over", async || !lives(first.process)).await;
    assert!(lives(second.process));
    // What does not come to an end is cut off with the use.
    let mut never = running.waiting(&alice, "never").await;
    let cut = tokio::time::timeout(Duration::from_secs(15), &mut never).await.unwrap().unwrap();
    assert_eq!(reason(&cut), "upstream_closed", "{}", cut.text);
    eventually("the second process to be over", async || !lives(second.process)).await;
    assert_ne!(whoami(&alice).await.process, second.process);
    let log = running.gateway.log();
    assert!(log.contains("why=\"replaced\"") && log.contains("why=\"use_ended\""), "{log}");
}

#[tokio::test]
async fn a_process_that_reads_its_credential_again_lives_on_with_another() {
    let running = Running::start(", use_max = \"4s\"", "credential_file = \"SERVICE_FILE\"\n").await;
    let (alice, bob) = (running.client("alice"), running.client("bob"));
    let (first, his) = (whoami(&alice).await, whoami(&bob).await);
    assert_ne!((first.process, &first.token), (his.process, &his.token));
    let mut tokens = BTreeSet::from([first.token.clone()]);
    let began = Instant::now();
    while tokens.len() < 3 {
        let now = whoami(&alice).await;
        assert_eq!(now.process, first.process, "it goes on with what is in the file");
        assert_eq!(claims(&now.token)["sub"], "alice");
        tokens.insert(now.token);
        assert!(began.elapsed() < Duration::from_secs(20), "{tokens:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // His was not asked for again: it is over with the use of its credential.
    eventually("his process to be over", async || !lives(his.process)).await;
    assert!(lives(first.process));
}

#[tokio::test]
async fn what_is_taken_back_ends_its_process_at_once_and_no_other() {
    let running = Running::in_a_variable("", "").await;
    let (alice, bob, carol) = (running.client("alice"), running.client("bob"), running.client("carol"));
    let soon = Duration::from_secs(1);
    let order = |arguments: &[&str]| {
        let output = running.gateway.command(&[arguments, &["--config", "servers.toml", "--json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let (hers, his, third) = (whoami(&alice).await, whoami(&bob).await, whoami(&carol).await);
    // One credential by its name; its process is idle, and the next call gets another of both.
    let listed = order(&["credentials", "list"]);
    let name = listed.as_array().unwrap().iter().find(|one| one["subject"] == "alice").unwrap()["id"].clone();
    order(&["revoke", "credential", name.as_str().unwrap()]);
    are_gone(&[hers.process], soon).await;
    let again = whoami(&alice).await;
    assert_ne!((again.process, &again.token), (hers.process, &hers.token));
    // Somebody, with a call under way.
    let waits = running.waiting(&alice, "under-way").await;
    order(&["revoke", "subject", "user:test/alice"]);
    are_gone(&[again.process], soon).await;
    let cut = waits.await.unwrap();
    assert!(["revoked", "upstream_closed"].contains(&reason(&cut)), "{}", cut.text);
    // Their sessions until now; they log in again.
    order(&["revoke", "subject", "user:test/bob", "--sign-out"]);
    are_gone(&[his.process], soon).await;
    assert!(lives(third.process));
    order(&["revoke", "server", "s"]);
    are_gone(&[third.process], soon).await;
    assert!(running.gateway.log().contains("why=\"taken_back\""));
}

#[tokio::test]
async fn a_full_pool_refuses_and_an_idle_process_makes_room() {
    let running = Running::in_a_variable("", "process = { instances_max = 2 }\n").await;
    let (alice, bob, carol) = (running.client("alice"), running.client("bob"), running.client("carol"));
    // Each knows the tools: who has never seen them cannot see them in a process that there is no place for.
    for client in [&carol, &alice, &bob] {
        whoami(client).await;
    }
    let hers = running.waiting(&alice, "hers").await;
    let his = running.waiting(&bob, "his").await;
    let busy = carol.call_tool("s__whoami", json!({})).await;
    assert_eq!(reason(&busy), "upstream_busy", "{}", busy.text);
    running.let_go("hers");
    let hers = told(&hers.await.unwrap());
    let third = whoami(&carol).await;
    assert_eq!(claims(&third.token)["sub"], "carol");
    eventually("the idle one to make room", async || !lives(hers.process)).await;
    assert!(running.processes().len() <= 2);
    running.let_go("his");
    assert_eq!(claims(&told(&his.await.unwrap()).token)["sub"], "bob");
    let scraped = request::<()>(&running.gateway.state(), Method::GET, "/metrics", None).await.unwrap();
    let scraped = String::from_utf8(scraped.body.to_vec()).unwrap();
    for line in ["processes_started_total{server=\"s\"} 4", "processes_ended_total{server=\"s\",why=\"evicted\"} 2"] {
        assert!(scraped.contains(&format!("bailiwick_{line}")), "{line} is missing in {scraped}");
    }
}

#[tokio::test]
async fn a_process_that_dies_is_started_again_and_one_that_cannot_start_is_its_own_callers_trouble() {
    let running = Running::in_a_variable("", "").await;
    let (alice, mallory) = (running.client("alice"), running.client("mallory"));
    let first = whoami(&alice).await;
    let died = alice.call_tool("s__die", json!({})).await;
    assert_eq!(reason(&died), "upstream_closed", "{}", died.text);
    let second = whoami(&alice).await;
    assert_ne!(second.process, first.process);
    assert_eq!(second.token, first.token);
    // Her credential makes every process end at its start.
    let (_, middle) = (first, whoami(&mallory).await.token.split('.').nth(1).unwrap().to_owned());
    std::fs::write(running.place.path().join("broken"), middle).unwrap();
    assert_eq!(reason(&mallory.call_tool("s__die", json!({})).await), "upstream_closed");
    for _ in 0..5 {
        let answer = mallory.call_tool("s__whoami", json!({})).await;
        assert!(["upstream_closed", "upstream_unreachable"].contains(&reason(&answer)), "{}", answer.text);
        assert_eq!(whoami(&alice).await, second, "nobody else notices");
    }
    assert_eq!(whoami(&running.client("bob")).await.all["arguments"][0], "-c");
}

#[tokio::test]
async fn a_gateway_that_is_killed_leaves_nobodys_process() {
    let mut running = Running::in_a_variable("", "").await;
    for user in ["alice", "bob", "carol"] {
        whoami(&running.client(user)).await;
    }
    let mark = format!("mark={}", running.place.path().display());
    let all = marked(&mark);
    assert_eq!(all.len(), 6, "three, and a supervisor for each");
    running.gateway.signal("KILL");
    assert!(!running.gateway.wait().await.success());
    are_gone(&all, Duration::from_secs(2)).await;
    eventually_within(Duration::from_secs(2), "none to be left", async || marked(&mark).is_empty()).await;
}
