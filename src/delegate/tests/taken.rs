//! The ledger and taking back, with rows in memory and an authorization server on loopback.

use std::collections::BTreeMap as Map;

use futures_util::future::BoxFuture;

use super::*;
use crate::outcome::Failure;
use crate::shelf::{Action, Change, Changed, Expect, Row, Section, Shelf, Tell, Version};

/// Rows in memory, in the order of their names.
#[derive(Debug, Default)]
struct Rows {
    rows: Mutex<Map<String, Row>>,
    /// Those of what is still to be given back.
    owed: Mutex<Map<String, Row>>,
    /// Whether no more fit.
    full: std::sync::atomic::AtomicBool,
    /// How often something was noted that is still to be given back.
    noted: AtomicUsize,
}

impl Rows {
    fn of(&self, section: Section) -> &Mutex<Map<String, Row>> {
        match section.rows_max {
            limit::CREDENTIALS_LEDGER_MAX => &self.rows,
            limit::CREDENTIALS_OWED_MAX => &self.owed,
            _ => panic!("{}", section.name),
        }
    }
}

impl Shelf for Rows {
    fn row<'a>(&'a self, _: Section, key: &'a str) -> BoxFuture<'a, Result<Option<Row>, Failure>> {
        Box::pin(std::future::ready(Ok(self.rows.lock().unwrap().get(key).cloned())))
    }

    fn rows<'a>(
        &'a self,
        section: Section,
        _: Option<&'a str>,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<Row>, Failure>> {
        let rows = self.of(section).lock().unwrap();
        let after = rows.values().filter(|row| after.is_none_or(|after| row.key.as_str() > after));
        Box::pin(std::future::ready(Ok(after.take(limit::SHELF_ROWS_READ_MAX).cloned().collect())))
    }

    fn change(&self, changes: Vec<Change>, _: Tell) -> BoxFuture<'_, Result<Changed, Failure>> {
        if self.full.load(Ordering::SeqCst) {
            return Box::pin(std::future::ready(Ok(Changed::Full(0))));
        }
        let notes = |change: &Change| {
            change.section.rows_max == limit::CREDENTIALS_OWED_MAX && matches!(change.action, Action::Put { .. })
        };
        self.noted.fetch_add(usize::from(changes.iter().any(notes)), Ordering::SeqCst);
        for change in changes {
            let mut rows = self.of(change.section).lock().unwrap();
            let Action::Put { owner, body, expires_at_us } = change.action else {
                rows.remove(&change.key);
                continue;
            };
            let before = rows.get(&change.key).map(|row| row.version);
            match change.expect {
                Expect::Absent => assert!(before.is_none()),
                Expect::Version(version) => assert_eq!(before, Some(version)),
                Expect::Anything => {}
            }
            let version = Version(before.map_or(1, |version| version.0 + 1));
            let row = Row { key: change.key.clone(), version, owner, body, number: 0, expires_at_us };
            rows.insert(change.key, row);
        }
        let done = Changed::Done { numbers: vec![0], version: Version(1), epoch: None };
        Box::pin(std::future::ready(Ok(done)))
    }

    fn clock_us(&self) -> BoxFuture<'_, Result<i64, Failure>> {
        Box::pin(std::future::ready(Ok(now_s() * 1_000_000)))
    }
}

async fn with_ledger() -> (World, Arc<Rows>) {
    let rows = Arc::new(Rows::default());
    let shelf = Arc::clone(&rows);
    let world = world_with(
        |_| server(CredentialConfig::Exchange(Arc::new(exchange("read")))),
        |delegate| delegate.with_ledger(shelf),
    )
    .await;
    (world, rows)
}

fn subject(name: &str) -> RevocationTarget {
    RevocationTarget::Subject(IssuerAlias::new("corp").unwrap(), name.into())
}

#[tokio::test]
async fn what_was_issued_is_in_the_ledger_without_being_there_itself() {
    let (world, rows) = with_ledger().await;
    let (alice, _) = world.caller("alice", 600).await;
    for _ in 0..3 {
        world.ask(&alice, None).await.unwrap();
    }
    let entries = world.delegate.ledger().await.unwrap();
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!((entry.server.as_str(), entry.kind.as_str(), entry.state.as_str()), ("git", "exchange", "in_use"));
    assert_eq!((entry.issuer.as_deref(), entry.subject.as_deref()), (Some("corp"), Some("alice")));
    assert_eq!(entry.digest, Digest::sha256(b"exchanged-0").to_string());
    assert_eq!(entry.agents, [alice.persona().agent.as_ref().unwrap().id.to_string()]);
    let row = rows.rows.lock().unwrap().values().next().unwrap().clone();
    assert_eq!(row.version, Version(1), "once for each credential, and for no call");
    assert!(!row.body.contains("exchanged-0"), "{}", row.body);
    assert_eq!(row.expires_at_us, entry.expires_at.map(|at| at * 1_000_000));
    let facts = world.ask(&alice, None).await.unwrap().facts;
    assert_eq!(facts.issue.as_deref(), Some(entry.id.as_str()), "the record names it");
}

#[tokio::test]
async fn a_credential_that_cannot_be_written_down_is_used_by_nobody() {
    let (world, rows) = with_ledger().await;
    let (alice, _) = world.caller("alice", 600).await;
    rows.full.store(true, Ordering::SeqCst);
    let stop = world.ask(&alice, None).await.unwrap_err();
    assert_eq!(stop.reason(), Reason::CredentialUnavailable);
    assert!(stop.to_string().contains("ledger"), "{stop}");
    rows.full.store(false, Ordering::SeqCst);
    assert_eq!(value(&world.ask(&alice, None).await.unwrap()), "Bearer exchanged-1");
}

#[tokio::test]
async fn what_is_taken_back_is_taken_back_at_its_authorization_server_and_told_as_it_is() {
    let (world, rows) = with_ledger().await;
    let (alice, _) = world.caller("alice", 600).await;
    let (bob, _) = world.caller("bob", 600).await;
    world.ask(&alice, None).await.unwrap();
    world.ask(&bob, None).await.unwrap();
    world.answers_at("/revoke", 200, json!({}));
    let told = world.delegate.take_back(&subject("alice")).await.unwrap();
    let [line] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((line.server.as_str(), line.state, line.credentials), ("git", Taken::Revoked, 1));
    let asked = world.asked_at("/revoke");
    assert_eq!((asked.len(), asked[0]["token"].as_str()), (1, "exchanged-0"));
    assert_eq!(asked[0]["token_type_hint"], "access_token");
    let states = async || -> Vec<String> {
        world.delegate.ledger().await.unwrap().into_iter().map(|entry| entry.state).collect()
    };
    assert_eq!(states().await, ["in_use", "revoked"], "the youngest first");
    let shown_us = (now_s() + seconds(limit::CREDENTIAL_REVOKED_SHOWN)) * 1_000_000;
    let revoked = rows.rows.lock().unwrap().values().next().unwrap().expires_at_us;
    assert!(revoked.is_some_and(|at| at <= shown_us), "its place in the ledger is free soon: {revoked:?}");
    assert_eq!(value(&world.ask(&bob, None).await.unwrap()), "Bearer exchanged-1", "his is his");
    assert!(world.delegate.take_back(&subject("alice")).await.unwrap().is_empty(), "there is nothing left of it");

    // One that does not take it back, one that has no place for it, one that this process does not hold.
    world.answers_at("/revoke", 400, json!({"error": "unsupported_token_type"}));
    let told = world.delegate.take_back(&subject("bob")).await.unwrap();
    assert_eq!((told[0].state, told[0].expires_at.is_some()), (Taken::Unsupported, true));
    let lost = IssuedCredential {
        id: "lost".into(),
        state: "in_use".into(),
        ..world.delegate.ledger().await.unwrap()[0].clone()
    };
    let row = Row {
        key: "lost".into(),
        version: Version(1),
        owner: "git".into(),
        body: serde_json::to_string(&lost).unwrap(),
        number: 0,
        expires_at_us: None,
    };
    rows.rows.lock().unwrap().insert("lost".into(), row);
    let told = world.delegate.take_back(&RevocationTarget::Credential("lost".into())).await.unwrap();
    assert_eq!(told.iter().map(|line| line.state).collect::<Vec<_>>(), [Taken::ExpiresAt]);
    assert!(told[0].detail.contains("ends by itself"));
    let over = IssuedCredential { id: "over".into(), expires_at: Some(now_s() - 1), used_until: now_s() - 1, ..lost };
    let body = serde_json::to_string(&over).unwrap();
    let row = Row { key: "over".into(), body, ..rows.rows.lock().unwrap()["lost"].clone() };
    rows.rows.lock().unwrap().insert("over".into(), row);
    let offline = left_behind(rows, &RevocationTarget::Agent(alice.persona().agent.as_ref().unwrap().id.clone())).await;
    assert_eq!(offline.unwrap()[0].credentials, 2, "all but the one that is revoked, and the one that has ended");
}

#[tokio::test]
async fn an_authorization_server_that_is_away_is_asked_again_until_it_takes_it_back() {
    let (world, _) = with_ledger().await;
    let (alice, _) = world.caller("alice", 600).await;
    world.ask(&alice, None).await.unwrap();
    world.answers_at("/revoke", 503, json!("down"));
    let began = std::time::Instant::now();
    let told = world.delegate.take_back(&subject("alice")).await.unwrap();
    assert!(began.elapsed() < limit::REVOKE_REPORT_WAIT);
    assert_eq!((told[0].state, told[0].expires_at.is_some()), (Taken::Pending, true));
    assert!(told[0].detail.contains("503"), "{}", told[0].detail);
    assert_eq!(world.delegate.ledger().await.unwrap()[0].state, "pending");
    world.answers_at("/revoke", 200, json!({}));
    while world.delegate.ledger().await.unwrap()[0].state != "revoked" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(began.elapsed() >= limit::CREDENTIAL_REVOKE_RETRY_MIN);
    assert!(world.asked_at("/revoke").len() >= 2);
}

#[tokio::test]
async fn what_is_not_taken_back_yet_is_kept_sealed_until_it_is_and_a_row_that_was_changed_is_nothing() {
    let rows = Arc::new(Rows::default());
    let sealer = crate::wire::handle::Sealer::new([&[7_u8; 32][..]]).unwrap();
    let ourselves = vault::Ourselves::at(&url::Url::parse("https://mcp.example").unwrap());
    let config = crate::identity::fixture::config();
    let identity = Identity::new(&config, Arc::default(), TaskTracker::new(), CancellationToken::new());
    let vault = Vault::new(Arc::clone(&rows) as _, sealer, ourselves, Arc::new(identity));
    let shelf = Arc::clone(&rows);
    let make = |_: &str| server(CredentialConfig::Exchange(Arc::new(exchange("read"))));
    let world = world_with(make, |delegate| delegate.with_ledger(shelf).with_vault(vault)).await;
    let (alice, _) = world.caller("alice", 600).await;
    world.ask(&alice, None).await.unwrap();
    world.answers_at("/revoke", 503, json!("down"));
    assert_eq!(world.delegate.take_back(&subject("alice")).await.unwrap()[0].state, Taken::Pending);
    let row = rows.owed.lock().unwrap().values().next().unwrap().clone();
    assert_eq!(rows.noted.load(Ordering::SeqCst), 1, "once, whoever was first");
    assert!(row.expires_at_us.is_some() && !row.body.contains("exchanged-0"), "{}", row.body);
    world.answers_at("/revoke", 200, json!({}));
    while !rows.owed.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Somebody else's process left these; only the one that is as it was is given back.
    while world.delegate.ledger().await.unwrap()[0].state != "revoked" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let asked = world.asked_at("/revoke").len();
    let moved = Row { key: "moved".to_owned(), ..row.clone() };
    let other = Row { body: row.body.replace("/token", "/other"), ..row.clone() };
    for bad in [moved, other] {
        assert!(bad.key != row.key || bad.body != row.body, "{}", row.body);
        rows.owed.lock().unwrap().insert(bad.key.clone(), bad);
        world.delegate.settle(&world.config).await.unwrap();
        rows.owed.lock().unwrap().clear();
    }
    assert_eq!(world.asked_at("/revoke").len(), asked);
    rows.owed.lock().unwrap().insert(row.key.clone(), row);
    world.delegate.settle(&world.config).await.unwrap();
    assert_eq!((world.asked_at("/revoke").len(), rows.owed.lock().unwrap().len()), (asked + 1, 0));
    // Of many at once, as many as fit are noted in one change, and none is left that was given back.
    world.ask(&alice, None).await.unwrap();
    let good = world.delegate.held.take(|_| true).remove(0);
    let many: Vec<_> = (0..200).map(|number| Arc::new(good.named(&format!("many-{number:03}")))).collect();
    let (before, asked) = (rows.noted.load(Ordering::SeqCst), world.asked_at("/revoke").len());
    drop(world.delegate.taking.begin_all(many, world.delegate.ledger.as_ref()));
    while world.asked_at("/revoke").len() < asked + 200 || !rows.owed.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(rows.noted.load(Ordering::SeqCst) - before <= 200_usize.div_ceil(limit::SHELF_CHANGES_MAX));
    // Where there is no place it is said, and tried for as long as this process lives.
    world.answers_at("/revoke", 503, json!("down"));
    let (bob, _) = world.caller("bob", 600).await;
    world.ask(&bob, None).await.unwrap();
    rows.full.store(true, Ordering::SeqCst);
    assert_eq!(world.delegate.take_back(&subject("bob")).await.unwrap()[0].state, Taken::Pending);
    assert!(rows.owed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_ledger_is_listed_as_far_as_a_list_goes_and_keeps_what_does_not_say_when_it_ends() {
    let (world, rows) = with_ledger().await;
    let (alice, _) = world.caller("alice", 600).await;
    world.answers(200, good("t", Value::Null));
    world.ask(&alice, None).await.unwrap();
    let row = rows.rows.lock().unwrap().values().next().unwrap().clone();
    let entry: IssuedCredential = serde_json::from_str(&row.body).unwrap();
    let kept = i64::try_from(limit::CREDENTIAL_UNKNOWN_LIFE_KEPT.as_secs()).unwrap();
    assert_eq!((entry.expires_at, row.expires_at_us), (None, Some((entry.issued_at + kept) * 1_000_000)));
    for number in 0..=limit::CREDENTIALS_LISTED_MAX {
        let key = format!("n{number:06}");
        rows.rows.lock().unwrap().insert(key.clone(), Row { key, ..row.clone() });
    }
    let listed = world.delegate.ledger().await.unwrap();
    assert_eq!(listed.len(), limit::CREDENTIALS_LISTED_MAX);
}

#[tokio::test]
async fn many_are_taken_back_a_few_at_a_time() {
    let (world, _) = with_ledger().await;
    let many = limit::CREDENTIALS_REVOKED_AT_ONCE_MAX * 3;
    for number in 0..many {
        let (caller, _) = world.caller("alice", 600 + i64::try_from(number).unwrap()).await;
        world.ask(&caller, None).await.unwrap();
    }
    world.answers_at("/revoke", 200, json!({}));
    let began = std::time::Instant::now();
    let told = world.delegate.take_back(&RevocationTarget::Everything).await.unwrap();
    assert_eq!((told[0].state, told[0].credentials), (Taken::Revoked, many));
    // Each answer takes 20 ms: all at once would be over after the first.
    assert!(began.elapsed() >= Duration::from_millis(60), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_is_issued_while_its_caller_is_revoked_is_taken_back_at_once() {
    let (world, _) = with_ledger().await;
    let (alice, _) = world.caller("alice", 600).await;
    world.answers_at("/revoke", 200, json!({}));
    let revocation = crate::identity::revoked::Revocation {
        target: subject("alice"),
        mode: crate::identity::revoked::RevocationMode::Block,
        actor: "host:0".into(),
        note: String::new(),
        at: now_s(),
    };
    let revoked = async {
        while world.script.count.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let epoch = crate::ids::RevocationEpoch(1);
        world.revocations.replace(epoch, vec![crate::identity::revoked::Held { since: epoch, revocation }]);
        assert!(world.delegate.take_back(&subject("alice")).await.unwrap().is_empty(), "it is not here yet");
    };
    let (issued, ()) = tokio::join!(world.ask(&alice, None), revoked);
    assert_eq!(issued.unwrap_err().reason(), Reason::Revoked);
    while world.asked_at("/revoke").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.asked_at("/revoke")[0]["token"], "exchanged-0");
}

#[tokio::test]
async fn a_task_that_ends_takes_its_own_credentials_with_it() {
    let (world, _) = with_ledger().await;
    let (alice, _) = world.caller("alice", 600).await;
    let server = &world.config.servers[0];
    let ids = [crate::ids::MandateId::fresh(), crate::ids::MandateId::fresh()];
    for mandate in &ids {
        let bound = Bound { mandate: Some(mandate.as_str()), ends_at: None };
        world.delegate.credential_for(&alice, server, None, bound).await.unwrap();
    }
    world.answers_at("/revoke", 200, json!({}));
    let told = world.delegate.take_back(&RevocationTarget::Mandate(ids[0].clone())).await.unwrap();
    assert_eq!((told[0].state, told[0].credentials), (Taken::Revoked, 1));
    let states: Vec<_> =
        world.delegate.ledger().await.unwrap().into_iter().map(|entry| (entry.mandate.unwrap(), entry.state)).collect();
    let [ended, going_on] = ids.map(|id| id.to_string());
    assert_eq!(states, [(going_on, "in_use".to_owned()), (ended, "revoked".to_owned())], "the youngest first");
}

#[tokio::test]
async fn a_credential_that_was_revoked_by_its_name_is_not_found_again_on_any_replica() {
    let rows = Arc::new(Rows::default());
    let shelf = Arc::clone(&rows);
    let world = world_with(
        |_| server(CredentialConfig::Exchange(Arc::new(exchange("read")))),
        |delegate| delegate.with_ledger(shelf),
    )
    .await;
    let (alice, _) = world.caller("alice", 600).await;
    let first = world.ask(&alice, None).await.unwrap();
    let revocation = crate::identity::revoked::Revocation {
        target: RevocationTarget::Credential(first.facts.issue.clone().unwrap()),
        mode: crate::identity::revoked::RevocationMode::Block,
        actor: "host:0".into(),
        note: String::new(),
        at: now_s(),
    };
    let epoch = crate::ids::RevocationEpoch(1);
    let held = crate::identity::revoked::Held { since: epoch, revocation };
    // As a replica hears of it: the epoch comes before anything is dropped.
    world.revocations.replace(epoch, vec![held]);
    let (alice, _) = world.caller("alice", 600).await;
    assert_ne!(value(&world.ask(&alice, None).await.unwrap()), value(&first));
}

#[tokio::test]
async fn one_caller_who_has_many_keeps_no_other_from_having_one() {
    let (world, rows) = with_ledger().await;
    let (alice, _) = world.caller("alice", 600).await;
    let (bob, _) = world.caller("bob", 600).await;
    world.ask(&alice, None).await.unwrap();
    let first = world.delegate.held.take(|_| true).remove(0);
    // As many as she may have, of all her clients and agents together.
    let holder = Wanted {
        caller: Some(&alice),
        server: &world.config.servers[0],
        revision: NO_KEY,
        bound: Bound::default(),
        key: NO_KEY,
    }
    .holder();
    for number in 1..limit::CREDENTIALS_PER_CALLER_MAX {
        let another = first.named(&format!("another-{number:06}"));
        assert_eq!(world.delegate.held.reserve(&another, holder).1, Ok(()), "{number}");
    }
    let (again, _) = world.caller("alice", 601).await;
    let stop = world.ask(&again, None).await.unwrap_err();
    assert_eq!(stop.reason(), Reason::CredentialUnavailable);
    assert!(stop.to_string().contains("of this caller's"), "{stop}");
    assert_eq!(rows.rows.lock().unwrap().len(), 1, "what is used by nobody is not in the ledger");
    world.ask(&bob, None).await.unwrap();
    // One that works nowhere any more makes room.
    world.delegate.held.gone("another-000001");
    let (again, _) = world.caller("alice", 602).await;
    world.ask(&again, None).await.unwrap();
}

#[tokio::test]
async fn what_is_used_no_more_is_taken_back_to_make_room_and_nothing_else() {
    let (world, _) = with_ledger().await;
    let (alice, _) = world.caller("alice", 600).await;
    world.ask(&alice, None).await.unwrap();
    let first = world.delegate.held.take(|_| true).remove(0);
    let held = Held::new();
    let holder = Digest::sha256(b"alice");
    for number in 0..limit::CREDENTIALS_PER_CALLER_KEPT {
        let another = Arc::new(first.named(&format!("n{number:06}")).used_up(number % 2 == 0));
        assert!(held.reserve(&another, holder).0.is_empty(), "{number}");
        held.hold(&another);
    }
    let (spare, place) = held.reserve(&first.named("one-more"), holder);
    assert_eq!(place, Ok(()));
    assert_eq!(spare.len(), limit::CREDENTIALS_REVOKED_AT_ONCE_MAX);
    assert_eq!((spare[0].id.as_str(), spare[1].id.as_str()), ("n000000", "n000002"), "the oldest whose use has ended");
    assert!(!held.holds("n000000") && held.holds("n000001"));
    assert!(held.reserve(&first.named("his"), Digest::sha256(b"bob")).0.is_empty(), "nobody gives place to another");
    // Where the memory is full, what is used is not forgotten: there is no place.
    let small = Held::within(u64::from(first.weight()) * 2);
    assert!(small.reserve(&first.named("a"), holder).1.is_ok() && small.reserve(&first.named("b"), holder).1.is_ok());
    assert_eq!(small.reserve(&first.named("c"), holder).1, Err(NoPlace::AtAll));
    assert_eq!(Held::new().bytes_max(), limit::CREDENTIALS_HELD_BYTES_MAX);
}

#[tokio::test]
async fn what_hangs_on_a_credential_stands_until_that_is_revoked_by_its_name() {
    let (world, _) = with_ledger().await;
    let (alice, _) = world.caller("alice", 600).await;
    let tie = world.ask(&alice, None).await.unwrap().tie().unwrap();
    assert!(world.delegate.still_stands(&tie).await.is_ok());
    let target = RevocationTarget::Credential(tie.issue().unwrap().to_owned());
    let (mode, actor) = (crate::identity::revoked::RevocationMode::Block, "host:0".to_owned());
    let revocation = crate::identity::revoked::Revocation { target, mode, actor, note: String::new(), at: now_s() };
    let epoch = crate::ids::RevocationEpoch(1);
    world.revocations.replace(epoch, vec![crate::identity::revoked::Held { since: epoch, revocation }]);
    assert_eq!(world.delegate.still_stands(&tie).await.unwrap_err().reason(), Reason::Revoked);
}

#[tokio::test]
async fn an_authorization_server_that_does_not_answer_keeps_no_other_from_taking_back() {
    // It takes connections, and that is all.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = Url::parse(&format!("http://{}/token", listener.local_addr().unwrap())).unwrap();
    let rows = Arc::new(Rows::default());
    let sealer = crate::wire::handle::Sealer::new([&[7_u8; 32][..]]).unwrap();
    let ourselves = vault::Ourselves::at(&Url::parse("https://mcp.example").unwrap());
    let identity = Identity::new(&config(), Arc::default(), TaskTracker::new(), CancellationToken::new());
    let vault = Vault::new(Arc::clone(&rows) as _, sealer, ourselves, Arc::new(identity));
    let shelf = Arc::clone(&rows);
    let make = |_: &str| server(CredentialConfig::Exchange(Arc::new(exchange("read"))));
    let mut world = world_with(make, |delegate| delegate.with_ledger(shelf).with_vault(vault)).await;
    let there = TokenRequest {
        token_endpoint: Some(silent.clone()),
        revocation_endpoint: Some(silent.clone()),
        ..asks("read")
    };
    let other = ExchangeConfig { asks: there.clone(), actor: None };
    let other =
        ServerConfig { id: ServerId::new("other").unwrap(), ..server(CredentialConfig::Exchange(Arc::new(other))) };
    world.config.servers.push(Arc::new(other));
    world.answers_at("/revoke", 200, json!({}));
    let (alice, _) = world.caller("alice", 600).await;
    world.ask(&alice, None).await.unwrap();
    let good = world.delegate.held.take(|_| true).remove(0);
    let from_there = |id: &str| {
        let mut issued = good.named(id);
        issued.from = crate::delegate::endpoint::AuthorizationServer::known_as(None, silent.clone());
        issued.asks = Arc::new(there.clone());
        issued.server = ServerId::new("other").unwrap();
        Arc::new(issued)
    };
    let taken_back = async |many: usize| {
        let asked = async {
            while world.asked_at("/revoke").len() < many {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(3), asked).await.is_ok(), "it waits for the other: {many}");
    };
    for number in 0..2 * limit::CREDENTIALS_REVOKED_AT_ONCE_MAX {
        drop(world.delegate.taking.begin(from_there(&format!("a{number:03}")), None));
    }
    // So that they are first.
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(world.delegate.taking.begin(Arc::clone(&good), None));
    taken_back(1).await;
    // And what an earlier process left behind.
    let ledger = world.delegate.ledger.clone().unwrap();
    for issued in [from_there("b-there"), Arc::new(good.named("c-good"))] {
        ledger.owe(&[&*issued]).await;
    }
    tokio::select! {
        settled = world.delegate.settle(&world.config) => panic!("one of them never answers: {settled:?}"),
        () = taken_back(2) => {}
    }
}
