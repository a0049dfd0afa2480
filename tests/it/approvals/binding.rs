//! An approval fits the call that was shown, and no other.

use super::*;

/// Approves `{"to":"a","n":1}` for alice, and says whether this call of hers happens then.
async fn happens(running: &Running, client: &Client, body: &str) -> bool {
    let before = running.calls();
    let (headers, _) =
        crate::support::client::modern_request("tools/call", json!({ "name": "tools__echo", "arguments": {} }));
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"tools__echo","arguments":{body},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    );
    let answer = client.post(&headers, text).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    running.calls() > before
}

#[tokio::test]
async fn one_byte_of_an_argument_changed_is_another_call_and_another_spelling_is_not() {
    let running = start(GATES).await;
    let shown = r#"{"to":"a","n":1}"#;
    let alice = running.caller("alice");
    let id = running.asks("alice", json!({ "to": "a", "n": 1 })).await;
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    for other in [
        r#"{"to":"b","n":1}"#,
        r#"{"to":"a","n":2}"#,
        r#"{"to":"a","n":1.0}"#,
        r#"{"to":"a","n":1e0}"#,
        r#"{"to":"a","n":"1"}"#,
        r#"{"to":"a","n":1,"more":null}"#,
        r#"{"to":"a"}"#,
        r#"{"to":"a ","n":1}"#,
        r#"{"To":"a","n":1}"#,
    ] {
        assert!(!happens(&running, &alice, other).await, "{other}");
    }
    assert!(happens(&running, &alice, r#"{ "n" : 1 , "to":"\u0061" }"#).await, "it means {shown}");
    assert!(!happens(&running, &alice, shown).await, "and it was used");
}

#[tokio::test]
async fn an_approval_is_of_one_caller_through_one_client() {
    let running = start(GATES).await;
    let id = running.asks("alice", json!({ "n": 1 })).await;
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    assert_ne!(running.asks("mallory", json!({ "n": 1 })).await, id);
    let mut other = running.issuer.claims("alice", &["developers"], &running.gateway.resource());
    other["client_id"] = json!("another-assistant");
    let client = running.gateway.client(&running.issuer.sign(&other));
    assert_ne!(waits(&client.call_tool("tools__echo", json!({ "n": 1 })).await), id);
    assert_eq!(running.calls(), 0);
    let server = running.issuer.token("alice", &["developers"], &running.gateway.resource());
    let own = running.gateway.server_client("tools", &server).call_tool("echo", json!({ "n": 1 })).await;
    assert_eq!(own.tool_text(), r#"{"n":1}"#, "the same call at the server's own endpoint");
}

#[tokio::test]
async fn a_call_that_meets_several_gates_needs_all_of_them_and_two_persons_where_they_say_so() {
    let gates = "[gates.production]\nenvironments = [\"development\"]\napprovers = [\"group:test/approvers\"]\napprovals = 2\n\
                 [gates.irreversible]\nobjects = [\"*/echo\"]\napprovers = [\"group:test/managers\"]\n";
    let running = start(gates).await;
    let id = running.asks("alice", json!({ "n": 1 })).await;
    let missing = |view: &Answer| view.response()["missing"].as_array().unwrap().len();
    let state = |view: &Answer| view.response()["state"].as_str().unwrap().to_owned();
    let one = running.approve(&id, &running.bob()).await;
    assert_eq!((state(&one).as_str(), missing(&one)), ("pending", 2), "{}", one.text);
    let twice = running.approve(&id, &running.bob()).await;
    assert_eq!((twice.status, reason(&twice).as_str()), (403, "approver_refused"), "four eyes");
    let two = running.approve(&id, &running.person("carol", &["approvers"])).await;
    assert_eq!((state(&two).as_str(), missing(&two)), ("pending", 1), "{}", two.text);
    assert_eq!(running.asks("alice", json!({ "n": 1 })).await, id, "it still waits");
    let three = running.approve(&id, &running.person("mia", &["managers"])).await;
    assert_eq!((state(&three).as_str(), missing(&three)), ("approved", 0), "{}", three.text);
    assert_eq!(running.call("alice", json!({ "n": 1 })).await.tool_text(), r#"{"n":1}"#);
    let look = running.caller("alice").call_tool("tools__look", json!({})).await;
    assert_eq!(look.result()["structuredContent"]["status"], "approval_required", "the environment's gate alone");
    assert_eq!(running.calls(), 1);
}

#[tokio::test]
async fn a_gate_with_a_condition_stops_what_it_cannot_decide() {
    let conditions = "[large]\nargument = \"amount\"\nabove = 100\n";
    let gates = "[gates.large]\nobjects = [\"tools/echo\"]\nwhen = \"large\"\napprovers = [\"group:test/approvers\"]\n";
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = setup(&issuer, &upstream, gates).policy_file("conditions.toml", conditions).start().await;
    let running = Running { issuer, upstream, gateway };
    assert_eq!(running.call("alice", json!({ "amount": 100 })).await.tool_text(), r#"{"amount":100}"#);
    for stopped in [json!({ "amount": 101 }), json!({}), json!({ "amount": "1" }), json!({ "amount": null })] {
        running.asks("alice", stopped).await;
    }
    assert_eq!(running.calls(), 1);
}

#[tokio::test]
async fn a_gate_can_name_what_a_call_does_with_data() {
    let labels = "[[label]]\nobjects = [\"tools/echo\"]\neffect = \"irreversible\"\n[[label]]\nobjects = [\"tools/look\"]\nreads = \"internal\"\n";
    let gates =
        "[gates.irreversible]\nlabels = [\"irreversible\", \"external\"]\napprovers = [\"group:test/approvers\"]\n";
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = setup(&issuer, &upstream, gates).policy_file("labels.toml", labels).start().await;
    let running = Running { issuer, upstream, gateway };
    let id = running.asks("alice", json!({ "n": 1 })).await;
    assert_eq!(running.view(&id, &running.bob()).await["gates"], json!(["irreversible"]));
    let look = running.caller("alice").call_tool("tools__look", json!({})).await;
    assert_eq!((look.tool_text(), running.calls()), ("{}", 1));
}

#[tokio::test]
async fn production_regulated_data_and_what_cannot_be_undone_are_three_gates_that_one_call_meets() {
    let labels = "[[label]]\nobjects = [\"live/echo\"]\nreads = \"regulated\"\neffect = \"irreversible\"\n";
    let gate =
        |name: &str, of: &str, group: &str| format!("[gates.{name}]\n{of}\napprovers = [\"group:test/{group}\"]\n");
    let gates = [
        gate("live", "environments = [\"production\"]", "approvers"),
        gate("data", "labels = [\"regulated\"]", "managers"),
        gate("undone", "labels = [\"irreversible\"]", "managers"),
    ];
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let live = |id: &str, pins: &str| {
        format!(
            "[servers.{id}]\nowner = \"user:test/owner\"\nenvironment = \"production\"\nurl = \"{}\"\n\
             allow_private = true\n{pins}\n",
            upstream.url
        )
    };
    let gateway = setup(&issuer, &upstream, &gates.concat())
        .policy_file("labels.toml", labels)
        .policy_file("agents.toml", &AGENTS.replace("[\"development\"]", "[\"development\", \"production\"]"))
        .sections(&[live("live", "pins = \"off\""), live("shut", "")].concat())
        .start()
        .await;
    let running = Running { issuer, upstream, gateway };
    let call = async || running.caller("alice").call_tool("live__echo", json!({ "n": 1 })).await;
    let id = waits(&call().await);
    let view = running.view(&id, &running.bob()).await;
    assert_eq!(view["gates"], json!(["data", "live", "undone"]), "{view}");
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    assert_eq!(waits(&call().await), id, "one of three");
    assert_eq!(running.calls(), 0);
    assert_eq!(running.approve(&id, &running.person("mara", &["managers"])).await.status, 200);
    assert_eq!((call().await.tool_text(), running.calls()), (r#"{"n":1}"#, 1));
    // Where nobody says otherwise, a production server shows what somebody has accepted, and nothing else.
    let names = running.caller("alice").tool_names().await;
    let of = |server: &str| names.iter().any(|name| name.starts_with(server));
    assert!(of("live__") && !of("shut__"), "{names:?}");
}

#[tokio::test]
async fn an_upstream_that_says_worse_of_its_tool_does_not_come_past_a_gate_by_it() {
    let labels = "[[label]]\nobjects = [\"tools/echo\"]\neffect = \"write\"\n\
                  [[label]]\nobjects = [\"tools/look\"]\nreads = \"private\"\n\
                  [[label]]\nobjects = [\"tools/*\"]\nactions = [\"call\"]\nwhen = \"all\"\nreads = \"regulated\"\n";
    let conditions = "[all]\nargument = \"all\"\none_of = [true]\n";
    let gates = "[gates.write]\nlabels = [\"write\"]\napprovers = [\"group:test/approvers\"]\n\
                 [gates.private]\nlabels = [\"private\"]\napprovers = [\"group:test/approvers\"]\n";
    let mut echo = tool("echo");
    echo["annotations"] = json!({ "destructiveHint": true, "openWorldHint": false });
    let mut look = tool("look");
    look["annotations"] = json!({ "destructiveHint": false, "openWorldHint": false });
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([echo, look]), |call| result(call, text("done"))).await;
    let setup = setup(&issuer, &upstream, gates).policy_file("conditions.toml", conditions);
    let gateway = setup.policy_file("labels.toml", labels).start().await;
    let running = Running { issuer, upstream, gateway };
    let gates = async |id: String| running.view(&id, &running.bob()).await["gates"].clone();
    let id = running.asks("alice", json!({ "all": false })).await;
    assert_eq!(gates(id).await, json!(["write"]), "what is destroyed is written");
    for all in [false, true] {
        let look = running.caller("alice").call_tool("tools__look", json!({ "all": all })).await;
        assert_eq!(gates(waits(&look)).await, json!(["private"]), "what the law protects is private: {all}");
    }
    assert_eq!(running.calls(), 0);
}

#[tokio::test]
async fn a_tool_of_which_nobody_has_said_anything_meets_every_gate_that_names_a_label() {
    let gates = "[gates.irreversible]\nlabels = [\"irreversible\"]\napprovers = [\"group:test/approvers\"]\n";
    for (labels, waits) in [("label_memory = \"1h\"\n", true), ("unlabelled = \"harmless\"\n", false)] {
        let (issuer, upstream) = (Issuer::start().await, upstream().await);
        let gateway = setup(&issuer, &upstream, gates).policy_file("labels.toml", labels).start().await;
        let running = Running { issuer, upstream, gateway };
        let answer = running.call("alice", json!({ "n": 1 })).await;
        assert_eq!(running.calls(), usize::from(!waits), "{}", answer.text);
        assert_eq!(answer.text.contains("approval_required"), waits, "{}", answer.text);
    }
}

#[tokio::test]
async fn explain_names_the_gates_and_check_the_mistakes_in_their_file() {
    let running = start(GATES).await;
    let words = [
        "explain",
        "tools/echo",
        "--as",
        "user:test/alice",
        "--group",
        "group:test/developers",
        "--agent",
        "assistant",
    ];
    let explained = running.gateway.command(&[&words[..], &["--config", "servers.toml"]].concat());
    let told = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(told.contains("gate deploy: somebody of group:test/approvers has to approve it"), "{told}");
    let wrong = "[gates.a]\napprovers = [\"role:x\"]\nobjects = [\"tools\"]\n\
                 [gates.b]\nobjects = [\"tools/@none\"]\nwhen = \"nothing\"\napprovers = [\"group:elsewhere/x\"]\n\
                 [gates.c]\nkind = \"confirm\"\napprovers = [\"owner\"]\nenvironments = [\"nowhere\"]\n\
                 [gates.d]\napprovers = [\"owner\"]\n\
                 [gates.e]\nobjects = [\"tools/*\"]\n\
                 [gates.f]\nobjects = [\"tools/*\"]\napprovers = [\"owner\"]\napprovals = 6\npending_for = \"2d\"\nactions = [\"admin\"]\n";
    std::fs::write(running.gateway.directory().join("policies/gates.toml"), wrong).unwrap();
    let checked = running.gateway.command(&["check", "--config", "servers.toml"]);
    let told = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    for (place, what) in [
        ("gates.toml:2:14", "`role:x` approves nothing"),
        ("gates.toml:7:14", "elsewhere"),
        ("gates.toml:10:1", "remove approvers"),
        ("gates.toml:11:17", "nowhere"),
        ("gates.toml:12:8", "stops nothing"),
        ("gates.toml:14:8", "has no `approvers`"),
        ("gates.toml:19:13", "1 to 5"),
        ("gates.toml:20:15", "too long"),
        ("gates.toml:21:12", "no gate can stop `admin`"),
    ] {
        assert!(told.lines().any(|line| line.contains(place) && line.contains(what)), "{place} {what}: {told}");
    }
    let wrong = "[gates.a]\nobjects = [\"tools\", \"tools/@none\", \"bailiwick/revoke\", \"nobody/x\"]\nwhen = \"nothing\"\napprovers = [\"owner\"]\nlabels = [\"secret\", \"private\"]\n";
    std::fs::write(running.gateway.directory().join("policies/gates.toml"), wrong).unwrap();
    let checked = running.gateway.command(&["check", "--config", "servers.toml"]);
    let told = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    for (place, what) in [
        ("gates.toml:2:12", "is not an object"),
        ("gates.toml:2:21", "nothing is in"),
        ("gates.toml:2:36", "own operations"),
        ("gates.toml:2:56", "no server is"),
        ("gates.toml:3:8", "no condition"),
        ("gates.toml:5:11", "there is no label `secret`"),
        ("gates.toml:5:21", "labels are not kept"),
    ] {
        assert!(told.lines().any(|line| line.contains(place) && line.contains(what)), "{place} {what}: {told}");
    }
}

#[tokio::test]
async fn with_what_was_approved_nothing_goes_out_that_nobody_was_shown() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let forwarding = "title = \"Tools\"\npins = \"off\"\nforward_headers = [\"x-team\"]";
    let gateway = setup(
        &issuer,
        &upstream,
        "[gates.deploy]\nobjects = [\"other/echo\"]\napprovers = [\"group:test/approvers\"]\n",
    )
    .http_server("other", &upstream.url, forwarding)
    .start()
    .await;
    let running = Running { issuer, upstream, gateway };
    let alice = running.caller("alice");
    let call = async |name: &str| {
        let params = json!({ "name": format!("other__{name}"), "arguments": { "n": 1 }, "unseen": "u-1",
            "_meta": { "com.example/unseen": "u-2" } });
        let (mut headers, body) = crate::support::client::modern_request("tools/call", params);
        headers.push(("x-team", "u-3".to_owned()));
        alice.post(&headers, body.to_string()).await
    };
    let id = waits(&call("echo").await);
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    assert_eq!(call("echo").await.tool_text(), r#"{"n":1}"#);
    let arrived = running.upstream.calls().pop().unwrap();
    assert!(arrived.message["params"]["arguments"] == json!({ "n": 1 }), "{}", arrived.text);
    assert!(!arrived.text.contains("unseen") && !arrived.text.contains("u-2"), "{}", arrived.text);
    assert_eq!(arrived.headers.get("x-team"), None);
    assert!(arrived.text.contains("clientCapabilities"), "what the gateway says itself is there: {}", arrived.text);
    // What nobody approves goes out as it came.
    assert_eq!(call("look").await.tool_text(), r#"{"n":1}"#);
    let arrived = running.upstream.calls().pop().unwrap();
    assert!(arrived.text.contains("u-1") && arrived.text.contains("u-2"), "{}", arrived.text);
    assert_eq!(arrived.headers.get("x-team").map(String::as_str), Some("u-3"));
}
