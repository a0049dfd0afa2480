//! `bailiwick doctor`: what is wrong is found, and what to type is said.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

async fn start() -> (Issuer, Scripted, Gateway) {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    (issuer, upstream, gateway)
}

/// Runs it in the gateway's directory with something on standard input; the issuer goes on answering meanwhile.
async fn doctor(gateway: &Gateway, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bailiwick"));
    command.arg("doctor").args(arguments).current_dir(gateway.state().parent().unwrap());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

async fn report(gateway: &Gateway, arguments: &[&str], input: &str) -> (Option<i32>, Value) {
    let output = doctor(gateway, &[arguments, &["--json"]].concat(), input).await;
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), report)
}

/// The findings of one group under one name, as `mark: found -> fix`.
fn found(report: &Value, group: &str, name: &str) -> Vec<String> {
    let groups = report["groups"].as_array().unwrap();
    let Some(group) = groups.iter().find(|own| own["name"] == group) else { return Vec::new() };
    let named = group["findings"].as_array().unwrap().iter().filter(|finding| finding["name"] == name);
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    named.map(|own| format!("{}: {} -> {}", text(own, "mark"), text(own, "found"), text(own, "fix"))).collect()
}

fn only(report: &Value, group: &str, name: &str) -> String {
    let mut all = found(report, group, name);
    assert_eq!(all.len(), 1, "{group}/{name}: {all:?} in {report:#}");
    all.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_runs_well_is_found_well_and_its_text_fits_the_screen() {
    let (issuer, _upstream, gateway) = start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    let (code, report) = report(&gateway, &["--token", "-"], &token).await;
    assert_eq!((code, report["ok"].as_bool()), (Some(0), Some(true)), "{report:#}");
    for (group, name) in [
        ("gateway", "process"),
        ("gateway", "readiness"),
        ("clock", "test"),
        ("metadata", "path"),
        ("metadata", "root"),
        ("metadata", "challenge"),
        ("token", "token"),
        ("servers", "tools"),
        ("state", "directory"),
        ("state", "lock"),
        ("state", "journal"),
        ("state", "room"),
        ("files", "policies"),
    ] {
        // How full this machine's disk is, is not ours to say.
        assert!(only(&report, group, name).starts_with("ok") || name == "room", "{group}/{name}: {report:#}");
    }
    assert!(only(&report, "token", "token").contains("user:test/alice with agent assistant"), "{report:#}");
    let issuer_found = found(&report, "issuers", "test").join("\n");
    assert!(issuer_found.contains("ES256") && issuer_found.contains("PKCE with S256"), "{issuer_found}");

    let output = doctor(&gateway, &[], "").await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("ok    tools"), "{text}");
    // A word that is longer than its place, an address, is not broken.
    let breakable = |line: &&str| line.split_whitespace().all(|word| word.len() <= 80 - 24);
    let long: Vec<_> = text.lines().filter(|line| line.chars().count() > 80).filter(breakable).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_explained_and_never_shown() {
    let (issuer, _upstream, gateway) = start().await;
    let good = |change: &dyn Fn(&mut Value)| {
        let mut claims = issuer.claims("alice", &["developers"], &gateway.resource());
        change(&mut claims);
        issuer.sign(&claims)
    };
    let now = jiff::Timestamp::now().as_second();
    let cases = [
        (
            good(&|claims| claims["aud"] = json!("https://other.example/api")),
            "audience_mismatch",
            "audiences = [\"https://other.example/api\"] in [issuers.test]",
        ),
        (
            good(&|claims| claims["iss"] = json!("https://elsewhere.example")),
            "issuer_unknown",
            "https://elsewhere.example",
        ),
        (good(&|claims| claims["exp"] = json!(now - 1000)), "token_expired", "get a new one"),
        (good(&|claims| claims["iat"] = json!(now + 1000)), "token_not_yet_valid", "leeway in [issuers.test]"),
        (
            good(&|claims| claims["exp"] = json!(now + 100_000)),
            "token_lifetime_exceeded",
            "token_life_max in [issuers.test]",
        ),
        (
            good(&|claims| drop(claims.as_object_mut().unwrap().remove("jti"))),
            "claim_missing",
            "optional_claims in [issuers.test]",
        ),
        (good(&|claims| claims["cnf"] = json!({"jkt": "x"})), "token_bound", "bearer"),
        (
            issuer
                .sign_with(&issuer.claims("a", &[], &gateway.resource()), |header| header.typ = Some("JWT".to_owned())),
            "token_type_refused",
            "token_types = [\"at+jwt\", \"JWT\"]",
        ),
        (
            issuer
                .sign_with(&issuer.claims("a", &[], &gateway.resource()), |header| header.kid = Some("k9".to_owned())),
            "signature_invalid",
            "kid k9",
        ),
        ("opaque-reference-4711".to_owned(), "not a JWT", "RFC 9068"),
    ];
    for (token, reason, fix) in cases {
        let output = doctor(&gateway, &["--token", "-", "--json"], &format!("{token}\n")).await;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let said = only(&report, "token", "token");
        assert!(said.starts_with("bad") && said.contains(reason) && said.contains(fix), "{said}");
        assert_eq!(output.status.code(), Some(1));
        let all = String::from_utf8_lossy(&output.stdout).into_owned() + &*String::from_utf8_lossy(&output.stderr);
        for part in token.split('.').filter(|part| part.len() > 8) {
            assert!(!all.contains(part), "a part of the token is shown: {all}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_revoked_is_known_from_the_gateway_that_runs() {
    let (issuer, _upstream, gateway) = start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    assert!(gateway.command(&["revoke", "subject", "user:test/alice"]).status.success());
    let (code, report) = report(&gateway, &["--token", "-"], &token).await;
    let said = only(&report, "token", "token");
    assert!(code == Some(1) && said.contains("refused: revoked"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_while_no_gateway_runs_and_names_what_is_down() {
    let issuer = Issuer::start().await;
    let mut gateway = Setup::new(&issuer)
        .http_server("gone", "http://127.0.0.1:9/mcp", "")
        .stdio_server("absent", &["/no/such/program"], "")
        .http_server("keyed", "http://127.0.0.1:9/mcp", "credential = { kind = \"static\", secret = \"file:key\" }\n")
        .start()
        .await;
    gateway.stop().await;
    let (code, report) = report(&gateway, &[], "").await;
    assert_eq!((code, report["ok"].as_bool()), (Some(1), Some(false)));
    assert!(only(&report, "gateway", "process").contains("none runs"), "{report:#}");
    assert!(only(&report, "metadata", "public_url").ends_with("-> bailiwick serve"), "{report:#}");
    let gone = only(&report, "servers", "gone");
    assert!(gone.starts_with("bad") && gone.contains("curl -v http://127.0.0.1:9/mcp"), "{gone}");
    let absent = only(&report, "servers", "absent");
    assert!(absent.starts_with("bad") && absent.contains("/no/such/program"), "{absent}");
    let keyed = only(&report, "servers", "keyed");
    assert!(keyed.starts_with("bad") && keyed.contains("no credential"), "{keyed}");
    assert!(only(&report, "files", "servers.keyed").contains("install -m 600"), "{report:#}");
    assert!(only(&report, "state", "journal").contains("whole up to record"), "{report:#}");
    assert!(only(&report, "state", "lock").contains("free"), "{report:#}");
    // Nothing was changed by looking, and nothing is left of what it started.
    let temporary = gateway.state().parent().unwrap().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let looked = tokio::process::Command::new(env!("CARGO_BIN_EXE_bailiwick"))
        .arg("doctor")
        .current_dir(temporary.parent().unwrap())
        .env("TMPDIR", &temporary)
        .output()
        .await
        .unwrap();
    assert_eq!(looked.status.code(), Some(1));
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
    gateway.launch().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_newer_than_what_is_served_are_named() {
    let (_issuer, _upstream, gateway) = start().await;
    gateway.write_policy(&format!("{DEVELOPERS_MAY}p, role:developer, *, tools/erase, call, -, deny\n"));
    let (_, report) = report(&gateway, &[], "").await;
    assert!(only(&report, "gateway", "revision").ends_with("-> bailiwick reload"), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_asked_wrongly_ends_with_2_and_repeats_no_token() {
    let (_issuer, _upstream, gateway) = start().await;
    let typed = doctor(&gateway, &["--token", "eyJhbGciOi.typed.here"], "").await;
    assert_eq!(typed.status.code(), Some(2));
    assert!(!String::from_utf8_lossy(&typed.stderr).contains("typed.here"));
    assert_eq!(doctor(&gateway, &["--token", "-"], "").await.status.code(), Some(2), "no token came");
    assert_eq!(doctor(&gateway, &["-c", "absent.toml"], "").await.status.code(), Some(2));
}
