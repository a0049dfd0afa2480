//! Agents and servers that are stopped, and who brings them back.

use super::*;
use crate::config::AdminConfig;
use crate::identity::fixture;

fn lifecycle(attested_at: i64) -> Lifecycle {
    let attestation = Attestation { by: "user:corp/anna".into(), at: attested_at, missed_s: None };
    Lifecycle { attested: [("agent/bot".to_owned(), attestation)].into(), ..Lifecycle::default() }
}

#[test]
fn an_attestation_is_reminded_of_and_then_too_late() {
    let (lifecycle, every) = (lifecycle(1_000), limit::ATTEST_EVERY);
    let at = |seconds: u64| lifecycle.due("agent/bot", every, Duration::from_secs(1_000 + seconds));
    let (end, reminded) = (every.as_secs(), limit::ATTEST_REMINDED_BEFORE.as_secs());
    assert_eq!([at(0), at(end - reminded - 1)], [Due::Later; 2]);
    assert_eq!([at(end - reminded), at(end - 1)], [Due::Soon; 2]);
    assert_eq!(at(end), Due::Over);
    assert_eq!(lifecycle.due("agent/new", every, Duration::MAX), Due::Later, "what is new was just read");
}

#[test]
fn what_is_not_attested_is_suspended_and_what_is_retired_stays_so() {
    let config = fixture::config();
    let bot = AgentId::new("bot").unwrap();
    let late = Duration::from_secs(1_000) + config.attest_every;
    let stopped = lifecycle(1_000).stopped(&config, late);
    assert_eq!(stopped.agents, BTreeMap::from([(bot.clone(), AgentState::Suspended)]));
    assert!(stopped.servers.is_empty());
    let mut halted = lifecycle(1_000);
    let retired = Halted { retired: true, subject: None, by: "host:0".into(), note: String::new(), at: 0 };
    halted.halted.insert("bot".into(), retired.clone());
    halted.halted.insert("desk/user:corp/anna".into(), Halted { retired: false, ..retired });
    assert_eq!(halted.stopped(&config, late).agents, BTreeMap::from([(bot, AgentState::Retired)]));
    let none = Config { agents: BTreeMap::new(), ..config.clone() };
    assert_eq!(halted.stopped(&none, late), halted.stopped(&config, late), "files may bring it back");
    let desk = AgentId::new("desk").unwrap();
    assert_eq!(halted.halted_for(&desk).map(|(user, _)| user).collect::<Vec<_>>(), ["user:corp/anna"]);
}

#[test]
fn a_server_that_is_not_attested_in_time_is_there_for_nobody() {
    let mut config = fixture::config();
    let mut lifecycle = lifecycle(i64::MAX);
    let attestation = Attestation { by: "files".into(), at: 1_000, missed_s: None };
    lifecycle.attested.insert("server/git".into(), attestation);
    let every = config.attest_every;
    let at = |before: u64| Duration::from_secs(1_000 - before) + every;
    assert!(lifecycle.stopped(&config, at(0)).servers.is_empty(), "nobody could attest it");
    config.admin = Some(AdminConfig {
        listen: "127.0.0.1:9443".parse().unwrap(),
        public_url: config.gateway.public_url.clone(),
        allowed_hosts: Vec::new(),
        tls: None,
        clients: Vec::new(),
        acr: Vec::new(),
        auth_age_max: Duration::from_secs(300),
        console: None,
    });
    assert!(lifecycle.stopped(&config, at(1)).servers.is_empty());
    let stopped = lifecycle.stopped(&config, at(0));
    assert_eq!((stopped.agents.len(), stopped.servers), (0, [ServerId::new("git").unwrap()].into()));
}

#[test]
fn a_long_name_can_be_stopped_and_is_told_in_full() {
    let (desk, long) = (AgentId::new("desk").unwrap(), Subject::parse(&format!("user:corp/{}", "a".repeat(600))));
    let long = long.unwrap();
    let key = use_key(&desk, &long);
    assert!(key.len() <= limit::SHELF_KEY_BYTES_MAX && key.starts_with("desk/"), "{key}");
    let subject = Some(long.to_string());
    let stopped = Halted { retired: false, subject, by: "breaker".into(), note: String::new(), at: 0 };
    let lifecycle = Lifecycle { halted: [(key, stopped)].into(), ..Lifecycle::default() };
    assert_eq!(lifecycle.halted_for(&desk).map(|(user, _)| user).collect::<Vec<_>>(), [long.as_str()]);
}

#[test]
fn what_was_read_earlier_and_comes_later_brings_nobody_back() {
    let place = ArcSwap::from_pointee(Lifecycle::default());
    let halted = Halted { retired: false, subject: None, by: "breaker".into(), note: String::new(), at: 0 };
    let mut newer = Lifecycle { epoch: RevocationEpoch(7), ..Lifecycle::default() };
    newer.halted.insert("desk/user:corp/anna".into(), halted);
    let older = Lifecycle { epoch: RevocationEpoch(6), ..Lifecycle::default() };
    newer.keep_newest(&place);
    older.keep_newest(&place);
    assert_eq!(place.load().halted.len(), 1);
    Lifecycle { epoch: RevocationEpoch(7), ..Lifecycle::default() }.keep_newest(&place);
    assert!(place.load().halted.is_empty(), "what was read for the same epoch is no older");
}
