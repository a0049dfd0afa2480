//! What gates can be.

use super::super::{Text, gate};
use super::{AGENTS, Mistake, SMALLEST, config, lines, mistakes, today};
use crate::config::GateConfig;
use crate::limit;

fn read(text: &str) -> Result<(Vec<GateConfig>, Vec<Mistake>), String> {
    let text = Text { file: "policies/gates.toml", text };
    let parsed = gate::parse(text, &config(SMALLEST), &today()).map_err(|mistakes| lines(&mistakes));
    parsed.map(|parsed| (parsed.gates, parsed.warnings))
}

fn gate(more: &str) -> String {
    format!("[gates.a]\nobjects = [\"notes/*\"]\napprovers = [\"owner\"]\n{more}\n")
}

#[test]
fn what_is_not_written_has_its_default() {
    assert!(AGENTS.contains("assistant"));
    let (gates, warnings) = read(&gate("")).unwrap();
    let gate = &gates[0];
    assert_eq!((gate.approvals, gate.pending_for.as_secs(), gate.approved_for.as_secs()), (1, 900, 300));
    assert_eq!((gate.actions.as_slice(), gate.irreversible), (["call".to_owned()].as_slice(), false));
    assert!(warnings[0].message.contains("no [admin]"), "{warnings:?}");
}

#[test]
fn a_gate_that_nobody_can_open_is_warned_of() {
    let warned = |admin: &str| {
        let servers = format!("{SMALLEST}[admin]\nlisten = \"127.0.0.1:9443\"\n{admin}");
        let text = gate("");
        let text = Text { file: "policies/gates.toml", text: &text };
        let parsed = gate::parse(text, &config(&servers), &today()).map_err(|mistakes| lines(&mistakes));
        lines(&parsed.unwrap().warnings)
    };
    let client = |more: &str| format!("clients = [{{ issuer = \"corp\", client_id = \"cli\"{more} }}]\n");
    assert!(warned(&client("")).contains("no [admin.console], and no client that `approves`"));
    let console = "public_url = \"https://admin.example.com\"\n[admin.console]\nissuer = \"corp\"\nclient_id = \"c\"\n";
    for good in [client(", approves = true").as_str(), console] {
        assert!(!warned(good).contains("no client"), "{good}");
    }
}

#[test]
fn every_number_of_a_gate_has_its_most() {
    let seconds = |most: std::time::Duration, more: u64| format!("\"{}s\"", most.as_secs() + more);
    for (key, well, too_much) in [
        ("approvals", limit::GATE_APPROVALS_MAX.to_string(), (limit::GATE_APPROVALS_MAX + 1).to_string()),
        ("pending_for", seconds(limit::GATE_PENDING_MAX, 0), seconds(limit::GATE_PENDING_MAX, 1)),
        ("approved_for", seconds(limit::GATE_APPROVED_MAX, 0), seconds(limit::GATE_APPROVED_MAX, 1)),
    ] {
        assert!(read(&gate(&format!("{key} = {well}"))).is_ok(), "{key}");
        assert!(read(&gate(&format!("{key} = {too_much}"))).is_err(), "{key}");
    }
    assert!(read(&gate("approvals = 0")).is_err());
    let name = |bytes: usize| gate("").replace("gates.a", &format!("gates.{}", "a".repeat(bytes)));
    assert!(read(&name(limit::GATE_NAME_BYTES_MAX)).is_ok());
    assert!(read(&name(limit::GATE_NAME_BYTES_MAX + 1)).unwrap_err().contains("no name of a gate"));
    let many = |count: usize| {
        (0..count).map(|number| gate("").replace("gates.a", &format!("gates.g{number}"))).collect::<String>()
    };
    assert!(read(&many(limit::GATES_MAX)).is_ok());
    assert!(read(&many(limit::GATES_MAX + 1)).unwrap_err().contains("too many"));
}

#[test]
fn a_webhook_is_https_and_wants_to_hear_of_something() {
    let with = |more: &str| format!("{SMALLEST}[webhooks.chat]\n{more}\n");
    let read = config(&with("url = \"https://chat.example/hook\"\nevents = [\"approval.requested\"]"));
    assert_eq!((read.webhooks[0].name.as_str(), read.webhooks[0].allow_private), ("chat", false));
    for (more, told) in [
        ("url = \"http://chat.example/hook\"\nevents = [\"approval.requested\"]", "in the clear"),
        ("url = \"http://chat.example/hook\"\nevents = [\"approval.requested\"]\nallow_private = true", "in the clear"),
        ("url = \"https://chat.example/hook\"\nevents = []", "told nothing"),
        ("url = \"https://chat.example/hook\"\nevents = [\"lunch\"]", "nothing tells of `lunch`"),
    ] {
        assert!(mistakes(&with(more)).contains(told), "{more}");
    }
    let one = "[webhooks.wN]\nurl = \"https://chat.example/hook\"\nevents = [\"pin.changed\"]\n";
    let many = |count: usize| (0..count).map(|number| one.replace("wN", &format!("w{number}"))).collect::<String>();
    config(&format!("{SMALLEST}{}", many(limit::WEBHOOKS_MAX)));
    assert!(mistakes(&format!("{SMALLEST}{}", many(limit::WEBHOOKS_MAX + 1))).contains("too many"));
}

#[test]
fn an_emergency_is_short_for_somebody_and_agreed_to_by_somebody() {
    let one = |name: &str, more: &str| {
        format!("[break_glass.{name}]\nwho = [\"group:corp/oncall\"]\napprovers = [\"user:corp/lea\"]\n{more}\n")
    };
    let role = "role = \"role:firefighter\"";
    let lasts = |more: u64| format!("{role}\nlasts = \"{}s\"", limit::BREAK_GLASS_FOR_MAX.as_secs() + more);
    assert!(read(&one("outage", &lasts(0))).is_ok(), "{:?}", read(&one("outage", &lasts(0))));
    let many = |count: usize| (0..count).map(|number| one(&format!("e{number}"), role)).collect::<String>();
    assert!(read(&many(limit::BREAK_GLASS_KINDS_MAX)).is_ok());
    for (text, wrong) in [
        (one("outage", &lasts(1)), "too long"),
        (one("outage", "role = \"firefighter\""), "role:NAME"),
        (one("outage", &format!("{role}\napprovals = 0")), "approvals"),
        (one("outage", &format!("{role}\nlasts = \"5m\"\nfor = 1")), "for"),
        (one("outage", role).replace("\"user:corp/lea\"", "\"owner\""), "no server"),
        (one("outage", role).replace("\"user:corp/lea\"", ""), "for nobody"),
        (many(limit::BREAK_GLASS_KINDS_MAX + 1), "too many"),
    ] {
        let mistakes = read(&text).unwrap_err();
        assert!(mistakes.contains(wrong), "{text}: {mistakes}");
    }
}
