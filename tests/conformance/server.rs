//! The gateway as a server: the same sets against the fixture, and through the gateway in front of it.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::OnceCell;

use crate::expected::{compare, inexpressible};
use crate::parts::Parts;
use crate::suite::{self, Report, SETS, Set};
use crate::support::gateway::Setup;
use crate::upstream::{Fixture, gateway, stdio};

/// What the fixture passes by itself, set by set; found out once.
async fn direct(parts: &Parts) -> &'static [Report] {
    static FOUND: OnceCell<Vec<Report>> = OnceCell::const_new();
    FOUND
        .get_or_init(|| async {
            let fixture = Fixture::start(false);
            let mut reports = Vec::new();
            for set in SETS {
                reports.push(suite::server(parts, &fixture.url, set).await);
            }
            reports
        })
        .await
}

fn say(run: &str, set: Set, report: &Report, short: usize) {
    // Not `eprintln`, which the test runner keeps to itself when a test passes.
    let line = format!("conformance: {run}: {set:?}: {} passed, {short} short of the fixture\n", report.passed());
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

/// Runs sets against a URL and compares with the fixture by itself.
async fn through(parts: &Parts, run: &str, url: &str, legacy_upstream: bool, sets: &[Set]) {
    let direct = direct(parts).await;
    let (mut failing, mut ran) = (BTreeMap::new(), BTreeSet::new());
    for set in sets {
        let at = SETS.iter().position(|known| format!("{known:?}") == format!("{set:?}")).unwrap();
        let report = suite::server(parts, url, *set).await;
        let short = report.short_of(&direct[at]);
        say(run, *set, &report, short.len());
        ran.extend(direct[at].scenarios());
        failing.extend(short);
    }
    compare(run, legacy_upstream, &ran, failing);
}

/// What every pairing is measured by.
const REQUIRED: [Set; 3] = [Set::Required("2025-11-25"), Set::Required("2026-07-28"), Set::Skills];

#[tokio::test]
async fn the_fixture_by_itself_passes_everything() {
    let Some(parts) = Parts::installed() else { return };
    let reports = direct(&parts).await;
    for (set, report) in SETS.into_iter().zip(reports) {
        let failing = report.short_of(&Report::default());
        say("direct", set, report, failing.len());
        assert!(failing.is_empty(), "{set:?}: {failing:?}");
    }
    let passed: Vec<_> = reports.iter().map(Report::passed).collect();
    // 83 for 2025-11-25 and one more, because the fixture does close its stream in the middle of a call.
    assert_eq!(passed, [84, 197, 56, 84, 153, 45]);
}

#[tokio::test]
async fn what_a_legacy_fixture_passes_by_itself_is_not_excused_behind_the_gateway() {
    let Some(parts) = Parts::installed() else { return };
    let fixture = Fixture::start(true);
    let older = suite::server(&parts, &fixture.url, Set::Required("2025-11-25")).await;
    assert_eq!(older.short_of(&direct(&parts).await[0]).len(), 0, "it passes everything of its own revision");
    let newer = suite::server(&parts, &fixture.url, Set::Required("2026-07-28")).await;
    let short = newer.short_of(&direct(&parts).await[1]);
    for entry in inexpressible() {
        let fails = short.keys().any(|check| check.scenario == entry.scenario && check.id == entry.check);
        assert!(fails, "{} {} passes without the gateway", entry.scenario, entry.check);
    }
}

#[tokio::test]
async fn nothing_is_lost_in_front_of_a_modern_http_server() {
    let Some(parts) = Parts::installed() else { return };
    let fixture = Fixture::start(false);
    let gateway = gateway(|setup| setup.http_server("fixture", &fixture.url, VERBATIM)).await;
    through(&parts, "modern-http", &gateway.resource(), false, &SETS).await;
}

#[tokio::test]
async fn only_the_inexpressible_is_lost_in_front_of_a_legacy_http_server() {
    let Some(parts) = Parts::installed() else { return };
    let fixture = Fixture::start(true);
    let gateway = gateway(|setup| setup.http_server("fixture", &fixture.url, VERBATIM)).await;
    through(&parts, "legacy-http", &gateway.resource(), true, &REQUIRED).await;
}

#[tokio::test]
async fn nothing_is_lost_in_front_of_a_modern_stdio_server() {
    let Some(parts) = Parts::installed() else { return };
    let gateway = gateway(|setup| stdio_server(setup, false)).await;
    through(&parts, "modern-stdio", &gateway.resource(), false, &REQUIRED).await;
}

#[tokio::test]
async fn only_the_inexpressible_is_lost_in_front_of_a_legacy_stdio_server() {
    let Some(parts) = Parts::installed() else { return };
    let gateway = gateway(|setup| stdio_server(setup, true)).await;
    through(&parts, "legacy-stdio", &gateway.resource(), true, &REQUIRED).await;
}

#[tokio::test]
async fn nothing_is_lost_on_the_endpoint_of_one_server() {
    let Some(parts) = Parts::installed() else { return };
    let fixture = Fixture::start(false);
    // With the prefix that it has on the merged endpoint.
    let gateway = gateway(|setup| setup.http_server("fixture", &fixture.url, "")).await;
    let url = format!("{}/fixture", gateway.resource());
    through(&parts, "one-server", &url, false, &REQUIRED).await;
}

#[tokio::test]
async fn nothing_is_lost_on_an_endpoint_with_three_servers_behind_it() {
    let Some(parts) = Parts::installed() else { return };
    let fixture = Fixture::start(false);
    let notes = bailiwick::demo::upstreams::start("notes".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let deploy = bailiwick::demo::upstreams::start("deploy".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let (notes, deploy) = (notes.await.unwrap(), deploy.await.unwrap());
    let gateway = gateway(|setup| {
        setup.http_server("fixture", &fixture.url, VERBATIM).http_server("notes", &notes.url(), "").http_server(
            "deploy",
            &deploy.url(),
            "",
        )
    })
    .await;
    through(&parts, "merged", &gateway.resource(), false, &REQUIRED).await;
}

/// The suite asks for its fixtures by their own names.
const VERBATIM: &str = "prefix = \"none\"";

fn stdio_server(setup: Setup, legacy_only: bool) -> Setup {
    let command = stdio(legacy_only);
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    setup.stdio_server("fixture", &command, VERBATIM)
}
