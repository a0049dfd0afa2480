//! Who may approve, and who may not: with every account that they have.

use super::*;

async fn refused(running: &Running, id: &str, token: &str) -> (u16, String) {
    let answer = running.approve(id, token).await;
    let told = (answer.status, reason(&answer));
    assert_ne!(answer.status, 200, "{}", answer.text);
    assert_eq!(running.view(id, &running.bob()).await["state"], "pending");
    told
}

#[tokio::test]
async fn nobody_approves_their_own_call_whatever_their_account_is_called() {
    let running = start(GATES).await;
    let id = running.asks("alice", json!({ "n": 1 })).await;
    let own = running.person("alice", &["approvers"]);
    assert_eq!(refused(&running, &id, &own).await, (403, "approver_refused".to_owned()));
    for spelled in ["alice", "ALICE", " alice "] {
        let mut other = running.issuer.administrator("alice-admin", &["approvers"], &running.gateway.admin);
        other["person"] = json!(spelled);
        let token = running.issuer.sign(&other);
        assert_eq!(refused(&running, &id, &token).await, (403, "approver_refused".to_owned()), "{spelled}");
    }
    assert!(running.events(&id).contains(&"refused".to_owned()), "an attempt is on the record");
    let rules = "g, group:test/roots, role:root, *\np, role:root, *, bailiwick/*, admin, -, allow\n";
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = setup(&issuer, &upstream, GATES).policy(&format!("{DEVELOPERS_MAY}{RULES}{rules}")).start().await;
    let running = Running { issuer, upstream, gateway };
    let id = running.asks("alice", json!({ "n": 1 })).await;
    refused(&running, &id, &running.person("alice", &["approvers"])).await;
    let metrics = running.at("/metrics", &running.person("root", &["roots"])).bare(reqwest::Method::GET, &[]).await;
    assert!(metrics.text.contains("bailiwick_approvals_total{event=\"refused\"} 1"), "{}", metrics.text);
    assert_eq!(running.calls(), 0);
}

#[tokio::test]
async fn one_human_with_two_issuers_is_one_person() {
    let (issuer, elsewhere) = (Issuer::start().await, Issuer::start().await);
    let upstream = upstream().await;
    let sections = |person: &str| {
        format!(
            "[issuers.other]\nissuer = \"{}\"\nalgorithms = [\"ES256\"]\n[issuers.other.claims]\ngroups = \"groups\"\n{person}",
            elsewhere.url
        )
    };
    let admin = "acr = [\"strong\"]\nclients = [{ issuer = \"test\", client_id = \"test-admin\", approves = true }, { issuer = \"other\", client_id = \"test-admin\", approves = true }]";
    let rules = format!("{DEVELOPERS_MAY}{RULES}g, group:other/approvers, role:approver, *\n");
    let gates = "[gates.deploy]\nobjects = [\"tools/echo\"]\napprovers = [\"group:other/approvers\", \"group:test/approvers\"]\napprovals = 2\n";
    let start = async |person: &str| {
        let issuer = Issuer::start().await;
        let setup = setup(&issuer, &upstream, gates).policy(&rules).sections(&sections(person));
        // The section that the test writes stands in the place of the one that every other has.
        let gateway = setup.admin(admin).start().await;
        (issuer, gateway)
    };
    drop(issuer);
    let upstream_of = Scripted::echo().await;
    let (issuer, gateway) = start("person = \"person\"\n").await;
    let running = Running { issuer, upstream: upstream_of, gateway };
    let other = |user: &str, person: &str| {
        let mut claims = elsewhere.administrator(user, &["approvers"], &running.gateway.admin);
        claims["person"] = json!(person);
        elsewhere.sign(&claims)
    };
    // Alice herself answers for the agent as somebody of the other issuer would: nobody can tell.
    let id = running.asks("alice", json!({ "n": 1 })).await;
    let own = running.approve(&id, &other("a.liddell", "Alice")).await;
    assert_eq!((own.status, reason(&own).as_str()), (403, "approver_refused"), "{}", own.text);
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let twice = running.approve(&id, &other("robert", "bob")).await;
    assert_eq!((twice.status, reason(&twice).as_str()), (403, "approver_refused"), "{}", twice.text);
    assert_eq!(running.view(&id, &running.bob()).await["state"], "pending");
}

#[tokio::test]
async fn an_issuer_that_does_not_say_who_a_person_is_approves_nothing() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = Setup::new(&issuer)
        .policy(&format!("{DEVELOPERS_MAY}{RULES}"))
        .policy_file("gates.toml", GATES)
        .http_server("tools", &upstream.url, "")
        .admin(ADMIN)
        .start()
        .await;
    let running = Running { issuer, upstream, gateway };
    let refused = running.call("alice", json!({ "n": 1 })).await;
    assert_eq!(reason(&refused), "person_unknown", "nobody is asked what nobody can decide: {}", refused.text);
    assert!(refused.tool_text().contains("`person` claim"), "{}", refused.text);
    assert_eq!(running.calls(), 0);
}

#[tokio::test]
async fn whoever_answers_for_the_agent_does_not_approve_its_calls() {
    let gates = "[gates.deploy]\nobjects = [\"tools/echo\"]\napprovers = [\"owner\", \"group:test/approvers\"]\n";
    let running = start(gates).await;
    let id = running.asks("alice", json!({ "n": 1 })).await;
    // The owner of both the server and the agent.
    let owner = running.person("owner", &["approvers"]);
    assert_eq!(refused(&running, &id, &owner).await, (403, "approver_refused".to_owned()));
}

#[tokio::test]
async fn the_owner_of_a_server_approves_where_a_gate_says_so() {
    let gates = "[gates.deploy]\nobjects = [\"tools/echo\"]\napprovers = [\"owner\"]\n";
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let agents = "[agents.assistant]\nowner = \"user:test/somebody\"\nowner_person = \"somebody\"\npurpose = \"tests\"\nkind = \"interactive\"\nenvironments = [\"development\"]\n";
    let gateway = setup(&issuer, &upstream, gates).policy_file("agents.toml", agents).start().await;
    let running = Running { issuer, upstream, gateway };
    let id = running.asks("alice", json!({ "n": 1 })).await;
    assert_eq!(refused(&running, &id, &running.bob()).await, (403, "approver_refused".to_owned()), "no gate names bob");
    assert_eq!(running.approve(&id, &running.person("owner", &["approvers"])).await.status, 200);
    assert_eq!(running.call("alice", json!({ "n": 1 })).await.tool_text(), r#"{"n":1}"#);
}

#[tokio::test]
async fn no_agent_approves_and_no_login_that_is_old_or_weak() {
    let running = start(GATES).await;
    let id = running.asks("alice", json!({ "n": 1 })).await;
    let admin = || running.issuer.administrator("bob", &["approvers", "lookers"], &running.gateway.admin);
    let mut agents = admin();
    agents["act"] = json!({ "sub": "assistant" });
    let mut software = admin();
    software["client_id"] = json!("test-assistant");
    let mut mcp = admin();
    mcp["aud"] = json!(running.gateway.resource());
    let mut old = admin();
    old["auth_time"] = json!(jiff::Timestamp::now().as_second() - 3_600);
    let mut weak = admin();
    weak["acr"] = json!("weak");
    let mut undated = admin();
    undated.as_object_mut().unwrap().remove("auth_time");
    for (claims, status) in [(agents, 401), (software, 403), (mcp, 401), (old, 401), (weak, 401), (undated, 401)] {
        let (told, why) = refused(&running, &id, &running.issuer.sign(&claims)).await;
        assert_eq!(told, status, "{why} {claims}");
    }
    let (told, why) = refused(&running, &id, &running.person("otto", &["lookers"])).await;
    assert_eq!((told, why.as_str()), (403, "not_allowed"), "no rule");
    let (told, why) = refused(&running, &id, &running.person("mia", &["managers"])).await;
    assert_eq!((told, why.as_str()), (403, "approver_refused"), "no gate");
    assert_eq!(running.calls(), 0);
}

#[tokio::test]
async fn no_token_that_a_program_keeps_says_yes_to_anything_and_one_of_the_consoles_does() {
    let rules = "g, group:test/roots, role:root, *\np, role:root, *, bailiwick/*, admin, -, allow\n";
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let setup = setup(&issuer, &upstream, GATES).policy(&format!("{DEVELOPERS_MAY}{RULES}{rules}"));
    // As `bailiwick login --admin` has it, which writes its token to a file.
    let gateway = setup.admin(&ADMIN.replace(", approves = true", "")).start().await;
    let running = Running { issuer, upstream, gateway };
    let id = running.asks("alice", json!({ "n": 1 })).await;
    let groups = ["approvers", "roots"];
    let kept = running.person("bob", &groups);
    assert_eq!(refused(&running, &id, &kept).await, (403, "administrator_required".to_owned()));
    let shown = json!({ "shown": "0".repeat(64) });
    for (path, order) in [
        ("/standing".to_owned(), json!({ "like": id, "condition": "small", "uses": 1, "seconds": 60, "note": "" })),
        (format!("/standing/{id}/approve"), shown.clone()),
        (format!("/break-glass/{id}/approve"), shown),
        (format!("/labels/declassify/{id}/confirm"), json!({})),
    ] {
        let answer = running.at(&path, &kept).post(&[], order.to_string()).await;
        assert_eq!(
            (answer.status, reason(&answer).as_str()),
            (403, "administrator_required"),
            "{path} {}",
            answer.text
        );
    }
    let mut console = running.issuer.administrator("bob", &groups, &running.gateway.admin);
    console["client_id"] = json!("test-console");
    assert_eq!(running.approve(&id, &running.issuer.sign(&console)).await.status, 200);
}

#[tokio::test]
async fn a_gate_can_want_a_stronger_or_younger_login_than_every_other() {
    let gates = format!("{GATES}acr = [\"hardware\"]\nauth_age_max = \"60s\"\n");
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let admin = ADMIN.replace("[\"strong\"]", "[\"strong\", \"hardware\"]");
    let gateway = setup(&issuer, &upstream, &gates).admin(&admin).start().await;
    let running = Running { issuer, upstream, gateway };
    let id = running.asks("alice", json!({ "n": 1 })).await;
    let login = |acr: &str, age: i64| {
        let mut claims = running.issuer.administrator("bob", &["approvers"], &running.gateway.admin);
        claims["acr"] = json!(acr);
        claims["auth_time"] = json!(jiff::Timestamp::now().as_second() - age);
        running.issuer.sign(&claims)
    };
    for (acr, age) in [("strong", 0), ("hardware", 120)] {
        let (status, why) = refused(&running, &id, &login(acr, age)).await;
        assert_eq!((status, why.as_str()), (401, "insufficient_user_authentication"), "{acr} {age}");
    }
    assert_eq!(running.approve(&id, &login("hardware", 0)).await.status, 200);
}

#[tokio::test]
async fn the_socket_denies_and_approves_nothing() {
    let running = start(GATES).await;
    let id = running.asks("alice", json!({ "n": 1 })).await;
    let run = |words: &[&str]| {
        let output = running.gateway.command(&[words, &["--config", "servers.toml"]].concat());
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), text)
    };
    let (_, listed) = run(&["approvals", "list"]);
    assert!(listed.contains(&id) && listed.contains("tools/echo in development for user:test/alice"), "{listed}");
    let (_, shown) = run(&["approvals", "show", &id]);
    assert!(shown.contains("\"n\": 1") && shown.contains("deploy: 1 of group:test/approvers"), "{shown}");
    let (code, opened) = run(&["approvals", "approve", &id]);
    assert!(code == Some(0) && opened.contains(&format!("/admin/approvals/{id}")), "{opened}");
    assert_eq!(running.view(&id, &running.bob()).await["state"], "pending", "the command only opens the page");
    let (code, denied) = run(&["approvals", "deny", &id, "--note", "no"]);
    assert_eq!(code, Some(0), "{denied}");
    let view = running.view(&id, &running.bob()).await;
    assert!(view["state"] == "denied" && view["denied_by"].as_str().unwrap().starts_with("host:"), "{view}");
}

#[tokio::test]
async fn a_person_claim_that_is_no_name_is_nobodys_and_a_long_reason_is_cut() {
    let running = start(GATES).await;
    let id = running.asks("alice", json!({ "n": 1 })).await;
    let with = |person: Value| {
        let mut claims = running.issuer.administrator("bob", &["approvers"], &running.gateway.admin);
        claims["person"] = person;
        running.issuer.sign(&claims)
    };
    let long = "b".repeat(bailiwick::limit::PERSON_BYTES_MAX + 1);
    for odd in [json!(long), json!(7), json!(null), json!("")] {
        assert_eq!(refused(&running, &id, &with(odd.clone())).await, (403, "approver_refused".to_owned()), "{odd}");
    }
    let most = bailiwick::limit::APPROVAL_NOTE_CHARACTERS_MAX;
    let note = json!({ "note": "n".repeat(most + 5) }).to_string();
    let denied = running.at(&format!("/approvals/{id}/deny"), &running.bob()).post(&[], note).await;
    assert_eq!(denied.response()["note"].as_str().unwrap().chars().count(), most, "{}", denied.text);
}
