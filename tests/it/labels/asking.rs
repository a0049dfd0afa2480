//! Flows that ask: what was seen may go there, once a person has said so.

use serde_json::{Value, json};

use super::{LABELS, call, client, in_postgresql, sent, upstream};
use crate::input;
use crate::input_legacy::{respond, session, stream};
use crate::support::client::{Answer, Client};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::old::{Old, Turn};
use crate::support::scripted::{Scripted, result, text, tool};

const ADMIN: &str =
    "acr = [\"strong\"]\nclients = [{ issuer = \"test\", client_id = \"test-admin\", approves = true }]";

const RULES: &str = "\
p, anyone, *, tools/*, call, -, allow
p, agent:assistant, *, tools/*, call, -, allow
g, group:test/approvers, role:approver, *
p, role:approver, *, bailiwick/approvals, admin, -, allow
p, role:approver, *, bailiwick/approve, admin, -, allow
";

const AGENTS: &str = "\
[breaker]
denials_per_minute = 1000
[agents.assistant]
owner = \"user:test/owner\"
owner_person = \"owner\"
purpose = \"tests\"
kind = \"interactive\"
environments = [\"development\"]
";

const GATES: &str = "\
[gates.exfiltration]
flows = true
approvers = [\"group:test/approvers\"]
";

/// What is regulated never leaves; private data beside somebody else's words leaves when a person says so.
const FLOWS: &str = "
[[label]]
objects = [\"tools/plain\"]
reads = \"regulated\"

[[flow]]
from = [\"private\", \"untrusted\"]
then = \"approve\"
gate = \"exfiltration\"
unless = \"to-us\"

[[flow]]
from = [\"regulated\"]
";

struct Running {
    issuer: Issuer,
    upstream: Scripted,
    gateway: Gateway,
}

fn setup(issuer: &Issuer, upstream: &Scripted, gates: &str, flows: &str) -> Setup {
    Setup::new(issuer)
        .claims("person = \"person\"\n")
        .policy(RULES)
        .policy_file("labels.toml", &format!("{LABELS}{flows}"))
        .policy_file("gates.toml", gates)
        .policy_file("conditions.toml", "[to-us]\nargument = \"to\"\nends_with = \"@example.com\"\n")
        .policy_file("agents.toml", AGENTS)
        .http_server("tools", &upstream.url, "pins = \"off\"")
        .admin(ADMIN)
}

async fn start(gates: &str, flows: &str) -> Running {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = setup(&issuer, &upstream, gates, flows).start().await;
    Running { issuer, upstream, gateway }
}

/// The request that an answer says the call waits for.
fn waits(answer: &Answer) -> String {
    let content = &answer.result()["structuredContent"];
    assert_eq!(content["status"], "approval_required", "{}", answer.text);
    content["approval_id"].as_str().unwrap().to_owned()
}

async fn approve(issuer: &Issuer, gateway: &Gateway, id: &str) -> Value {
    let token = issuer.sign(&issuer.administrator("bob", &["approvers"], &gateway.admin));
    let at = |path: &str| Client::new(&format!("{}/api/v1/approvals/{id}{path}", gateway.admin), Some(&token));
    let view = at("").bare(reqwest::Method::GET, &[]).await.response().clone();
    let approved = at("/approve").post(&[], json!({ "shown": view["shown"] }).to_string()).await;
    assert_eq!(approved.status, 200, "{}", approved.text);
    view
}

async fn has_seen(client: &Client) {
    for name in ["read_customer", "fetch"] {
        assert_eq!(call(client, name, json!({})).await, None);
    }
}

async fn what_was_seen_goes_out_once_a_person_has_said_so(issuer: &Issuer, gateway: &Gateway, upstream: &Scripted) {
    let alice = client(issuer, gateway, "alice");
    let out = json!({ "to": "eve@example.org", "text": "hello" });
    assert_eq!(call(&alice, "send", json!({ "to": "before@example.org" })).await, None, "nothing was seen yet");
    has_seen(&alice).await;
    assert_eq!(call(&alice, "send", json!({ "to": "us@example.com" })).await, None, "the exception surely holds");
    let before = sent(upstream);
    let id = waits(&alice.call_tool("tools__send", out.clone()).await);
    assert_eq!(waits(&alice.call_tool("tools__send", out.clone()).await), id, "the identical call attaches to it");
    assert_eq!(sent(upstream), before);
    let view = approve(issuer, gateway, &id).await;
    assert_eq!((&view["gates"], &view["after"]), (&json!(["exfiltration"]), &json!("untrusted, private")), "{view}");
    let changed = json!({ "to": "eve@example.org", "text": "hellp" });
    assert_ne!(waits(&alice.call_tool("tools__send", changed).await), id, "one byte is another call");
    assert_eq!(call(&alice, "send", out.clone()).await, None);
    assert_eq!(sent(upstream), before + 1);
    assert_ne!(waits(&alice.call_tool("tools__send", out).await), id, "it is good once");
    assert_eq!(sent(upstream), before + 1);
}

#[tokio::test]
async fn what_was_seen_goes_out_when_another_person_approves_exactly_that_call() {
    let running = start(GATES, FLOWS).await;
    let Running { issuer, upstream, gateway } = &running;
    what_was_seen_goes_out_once_a_person_has_said_so(issuer, gateway, upstream).await;
    let waited = gateway.records("refusal");
    let waited = waited.iter().find(|record| record["decision"]["reason"] == "approval_required").unwrap();
    let rule = waited["decision"]["rule"].as_str().unwrap();
    assert!(rule.starts_with("labels.toml:"), "the flow is named: {waited}");
    let intents = gateway.records("intent");
    let out = intents.iter().find(|intent| intent["approval"].is_string()).unwrap();
    assert_eq!(out["labels"]["asked"], json!([rule]), "{out}");
    assert_eq!(out["labels"]["before"], json!(["untrusted", "private"]));
    let is_consumed = |event: &Value| event["approval"]["event"] == "consumed";
    eventually("that it is used", async || gateway.records("approval").iter().any(is_consumed)).await;
}

#[tokio::test]
async fn the_same_holds_where_the_rows_are_in_postgresql() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let Some(gateway) = in_postgresql(setup(&issuer, &upstream, GATES, FLOWS)).await else { return };
    what_was_seen_goes_out_once_a_person_has_said_so(&issuer, &gateway, &upstream).await;
}

#[tokio::test]
async fn of_two_retries_of_what_was_approved_one_goes_out() {
    let running = start(GATES, FLOWS).await;
    let alice = client(&running.issuer, &running.gateway, "alice");
    has_seen(&alice).await;
    let id = waits(&alice.call_tool("tools__send", json!({})).await);
    approve(&running.issuer, &running.gateway, &id).await;
    let once = || call(&alice, "send", json!({}));
    let (one, other) = futures_util::future::join(once(), once()).await;
    assert_eq!([one.is_none(), other.is_none()].iter().filter(|went| **went).count(), 1, "{one:?} {other:?}");
    assert_eq!(sent(&running.upstream), 1);
}

#[tokio::test]
async fn a_flow_that_refuses_wins_over_one_that_asks_also_after_it_was_approved() {
    let running = start(GATES, FLOWS).await;
    let alice = client(&running.issuer, &running.gateway, "alice");
    has_seen(&alice).await;
    let id = waits(&alice.call_tool("tools__send", json!({})).await);
    approve(&running.issuer, &running.gateway, &id).await;
    assert_eq!(call(&alice, "plain", json!({})).await, None, "regulated data is seen meanwhile");
    assert_eq!(call(&alice, "send", json!({})).await.as_deref(), Some("flow_refused"));
    assert_eq!(sent(&running.upstream), 0);
}

#[tokio::test]
async fn whoever_calls_approves_nothing_of_it_themselves() {
    let running = start(GATES, FLOWS).await;
    let alice = client(&running.issuer, &running.gateway, "alice");
    has_seen(&alice).await;
    let id = waits(&alice.call_tool("tools__send", json!({})).await);
    let admin = &running.gateway.admin;
    let token = running.issuer.sign(&running.issuer.administrator("alice", &["approvers"], admin));
    let at = |path: &str| Client::new(&format!("{admin}/api/v1/approvals/{id}{path}"), Some(&token));
    let view = at("").bare(reqwest::Method::GET, &[]).await.response().clone();
    let own = at("/approve").post(&[], json!({ "shown": view["shown"] }).to_string()).await;
    assert_eq!((own.status, &own.response()["reason"]), (403, &json!("approver_refused")), "{}", own.text);
    assert_eq!(waits(&alice.call_tool("tools__send", json!({})).await), id);
}

#[tokio::test]
async fn a_client_that_cannot_be_asked_to_confirm_is_refused_and_one_that_can_confirms() {
    let gates = "[gates.mean-it]\nflows = true\nkind = \"confirm\"\n";
    let flows = "[[flow]]\nfrom = [\"private\", \"untrusted\"]\nthen = \"confirm\"\ngate = \"mean-it\"\n";
    let running = start(gates, flows).await;
    let alice = client(&running.issuer, &running.gateway, "alice");
    has_seen(&alice).await;
    assert_eq!(call(&alice, "send", json!({})).await.as_deref(), Some("confirmation_required"));
    assert_eq!(sent(&running.upstream), 0);
}

#[tokio::test]
async fn explain_names_the_flows_that_a_call_may_meet() {
    let running = start(GATES, FLOWS).await;
    let explain = |arguments: &str| {
        let words = ["explain", "tools/send", "--as", "user:test/alice", "--arguments", arguments];
        let output = running.gateway.command(&words);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let told = explain(r#"{"to":"eve@example.org"}"#);
    assert!(told.contains("after untrusted, private: gate exfiltration asks (approve) (labels.toml:"), "{told}");
    assert!(told.contains("after regulated: it is refused (labels.toml:"), "{told}");
    let excused = explain(r#"{"to":"us@example.com"}"#);
    assert!(!excused.contains("exfiltration") && excused.contains("after regulated"), "{excused}");
}

#[tokio::test]
async fn a_flow_that_names_no_gate_or_the_wrong_one_is_a_mistake_with_its_place() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let flow = |more: &str| format!("[[flow]]\nfrom = [\"private\"]\n{more}\n");
    for (gates, flows, told) in [
        (GATES, flow("then = \"approve\""), "write gate = \"NAME\""),
        (GATES, flow("then = \"confirm\"\ngate = \"exfiltration\""), "is of kind approve"),
        (GATES, flow("then = \"approve\"\ngate = \"other\""), "there is no gate `other`"),
        (GATES, flow("gate = \"exfiltration\""), "asks no gate"),
        (GATES, flow("then = \"deny\""), "gate `exfiltration` stops nothing"),
        (
            "[gates.exfiltration]\nflows = true\nlabels = [\"external\"]\napprovers = [\"owner\"]\n",
            flow("then = \"approve\"\ngate = \"exfiltration\""),
            "remove objects, labels",
        ),
    ] {
        let written = setup(&issuer, &upstream, gates, &flows).written();
        let checked = written.command(&["check"]);
        let said = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
        assert!(!checked.status.success() && said.contains(told), "{told}: {said}");
    }
}

#[tokio::test]
async fn answers_go_out_with_the_call_that_was_approved_and_with_no_other() {
    let issuer = Issuer::start().await;
    let tools = json!([tool("send"), tool("read_customer"), tool("fetch")]);
    let upstream = Scripted::start(tools, |request| {
        let params = &request["params"];
        if params["name"] != "send" || params.get("inputResponses").is_some() {
            return result(request, text("done"));
        }
        let question = json!({ "method": "elicitation/create", "params": { "mode": "form", "message": "Copies to?",
            "requestedSchema": { "type": "object", "properties": {} } } });
        result(request, json!({ "resultType": "input_required", "inputRequests": { "cc": question } }))
    })
    .await;
    let rules =
        format!("{RULES}p, anyone, *, tools/*, elicit, -, allow\np, agent:assistant, *, tools/*, elicit, -, allow\n");
    let flow = "[[label]]\nobjects = [\"tools/send\"]\nsends = \"external\"\n[[label]]\nobjects = [\"tools/read_customer\"]\n\
                reads = \"private\"\n[[label]]\nobjects = [\"tools/fetch\"]\ncontent = \"untrusted\"\n[[flow]]\n\
                from = [\"private\"]\nthen = \"approve\"\ngate = \"exfiltration\"\nunless = \"to-us\"\n";
    let gateway = setup(&issuer, &upstream, GATES, "").policy(&rules).policy_file("labels.toml", flow).start().await;
    let alice = client(&issuer, &gateway, "alice");
    let form = json!({ "elicitation": { "form": {} } });
    let send = async |arguments: &Value| {
        input::call(&alice, &form, json!({ "name": "tools__send", "arguments": arguments })).await
    };
    let answer = async |arguments: &Value, asked: &Answer| {
        let answers = json!({ "cc": { "action": "accept", "content": { "cc": "eve@example.org" } } });
        input::call(&alice, &form, input::retry("tools__send", arguments, asked, answers)).await
    };
    assert_eq!(call(&alice, "read_customer", json!({})).await, None);
    let (us, them) = (json!({ "to": "bob@example.com" }), json!({ "to": "eve@example.org" }));
    let asked = send(&us).await;
    let refused = answer(&us, &asked).await;
    assert_eq!(input::reason(&refused), "flow_refused", "nobody was asked about that call: {}", refused.text);
    let id = waits(&send(&them).await);
    approve(&issuer, &gateway, &id).await;
    let asked = send(&them).await;
    let done = answer(&them, &asked).await;
    assert_eq!(done.tool_text(), "done", "{}", done.text);
    let again = answer(&them, &asked).await;
    assert_eq!(input::reason(&again), "approval_consumed", "each round once: {}", again.text);
    let answered =
        upstream.calls().iter().filter(|call| call.message["params"].get("inputResponses").is_some()).count();
    assert_eq!(answered, 1);
}

#[tokio::test]
async fn how_far_an_answer_is_is_told_to_no_server_whose_call_has_labels_counted() {
    for counted in [false, true] {
        let issuer = Issuer::start().await;
        let upstream = Old::start(&["send"], |turn: Turn| async move {
            let form = json!({ "type": "object", "properties": {} });
            let asks = json!({ "message": "Sure?", "requestedSchema": form, "_meta": { "progressToken": "far" } });
            let answer = turn.ask("elicitation/create", asks).await;
            turn.done(&answer["result"].to_string());
        })
        .await;
        let labels = format!("{LABELS}[[flow]]\nfrom = [\"private\"]\n");
        let setup = Setup::new(&issuer).policy(&input::may_ask(&["elicit"])).http_server("tools", &upstream.url, "");
        let setup = if counted { setup.policy_file("labels.toml", &labels) } else { setup };
        let gateway = setup.start().await;
        let alice = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
        let session = session(&alice, &json!({ "elicitation": {} })).await;
        let mut events = stream(&alice, &session, 1, "tools__send").await;
        let question = events.next().await;
        let token = question["params"]["_meta"].get("progressToken");
        assert_eq!(token, question.get("id").filter(|_| !counted), "{counted}: {question}");
        // Told all the same, it reaches nobody.
        let told = json!({ "progressToken": question["id"], "progress": 1, "message": "what was seen" });
        let told = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": told });
        let said = alice.post(&[("mcp-session-id", session.clone())], told.to_string()).await;
        assert_eq!(said.status, 202, "{}", said.text);
        let heard = upstream.saw("notifications/progress").len();
        assert_eq!(heard, usize::from(!counted), "{counted}");
        respond(&alice, &session, &question, json!({ "action": "accept" })).await;
        assert_eq!(crate::input_legacy::told(&events.next().await), json!({ "action": "accept" }));
    }
}
