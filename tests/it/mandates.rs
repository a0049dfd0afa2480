//! Mandates: what a task may do, how long, how often, and that its end is one.

use serde_json::{Value, json};

use crate::support::client::{Answer, Client, modern_request};
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::replicas::Replicas;
use crate::support::scripted::{Scripted, raw, result, text, tool};

mod counted;
mod given;
mod over;

const ADMIN: &str = "acr = [\"strong\"]\nclients = [{ issuer = \"test\", client_id = \"test-admin\" }]";

const AGENTS: &str = "\
[agents.assistant]
owner = \"user:test/owner\"
purpose = \"tests\"
kind = \"interactive\"
environments = [\"development\"]
[agents.bot]
owner = \"user:test/owner\"
purpose = \"works at night\"
kind = \"autonomous\"
environments = [\"development\"]
clients = [{ issuer = \"test\", client_id = \"bot\", proof = \"private_key\" }]
[agents.chief]
owner = \"user:test/owner\"
purpose = \"gives tasks to others\"
kind = \"autonomous\"
environments = [\"development\"]
clients = [{ issuer = \"test\", client_id = \"chief\", proof = \"private_key\" }]
";

const TEMPLATES: &str = "\
[templates.nightly]
title = \"echoes at night\"
tools = [\"tools/echo\", \"tools/wait\", \"tools/small\"]
environments = [\"development\"]
agents = [\"bot\"]
wall_time = \"10m\"
[templates.counted]
title = \"a few calls\"
tools = [\"tools/*\"]
environments = [\"development\"]
agents = [\"bot\"]
budget = { calls = 7 }
[templates.small]
title = \"small amounts\"
tools = [\"tools/*\"]
conditions = [\"small\"]
environments = [\"development\"]
agents = [\"bot\"]
purpose_required = true
";

/// Tasks that end when nobody goes on with them.
const IDLE: &str = "\
[templates.idle]
title = \"ends when nobody uses it\"
tools = [\"tools/*\"]
environments = [\"development\"]
agents = [\"bot\"]
idle_for = \"1s\"
[templates.patient]
title = \"ends later\"
tools = [\"tools/*\"]
environments = [\"development\"]
agents = [\"bot\"]
idle_for = \"4s\"
";

const CONDITIONS: &str = "[small]\nargument = \"amount\"\nat_most = 10\n";

const RULES: &str = "\
g, group:test/admins, role:admin, *
p, role:admin, *, bailiwick/*, admin, -, allow
p, agent:bot, *, tools/*, call, -, allow
p, user:test/bot, *, tools/*, call, -, allow
p, user:test/bot, *, bailiwick/mandate:*, admin, -, allow
p, user:test/chief, *, bailiwick/mandate:*, admin, -, allow
p, agent:bot, *, bailiwick/mandate:*, admin, -, allow
p, agent:chief, *, bailiwick/mandate:nightly, admin, -, allow
p, user:test/alice, *, tools/*, call, -, allow
p, agent:assistant, *, tools/*, call, -, allow
";

struct Running {
    issuer: Issuer,
    upstream: Scripted,
    gateway: Gateway,
}

fn setup(issuer: &Issuer, upstream: &Scripted) -> Setup {
    Setup::new(issuer)
        .policy(RULES)
        .policy_file("agents.toml", AGENTS)
        .policy_file("mandates.toml", TEMPLATES)
        .policy_file("conditions.toml", CONDITIONS)
        .http_server("tools", &upstream.url, "")
}

async fn upstream() -> Scripted {
    let tools = json!([tool("echo"), tool("other"), tool("wait"), tool("small")]);
    Scripted::start(tools, |request| {
        if request["params"]["name"] == "wait" {
            let never = futures_util::stream::pending::<Result<axum::body::Bytes, std::convert::Infallible>>();
            return raw("text/event-stream", axum::body::Body::from_stream(never));
        }
        result(request, text("done"))
    })
    .await
}

async fn start() -> Running {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = setup(&issuer, &upstream).admin(ADMIN).start().await;
    Running { issuer, upstream, gateway }
}

impl Running {
    fn software(&self, client: &str) -> Client {
        let mut claims = self.issuer.claims(client, &[], &self.gateway.resource());
        claims["client_id"] = json!(client);
        self.gateway.client(&self.issuer.sign(&claims))
    }

    fn bot(&self) -> Client {
        self.software("bot")
    }

    fn administrator(&self) -> String {
        self.issuer.sign(&self.issuer.administrator("ann", &["admins"], &self.gateway.admin))
    }

    async fn order(&self, path: &str, body: Value) -> Answer {
        let url = format!("{}/api/v1{path}", self.gateway.admin);
        Client::new(&url, Some(&self.administrator())).post(&[], body.to_string()).await
    }
}

fn approving() -> String {
    ADMIN.replace("client_id = \"test-admin\"", "client_id = \"test-admin\", approves = true")
}

/// Opens a mandate with the gateway's own tool; its id and its handle.
async fn open(client: &Client, wish: Value) -> (String, String) {
    let answer = client.call_tool("bailiwick__mandate_open", wish).await;
    let opened = &answer.result()["structuredContent"];
    let text = |name: &str| opened[name].as_str().unwrap_or_else(|| panic!("{}", answer.text)).to_owned();
    (text("id"), text("handle"))
}

async fn call(client: &Client, handle: &str, name: &str, arguments: Value) -> Answer {
    let params = json!({ "name": name, "arguments": arguments, "_meta": { "dev.bailiwick/mandate": handle } });
    client.modern("tools/call", params).await
}

fn reason(answer: &Answer) -> String {
    let meta = answer.response()["result"]["_meta"]["dev.bailiwick/reason"].as_str();
    meta.or_else(|| answer.response()["error"]["data"]["reason"].as_str()).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_tool_that_asks_what_each_call_is_for_is_called_by_nobody_who_does_not_say() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = Setup::new(&issuer)
        .policy(RULES)
        .policy_file("agents.toml", AGENTS)
        .policy_file("conditions.toml", CONDITIONS)
        .policy_file("mandates.toml", TEMPLATES)
        .http_server("tools", &upstream.url, "intent_required = [\"echo\"]")
        .start()
        .await;
    let alice = gateway.client(&issuer.token("alice", &[], &gateway.resource()));
    let saying = async |name: &str, intent: Value| {
        let params = json!({ "name": name, "arguments": {}, "_meta": { "dev.bailiwick/intent": intent } });
        alice.modern("tools/call", params).await
    };
    assert_eq!(reason(&alice.call_tool("tools__echo", json!({})).await), "intent_required");
    assert_eq!(reason(&saying("tools__echo", json!({ "task": "books", "purpose": " " })).await), "intent_required");
    assert_eq!(reason(&saying("tools__echo", json!({ "purpose": 1 })).await), "parameters_invalid");
    assert!(upstream.calls().is_empty());
    let secret = format!("sums for ghp_{}", "a1".repeat(18));
    let said = json!({ "task": "books", "purpose": secret, "prompt_sha256": "ab".repeat(32), "plan_step": "3" });
    assert_eq!(saying("tools__echo", said).await.tool_text(), "done");
    assert_eq!(alice.call_tool("tools__other", json!({})).await.tool_text(), "done", "it asks nobody");
    assert!(upstream.calls().iter().all(|call| !call.text.contains("books")), "it goes to no server");
    let intents = gateway.records("intent");
    let called = intents.iter().find(|intent| intent["mcp"]["name"] == "echo").unwrap();
    let declared = json!({ "task": "books", "purpose": "sums for [redacted]", "prompt_sha256": "ab".repeat(32),
        "plan_step": "3" });
    assert_eq!(called["declared"], declared, "{called}");
    crate::support::eventually("what a refused call declared to be on the record", async || {
        gateway.records("refusal").iter().any(|line| line["declared"] == json!({ "task": "books" }))
    })
    .await;
}

#[tokio::test]
async fn an_agent_on_its_own_needs_a_mandate_and_is_bound_by_it_where_the_rules_would_allow() {
    let running = start().await;
    let bot = running.bot();
    let bare = bot.call_tool("tools__echo", json!({})).await;
    assert_eq!(reason(&bare), "mandate_required", "{}", bare.text);
    let (id, handle) = open(&bot, json!({ "template": "nightly", "purpose": "backups" })).await;
    let allowed = call(&bot, &handle, "tools__echo", json!({ "a": 1 })).await;
    assert_eq!(allowed.tool_text(), "done", "{}", allowed.text);
    let outside = call(&bot, &handle, "tools__other", json!({})).await;
    assert_eq!(reason(&outside), "mandate_scope", "{}", outside.text);
    assert_eq!(running.upstream.calls().len(), 1);
    let arrived = &running.upstream.calls()[0];
    assert!(!arrived.text.contains(&handle) && !arrived.text.contains("dev.bailiwick"), "{}", arrived.text);
    // A header says the same, and both must agree.
    let (mut headers, body) = modern_request("tools/call", json!({ "name": "tools__echo", "arguments": {} }));
    headers.push(("bailiwick-mandate", handle.clone()));
    assert_eq!(bot.post(&headers, body.to_string()).await.tool_text(), "done");
    let params = json!({ "name": "tools__echo", "arguments": {}, "_meta": { "dev.bailiwick/mandate": "x" } });
    let (mut headers, body) = modern_request("tools/call", params);
    headers.push(("bailiwick-mandate", handle.clone()));
    let differing = bot.post(&headers, body.to_string()).await;
    assert_eq!((differing.status, differing.error_code()), (400, -32020), "{}", differing.text);

    let intents = running.gateway.records("intent");
    let called = intents.iter().find(|intent| intent["mcp"]["name"] == "echo").unwrap();
    let expected = json!({ "id": id, "template": "nightly", "purpose_declared": "backups" });
    assert_eq!(called["mandate"], expected, "{called}");
    assert_eq!(called["owners"], json!({ "agent": "user:test/owner", "server": "user:test/owner" }));
    let opened = intents.iter().find(|intent| intent["mcp"]["name"] == "mandate_open").unwrap();
    assert_eq!(opened["mcp"]["server"], "bailiwick");
    let refused = running.gateway.records("refusal");
    assert!(refused.iter().any(|line| line["mandate"]["id"] == json!(id)), "{refused:?}");
    let told = &running.gateway.records("mandate")[0]["mandate"];
    assert_eq!((&told["event"], &told["id"], &told["actor"]), (&json!("opened"), &json!(id), &json!("user:test/bot")));
    // Whoever needs none goes on as before.
    let alice = running.gateway.client(&running.issuer.token("alice", &[], &running.gateway.resource()));
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.tool_text(), "done");
}

#[tokio::test]
async fn a_handle_is_unknown_to_everybody_but_its_holder() {
    let running = start().await;
    let (_, handle) = open(&running.bot(), json!({ "template": "nightly" })).await;
    let alice = running.gateway.client(&running.issuer.token("alice", &[], &running.gateway.resource()));
    let stolen = call(&alice, &handle, "tools__echo", json!({})).await;
    let made_up = call(&alice, "AAAAAAAA", "tools__echo", json!({})).await;
    assert_eq!(reason(&stolen), "mandate_unknown", "{}", stolen.text);
    assert_eq!(stolen.response()["result"], made_up.response()["result"]);
    let mut torn = handle.into_bytes();
    torn[30] = if torn[30] == b'A' { b'B' } else { b'A' };
    let torn = String::from_utf8(torn).unwrap();
    assert_eq!(reason(&call(&running.bot(), &torn, "tools__echo", json!({})).await), "mandate_unknown");
    let long = "A".repeat(bailiwick::limit::MANDATE_HANDLE_BYTES_MAX + 1);
    assert_eq!(reason(&call(&running.bot(), &long, "tools__echo", json!({})).await), "mandate_unknown");
    assert!(running.upstream.calls().is_empty());
}

#[tokio::test]
async fn conditions_of_a_template_hold_for_every_call_and_its_purpose_is_asked_for() {
    let running = start().await;
    let bot = running.bot();
    let unsaid = bot.call_tool("bailiwick__mandate_open", json!({ "template": "small" })).await;
    assert_eq!(reason(&unsaid), "mandate_refused", "{}", unsaid.text);
    let (_, handle) = open(&bot, json!({ "template": "small", "purpose": "small things" })).await;
    assert_eq!(call(&bot, &handle, "tools__small", json!({ "amount": 10 })).await.tool_text(), "done");
    for arguments in [json!({ "amount": 11 }), json!({}), json!({ "amount": "1" })] {
        let refused = call(&bot, &handle, "tools__small", arguments).await;
        assert_eq!(reason(&refused), "mandate_scope", "{}", refused.text);
    }
}

#[tokio::test]
async fn what_is_wished_only_ever_narrows() {
    let running = start().await;
    let bot = running.bot();
    for wish in [
        json!({ "template": "nightly", "tools": ["tools/other"] }),
        json!({ "template": "nightly", "tools": ["tools/*"] }),
        json!({ "template": "nightly", "tools": [] }),
        json!({ "template": "nightly", "environments": ["production"] }),
        json!({ "template": "nightly", "seconds": 601 }),
        json!({ "template": "nightly", "seconds": 0 }),
        json!({ "template": "counted", "budget": { "calls": 8 } }),
        json!({ "template": "nightly", "isolate": true }),
        json!({ "template": "nightly", "agent": "chief" }),
        json!({ "template": "nightly", "conditions": ["unheard-of"] }),
        json!({ "template": "nightly", "purpose": "x".repeat(bailiwick::limit::MANDATE_PURPOSE_BYTES_MAX + 1) }),
        json!({ "tools": ["tools/echo"], "environments": ["development"] }),
    ] {
        let answer = bot.call_tool("bailiwick__mandate_open", wish.clone()).await;
        assert_eq!(reason(&answer), "mandate_refused", "{wish}: {}", answer.text);
    }
    let (_, handle) = open(&bot, json!({ "template": "nightly", "tools": ["tools/small"], "seconds": 60 })).await;
    assert_eq!(reason(&call(&bot, &handle, "tools__echo", json!({})).await), "mandate_scope");
    assert_eq!(call(&bot, &handle, "tools__small", json!({})).await.tool_text(), "done");
}

#[tokio::test]
async fn whoever_is_given_the_gateways_own_tools_hears_that_their_list_has_changed() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let given = "p, agent:chief, *, bailiwick/mandate:nightly, admin, -, allow\n";
    assert!(RULES.contains(given));
    let gateway = setup(&issuer, &upstream).policy(&RULES.replace(given, "")).start().await;
    let running = Running { issuer, upstream, gateway };
    let chief = running.software("chief");
    assert!(!chief.tool_names().await.contains(&"bailiwick__mandate_open".to_owned()));
    let wishes = json!({ "notifications": { "toolsListChanged": true } });
    let (headers, body) = modern_request("subscriptions/listen", wishes);
    let mut heard = chief.stream(&headers, Some(body.to_string())).await;
    assert_eq!(heard.next().await["method"], "notifications/subscriptions/acknowledged");
    running.gateway.write_policy(RULES);
    assert!(running.gateway.command(&["reload", "--allow-widening"]).status.success());
    assert_eq!(heard.next().await["method"], "notifications/tools/list_changed");
    assert!(chief.tool_names().await.contains(&"bailiwick__mandate_open".to_owned()));
}

#[tokio::test]
async fn a_budget_is_exact_under_fifty_calls_at_once() {
    let running = start().await;
    let bot = running.bot();
    let (id, handle) = open(&bot, json!({ "template": "counted" })).await;
    let calls = (0..50).map(|n| {
        let (bot, handle) = (bot.clone(), handle.clone());
        tokio::spawn(async move { call(&bot, &handle, "tools__echo", json!({ "n": n })).await })
    });
    let mut done = 0;
    for call in calls.collect::<Vec<_>>() {
        let answer = call.await.unwrap();
        // The principal has places for so many calls at once; that is another refusal.
        if answer.status == 200 && answer.tool_text() == "done" {
            done += 1;
        } else {
            assert!(["budget_exhausted", "concurrency_limited"].contains(&reason(&answer).as_str()), "{}", answer.text);
        }
    }
    while done < 7 {
        assert_eq!(call(&bot, &handle, "tools__echo", json!({})).await.tool_text(), "done");
        done += 1;
    }
    assert_eq!(reason(&call(&bot, &handle, "tools__echo", json!({})).await), "budget_exhausted");
    assert_eq!(running.upstream.calls().len(), 7, "what is refused never arrives");
    let results = running.gateway.records("result");
    let charges = results.iter().filter_map(|record| record["result"]["budget"].as_array()).flatten();
    let own = charges.filter(|charge| charge["of"] == "mandate" && charge["id"] == id && charge["what"] == "calls");
    let mut left: Vec<i64> = own.map(|charge| charge["left"].as_i64().unwrap()).collect();
    left.sort_unstable();
    assert_eq!(left, [0, 1, 2, 3, 4, 5, 6], "the record tells what each has left over");
    let status = bot.call_tool("bailiwick__mandate_status", json!({ "id": id })).await;
    assert_eq!(status.result()["structuredContent"]["left"]["calls"], 0, "{}", status.text);
    crate::support::eventually("all calls to be counted for the report", async || {
        let status = bot.call_tool("bailiwick__mandate_status", json!({ "id": id })).await;
        status.result()["structuredContent"]["calls"]["tools"] == 7
    })
    .await;
}

#[tokio::test]
async fn rates_and_bytes_run_out_as_calls_do() {
    let running = start().await;
    let bot = running.bot();
    let (_, slow) = open(&bot, json!({ "template": "nightly", "budget": { "calls_per_minute": 1 } })).await;
    // The minute may turn in between, once.
    let mut refused = 0;
    for _ in 0..4 {
        refused += u32::from(call(&bot, &slow, "tools__echo", json!({})).await.status == 429);
    }
    assert!(refused >= 2, "only {refused} of four calls were refused");
    let (_, small) = open(&bot, json!({ "template": "nightly", "budget": { "bytes": 40 } })).await;
    let long = json!({ "text": "x".repeat(60) });
    assert_eq!(reason(&call(&bot, &small, "tools__echo", long).await), "budget_exhausted");
    assert_eq!(call(&bot, &small, "tools__echo", json!({})).await.tool_text(), "done");
    crate::support::eventually("the result to be counted", async || {
        reason(&call(&bot, &small, "tools__echo", json!({})).await) == "budget_exhausted"
    })
    .await;
}

#[tokio::test]
async fn a_part_of_a_mandate_never_exceeds_it_and_ends_with_it() {
    let running = start().await;
    let bot = running.bot();
    let (above, handle) = open(&bot, json!({ "template": "counted", "tools": ["tools/echo"] })).await;
    let params = json!({ "name": "bailiwick__mandate_open", "arguments": { "template": "nightly" },
        "_meta": { "dev.bailiwick/mandate": handle } });
    let opened = bot.modern("tools/call", params).await;
    let opened = &opened.result()["structuredContent"];
    let (id, part) = (opened["id"].as_str().unwrap().to_owned(), opened["handle"].as_str().unwrap().to_owned());
    assert_eq!(opened["budget"]["calls"], 7, "{opened}");
    assert_eq!(call(&bot, &part, "tools__echo", json!({})).await.tool_text(), "done");
    assert_eq!(
        reason(&call(&bot, &part, "tools__small", json!({})).await),
        "mandate_scope",
        "the one above is for echo"
    );
    for _ in 0..3 {
        assert_eq!(call(&bot, &part, "tools__echo", json!({})).await.tool_text(), "done");
        assert_eq!(call(&bot, &handle, "tools__echo", json!({})).await.tool_text(), "done");
    }
    assert_eq!(reason(&call(&bot, &handle, "tools__echo", json!({})).await), "budget_exhausted");
    assert_eq!(reason(&call(&bot, &part, "tools__echo", json!({})).await), "budget_exhausted");
    // So deep and no deeper.
    let mut deepest = part;
    for depth in 2..=bailiwick::limit::MANDATE_DEPTH_MAX {
        let params = json!({ "name": "bailiwick__mandate_open", "arguments": { "template": "nightly" },
            "_meta": { "dev.bailiwick/mandate": deepest } });
        let answer = bot.modern("tools/call", params).await;
        if depth == bailiwick::limit::MANDATE_DEPTH_MAX {
            assert_eq!(reason(&answer), "mandate_refused", "{}", answer.text);
        } else {
            answer.result()["structuredContent"]["handle"].as_str().unwrap().clone_into(&mut deepest);
        }
    }
    let ended = bot.call_tool("bailiwick__mandate_complete", json!({ "id": above })).await;
    assert_eq!(ended.result()["structuredContent"]["state"], "completed", "{}", ended.text);
    assert_eq!(reason(&call(&bot, &deepest, "tools__echo", json!({})).await), "mandate_ended");
    let status = bot.call_tool("bailiwick__mandate_status", json!({ "id": id })).await;
    assert_eq!(status.result()["structuredContent"]["state"], "completed", "{}", status.text);
}

#[tokio::test]
async fn completing_expiring_and_revoking_cut_what_is_under_way() {
    let running = start().await;
    let bot = running.bot();
    let waiting = |handle: &str| {
        let (bot, handle) = (bot.clone(), handle.to_owned());
        tokio::spawn(async move { call(&bot, &handle, "tools__wait", json!({})).await })
    };
    let soon = async |call: tokio::task::JoinHandle<Answer>| {
        tokio::time::timeout(std::time::Duration::from_secs(5), call).await.unwrap().unwrap()
    };

    let (id, handle) = open(&bot, json!({ "template": "nightly" })).await;
    let under_way = waiting(&handle);
    crate::support::eventually("the call to arrive", async || running.upstream.calls().len() == 1).await;
    let (_, other) = open(&bot, json!({ "template": "nightly" })).await;
    let another = waiting(&other);
    crate::support::eventually("the other call to arrive", async || running.upstream.calls().len() == 2).await;
    let completed = bot.call_tool("bailiwick__mandate_complete", json!({ "id": id })).await;
    assert_eq!(completed.result()["structuredContent"]["state"], "completed", "{}", completed.text);
    assert_eq!(reason(&soon(under_way).await), "mandate_ended");
    assert_eq!(reason(&call(&bot, &handle, "tools__echo", json!({})).await), "mandate_ended");
    assert!(!another.is_finished(), "another mandate goes on");
    let again = bot.call_tool("bailiwick__mandate_complete", json!({ "id": id })).await;
    assert_eq!(reason(&again), "mandate_ended", "{}", again.text);

    let listed = running.gateway.command(&["mandates", "list", "--active", "--json", "--config", "servers.toml"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let active = listed[0]["mandate"]["id"].as_str().unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    let revoked = running.gateway.command(&["revoke", "mandate", active, "--config", "servers.toml"]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    assert_eq!(reason(&soon(another).await), "mandate_ended");
    assert_eq!(reason(&call(&bot, &other, "tools__echo", json!({})).await), "mandate_ended");

    let (_, short) = open(&bot, json!({ "template": "nightly", "seconds": 2 })).await;
    let under_way = waiting(&short);
    assert_eq!(reason(&soon(under_way).await), "mandate_ended", "its time is over");
    assert_eq!(reason(&call(&bot, &short, "tools__echo", json!({})).await), "mandate_ended");
    crate::support::eventually("the ends on the record", async || {
        let cut = running.gateway.records("result");
        // Three that were cut, and completing one a second time.
        cut.iter().filter(|line| line["result"]["reason"] == "mandate_ended").count() == 4
    })
    .await;
}

#[tokio::test]
async fn tools_of_the_gateway_are_there_for_whom_the_rules_name_and_for_nobody_else() {
    let running = start().await;
    let own = |names: Vec<String>| names.into_iter().filter(|name| name.starts_with("bailiwick__")).collect::<Vec<_>>();
    let all = ["bailiwick__mandate_open", "bailiwick__mandate_complete", "bailiwick__mandate_status"];
    assert_eq!(own(running.bot().tool_names().await), all);
    let alice = running.gateway.client(&running.issuer.token("alice", &[], &running.gateway.resource()));
    assert!(own(alice.tool_names().await).is_empty());
    let hidden = alice.call_tool("bailiwick__mandate_open", json!({ "template": "nightly" })).await;
    let unknown = alice.call_tool("bailiwick__nothing", json!({})).await;
    assert_eq!(hidden.response()["error"], unknown.response()["error"], "{}", hidden.text);
    // Whoever gives tasks to others opens, looks and completes, and cannot use what it opened.
    let chief = running.software("chief");
    let (id, handle) = open(&chief, json!({ "template": "nightly", "agent": "bot" })).await;
    assert_eq!(reason(&call(&chief, &handle, "tools__echo", json!({})).await), "mandate_unknown");
    assert_eq!(call(&running.bot(), &handle, "tools__echo", json!({})).await.tool_text(), "done");
    let denied = chief.call_tool("bailiwick__mandate_open", json!({ "template": "counted", "agent": "bot" })).await;
    assert_eq!(reason(&denied), "not_allowed", "{}", denied.text);
    let completed = chief.call_tool("bailiwick__mandate_complete", json!({ "id": id })).await;
    assert_eq!(completed.result()["structuredContent"]["state"], "completed", "{}", completed.text);
    assert_eq!(reason(&call(&running.bot(), &handle, "tools__echo", json!({})).await), "mandate_ended");
    let (own_id, _) = open(&running.bot(), json!({ "template": "nightly" })).await;
    let foreign = chief.call_tool("bailiwick__mandate_complete", json!({ "id": own_id })).await;
    assert_eq!(reason(&foreign), "mandate_unknown", "{}", foreign.text);
}

#[tokio::test]
async fn a_person_opens_one_freely_and_the_socket_only_ends_it() {
    let running = start().await;
    let mut wish = json!({ "agent": "bot", "tools": ["tools/other"], "environments": ["development"] });
    wish["seconds"] = json!(bailiwick::limit::MANDATE_FREE_LIFE_MAX.as_secs() + 1);
    assert_eq!(running.order("/mandates", wish.clone()).await.response()["reason"], "mandate_refused");
    wish["seconds"] = json!(60);
    let opened = running.order("/mandates", wish.clone()).await;
    assert_eq!(opened.status, 200, "{}", opened.text);
    let (id, handle) = (&opened.response()["mandate"]["id"], opened.response()["handle"].as_str().unwrap());
    assert_eq!(call(&running.bot(), handle, "tools__other", json!({})).await.tool_text(), "done");
    assert_eq!(reason(&call(&running.bot(), handle, "tools__echo", json!({})).await), "mandate_scope");
    for bad in [
        json!({ "agent": "bot", "tools": ["tools/other"] }),
        json!({ "tools": ["tools/other"], "environments": ["development"] }),
    ] {
        let refused = running.order("/mandates", bad.clone()).await;
        assert_eq!(refused.response()["reason"], "mandate_refused", "{bad}: {}", refused.text);
    }
    let command = |arguments: &[&str]| running.gateway.command(&[arguments, &["--config", "servers.toml"]].concat());
    let at_socket = command(&["mandates", "open", "nightly", "--agent", "bot"]);
    assert_eq!(at_socket.status.code(), Some(1), "{}", String::from_utf8_lossy(&at_socket.stderr));
    let id = id.as_str().unwrap();
    let shown = command(&["mandates", "show", id]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("user:test/ann"), "{shown:?}");
    let completed = command(&["mandates", "complete", id]);
    assert!(completed.status.success(), "{}", String::from_utf8_lossy(&completed.stderr));
    assert_eq!(reason(&call(&running.bot(), handle, "tools__other", json!({})).await), "mandate_ended");
    let report = command(&["mandates", "report", id, "--json"]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!((&report["state"], &report["calls"]), (&json!("completed"), &json!([["tools", 1]])), "{report}");
    let told = running.gateway.records("mandate");
    assert_eq!(told.last().unwrap()["mandate"]["event"], "completed", "{told:?}");
}

#[tokio::test]
async fn what_a_template_does_not_say_any_more_is_no_part_of_its_mandates() {
    let running = start().await;
    let bot = running.bot();
    let (_, handle) = open(&bot, json!({ "template": "nightly" })).await;
    assert_eq!(call(&bot, &handle, "tools__echo", json!({})).await.tool_text(), "done");
    let file = running.gateway.place().join("policies/mandates.toml");
    std::fs::write(&file, TEMPLATES.replace("\"tools/echo\", ", "")).unwrap();
    let reloaded = running.gateway.command(&["reload", "--config", "servers.toml"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    assert_eq!(reason(&call(&bot, &handle, "tools__echo", json!({})).await), "mandate_scope");
    assert_eq!(call(&bot, &handle, "tools__small", json!({})).await.tool_text(), "done");
}

#[tokio::test]
async fn a_mandate_outlives_a_restart_and_its_store_is_needed() {
    let mut running = start().await;
    let (_, handle) = open(&running.bot(), json!({ "template": "counted" })).await;
    assert_eq!(call(&running.bot(), &handle, "tools__echo", json!({})).await.tool_text(), "done");
    assert!(running.gateway.stop().await.success());
    running.gateway.launch().await;
    assert_eq!(call(&running.bot(), &handle, "tools__echo", json!({})).await.tool_text(), "done");
    assert!(running.gateway.stop().await.success());
    running.gateway.launch().await;
    for _ in 0..5 {
        assert_eq!(call(&running.bot(), &handle, "tools__echo", json!({})).await.tool_text(), "done");
    }
    assert_eq!(reason(&call(&running.bot(), &handle, "tools__echo", json!({})).await), "budget_exhausted");
}

/// With PostgreSQL, and two replicas that have it in common.
#[tokio::test]
async fn replicas_have_mandates_and_their_budgets_in_common() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let setup = setup(&issuer, &upstream);
    let Some(replicas) = Replicas::start(setup, 2).await else { return };
    let mut claims = issuer.claims("bot", &[], &replicas.resource());
    claims["client_id"] = json!("bot");
    let token = issuer.sign(&claims);
    let [one, other] = [&replicas.all[0], &replicas.all[1]].map(|gateway| gateway.client(&token));
    let (id, handle) = open(&one, json!({ "template": "counted" })).await;
    let calls = (0..20).map(|n| {
        let (client, handle) = (if n % 2 == 0 { one.clone() } else { other.clone() }, handle.clone());
        tokio::spawn(async move { call(&client, &handle, "tools__echo", json!({ "n": n })).await })
    });
    let mut done = 0;
    for call in calls.collect::<Vec<_>>() {
        let answer = call.await.unwrap();
        let allowed = answer.status == 200 && answer.tool_text() == "done";
        assert!(allowed || reason(&answer) == "budget_exhausted", "{}", answer.text);
        done += usize::from(allowed);
    }
    assert_eq!((done, upstream.calls().len()), (7, 7));

    let (_, waiting) = open(&one, json!({ "template": "nightly" })).await;
    let under_way = {
        let (client, handle) = (other.clone(), waiting.clone());
        tokio::spawn(async move { call(&client, &handle, "tools__wait", json!({})).await })
    };
    crate::support::eventually("the call to arrive", async || upstream.calls().len() == 8).await;
    let status = one.call_tool("bailiwick__mandate_status", json!({ "id": id })).await;
    assert_eq!(status.result()["structuredContent"]["left"]["calls"], 0, "{}", status.text);
    let params = json!({ "name": "bailiwick__mandate_complete", "arguments": {},
        "_meta": { "dev.bailiwick/mandate": waiting } });
    let completed = one.modern("tools/call", params).await;
    assert_eq!(completed.result()["structuredContent"]["state"], "completed", "{}", completed.text);
    let cut = tokio::time::timeout(std::time::Duration::from_secs(5), under_way).await.unwrap().unwrap();
    assert_eq!(reason(&cut), "mandate_ended", "{}", cut.text);
    crate::support::eventually("the other replica to know", async || {
        reason(&call(&other, &waiting, "tools__echo", json!({})).await) == "mandate_ended"
    })
    .await;
    // Without the store nothing is called under a budget, and nothing is opened.
    let (_, counted) = open(&one, json!({ "template": "counted" })).await;
    replicas.ways[0].cut();
    let refused = call(&one, &counted, "tools__echo", json!({})).await;
    assert_eq!(reason(&refused), "store_unavailable", "{}", refused.text);
    let unopened = one.call_tool("bailiwick__mandate_open", json!({ "template": "nightly" })).await;
    assert_eq!(reason(&unopened), "store_unavailable", "{}", unopened.text);
    assert_eq!(call(&other, &counted, "tools__echo", json!({})).await.tool_text(), "done");
}

#[tokio::test]
async fn a_mandate_that_was_completed_is_over_also_when_the_store_of_before_is_restored() {
    let mut running = start().await;
    let (ended, handle) = open(&running.bot(), json!({ "template": "nightly" })).await;
    let (_, other) = open(&running.bot(), json!({ "template": "nightly" })).await;
    let place = running.gateway.state();
    assert!(running.gateway.command(&["state", "backup", "kept"]).status.success());
    let completed = running.bot().call_tool("bailiwick__mandate_complete", json!({ "id": ended })).await;
    assert_eq!(completed.result()["structuredContent"]["state"], "completed", "{}", completed.text);
    assert!(running.gateway.stop().await.success());
    for name in ["store.sqlite-wal", "store.sqlite-shm"] {
        let _ = std::fs::remove_file(place.join(name));
    }
    std::fs::copy(place.with_file_name("kept").join("store.sqlite"), place.join("store.sqlite")).unwrap();
    assert_eq!(running.gateway.command(&["serve"]).status.code(), Some(2), "the store is older than the journal");
    let reconciled = running.gateway.command(&["store", "reconcile"]);
    assert!(reconciled.status.success(), "{reconciled:?}");
    running.gateway.launch().await;
    assert_eq!(reason(&call(&running.bot(), &handle, "tools__echo", json!({})).await), "mandate_ended");
    assert_eq!(call(&running.bot(), &other, "tools__echo", json!({})).await.tool_text(), "done");
}
