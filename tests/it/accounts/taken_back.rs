//! Taking accounts back: by the administrator, by their owner, with a revocation, and at the service itself.

use super::*;

fn listed(running: &Running) -> Vec<Value> {
    let listed = running.gateway.command(&["vault", "list", "--json"]);
    assert!(listed.status.success(), "{listed:?}");
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    listed["accounts"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_is_taken_back_is_used_by_nobody_and_given_back_to_the_service() {
    let running = start().await;
    running.linked("ann").await;
    assert_eq!(running.whoami("ann").await.tool_text(), "ann@service");
    let all = listed(&running);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!((&all[0]["owner"], &all[0]["server"]), (&json!("user:test/ann"), &json!("notes")));
    assert_eq!((&all[0]["account"], &all[0]["usable"]), (&json!("ann@service"), &json!(true)), "{all:?}");
    assert!(!all[0].to_string().contains(CANARY));
    let removed = running.gateway.command(&["vault", "revoke", "user:test/ann", "notes", "--json"]);
    assert!(removed.status.success(), "{removed:?}");
    let removed: Value = serde_json::from_slice(&removed.stdout).unwrap();
    assert_eq!(removed["upstream"], "revoked", "{removed}");
    let given_back = running.service.state().revoked.clone();
    assert!(
        given_back.len() == 2 && given_back[0].starts_with("rt-") && given_back[1].starts_with("at-"),
        "{given_back:?}"
    );
    assert_eq!(reason(&running.whoami("ann").await), "account_link_required");
    assert!(listed(&running).is_empty());
    let none = running.gateway.command(&["vault", "revoke", "user:test/ann", "notes"]);
    assert!(!none.status.success(), "there is none any more");
    let admin = running.gateway.records("admin").into_iter().map(|line| line["admin"].clone());
    let told: Vec<Value> = admin.filter(|admin| admin["operation"] == "unlink").collect();
    assert!(told[0]["about"].as_str().unwrap().contains("user:test/ann"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_revoked_loses_their_accounts_and_nobody_else_does() {
    let running = start().await;
    running.linked("ann").await;
    running.linked("bob").await;
    let revoked = running.gateway.command(&["revoke", "subject", "user:test/ann"]);
    assert!(revoked.status.success(), "{revoked:?}");
    let left: Vec<Value> = listed(&running).iter().map(|account| account["owner"].clone()).collect();
    assert_eq!(left, [json!("user:test/bob")]);
    assert_eq!(running.whoami("bob").await.tool_text(), "ann@service");
    let revoked = running.gateway.command(&["revoke", "server", "notes"]);
    assert!(revoked.status.success(), "{revoked:?}");
    assert!(listed(&running).is_empty());
    assert_eq!(running.service.state().revoked.len(), 4);
}

async fn lively() -> Running {
    let (issuer, service) = (Issuer::start().await, Linked::start().await);
    service.state().lively = true;
    let rules = format!(
        "{DEVELOPERS_MAY}p, role:developer, *, */**, subscribe, -, allow\np, agent:assistant, *, */**, subscribe, -, allow\n"
    );
    let gateway = setup(&issuer, &service).policy(&rules).start().await;
    Running { issuer, service, gateway }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_under_way_ends_with_the_account_that_it_was_made_with() {
    let running = lively().await;
    running.linked("ann").await;
    running.linked("bob").await;
    let (anns, bobs) = (running.client("ann"), running.client("bob"));
    let call = |client: Client| tokio::spawn(async move { client.call_tool("notes__slow", json!({})).await });
    let (anns, bobs) = (call(anns), call(bobs));
    eventually("both calls are under way", async || running.service.state().called_as.len() == 2).await;
    let removed = running.gateway.command(&["vault", "revoke", "user:test/ann", "notes"]);
    assert!(removed.status.success(), "{removed:?}");
    let began = std::time::Instant::now();
    assert_eq!(reason(&anns.await.unwrap()), "revoked");
    assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(!bobs.is_finished(), "his account is his");
    bobs.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_presents_nothing_of_an_account_that_was_taken_back() {
    let running = lively().await;
    running.linked("ann").await;
    assert_eq!(running.whoami("ann").await.tool_text(), "ann@service");
    let wanted = json!({ "notifications": { "resourceSubscriptions": ["notes://a"] } });
    let (headers, body) = modern_request("subscriptions/listen", wanted);
    let mut stream = running.client("ann").stream(&headers, Some(body.to_string())).await;
    let agreed = stream.next().await;
    assert_eq!(agreed["params"]["notifications"]["resourceSubscriptions"], json!(["notes://a"]), "{agreed}");
    let before = running.service.state().listened_with.clone();
    assert_eq!(before.len(), 1, "{before:?}");
    let began = std::time::Instant::now();
    let removed = running.gateway.command(&["vault", "revoke", "user:test/ann", "notes"]);
    assert!(removed.status.success(), "{removed:?}");
    eventually("the listen to end", async || running.service.state().listens_ended == 1).await;
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    let presented = running.service.state().presented;
    // Longer than it takes to listen again.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(running.service.state().presented, presented, "nothing good comes any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_blocked_while_the_gateway_is_down_is_taken_back_and_cannot_come_back_when_the_block_is_lifted() {
    let mut running = start().await;
    running.linked("ann").await;
    running.linked("bob").await;
    running.gateway.stop().await;
    let revoked =
        running.gateway.command(&["revoke", "subject", "user:test/ann", "--config", "servers.toml", "--json"]);
    assert!(revoked.status.success(), "{revoked:?}");
    let revoked: Value = serde_json::from_slice(&revoked.stdout).unwrap();
    assert!(revoked["upstreams"].to_string().contains("a linked account"), "{revoked}");
    running.gateway.launch().await;
    let left: Vec<Value> = listed(&running).iter().map(|account| account["owner"].clone()).collect();
    assert_eq!(left, [json!("user:test/bob")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_can_be_blocked_by_itself_also_while_the_gateway_is_down() {
    let mut running = start().await;
    running.linked("ann").await;
    running.linked("bob").await;
    let earlier = running.link("cid").await;
    let block = |running: &Running, owner: &str| {
        let line = ["revoke", "account", owner, "notes", "--config", "servers.toml", "--json"];
        let revoked = running.gateway.command(&line);
        assert!(revoked.status.success(), "{revoked:?}");
        serde_json::from_slice::<Value>(&revoked.stdout).unwrap()
    };
    let told = block(&running, "user:test/ann");
    assert_eq!((&told["upstreams"][0]["state"], &told["gateway"]), (&json!("revoked"), &json!("running")), "{told}");
    assert_eq!(running.service.state().revoked.len(), 2);
    // What she cannot use is not there for her, and the log says why.
    assert!(running.whoami("ann").await.response().get("error").is_some());
    eventually("the log to say why", async || {
        running.gateway.log().contains("your account at this server was taken back")
    })
    .await;
    assert_eq!(running.whoami("bob").await.tool_text(), "ann@service", "his is his");
    // Nothing is there to be taken back, and nothing comes.
    block(&running, "user:test/cid");
    assert_eq!(Browser::default().get(&earlier).await.status, 410);
    running.gateway.stop().await;
    let told = block(&running, "user:test/bob");
    assert!(told["upstreams"].to_string().contains("a linked account") && told["gateway"] == "stopped", "{told}");
    running.gateway.launch().await;
    assert!(listed(&running).is_empty());
    let called = running.service.state().called_as.len();
    assert!(running.whoami("bob").await.response().get("error").is_some());
    assert_eq!(running.service.state().called_as.len(), called);
    let revocations = running.gateway.records("revocation");
    let accounts = revocations.iter().filter(|line| line["revocation"]["target"] == "account");
    let named: Vec<&Value> = accounts.map(|line| &line["revocation"]["value"]).collect();
    assert_eq!(named, [&json!("notes/ann"), &json!("notes/cid"), &json!("notes/bob")], "{revocations:?}");
    let held = running.gateway.command(&["revocations"]);
    assert!(String::from_utf8_lossy(&held.stdout).contains("test/notes/bob"), "{held:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_named_with_any_characters_sees_and_takes_back_their_own() {
    let running = start().await;
    running.linked("auth0|5f7").await;
    assert_eq!(running.whoami("auth0|5f7").await.tool_text(), "ann@service");
    let all = listed(&running);
    assert_eq!(all[0]["owner"], json!("user:test/auth0%7C5f7"), "as rules and the record spell it: {all:?}");
    let actors: Vec<Value> =
        running.gateway.records("admin").iter().map(|line| line["admin"]["actor"].clone()).collect();
    assert!(actors.contains(&json!("user:test/auth0%7C5f7")), "{actors:?}");
    let removed = running.gateway.command(&["vault", "revoke", "user:test/auth0%7C5f7", "notes"]);
    assert!(removed.status.success(), "{removed:?}");
    assert!(listed(&running).is_empty());
    let answer = running.whoami("auth0|5f7").await;
    let page = running.links("auth0|5f7", &address(answer.tool_text())).await;
    assert!(page.text.contains("is linked"), "{}", page.text);
    let revoked = running.gateway.command(&["revoke", "subject", "user:test/auth0%7C5f7"]);
    assert!(revoked.status.success(), "{revoked:?}");
    assert!(listed(&running).is_empty(), "what names the person names their accounts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_has_forgotten_us_is_told_who_we_are_by_whoever_links_again() {
    let running = start().await;
    running.service.state().life_s = 2;
    running.linked("ann").await;
    assert_eq!(running.whoami("ann").await.tool_text(), "ann@service");
    assert_eq!(running.service.state().registrations, 1);
    running.service.state().forgotten.push("made-1".to_owned());
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    let answer = running.whoami("ann").await;
    assert_eq!(reason(&answer), "account_link_required", "{}", answer.text);
    running.service.state().life_s = 3_600;
    let page = running.links("ann", &address(answer.tool_text())).await;
    assert!(page.text.contains("is linked"), "{}", page.text);
    assert_eq!(running.service.state().registrations, 2);
    assert_eq!(running.whoami("ann").await.tool_text(), "ann@service");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_before_brings_no_account_back() {
    let mut running = start().await;
    running.linked("ann").await;
    running.linked("bob").await;
    let place = running.gateway.state();
    let kept = place.with_file_name("kept");
    assert!(running.gateway.command(&["state", "backup", "kept"]).status.success());
    assert!(running.gateway.command(&["vault", "revoke", "user:test/ann", "notes"]).status.success());
    assert!(running.gateway.stop().await.success());
    for name in ["store.sqlite-wal", "store.sqlite-shm"] {
        let _ = std::fs::remove_file(place.join(name));
    }
    std::fs::copy(kept.join("store.sqlite"), place.join("store.sqlite")).unwrap();
    let refused = running.gateway.command(&["serve"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let reconciled = running.gateway.command(&["store", "reconcile"]);
    assert!(reconciled.status.success(), "{reconciled:?}");
    running.gateway.launch().await;
    let left: Vec<Value> = listed(&running).iter().map(|account| account["owner"].clone()).collect();
    assert_eq!(left, [json!("user:test/bob")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_left_leaves_no_account_behind() {
    let (issuer, service) = (Issuer::start().await, Linked::start().await);
    let feed =
        "[feeds.hr]\nissuer = \"test\"\n[feeds.hr.scim]\nsecret = \"file:feed-secret\"\nsubject = \"userName\"\n";
    let setup = setup(&issuer, &service).sections(feed);
    std::fs::write(setup.directory().join("feed-secret"), "a secret of the directory's own").unwrap();
    let running = Running { issuer, service, gateway: setup.start().await };
    running.linked("ann").await;
    running.linked("bob").await;
    let ann = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, "ann");
    let user = Client::new(&format!("{}/feeds/hr/scim/v2/Users/{ann}", running.gateway.url), None);
    let secret = ("authorization", "Bearer a secret of the directory's own".to_owned());
    assert_eq!(user.bare(reqwest::Method::DELETE, &[secret]).await.status, 204);
    let left: Vec<Value> = listed(&running).iter().map(|account| account["owner"].clone()).collect();
    assert_eq!(left, [json!("user:test/bob")]);
    let service = &running.service;
    eventually("the service to be told", async || !service.state().revoked.is_empty()).await;
    let admin = running.gateway.records("admin").into_iter().map(|line| line["admin"].clone());
    let told: Vec<Value> = admin.filter(|admin| admin["operation"] == "unlink_account").collect();
    assert_eq!((told.len(), &told[0]["actor"]), (1, &json!("feed:hr")), "{told:?}");
    assert!(told[0]["about"].as_str().unwrap().contains("user:test/ann"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_has_the_account_of_whom_it_is_for_and_ends_when_that_is_taken_back() {
    crate::needs_python!();
    let (issuer, service, place) = (Issuer::start().await, Linked::start().await, tempfile::tempdir().unwrap());
    let command = crate::processes::command(place.path());
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let more = format!(
        "title = \"Notes\"\npins = \"off\"\ncredential_variable = \"SERVICE_TOKEN\"\n[servers.notes.credential]\n\
         kind = \"oauth\"\nissuer = \"{}\"\nresource = \"{}\"\n",
        service.origin,
        service.url()
    );
    let setup = Setup::new(&issuer).issuer_lines("link_client_id = \"test-link\"\n");
    let gateway = setup.stdio_server("notes", &command, &more).start().await;
    let running = Running { issuer, service, gateway };
    let mut all = Vec::new();
    for user in ["ann", "bob"] {
        running.linked(user).await;
        let answer = running.whoami(user).await;
        let told: Value = serde_json::from_str(answer.tool_text()).unwrap_or_else(|_| panic!("{}", answer.text));
        let token = told["token"].as_str().unwrap().to_owned();
        assert!(running.service.state().access.contains_key(&token), "{told}");
        all.push((told["process"].as_u64().unwrap(), token));
    }
    assert!(all[0].0 != all[1].0 && all[0].1 != all[1].1, "{all:?}");
    let removed = running.gateway.command(&["vault", "revoke", "user:test/ann", "notes"]);
    assert!(removed.status.success(), "{removed:?}");
    crate::stdio::are_gone(&[all[0].0], std::time::Duration::from_secs(1)).await;
    assert!(crate::stdio::lives(all[1].0), "his account is his");
    let revoked = running.gateway.command(&["revoke", "subject", "user:test/bob"]);
    assert!(revoked.status.success(), "{revoked:?}");
    crate::stdio::are_gone(&[all[1].0], std::time::Duration::from_secs(1)).await;
    assert!(!running.gateway.log().contains(&all[0].1));
}

/// Whoever looks after accounts may block and look, and admins may lift.
const LIFTERS: &str = "g, group:test/admins, role:admin, *\np, role:admin, *, bailiwick/*, admin, -, allow\n\
                       g, group:test/operators, role:operator, *\n\
                       p, role:operator, *, bailiwick/revoke, admin, -, allow\n\
                       p, role:operator, *, bailiwick/revocations, admin, -, allow\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_of_an_account_is_lifted_by_an_administrator_alone_and_its_owner_links_anew() {
    let (issuer, service) = (Issuer::start().await, Linked::start().await);
    let gateway = setup(&issuer, &service)
        .policy(&format!("{DEVELOPERS_MAY}{LIFTERS}"))
        .admin("acr = [\"strong\"]\nclients = [{ issuer = \"test\", client_id = \"test-admin\" }]")
        .start()
        .await;
    let running = Running { issuer, service, gateway };
    running.linked("ann").await;
    assert_eq!(running.whoami("ann").await.tool_text(), "ann@service");
    let earlier = running.link("cid").await;
    let person = |user: &str, groups: &[&str], spoil: &dyn Fn(&mut Value)| {
        let mut claims = running.issuer.administrator(user, groups, &running.gateway.admin);
        spoil(&mut claims);
        running.issuer.sign(&claims)
    };
    let at = |path: &str, token: &str| Client::new(&format!("{}/api/v1{path}", running.gateway.admin), Some(token));
    let operator = person("otto", &["operators"], &|_| {});
    let mut held = Vec::new();
    for value in ["notes/ann", "notes/cid"] {
        let order = json!({ "target": "account", "issuer": "test", "value": value, "note": "it was misused" });
        let blocked = at("/revoke", &operator).post(&[], order.to_string()).await;
        assert_eq!(blocked.status, 200, "{}", blocked.text);
        let all = at("/revocations", &operator).bare(reqwest::Method::GET, &[]).await;
        let own = all.response()["revocations"].as_array().unwrap().iter().find(|held| held["value"] == value).cloned();
        held.push(own.unwrap()["since"].as_u64().unwrap());
    }
    let called = running.service.state().called_as.len();
    for user in ["ann", "cid"] {
        assert!(running.whoami(user).await.response().get("error").is_some());
    }
    assert_eq!(Browser::default().get(&earlier).await.status, 410);
    assert_eq!(running.service.state().called_as.len(), called, "nothing was called");

    // Neither the machine's own user, nor an operator, nor an administrator who logged in long ago or weakly.
    let socket = running.gateway.command(&["lift", &held[0].to_string(), "--config", "servers.toml"]);
    assert_eq!(socket.status.code(), Some(1), "{socket:?}");
    let old = person("root", &["admins"], &|claims| claims["auth_time"] = json!(1_000));
    let weak = person("root", &["admins"], &|claims| claims["acr"] = json!("weak"));
    let assistant = person("root", &["admins"], &|claims| claims["client_id"] = json!("test-assistant"));
    for (token, status) in [(&operator, 403), (&old, 401), (&weak, 401), (&assistant, 403)] {
        let refused = at(&format!("/revocations/{}", held[0]), token).bare(reqwest::Method::DELETE, &[]).await;
        assert_eq!(refused.status, status, "{}", refused.text);
        assert!(running.whoami("ann").await.response().get("error").is_some());
    }
    let root = person("root", &["admins"], &|_| {});
    for since in &held {
        let lifted = at(&format!("/revocations/{since}"), &root).bare(reqwest::Method::DELETE, &[]).await;
        assert_eq!(lifted.status, 200, "{}", lifted.text);
    }
    // What was taken is gone for good, and nothing is in the way of another.
    let asked = running.whoami("ann").await;
    assert_eq!(reason(&asked), "account_link_required");
    let page = running.links("ann", &address(asked.tool_text())).await;
    assert!(page.text.contains("is linked"), "{}", page.text);
    // Of a server that was closed to somebody nothing was listed.
    crate::support::eventually_within(
        std::time::Duration::from_secs(30),
        "the list to be asked for again",
        async || {
            let link = running.client("cid").call_tool("notes__link_account", json!({})).await;
            reason(&link) == "account_link_required"
        },
    )
    .await;
    running.linked("cid").await;
    for user in ["ann", "cid"] {
        assert_eq!(running.whoami(user).await.tool_text(), "ann@service", "{user}");
    }
    let told = running.gateway.records("revocation").into_iter().map(|record| record["revocation"].clone());
    let told: Vec<_> =
        told.map(|told| (told["value"].clone(), told["lifted"] == true, told["actor"].clone())).collect();
    let expected = [("ann", false, "otto"), ("cid", false, "otto"), ("ann", true, "root"), ("cid", true, "root")];
    let expected = expected
        .map(|(account, lifted, by)| (json!(format!("notes/{account}")), lifted, json!(format!("user:test/{by}"))));
    assert_eq!(told, expected);
}
