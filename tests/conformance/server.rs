//! The gateway as a server: the same sets against the fixture, and through the gateway in front of it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use tokio::sync::OnceCell;

use crate::expected::{compare, inexpressible};
use crate::parts::Parts;
use crate::suite::{self, Report, SETS, Set};
use crate::support::gateway::{Gateway, Setup};
use crate::upstream::{Fixture, gateway, stdio};

/// What the fixture passes by itself, set by set; found out once.
async fn direct(parts: &Parts) -> &'static [Report] {
    static FOUND: OnceCell<Vec<Report>> = OnceCell::const_new();
    FOUND
        .get_or_init(|| {
            in_two_lanes(&SETS, |set| async move {
                let fixture = Fixture::start(false);
                suite::server(parts, &fixture.url, set).await
            })
        })
        .await
}

/// Runs the longest set beside the others: nearly all of the time is spent waiting, but some checks have windows of
/// half a second, so that more at once would be unfair to a machine with two cores.
async fn in_two_lanes<Running: Future<Output = Report>>(sets: &[Set], run: impl Fn(Set) -> Running) -> Vec<Report> {
    const LONGEST: Set = Set::Required("2026-07-28");
    let lane = async |longest: bool| {
        let mut reports = Vec::new();
        for (at, set) in sets.iter().enumerate().filter(|(_, set)| (**set == LONGEST) == longest) {
            reports.push((at, run(*set).await));
        }
        reports
    };
    let (mut reports, others) = tokio::join!(lane(true), lane(false));
    reports.extend(others);
    reports.sort_by_key(|(at, _)| *at);
    reports.into_iter().map(|(_, report)| report).collect()
}

fn say(run: &str, set: Set, report: &Report, short: usize) {
    // Not `eprintln`, which the test runner keeps to itself when a test passes.
    let line = format!("conformance: {run}: {set:?}: {} passed, {short} short of the fixture\n", report.passed());
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

/// Runs sets, each through a gateway of its own, and compares with the fixture by itself.
async fn through<Starting: Future<Output = Front>>(
    parts: &Parts,
    run: &str,
    legacy_upstream: bool,
    sets: &[Set],
    start: impl Fn() -> Starting,
) {
    let direct = direct(parts).await;
    let reports = in_two_lanes(sets, |set| {
        let starting = start();
        async move { suite::server(parts, &starting.await.url, set).await }
    });
    let (mut failing, mut ran) = (BTreeMap::new(), BTreeSet::new());
    for (set, report) in sets.iter().zip(reports.await) {
        let at = SETS.iter().position(|known| known == set).unwrap();
        let short = report.short_of(&direct[at]);
        say(run, *set, &report, short.len());
        ran.extend(direct[at].scenarios());
        failing.extend(short);
    }
    compare(run, legacy_upstream, &ran, failing);
}

/// A gateway and what stands behind it.
struct Front {
    url: String,
    _gateway: Gateway,
    _behind: Vec<Box<dyn std::any::Any>>,
}

async fn in_front_of_http(legacy_only: bool) -> Front {
    let fixture = Fixture::start(legacy_only);
    let gateway = gateway(|setup| setup.http_server("fixture", &fixture.url, VERBATIM)).await;
    Front { url: gateway.resource(), _gateway: gateway, _behind: vec![Box::new(fixture)] }
}

async fn in_front_of_stdio(legacy_only: bool) -> Front {
    let gateway = gateway(|setup| stdio_server(setup, legacy_only)).await;
    Front { url: gateway.resource(), _gateway: gateway, _behind: Vec::new() }
}

/// At the endpoint of one server, with the prefix that it has on the merged one.
async fn at_its_own_endpoint(legacy_only: bool) -> Front {
    let fixture = Fixture::start(legacy_only);
    let gateway = gateway(|setup| setup.http_server("fixture", &fixture.url, "pins = \"off\"")).await;
    let url = format!("{}/fixture", gateway.resource());
    Front { url, _gateway: gateway, _behind: vec![Box::new(fixture)] }
}

/// At the endpoint of all servers, of which two are others.
async fn among_others(legacy_only: bool) -> Front {
    let fixture = Fixture::start(legacy_only);
    let sample = |name: &str| bailiwick::demo::upstreams::start(name.parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let (notes, deploy) = (sample("notes").await.unwrap(), sample("deploy").await.unwrap());
    let gateway = gateway(|setup| {
        let setup = setup.http_server("fixture", &fixture.url, VERBATIM);
        setup.http_server("notes", &notes.url(), "").http_server("deploy", &deploy.url(), "")
    })
    .await;
    let behind: Vec<Box<dyn std::any::Any>> = vec![Box::new(fixture), Box::new(notes), Box::new(deploy)];
    Front { url: gateway.resource(), _gateway: gateway, _behind: behind }
}

/// What a legacy upstream is measured by; everything else by all there is.
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
    through(&parts, "modern-http", false, &SETS, || in_front_of_http(false)).await;
}

#[tokio::test]
async fn only_the_inexpressible_is_lost_in_front_of_a_legacy_http_server() {
    let Some(parts) = Parts::installed() else { return };
    through(&parts, "legacy-http", true, &REQUIRED, || in_front_of_http(true)).await;
}

#[tokio::test]
async fn nothing_is_lost_in_front_of_a_modern_stdio_server() {
    let Some(parts) = Parts::installed() else { return };
    through(&parts, "modern-stdio", false, &SETS, || in_front_of_stdio(false)).await;
}

#[tokio::test]
async fn only_the_inexpressible_is_lost_in_front_of_a_legacy_stdio_server() {
    let Some(parts) = Parts::installed() else { return };
    through(&parts, "legacy-stdio", true, &REQUIRED, || in_front_of_stdio(true)).await;
}

#[tokio::test]
async fn nothing_is_lost_on_the_endpoint_of_one_server() {
    let Some(parts) = Parts::installed() else { return };
    through(&parts, "one-server", false, &SETS, || at_its_own_endpoint(false)).await;
}

#[tokio::test]
async fn only_the_inexpressible_is_lost_on_the_endpoint_of_one_legacy_server() {
    let Some(parts) = Parts::installed() else { return };
    through(&parts, "one-server-legacy", true, &REQUIRED, || at_its_own_endpoint(true)).await;
}

#[tokio::test]
async fn nothing_is_lost_on_an_endpoint_with_three_servers_behind_it() {
    let Some(parts) = Parts::installed() else { return };
    through(&parts, "merged", false, &SETS, || among_others(false)).await;
}

#[tokio::test]
async fn only_the_inexpressible_is_lost_on_an_endpoint_where_a_legacy_server_is_one_of_three() {
    let Some(parts) = Parts::installed() else { return };
    through(&parts, "merged-legacy", true, &REQUIRED, || among_others(true)).await;
}

/// The suite asks for its fixtures by their own names. It adds definitions as it goes, and nobody is there to accept them.
const VERBATIM: &str = "prefix = \"none\"\npins = \"off\"";

fn stdio_server(setup: Setup, legacy_only: bool) -> Setup {
    let command = stdio(legacy_only);
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    // A process for each caller, whose list is that process's own.
    setup.stdio_server("fixture", &command, &format!("{VERBATIM}\nlist_as = \"caller\""))
}
