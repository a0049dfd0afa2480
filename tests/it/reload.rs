//! Files are read again as one set: narrowing at once, widening only on demand, a mistake never.

use serde_json::json;

use crate::support::eventually;
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

const DENY: &str = "p, anyone, *, tools/echo, call, -, deny\n";

async fn start(rules: &str) -> (Issuer, Scripted, Gateway) {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").policy(rules).start().await;
    (issuer, upstream, gateway)
}

#[tokio::test]
async fn a_set_that_only_narrows_is_in_force_at_once() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "").policy(DEVELOPERS_MAY);
    let limits = "requests_burst = 10000\n[keys]\nseal = ['exec:[\"/bin/sh\", \"policies/key\"]']";
    let key = format!("while [ -e policies/wait ]; do sleep 0.05; done; echo {}", "11".repeat(32));
    let gateway = setup.limits(limits).policy_file("key", &key).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(client.call_tool("tools__echo", json!({})).await.tool_text(), "{}");
    gateway.write_policy(&format!("{DEVELOPERS_MAY}{DENY}"));
    // The place where a key is kept does not answer.
    let wait = gateway.place().join("policies/wait");
    std::fs::write(&wait, "").unwrap();
    let mut reload = std::process::Command::new(env!("CARGO_BIN_EXE_bailiwick"));
    let mut reload = reload.arg("reload").current_dir(gateway.place()).spawn().unwrap();
    eventually("it to be refused", async || client.tool_names().await.is_empty()).await;
    assert_eq!(client.call_tool("tools__echo", json!({})).await.error_code(), -32602);
    assert!(reload.try_wait().unwrap().is_none(), "the key was waited for");
    std::fs::remove_file(wait).unwrap();
    assert!(reload.wait().unwrap().success());
    assert_eq!(upstream.calls().len(), 1);
    let record = &gateway.records("reload")[0];
    assert!(record.to_string().contains("tools/echo"), "the rows that changed are recorded: {record}");
}

#[tokio::test]
async fn a_set_that_widens_needs_to_be_told_so() {
    let (issuer, _upstream, gateway) = start(&format!("{DEVELOPERS_MAY}{DENY}")).await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    gateway.write_policy(DEVELOPERS_MAY);
    let refused = gateway.command(&["reload"]);
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stdout));
    assert!(client.tool_names().await.is_empty(), "nothing was changed");
    assert!(gateway.command(&["reload", "--allow-widening"]).status.success());
    assert_eq!(client.tool_names().await, ["tools__echo"]);
}

#[tokio::test]
async fn a_set_with_a_mistake_changes_nothing_and_is_reported_with_its_place() {
    let (issuer, _upstream, gateway) = start(DEVELOPERS_MAY).await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    gateway.write_policy(&format!("{DEVELOPERS_MAY}p, anyone, *, tools/echo, call, -, Deny\n"));
    let output = gateway.command(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("policy.csv:8:"), "{said}");
    assert_eq!(client.tool_names().await, ["tools__echo"]);
}

#[tokio::test]
async fn a_new_deny_ends_the_calls_that_it_means_and_leaves_the_others_under_way() {
    let (issuer, upstream, gateway) = start(DEVELOPERS_MAY).await;
    upstream.mute("echo");
    let call = |user: &str| {
        let client = gateway.client(&issuer.token(user, &["developers"], &gateway.resource()));
        tokio::spawn(async move { client.call_tool("tools__echo", json!({})).await })
    };
    let (alice, bob) = (call("alice"), call("bob"));
    eventually("both to reach their server", async || upstream.calls().len() == 2).await;
    gateway.write_policy(&format!("{DEVELOPERS_MAY}p, user:test/alice, *, tools/echo, call, -, deny\n"));
    assert!(gateway.command(&["reload"]).status.success());
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), alice).await.expect("it goes on").unwrap();
    assert!(ended.text.contains("denied_by_rule"), "{}", ended.text);
    upstream.mute("");
    assert_eq!(bob.await.unwrap().tool_text(), "{}");
    let how = |user: &str| {
        let intents = gateway.records("intent");
        let of = format!("user:test/{user}");
        let intent = intents.iter().find(|intent| intent["subject"]["id"] == of).unwrap().clone();
        let ends = gateway.records("result");
        ends.iter().find(|end| end["leg"] == intent["leg"]).map(|end| end["result"]["outcome"].clone())
    };
    eventually("the record", async || how("alice").is_some() && how("bob").is_some()).await;
    assert_eq!(how("alice"), Some(json!("unknown")), "it may have acted");
}

#[tokio::test]
async fn hangup_reloads_too() {
    let (issuer, _upstream, gateway) = start(DEVELOPERS_MAY).await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(client.tool_names().await, ["tools__echo"]);
    gateway.write_policy(&format!("{DEVELOPERS_MAY}{DENY}"));
    gateway.signal("HUP");
    crate::support::eventually("the new rules", async || client.tool_names().await.is_empty()).await;
}

#[tokio::test]
async fn a_file_beside_the_set_reloads_nothing() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "").policy(DEVELOPERS_MAY);
    let gateway = setup.gateway("reload = \"watch\"\n").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(client.tool_names().await, ["tools__echo"]);
    // Such as what the gateway exports there itself: each record would be a reason for the next.
    for count in 0..5 {
        std::fs::write(gateway.directory().join("exported.jsonl"), format!("{count}\n")).unwrap();
        tokio::time::sleep(bailiwick::limit::WATCH_FILES_DEBOUNCE).await;
    }
    gateway.write_policy(&format!("{DEVELOPERS_MAY}{DENY}"));
    crate::support::eventually("the new rules", async || client.tool_names().await.is_empty()).await;
    assert_eq!(gateway.records("reload").len(), 1, "{:?}", gateway.records("reload"));
}

#[tokio::test]
async fn a_sealed_set_widens_without_being_told_so() {
    let (issuer, _upstream, gateway) = start(&format!("{DEVELOPERS_MAY}{DENY}")).await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    gateway.write_policy(DEVELOPERS_MAY);
    assert!(gateway.command(&["check", "--seal"]).status.success());
    let output = gateway.command(&["reload"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(client.tool_names().await, ["tools__echo"]);
}

#[tokio::test]
async fn a_set_that_differs_from_its_seal_never_widens_and_says_what_to_do() {
    let (issuer, _upstream, gateway) = start(&format!("{DEVELOPERS_MAY}{DENY}")).await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert!(gateway.command(&["check", "--seal"]).status.success());
    gateway.write_policy(DEVELOPERS_MAY);
    for words in [&["reload"][..], &["reload", "--allow-widening"]] {
        let output = gateway.command(words);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("policies/REVISION") && said.contains("bailiwick check --seal"), "{said}");
    }
    assert!(client.tool_names().await.is_empty(), "nothing was changed");
    let checked = gateway.command(&["check"]);
    assert_eq!(checked.status.code(), Some(1), "check says what a start would say");
    assert!(String::from_utf8_lossy(&checked.stderr).contains("policies/REVISION"));
}

#[tokio::test]
async fn a_broken_seal_does_not_hold_the_brake_back_but_the_next_start() {
    let (issuer, _upstream, mut gateway) = start(DEVELOPERS_MAY).await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert!(gateway.command(&["check", "--seal"]).status.success());
    gateway.write_policy(&format!("{DEVELOPERS_MAY}{DENY}"));
    let output = gateway.command(&["reload"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("the next start is refused") && said.contains("bailiwick check --seal"), "{said}");
    assert!(client.tool_names().await.is_empty(), "the brake works");
    assert!(gateway.stop().await.success());
    let started = gateway.command(&["serve"]);
    assert_eq!(started.status.code(), Some(1));
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(said.contains("policies/REVISION") && said.contains("bailiwick check --seal"), "{said}");
    assert!(gateway.command(&["check", "--seal"]).status.success());
    gateway.launch().await;
}

#[tokio::test]
async fn nothing_is_sealed_that_has_a_mistake() {
    let (_issuer, _upstream, gateway) = start(DEVELOPERS_MAY).await;
    gateway.write_policy(&format!("{DEVELOPERS_MAY}p, anyone, *, tools/echo, call, -, Deny\n"));
    assert_eq!(gateway.command(&["check", "--seal"]).status.code(), Some(1));
    assert!(!gateway.state().with_file_name("policies").join("REVISION").exists());
}

#[tokio::test]
async fn every_row_that_comes_or_goes_is_printed_and_on_the_record_with_both_revisions() {
    let (_issuer, _upstream, gateway) = start(DEVELOPERS_MAY).await;
    let place = gateway.state().parent().unwrap().to_owned();
    let edit = |name: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(place.join(name)).unwrap();
        assert!(text.contains(from), "{name}: {text}");
        std::fs::write(place.join(name), text.replace(from, to)).unwrap();
    };
    edit("servers.toml", "allow_private = true", "allow_private = true\non_down = \"7m\"");
    edit("policies/agents.toml", "purpose = \"tests\"", "purpose = \"more tests\"");
    edit("policies/policy.csv", "group:test/developers", "group:test/operators");
    edit("policies/policy.csv", "p, role:developer, *, */*, get, -, allow\n", "");
    std::fs::write(place.join("policies/conditions.toml"), "[small]\nargument = \"amount\"\nat_most = 5\n").unwrap();
    let output = gateway.command(&["reload", "--allow-widening"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    let record = gateway.records("reload").remove(0)["reload"].take();
    for row in [
        "+ servers.toml: servers.tools.on_down = \"7m\"",
        "- policies/agents.toml: agents.assistant.purpose = \"tests\"",
        "+ policies/agents.toml: agents.assistant.purpose = \"more tests\"",
        "- policies/policy.csv: g, group:test/developers, role:developer, *",
        "- role:developer may get */* in every environment",
        "+ policies/conditions.toml: small.at_most = 5",
    ] {
        assert!(said.contains(row), "{row} is not in\n{said}");
        assert!(record["rows"].as_array().unwrap().iter().any(|recorded| recorded == row), "{row}: {record}");
    }
    let revision = |key: &str| record[key].as_str().unwrap()[..12].to_owned();
    assert!(said.contains(&format!("revision {} -> {}", revision("from"), revision("to"))), "{said}\n{record}");
}

const OTHER: &str = "[servers.other]\nowner = \"user:test/carl\"\nenvironment = \"staging\"\nurl = \"http://127.0.0.1:9/mcp\"\nallow_private = true\n";
const BOT: &str = "\
[agents.bot]
owner = \"user:test/owner\"
purpose = \"tests\"
kind = \"interactive\"
environments = [\"development\", \"staging\"]
clients = [{ issuer = \"test\", client_id = \"bot\" }]
[agents.assistant]
owner = \"user:test/owner\"
purpose = \"tests\"
kind = \"interactive\"
environments = [\"development\"]
";

/// Edits a file of the gateway's, and reloads it without a further word; what was said, where it was refused.
fn reloaded(gateway: &Gateway, name: &str, from: &str, to: &str) -> Result<(), String> {
    let path = gateway.place().join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{name}: {text}");
    std::fs::write(&path, text.replace(from, to)).unwrap();
    let output = gateway.command(&["reload"]);
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stdout).into_owned()) }
}

#[tokio::test]
async fn what_is_taken_away_is_gone_at_once_also_where_the_socket_may_not_widen() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let deny = "p, anyone, *, other/*, call, -, deny\n";
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .sections(OTHER)
        .policy(&format!("{DEVELOPERS_MAY}{deny}"))
        .policy_file("agents.toml", BOT)
        .admin("clients = [{ issuer = \"test\", client_id = \"test-admin\" }]")
        .start()
        .await;
    let (agents, servers) = ("policies/agents.toml", "servers.toml");
    assert_eq!(reloaded(&gateway, agents, ", \"staging\"", ""), Ok(()), "an environment of an agent");
    let path = gateway.place().join("policies/policy.csv");
    std::fs::write(&path, DEVELOPERS_MAY).unwrap();
    assert_eq!(reloaded(&gateway, servers, OTHER, ""), Ok(()), "a server, with the rows that spoke of it");
    // Whoever is nobody's client is let in as the assistant: that is not less than the bot.
    let bot = BOT[..BOT.find("[agents.assistant]").unwrap()].replace(", \"staging\"", "");
    let refused = reloaded(&gateway, agents, &bot, "").unwrap_err();
    assert!(refused.contains("--allow-widening"), "{refused}");
}

#[tokio::test]
async fn another_owner_is_another_word_and_brings_nothing_back_that_went_with_the_old_one() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let owned = OTHER.replace("http://127.0.0.1:9/mcp", &upstream.url).replace("staging", "development");
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").sections(&owned).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let both = async || client.tool_names().await == ["tools__echo", "other__echo"];
    crate::support::eventually("both", both).await;
    assert!(gateway.command(&["revoke", "owner", "user:test/carl", "--config", "servers.toml"]).status.success());
    assert_eq!(client.tool_names().await, ["tools__echo"]);
    let refused = reloaded(&gateway, "servers.toml", "user:test/carl", "user:test/mallory").unwrap_err();
    assert!(refused.contains("--allow-widening"), "{refused}");
    assert_eq!(client.tool_names().await, ["tools__echo"], "nothing was changed");
    assert!(gateway.command(&["reload", "--allow-widening"]).status.success());
    let both = async || client.tool_names().await == ["tools__echo", "other__echo"];
    crate::support::eventually("what somebody else answers for", both).await;
}

#[tokio::test]
async fn a_brake_that_changes_why_something_is_refused_works_and_says_what_the_next_start_wants() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let test = |object: &str, reason: &str| {
        format!("[[test]]\nuser = \"user:test/eve\"\nobject = \"{object}\"\nexpect = \"deny\"\nreason = \"{reason}\"\n")
    };
    let allows = "[[test]]\nuser = \"user:test/dora\"\ngroups = [\"group:test/developers\"]\nobject = \"tools/echo\"\nexpect = \"allow\"\n";
    let tests = format!("{}{}{allows}", test("tools/echo", "not_allowed"), test("other/echo", "not_allowed"));
    let mut gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .sections(OTHER)
        .policy_file("tests.toml", &tests)
        .start()
        .await;
    let well = async |gateway: &Gateway| {
        use bailiwick::control::client::request;
        let answer = request::<()>(&gateway.state(), http::Method::GET, "/metrics", None).await.unwrap();
        String::from_utf8(answer.body.to_vec()).unwrap().contains("bailiwick_files_well 1\n")
    };
    assert!(well(&gateway).await);
    gateway.write_policy(&format!("{DEVELOPERS_MAY}{DENY}"));
    let path = gateway.place().join("servers.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(OTHER, "")).unwrap();
    let output = gateway.command(&["reload"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    for told in [
        "tests.toml:1: ``: expected another reason, got denied_by_rule",
        "tests.toml:6: ``: there is no server",
        "tests.toml:11: ``",
    ] {
        assert!(said.lines().any(|line| line.contains("the next start is refused") && line.contains(told)), "{said}");
    }
    assert!(!well(&gateway).await, "somebody is told of it");
    assert!(gateway.stop().await.success());
    assert_eq!(gateway.command(&["serve"]).status.code(), Some(1));
    std::fs::write(gateway.place().join("policies/tests.toml"), test("tools/echo", "denied_by_rule")).unwrap();
    gateway.launch().await;
    assert!(well(&gateway).await);
}

const ADMIN: &str = "clients = [{ issuer = \"test\", client_id = \"test-admin\" }]\nacr = [\"strong\"]";

#[tokio::test]
async fn what_runs_and_who_is_believed_changes_on_an_administrators_word_alone() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let rules = format!("{DEVELOPERS_MAY}p, user:test/ann, *, bailiwick/*, admin, -, allow\n");
    let gateway = Setup::new(&issuer)
        .policy(&rules)
        .http_server("tools", &upstream.url, "")
        .stdio_server("child", &["/bin/cat"], "sandbox = \"none\"")
        .admin(ADMIN)
        .start()
        .await;
    let path = gateway.place().join("servers.toml");
    let refused = |count: usize| {
        let reloads = gateway.records("reload");
        reloads.len() == count && reloads.last().is_some_and(|reload| reload["reload"]["outcome"] == "refused")
    };
    let command = |text: &str| text.replace("\"/bin/cat\"", "\"/bin/cat\", \"-u\"");
    let believed = |text: &str| format!("{text}\n[issuers.second]\nissuer = \"http://127.0.0.1:9\"\n");
    let reloads = &mut 0;
    for change in [&command as &dyn Fn(&str) -> String, &believed] {
        std::fs::write(&path, change(&std::fs::read_to_string(&path).unwrap())).unwrap();
        gateway.signal("HUP");
        *reloads += 1;
        eventually("the signal to be refused", async || refused(*reloads)).await;
        let at_socket = gateway.command(&["reload", "--allow-widening"]);
        let said = String::from_utf8_lossy(&at_socket.stderr).into_owned();
        assert!(at_socket.status.code() == Some(1) && said.contains("administrator_required"), "{said}");
        let narrow = gateway.command(&["reload"]);
        *reloads += 1;
        assert!(narrow.status.code() == Some(1) && refused(*reloads), "{narrow:?}");
        let ann = issuer.sign(&issuer.administrator("ann", &[], &gateway.admin));
        let client = crate::support::client::Client::new(&format!("{}/api/v1/reload", gateway.admin), Some(&ann));
        let answer = client.post(&[], json!({ "allow_widening": true }).to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        *reloads += 1;
        assert_eq!(gateway.records("reload").pop().unwrap()["reload"]["outcome"], "loaded");
    }
}

#[tokio::test]
async fn a_file_that_changes_is_nobodys_word_that_somebody_may_do_more() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "").policy(&format!("{DEVELOPERS_MAY}{DENY}"));
    let gateway = setup.gateway("reload = \"watch\"\n").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    // Until the watch has begun nothing is seen.
    for _ in 0..20 {
        gateway.write_policy(DEVELOPERS_MAY);
        tokio::time::sleep(3 * bailiwick::limit::WATCH_FILES_DEBOUNCE).await;
        if !gateway.records("reload").is_empty() {
            break;
        }
    }
    assert!(gateway.log().contains("type `bailiwick reload --allow-widening`"), "{}", gateway.log());
    assert!(client.tool_names().await.is_empty(), "nothing was changed");
    // What lies beside the files does not have them tried again.
    std::fs::write(gateway.place().join("exported.jsonl"), "1\n").unwrap();
    tokio::time::sleep(2 * bailiwick::limit::WATCH_FILES_DEBOUNCE).await;
    assert_eq!(gateway.records("reload").len(), 1);
    assert!(gateway.command(&["check", "--seal"]).status.success());
    crate::support::eventually("what was sealed", async || client.tool_names().await == ["tools__echo"]).await;
    gateway.write_policy(&format!("{DEVELOPERS_MAY}{DENY}"));
    crate::support::eventually("the brake", async || client.tool_names().await.is_empty()).await;
}
