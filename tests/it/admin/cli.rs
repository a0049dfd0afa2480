//! The command line as a client of the listener: from another machine, with a person's login or a program's token.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::{Running, start};

/// The command line on a machine that has nothing of the gateway.
fn elsewhere(home: &Path, running: &Running) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bailiwick"));
    command.current_dir(home).env("XDG_STATE_HOME", home).env("HOME", home).env_remove("BAILIWICK_ADMIN_TOKEN");
    command.env("BAILIWICK_ADMIN", &running.gateway.admin).stdin(Stdio::null());
    command
}

async fn ran(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_operates_the_gateway_with_a_token_of_its_own() {
    let running = start().await;
    let home = tempfile::tempdir().unwrap();
    let token = running.administrator("ann", &["admins"]);
    let run = async |words: &[&str]| {
        let mut command = elsewhere(home.path(), &running);
        command.args(words).env("BAILIWICK_ADMIN_TOKEN", &token);
        ran(command).await
    };
    let status = run(&["status"]).await;
    assert!(status.status.success() && text(&status).contains("tools"), "{}", text(&status));
    let explained = run(&["explain", "tools/echo", "--as", "user:test/dora", "--group", "group:test/developers"]).await;
    assert!(explained.status.success() && text(&explained).contains("role:developer"), "{}", text(&explained));
    let refused = run(&["explain", "tools/echo", "--as", "user:test/otto"]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&run(&["who-can", "tools/echo"]).await).contains("group:test/developers"));
    assert!(text(&run(&["what-can", "group:test/operators"]).await).contains("bailiwick/revoke"));
    let revoked = run(&["revoke", "subject", "user:test/alice", "--note", "left"]).await;
    assert!(revoked.status.success(), "{}", text(&revoked));
    let held: Value = serde_json::from_slice(&run(&["revocations", "--json"]).await.stdout).unwrap();
    assert_eq!(held["revocations"][0]["value"], "alice");
    let since = held["revocations"][0]["since"].to_string();
    let lifted = run(&["lift", &since, "--note", "she is back"]).await;
    assert!(lifted.status.success(), "{}", text(&lifted));
    let again = run(&["lift", &since]).await;
    assert!(again.status.code() == Some(1) && text(&again).contains("target_unknown"), "{}", text(&again));
    assert!(run(&["reload"]).await.status.success());
    assert_eq!(run(&["shadow"]).await.status.code(), Some(1), "there are no next policies");
    let logs = run(&["logs"]).await;
    for told in ["revoke done by user:test/ann, subject test/alice", "lift done by user:test/ann"] {
        assert!(text(&logs).contains(told), "{}", text(&logs));
    }
    let records = run(&["logs", "--json", "-n", "3"]).await;
    let parsed = text(&records).lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count();
    assert_eq!(parsed, 3, "{}", text(&records));
    let alice = running.gateway.client(&running.issuer.token("alice", &["developers"], &running.gateway.resource()));
    for _ in 0..3 {
        alice.call_tool("tools__echo", json!({})).await;
    }
    let calls = text(&run(&["logs", "-n", "2", "--server", "tools"]).await);
    assert!(calls.lines().count() == 2 && calls.lines().all(|line| line.contains("tools/echo")), "{calls}");
    let note = &running.gateway.records("revocation").pop().unwrap()["revocation"];
    assert!(note.to_string().contains("she is back"), "{note}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_logs_in_with_a_code_on_another_device_and_operates_the_gateway() {
    let running = start().await;
    let home = tempfile::tempdir().unwrap();
    running.issuer.logs_in(running.issuer.administrator("ann", &["admins"], ""));
    let run = async |words: &[&str]| {
        let mut command = elsewhere(home.path(), &running);
        command.args(words);
        ran(command).await
    };
    let login = run(&["login", "--admin", &running.gateway.admin, "--client-id", "test-admin", "--device"]).await;
    assert!(login.status.success() && text(&login).contains("enter the code AB-CD"), "{}", text(&login));
    assert!(!text(&login).contains("eyJ"), "no token is printed");
    assert_eq!(running.issuer.asked().pop().unwrap()["resource"], running.gateway.admin, "it is for this listener");
    let revoked = run(&["revoke", "subject", "user:test/alice"]).await;
    assert!(revoked.status.success(), "{}", text(&revoked));
    let record = running.ended().pop().unwrap();
    assert_eq!((&record["actor"], &record["client"]), (&json!("user:test/ann"), &json!("test-admin")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_logs_in_and_a_login_that_is_not_recent_gives_nothing_back() {
    let running = start().await;
    let home = tempfile::tempdir().unwrap();
    let mut person = running.issuer.administrator("ann", &["admins"], "");
    person.as_object_mut().unwrap().remove("acr");
    running.issuer.logs_in(person);
    let nobody = ran({
        let mut command = elsewhere(home.path(), &running);
        command.arg("status");
        command
    })
    .await;
    assert_eq!(nobody.status.code(), Some(2));
    assert!(text(&nobody).contains("bailiwick login --admin"), "{}", text(&nobody));

    // The login page that the command asks to open, opened.
    let log_in = async |more: &[&str]| {
        let mut command = elsewhere(home.path(), &running);
        let words = ["login", "--admin", &running.gateway.admin, "--client-id", "test-admin", "--no-browser"];
        command.args(words).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let stderr = process.stderr.take().unwrap();
        let page = tokio::task::spawn_blocking(move || {
            use std::io::BufRead as _;
            let lines = std::io::BufReader::new(stderr).lines().map_while(Result::ok);
            lines.map(|line| line.trim().to_owned()).find(|line| line.contains("/authorize?")).unwrap()
        });
        let page = page.await.unwrap();
        assert!(reqwest::get(&page).await.unwrap().status().is_success());
        let output = tokio::task::spawn_blocking(move || process.wait_with_output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert!(!text(&output).contains("eyJ"), "no token is printed");
    };
    log_in(&[]).await;
    let asked = running.issuer.asked().pop().unwrap();
    assert_eq!((&asked["resource"], &asked["max_age"]), (&running.gateway.admin, &"0".to_owned()));
    let kept = std::fs::read_dir(home.path().join("bailiwick/logins")).unwrap().map(|entry| entry.unwrap().path());
    for file in kept {
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o077, 0, "{}", file.display());
    }
    let run = async |words: &[&str]| {
        let mut command = elsewhere(home.path(), &running);
        command.args(words);
        ran(command).await
    };
    assert!(run(&["status"]).await.status.success());
    let order = json!({ "target": "subject", "issuer": "test", "value": "alice" });
    let ann = running.administrator("ann", &["admins"]);
    running.post("/revoke", &ann, order).await;
    let refused = run(&["lift", "1"]).await;
    assert!(!refused.status.success(), "the login has no acr");
    assert!(text(&refused).contains("fresh login") && text(&refused).contains("login --admin"), "{}", text(&refused));
    log_in(&["--acr", "strong"]).await;
    let lifted = run(&["lift", "1"]).await;
    assert!(lifted.status.success(), "{}", text(&lifted));
    let out = run(&["logout", "--admin", &running.gateway.admin]).await;
    assert!(out.status.success(), "{}", text(&out));
    assert_eq!(run(&["status"]).await.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gives_something_back_is_done_from_elsewhere_with_a_login_of_a_moment_ago() {
    let issuer = crate::support::issuer::Issuer::start().await;
    let upstream = crate::support::scripted::Scripted::echo().await;
    let agents = "[agents.assistant]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\n\
                  environments = [\"development\"]\n[agents.bot]\nowner = \"user:test/owner\"\npurpose = \"works\"\n\
                  kind = \"autonomous\"\nenvironments = [\"development\"]\n\
                  clients = [{ issuer = \"test\", client_id = \"bot\", proof = \"private_key\" }]\n";
    let gateway = super::Setup::new(&issuer)
        .policy(&format!("{}{}", super::DEVELOPERS_MAY, super::RULES))
        .policy_file("agents.toml", agents)
        .http_server("tools", &upstream.url, "list_refresh_min = \"1ms\"")
        .admin(super::ADMIN)
        .start()
        .await;
    let running = Running { issuer, upstream, gateway };
    let home = tempfile::tempdir().unwrap();
    let run = async |words: &[&str]| {
        let mut command = elsewhere(home.path(), &running);
        command.args(words).env("BAILIWICK_ADMIN_TOKEN", running.administrator("owner", &["admins"]));
        let output = ran(command).await;
        assert!(output.status.success(), "{words:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let read = async |words: &[&str]| serde_json::from_str::<Value>(&run(words).await).unwrap();
    let alice = running.gateway.client(&running.issuer.token("alice", &["developers"], &running.gateway.resource()));
    let may = async || {
        let answer = alice.call_tool("tools__echo", json!({})).await;
        answer.status == 200 && answer.response().pointer("/result/content/0/text") == Some(&json!("{}"))
    };
    assert!(may().await);
    // An agent.
    run(&["agents", "suspend", "assistant"]).await;
    assert!(!may().await);
    run(&["agents", "resume", "assistant"]).await;
    run(&["agents", "attest", "assistant"]).await;
    run(&["agents", "attest", "tools", "--server"]).await;
    assert!(may().await);
    // Grants.
    let review = read(&["review", "open", "--json"]).await["id"].as_str().unwrap().to_owned();
    let report = read(&["review", "show", &review, "--json"]).await;
    let grants = report["grants"].as_array().unwrap();
    let call =
        grants.iter().find(|one| one["grant"]["subject"] == "agent:assistant" && one["grant"]["action"] == "call");
    let grant = call.unwrap_or_else(|| panic!("{report}"))["grant"]["id"].as_str().unwrap().to_owned();
    run(&["review", "end", &review, &grant]).await;
    assert!(!may().await);
    run(&["review", "restore", &grant]).await;
    assert!(may().await);
    run(&["review", "attest", &review, "--all"]).await;
    assert_eq!(read(&["review", "close", &review, "--json"]).await["grants"], 0, "all were attested");
    // A task, without a template.
    let opened =
        run(&["mandates", "open", "--agent", "bot", "--tool", "tools/echo", "--environment", "development"]).await;
    assert!(!opened.is_empty());
    // A definition that has changed.
    let mut changed = crate::support::scripted::tool("echo");
    changed["description"] = json!("other words");
    running.upstream.set_tools(json!([changed]));
    let within = std::time::Duration::from_secs(30);
    crate::support::eventually_within(within, "it to be kept back", async || {
        !alice.tool_names().await.contains(&"tools__echo".to_owned())
    })
    .await;
    run(&["pins", "accept", "--all", "tools", "--yes"]).await;
    crate::support::eventually_within(within, "it to be there again", async || {
        alice.tool_names().await.contains(&"tools__echo".to_owned())
    })
    .await;
}
