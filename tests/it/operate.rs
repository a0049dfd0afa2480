//! What an operator sees and relies on: metrics, readiness, permissions, the lock.

use std::os::unix::fs::PermissionsExt as _;

use bailiwick::control::Readiness;
use bailiwick::control::client::request;
use http::Method;
use serde_json::json;

use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

async fn start() -> (Issuer, Scripted, Gateway) {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    (issuer, upstream, gateway)
}

#[tokio::test]
async fn metrics_count_calls_and_refusals_and_show_who_is_well() {
    let (issuer, _upstream, gateway) = start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    client.call_tool("tools__echo", json!({})).await;
    client.call_tool("tools__absent", json!({})).await;
    let scrape = async || {
        let answer = request::<()>(&gateway.state(), Method::GET, "/metrics", None).await.unwrap();
        String::from_utf8(answer.body.to_vec()).unwrap()
    };
    let call = "bailiwick_calls_total{server=\"tools\",method=\"tools/call\",outcome=\"complete\"} 1";
    eventually("the call to be counted", async || scrape().await.contains(call)).await;
    let text = scrape().await;
    for line in [
        "bailiwick_refusals_total{reason=\"target_unknown\"} 1",
        "bailiwick_upstream_well{server=\"tools\"} 1",
        "bailiwick_journal_well 1",
        "bailiwick_revocation_epoch 0",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
}

#[tokio::test]
async fn readiness_names_what_is_down_and_stays_ready_without_one_server() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .http_server("gone", "http://127.0.0.1:9/mcp", "")
        .start()
        .await;
    // It is 503 until the issuer's keys are here.
    let readiness = async || -> Option<Readiness> {
        request::<()>(&gateway.state(), Method::GET, "/readyz", None).await.unwrap().read().ok()
    };
    let down = async || {
        readiness().await.is_some_and(|readiness| {
            readiness.checks.iter().any(|check| check.name == "server:gone" && !check.well && !check.detail.is_empty())
        })
    };
    eventually("the missing server to be named", down).await;
    assert!(readiness().await.is_some_and(|readiness| readiness.is_ready()));
    let probe = crate::support::client::Client::new(&format!("{}/readyz", gateway.url), None);
    assert_eq!(probe.bare(reqwest::Method::GET, &[]).await.status, 200);
}

#[tokio::test]
async fn the_state_directory_is_ours_alone_and_locked() {
    let (_issuer, _upstream, gateway) = start().await;
    let mode = |name: &str| std::fs::metadata(gateway.state().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    for name in ["control.sock", "store.sqlite", "keys/journal", "keys/seal"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    // A library that makes a file by itself asks for whatever it likes.
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process_id()));
    if cfg!(target_os = "linux") {
        assert!(status.unwrap().contains("Umask:\t0077\n"));
    }
    let second = bailiwick::store::StateDirectory::open(&gateway.state());
    assert!(second.is_err(), "two gateways must not share a state directory");
}

#[tokio::test]
async fn a_gateway_that_is_told_to_stop_before_it_serves_ends_in_order() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let mut gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").written();
    gateway.begin();
    // The first line it says; nothing is served yet.
    eventually("its first line", async || !gateway.log().is_empty()).await;
    let status = gateway.stop().await;
    assert!(status.success(), "{status}: {}", gateway.log());
    assert!(gateway.log().contains("stop"), "{}", gateway.log());
    gateway.launch().await;
}
