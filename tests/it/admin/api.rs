//! The API as its document describes it: what a running gateway answers is held against the schemas.

use serde_json::{Value, json};

use super::{RULES, Running, start};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::schema::problems;

/// The document, and a check of an answer against what it says of that operation and status.
struct Document(Value);

impl Document {
    async fn of(running: &Running) -> Self {
        let url = format!("{}/api/v1/openapi.json", running.gateway.admin);
        let answer = Client::new(&url, None).bare(reqwest::Method::GET, &[]).await;
        assert_eq!(answer.status, 200, "whoever has no token may read what the API is");
        Self(answer.response().clone())
    }

    fn problems(&self, pointer: &str, value: &Value) -> Vec<String> {
        let schema = self.0.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
        problems(&self.0, schema, value, "")
    }

    fn check(&self, operation: &str, status: u16, text: &str) {
        let (verb, path) = operation.split_once(' ').unwrap();
        let place = format!("/paths/{}/{verb}/responses/{status}/content", path.replace('/', "~1"));
        let media = self.0.pointer(&place).unwrap_or_else(|| panic!("{operation} does not say what {status} is"));
        let kind = media.as_object().unwrap().keys().next().unwrap();
        let value: Value = if kind.contains("json") { serde_json::from_str(text).unwrap() } else { json!(text) };
        let problems = self.problems(&format!("{place}/{}/schema", kind.replace('/', "~1")), &value);
        assert!(problems.is_empty(), "{operation} {status}: {problems:?} in {text}");
    }

    /// An order, as the document describes it.
    fn check_order(&self, operation: &str, order: &Value) {
        let (verb, path) = operation.split_once(' ').unwrap();
        let place = format!("/paths/{}/{verb}/requestBody/content/application~1json/schema", path.replace('/', "~1"));
        let problems = self.problems(&place, order);
        assert!(problems.is_empty(), "{operation}: {problems:?} in {order}");
    }
}

#[tokio::test]
async fn what_the_record_says_is_told_as_the_document_has_it_and_to_whoever_may_read_it() {
    let running = start().await;
    let document = Document::of(&running).await;
    let (ann, dora) = (running.administrator("ann", &["admins"]), running.administrator("dora", &["developers"]));
    let alice = running.issuer.token("alice", &["developers"], &running.gateway.resource());
    assert_eq!(running.gateway.client(&alice).call_tool("tools__echo", json!({})).await.status, 200);
    eventually("the call is on the record", async || !running.gateway.records("result").is_empty()).await;
    let call = running.gateway.records("result")[0]["call"].as_str().unwrap().to_owned();
    let since = "?since=2020-01-01T00:00:00Z";
    let asked = async |operation: &str, path: &str, token: &str, status: u16| {
        let answer = running.get(path, token).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        document.check(operation, status, &answer.text);
        answer
    };
    let shown = asked("get /logs/{id}", &format!("/logs/{call}"), &ann, 200).await;
    assert_eq!(shown.response()["records"].as_array().unwrap().len(), 2, "{}", shown.text);
    assert_eq!(shown.response()["replicas"].as_array().unwrap().len(), 1, "there is no other");
    asked("get /logs/{id}", "/logs/none", &ann, 200).await;
    asked("get /logs/{id}", "/logs/x", &ann, 400).await;
    let suggested = asked("get /policy/suggest", &format!("/policy/suggest{since}"), &ann, 200).await;
    assert!(
        suggested.text.contains("p, user:test/alice, development, tools/echo, call, -, allow"),
        "{}",
        suggested.text
    );
    asked("get /policy/suggest", "/policy/suggest", &ann, 400).await;
    asked("get /policy/simulate", &format!("/policy/simulate{since}"), &ann, 404).await;
    let policies = running.gateway.state().with_file_name("policies");
    let next = running.gateway.state().with_file_name("policies.next");
    std::fs::create_dir_all(&next).unwrap();
    for entry in std::fs::read_dir(&policies).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        std::fs::copy(entry.path(), next.join(entry.file_name())).unwrap();
    }
    let simulated = asked("get /policy/simulate", &format!("/policy/simulate{since}"), &ann, 200).await;
    assert_eq!(simulated.response()["unchanged"], 1, "{}", simulated.text);
    let other = format!("/policy/simulate{since}&revision={}", "0".repeat(64));
    asked("get /policy/simulate", &other, &ann, 400).await;
    for (operation, path) in [
        ("get /logs/{id}", format!("/logs/{call}")),
        ("get /policy/suggest", format!("/policy/suggest{since}")),
        ("get /policy/simulate", format!("/policy/simulate{since}")),
    ] {
        asked(operation, &path, &dora, 403).await;
        asked(operation, &path, "no-token", 401).await;
    }
}

#[tokio::test]
async fn what_is_answered_is_what_the_document_says() {
    let running = start().await;
    let document = Document::of(&running).await;
    let ann = running.administrator("ann", &["admins"]);
    let otto = running.administrator("otto", &["operators"]);
    for path in ["/status", "/readyz", "/servers", "/agents", "/policy", "/metrics", "/shadow", "/revocations"] {
        let answer = running.get(path, &ann).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        document.check(&format!("get {path}"), 200, &answer.text);
    }
    for (path, query) in [("/who-can", "?object=tools/echo"), ("/what-can", "?subject=group:test/developers")] {
        let answer = running.get(&format!("{path}{query}"), &ann).await;
        document.check(&format!("get {path}"), 200, &answer.text);
        assert!(answer.text.contains("role:developer"), "{}", answer.text);
        let wrong = running.get(&format!("{path}?x=1"), &ann).await;
        document.check(&format!("get {path}"), 400, &wrong.text);
        document.check(&format!("get {path}"), 403, &running.get(&format!("{path}{query}"), &otto).await.text);
        let nobody = running.get(path, "no-token").await;
        document.check(&format!("get {path}"), 401, &nobody.text);
    }
    let dora = running.issuer.token("dora", &["developers"], &running.gateway.resource());
    let orders = [
        (
            "/explain",
            json!({ "object": "tools/echo", "as": "user:test/dora", "groups": ["group:test/developers"] }),
            200,
        ),
        ("/explain", json!({ "object": "tools/echo", "as": "user:test/otto", "arguments": { "a": 1 } }), 200),
        ("/explain", json!({ "object": "tools/echo", "token": dora }), 200),
        ("/explain", json!({ "object": "tools/echo", "token": "nobody's" }), 200),
        ("/explain", json!({ "object": "tools/echo", "token": dora, "agent": "assistant" }), 400),
        ("/revocations/reach", json!({ "target": "server", "value": "tools" }), 200),
        ("/revocations/reach", json!({ "target": "server", "value": "tools", "sign_out": true }), 400),
        ("/revoke", json!({ "target": "subject", "issuer": "test", "value": "alice", "note": "left" }), 200),
        ("/revoke", json!({ "target": "session", "value": "s1", "sign_out": true }), 200),
        ("/revoke", json!({ "target": "agent", "value": "assistant", "sign_out": true }), 400),
        ("/reload", json!({}), 200),
    ];
    for (path, order, status) in orders {
        document.check_order(&format!("post {path}"), &order);
        let answer = running.post(path, &ann, order).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        document.check(&format!("post {path}"), status, &answer.text);
    }
    let held = running.get("/revocations", &ann).await;
    document.check("get /revocations", 200, &held.text);
    let since = held.response()["revocations"][0]["since"].as_u64().unwrap();
    let lift = async || running.at(&format!("/revocations/{since}"), &ann).bare(reqwest::Method::DELETE, &[]).await;
    document.check("delete /revocations/{since}", 200, &lift().await.text);
    document.check("delete /revocations/{since}", 404, &lift().await.text);
    let pins = running.get("/pins", &ann).await;
    document.check("get /pins", 200, &pins.text);
    let digest = pins.response()["pins"][0]["digest"].as_str().unwrap().to_owned();
    document.check("get /pins/diff", 200, &running.get("/pins/diff?server=tools&name=echo", &ann).await.text);
    document.check("get /pins/diff", 400, &running.get("/pins/diff?server=tools", &ann).await.text);
    let kind = running.get("/pins/diff?server=tools&name=echo&kind=resource", &ann).await;
    assert_eq!(kind.status, 400, "{}", kind.text);
    document.check("get /pins/export", 200, &running.get("/pins/export", &ann).await.text);
    let order = json!({ "server": "tools", "pins": [digest], "note": "no" });
    for what in ["reject", "accept"] {
        document.check_order(&format!("post /pins/{what}"), &order);
        let done = running.post(&format!("/pins/{what}"), &ann, order.clone()).await;
        assert_eq!(done.status, 200, "{what}: {}", done.text);
        document.check(&format!("post /pins/{what}"), 200, &done.text);
        let unknown = json!({ "server": "tools", "pins": ["0".repeat(64)] });
        let absent = running.post(&format!("/pins/{what}"), &ann, unknown).await;
        document.check(&format!("post /pins/{what}"), 404, &absent.text);
    }
    running.gateway.write_policy(&format!("{RULES}p, anyone, *, */*, call, -, allow\n"));
    let answer = running.post("/reload", &ann, json!({})).await;
    assert_eq!(answer.status, 409);
    document.check("post /reload", 409, &answer.text);
}

#[tokio::test]
async fn a_question_is_answered_by_the_running_policy_and_nothing_is_called() {
    let running = start().await;
    let ann = running.administrator("ann", &["admins"]);
    let question = json!({ "object": "tools/echo", "as": "user:test/dora", "groups": ["group:test/developers"] });
    let allowed = running.post("/explain", &ann, question.clone()).await;
    assert_eq!(allowed.response()["allowed"], true, "{}", allowed.text);
    // What stands in the files is not in force before it is reloaded.
    running.gateway.write_policy(&format!(
        "{RULES}p, role:developer, *, */*, read, -, allow\ng, group:test/developers, role:developer, *\n"
    ));
    assert_eq!(running.post("/explain", &ann, question.clone()).await.response()["allowed"], true);
    assert_eq!(running.post("/reload", &ann, json!({ "allow_widening": true })).await.status, 200);
    let refused = running.post("/explain", &ann, question).await;
    assert_eq!((&refused.response()["allowed"], &refused.response()["reason"]), (&json!(false), &json!("not_allowed")));
    assert!(running.upstream.calls().is_empty());
    let record = running.ended().pop().unwrap();
    assert_eq!(
        (&record["operation"], &record["about"]),
        (&json!("explain"), &json!("call tools/echo as user:test/dora"))
    );
    for wrong in [
        json!({ "object": "echo" }),
        json!({ "object": "tools/echo" }),
        json!({ "object": "tools/echo", "as": "user:test/x", "arguments": [1] }),
        json!({ "object": "bailiwick/revoek", "as": "user:test/x", "action": "admin" }),
    ] {
        assert_eq!(running.post("/explain", &ann, wrong.clone()).await.status, 400, "{wrong}");
    }
}
