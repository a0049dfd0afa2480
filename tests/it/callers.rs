//! Who calls without a JWT of a person: opaque tokens, API keys, workloads, and agents for agents.

use serde_json::{Value, json};

use crate::support::client::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::refused::came_to_nothing;
use crate::support::scripted::{Scripted, result, text, tool};

const INTROSPECTION: &str =
    "[issuers.test.introspection]\nclient_id = \"gateway\"\nclient_secret = \"file:introspection-secret\"\n";

const ROBOT: &str = "[agents.assistant]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\n\
                     environments = [\"development\"]\n[agents.nightly]\nowner = \"user:test/owner\"\npurpose = \"tests\"\n\
                     kind = \"autonomous\"\nmandates = \"optional\"\nenvironments = [\"development\"]\n";

fn reason(answer: &Answer) -> String {
    answer.response()["error"]["data"]["reason"].as_str().unwrap_or_default().to_owned()
}

async fn call(gateway: &Gateway, token: &str) -> Answer {
    gateway.client(token).call_tool("tools__echo", json!({})).await
}

pub fn everything_below(directory: &std::path::Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            bytes.extend(everything_below(&entry.path()));
        } else if kind.is_file() {
            bytes.extend(std::fs::read(entry.path()).unwrap_or_default());
        }
    }
    bytes
}

#[tokio::test]
async fn an_opaque_token_is_asked_about_and_lets_its_bearer_in() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "").sections(INTROSPECTION);
    std::fs::write(setup.directory().join("introspection-secret"), "s3cret\n").unwrap();
    let mut gateway = setup.start().await;
    let claims = issuer.claims("alice", &["developers"], &gateway.resource());
    let token = issuer.opaque(&claims);
    for _ in 0..3 {
        let answer = call(&gateway, &token).await;
        assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{}", answer.text);
    }
    // Z2F0ZXdheTpzM2NyZXQ= is gateway:s3cret.
    assert_eq!(issuer.introspected(), [(token.clone(), "Basic Z2F0ZXdheTpzM2NyZXQ=".to_owned())]);
    assert!(upstream.everything().iter().all(|request| !request.text.contains(&token)));
    let intent = &gateway.records("intent")[0];
    assert_eq!((&intent["subject"]["id"], &intent["token"]["issuer"]), (&json!("user:test/alice"), &json!("test")));

    // A stream is asked about like a request, and ends when the token is none any more.
    let (headers, body) = crate::support::client::modern_request(
        "subscriptions/listen",
        json!({ "notifications": { "toolsListChanged": true } }),
    );
    let mut stream = gateway.client(&token).stream(&headers, Some(body.to_string())).await;
    stream.next().await;
    issuer.forgets(&token);
    tokio::time::timeout(std::time::Duration::from_secs(35), stream.end()).await.expect("the stream ends");

    // What is for somebody else, is none, or cannot be asked about gets nobody in.
    let mut elsewhere = claims.clone();
    elsewhere["aud"] = json!("https://elsewhere.example/mcp");
    let forgotten = issuer.opaque(&claims);
    issuer.forgets(&forgotten);
    let mut refused = Vec::new();
    for (token, status, expected) in [
        (issuer.opaque(&elsewhere), 401, "audience_mismatch"),
        (forgotten, 401, "token_inactive"),
        (format!("bwk_{}", "A".repeat(43)), 401, "key_unknown"),
    ] {
        let answer = call(&gateway, &token).await;
        assert_eq!((answer.status, reason(&answer).as_str()), (status, expected), "{}", answer.text);
        assert_eq!(answer.header("www-authenticate").contains("invalid_token"), status == 401);
        refused.push((expected, answer));
    }
    issuer.goes_away(true);
    let answer = call(&gateway, &issuer.opaque(&claims)).await;
    assert_eq!((answer.status, reason(&answer).as_str()), (503, "issuer_unavailable"), "{}", answer.text);
    refused.push(("issuer_unavailable", answer));
    came_to_nothing(&mut gateway, (&upstream, 3), &refused).await;
    assert!(issuer.introspected().iter().all(|(token, _)| !token.starts_with("bwk_")), "a key is shown to no issuer");
    assert!(!String::from_utf8_lossy(&everything_below(gateway.directory())).contains(&token), "it is written nowhere");
}

#[tokio::test]
async fn an_api_key_is_made_once_used_by_its_agent_and_taken_back() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let rules = "p, agent:nightly, *, */*, call, -, allow\n";
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .policy(rules)
        .policy_file("agents.toml", ROBOT)
        .start()
        .await;
    let made = gateway.command(&["keys", "api", "new", "--agent", "nightly", "--owner", "user:test/owner", "--json"]);
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    assert_eq!(reason(&call(&gateway, key).await), "key_unknown", "it is a key once its row is loaded");
    let agents = gateway.directory().join("policies/agents.toml");
    std::fs::write(&agents, format!("{ROBOT}{}", made["row"].as_str().unwrap())).unwrap();
    let refused = gateway.command(&["reload"]);
    assert!(!refused.status.success(), "a key lets somebody in, which is widening");
    let loaded = gateway.command(&["reload", "--allow-widening"]);
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));

    let answer = call(&gateway, key).await;
    assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{}", answer.text);
    let intent = &gateway.records("intent")[0];
    assert_eq!(intent["agent"]["id"], "nightly");
    assert_eq!((&intent["token"]["id"], &intent["token"]["issuer"]), (&json!(id), &json!("keys")), "{intent}");
    let explained = gateway.command(&["explain", "tools/echo", "--agent", "nightly"]);
    assert!(explained.status.success(), "{}", String::from_utf8_lossy(&explained.stdout));

    let revoked = gateway.command(&["revoke", "key", id, "--note", "it was found in a log"]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    assert_eq!(reason(&call(&gateway, key).await), "revoked");
    assert_eq!(upstream.calls().len(), 1);
    assert!(!String::from_utf8_lossy(&everything_below(gateway.directory())).contains(key), "it is written nowhere");
}

#[tokio::test]
async fn whose_owner_is_revoked_has_no_key_any_more() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "");
    let setup = setup.policy("p, agent:nightly, *, */*, call, -, allow\n").policy_file("agents.toml", ROBOT);
    let gateway = setup.written();
    let made = gateway.command(&[
        "keys",
        "api",
        "new",
        "--agent",
        "nightly",
        "--owner",
        "user:test/anna",
        "--json",
        "--id",
        "n1",
    ]);
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let agents = gateway.directory().join("policies/agents.toml");
    std::fs::write(&agents, format!("{ROBOT}{}", made["row"].as_str().unwrap())).unwrap();
    let mut gateway = gateway;
    gateway.launch().await;
    let key = made["key"].as_str().unwrap();
    assert_eq!(call(&gateway, key).await.status, 200);
    assert!(gateway.command(&["revoke", "owner", "user:test/anna"]).status.success());
    assert_eq!(reason(&call(&gateway, key).await), "key_unknown");
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn a_workload_of_kubernetes_calls_as_its_agent() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let account = "system:serviceaccount:ci:builder";
    let agents = format!("{ROBOT}clients = [{{ issuer = \"test\", subject = \"{account}\" }}]\n");
    let rules = "p, agent:nightly, *, */*, call, no-person, allow\n\
                 p, user:test/system%3Aserviceaccount%3Aci%3Abuilder, *, */*, call, -, allow\n";
    let gateway = Setup::new(&issuer)
        .issuer_lines("token_types = [\"\"]\noptional_claims = [\"client_id\"]\n")
        .http_server("tools", &upstream.url, "")
        .policy(rules)
        .policy_file("conditions.toml", "[no-person]\nhuman = false\n")
        .policy_file("agents.toml", &agents)
        .start()
        .await;
    let now = jiff::Timestamp::now().as_second();
    let token = |subject: &str| {
        let claims = json!({
            "iss": issuer.url, "sub": subject, "aud": [gateway.resource()], "iat": now, "nbf": now, "exp": now + 3_600,
            "jti": ulid::Ulid::generate().to_string(),
            "kubernetes.io": { "namespace": "ci", "serviceaccount": { "name": "builder", "uid": "9" } },
        });
        issuer.sign_with(&claims, |header| header.typ = None)
    };
    let answer = call(&gateway, &token(account)).await;
    assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{}", answer.text);
    assert_eq!(gateway.records("intent")[0]["agent"]["id"], "nightly");
    // A workload that nobody registered is no person's assistant, whatever the issuer's default is.
    let other = call(&gateway, &token("system:serviceaccount:ci:other")).await;
    assert_eq!((other.status, reason(&other).as_str()), (403, "agent_unknown"), "{}", other.text);
    assert!(other.text.contains("the subject `system:serviceaccount:ci:other` is not registered"), "{}", other.text);
    assert_eq!(upstream.calls().len(), 1);
}

/// Rules about people, in both directions and with both effects, for a person, for software, and for whom nobody knows.
#[tokio::test]
async fn a_rule_can_demand_a_human_or_forbid_one_and_doubt_opens_nothing() {
    let issuer = Issuer::start().await;
    let tools = ["for_people", "for_software", "not_for_people", "not_for_software"];
    let upstream = Scripted::start(json!(tools.map(tool)), |request| result(request, text("done"))).await;
    let rules = "p, anyone, *, tools/for_people, call, person, allow\n\
                 p, anyone, *, tools/for_software, call, software, allow\n\
                 p, anyone, *, tools/not_for_*, call, -, allow\n\
                 p, anyone, *, tools/not_for_people, call, person, deny\n\
                 p, anyone, *, tools/not_for_software, call, software, deny\n";
    let agents = format!("{ROBOT}clients = [{{ issuer = \"test\", client_id = \"robot\" }}]\n");
    let agents = agents.replace(
        "[agents.nightly]",
        "[agents.desk]\nowner = \"user:test/owner\"\npurpose = \"tests\"\n\
        kind = \"interactive\"\nenvironments = [\"development\"]\n\
        clients = [{ issuer = \"test\", client_id = \"desk\" }]\n[agents.nightly]",
    );
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .policy(rules)
        .policy_file("conditions.toml", "[person]\nhuman = true\n[software]\nhuman = false\n")
        .policy_file("agents.toml", &agents)
        .start()
        .await;
    let token = |subject: &str, client: &str, grant: Option<&str>| {
        let mut claims = issuer.claims(subject, &["developers"], &gateway.resource());
        claims["client_id"] = json!(client);
        if let Some(grant) = grant {
            claims["gty"] = json!(grant);
        }
        gateway.client(&issuer.sign(&claims))
    };
    for (who, client, may) in [
        ("a person", token("alice", "desk", None), ["for_people", "not_for_software"].as_slice()),
        ("software", token("robot", "robot", None), &["for_software", "not_for_people"]),
        // A sign of another kind of issuer: it may be somebody's, or nobody's.
        ("nobody knows", token("alice", "desk", Some("client-credentials")), &[]),
    ] {
        for tool in tools {
            let before = upstream.calls().len();
            let answer = client.call_tool(&format!("tools__{tool}"), json!({})).await;
            let served = upstream.calls().len() > before;
            assert_eq!(served, may.contains(&tool), "{who} {tool}: {}", answer.text);
            let well = answer.result()["isError"] != true && answer.response().get("error").is_none();
            assert_eq!(well, served, "{who} {tool}: {}", answer.text);
        }
        // A list shows what may be allowed, and a call decides.
        let listed = if may.is_empty() { tools.as_slice() } else { may };
        let listed: Vec<String> = listed.iter().map(|tool| format!("tools__{tool}")).collect();
        assert_eq!(client.tool_names().await, listed, "{who}");
    }
}

#[tokio::test]
async fn every_agent_of_a_chain_must_be_allowed_and_the_record_has_them_all() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let agent = |name: &str| {
        format!(
            "[agents.{name}]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\n\
             environments = [\"development\"]\nclients = [{{ issuer = \"test\", client_id = \"{name}\" }}]\n"
        )
    };
    let rules = "p, user:test/alice, *, */*, call, -, allow\np, agent:desk, *, */*, call, -, allow\n\
                 p, agent:planner, *, */*, call, -, allow\np, agent:e1, *, */*, call, -, allow\n\
                 p, agent:e2, *, */*, call, -, allow\n";
    let agents: String = ["assistant", "desk", "planner", "helper", "e1", "e2"].map(agent).concat();
    let mut gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .policy(rules)
        .policy_file("agents.toml", &agents)
        .start()
        .await;
    let token = |act: Value| {
        let mut claims = issuer.claims("alice", &["developers"], &gateway.resource());
        claims["client_id"] = json!("desk");
        claims["act"] = act;
        issuer.sign(&claims)
    };
    let good = call(&gateway, &token(json!({ "sub": "desk", "act": { "sub": "planner" } }))).await;
    assert_eq!((good.status, good.tool_text()), (200, "{}"), "{}", good.text);
    let intent = &gateway.records("intent")[0];
    assert_eq!(intent["agent"]["id"], "desk");
    assert!(intent.to_string().contains("\"chain\":[\"planner\"]"), "{intent}");
    // As many as there may be: desk acts for planner, for e1, for e2.
    let four = json!({ "sub": "desk", "act": { "sub": "planner", "act": { "sub": "e1", "act": { "sub": "e2" } } } });
    let deepest = call(&gateway, &token(four)).await;
    assert_eq!((deepest.status, deepest.tool_text()), (200, "{}"), "{}", deepest.text);
    let intent = gateway.records("intent").pop().unwrap();
    assert!(intent.to_string().contains("\"chain\":[\"planner\",\"e1\",\"e2\"]"), "{intent}");
    let line = "explain tools/echo --as user:test/alice --agent desk --actor planner --actor e1 --actor e2";
    let told = gateway.command(&line.split(' ').collect::<Vec<_>>());
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.status.success(), "{said}{}", String::from_utf8_lossy(&told.stderr));
    for agent in ["desk", "planner", "e1", "e2"] {
        assert!(said.contains(&format!("agent:{agent}")), "{said}");
    }
    // `helper` may nothing, and so may whoever acts through it.
    let hidden = call(&gateway, &token(json!({ "sub": "planner", "act": { "sub": "helper" } }))).await;
    assert_eq!(hidden.error_code(), -32602, "{}", hidden.text);
    let mut refused = Vec::new();
    for (act, why) in [
        (json!({ "sub": "desk", "act": { "sub": "desk" } }), "loops"),
        (json!({ "sub": "alice" }), "loops"),
        (json!({ "sub": "stranger" }), "not a registered agent"),
        (json!({ "sub": "planner", "iss": "https://elsewhere.example" }), "not a configured issuer"),
        (json!({ "sub": "planner", "iss": format!("{}/", issuer.url) }), "not a configured issuer"),
        (
            json!({ "sub": "desk", "act": { "sub": "planner", "act": { "sub": "helper", "act": { "sub": "e1", "act": {
                "sub": "e2" } } } } }),
            "too deep",
        ),
    ] {
        let answer = call(&gateway, &token(act)).await;
        assert_eq!((answer.status, reason(&answer).as_str()), (401, "chain_refused"), "{}", answer.text);
        assert!(answer.text.contains(why), "{why}: {}", answer.text);
        refused.push(("chain_refused", answer));
    }
    let ask = |actor: &str| {
        gateway.command(&["explain", "tools/echo", "--as", "user:test/alice", "--agent", "desk", "--actor", actor])
    };
    assert!(ask("planner").status.success());
    let explained = ask("helper");
    let told = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(!explained.status.success() && told.contains("agent:helper  not allowed"), "{told}");
    came_to_nothing(&mut gateway, (&upstream, 2), &refused).await;
}

#[tokio::test]
async fn two_rules_that_match_are_one_challenge_with_both_scopes() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let rule = |scope: &str, object: &str| {
        format!("[[issuers.test.scope_rules]]\nscope = \"{scope}\"\nobject = \"{object}\"\nactions = [\"call\"]\n")
    };
    let lines = [
        "scopes = \"required\"\n".to_owned(),
        rule("use", "*/*"),
        rule("echo", "tools/echo"),
        rule("other", "tools/x"),
    ];
    let gateway =
        Setup::new(&issuer).issuer_lines(&lines.concat()).http_server("tools", &upstream.url, "").start().await;
    let token = |scope: &str| {
        let mut claims = issuer.claims("alice", &["developers"], &gateway.resource());
        claims["scope"] = json!(scope);
        issuer.sign(&claims)
    };
    for held in ["", "use", "echo", "other", "usee echos"] {
        let answer = call(&gateway, &token(held)).await;
        let challenge = answer.header("www-authenticate");
        assert_eq!(answer.status, 403, "{held}: {}", answer.text);
        assert!(challenge.contains("scope=\"use echo\""), "{held}: {challenge}");
        assert_eq!(challenge.matches("scope=").count(), 1, "{challenge}");
    }
    assert_eq!(call(&gateway, &token("echo use")).await.status, 200);
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn software_that_nobody_registered_is_denied_and_proposed_once() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .policy("p, anyone, *, */*, call, -, allow\n")
        .policy_file("agents.toml", ROBOT)
        .start()
        .await;
    let own = |client: &str, sign: bool| {
        let mut claims = issuer.claims(client, &[], &gateway.resource());
        claims["client_id"] = json!(client);
        if sign { issuer.sign(&claims) } else { issuer.sign(&claims).replace('.', ".A") }
    };
    for _ in 0..3 {
        let answer = call(&gateway, &own("shadow-bot", true)).await;
        assert_eq!((answer.status, reason(&answer).as_str()), (403, "agent_unknown"), "{}", answer.text);
    }
    // Who is nobody is told in sum, so that nobody fills the record by knocking.
    crate::support::eventually("the refusals on the record", async || {
        gateway.records("noise").iter().any(|record| record.to_string().contains("agent_unknown"))
    })
    .await;
    // Whom no issuer vouches for is not proposed: anybody could fill the list.
    assert_eq!(call(&gateway, &own("forged-bot", false)).await.status, 401);
    let socket = gateway.state().join("control.sock");
    let listed = async || -> Value {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        let request = "GET /agents/proposed HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    for _ in 0..200 {
        if !listed().await.as_array().unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let proposed = listed().await;
    assert_eq!(proposed.as_array().unwrap().len(), 1, "{proposed}");
    assert_eq!((&proposed[0]["issuer"], &proposed[0]["name"]), (&json!("test"), &json!("shadow-bot")));
    assert_eq!((&proposed[0]["known_by"], &proposed[0]["for_person"]), (&json!("client_id"), &json!(false)));
    assert!(upstream.calls().is_empty());
}

#[tokio::test]
async fn doctor_asks_about_tokens_and_says_where_the_groups_may_be() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "").sections(INTROSPECTION);
    std::fs::write(setup.directory().join("introspection-secret"), "s3cret\n").unwrap();
    let gateway = setup.start().await;
    let doctor = async |token: Option<&str>| -> String {
        let words = if token.is_some() { &["doctor", "--json", "--token", "-"][..] } else { &["doctor", "--json"] };
        let output = gateway.piped(words, &[], token.unwrap_or_default()).await;
        String::from_utf8(output.stdout).unwrap()
    };
    let claims = issuer.claims("alice", &["developers"], &gateway.resource());
    let opaque = issuer.opaque(&claims);
    let well = doctor(Some(&opaque)).await;
    for said in ["it says what opaque tokens are to our client `gateway`", "it is opaque, and issuer `test` says"] {
        assert!(well.contains(said), "{said}: {well}");
    }
    let mut elsewhere = claims.clone();
    elsewhere.as_object_mut().unwrap().remove("groups");
    elsewhere["roles"] = json!(["developers"]);
    let told = doctor(Some(&issuer.sign(&elsewhere))).await;
    assert!(told.contains("groups_unavailable") && told.contains("groups = \\\"roles\\\" below"), "{told}");
    let unknown = doctor(Some("nobody-has-this")).await;
    assert!(unknown.contains("token_inactive") && unknown.contains("see prefix"), "{unknown}");
    issuer.goes_away(true);
    let away = doctor(None).await;
    assert!(
        away.contains("introspection endpoint answered 503") && away.contains("[issuers.test.introspection]"),
        "{away}"
    );
    assert!(!well.contains(&opaque), "a token is never shown");
}
