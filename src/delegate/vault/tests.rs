//! Renewing with rows in memory and an authorization server on loopback: one at a time, also where replicas have the
//! rows in common.

use std::collections::BTreeMap;
use std::sync::Mutex as Lock;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::future::BoxFuture;
use serde_json::json;
use url::Url;

use super::entry::Kept;
use super::*;
use crate::config::{HealthConfig, Isolation, ListAs, Prefix, TransportConfig};
use crate::ids::{Environment, ServerId};
use crate::oauth::Registered;
use crate::shelf::{Action, Change, Changed, Expect, Row, Tell};

/// Rows in memory; the clock goes on by `step_us` whenever somebody looks at it.
#[derive(Debug, Default)]
struct Rows {
    rows: Lock<BTreeMap<(&'static str, String), Row>>,
    /// The next change is made, and nobody is told so.
    lost: std::sync::atomic::AtomicBool,
    /// Nothing is read.
    broken: std::sync::atomic::AtomicBool,
    sections: Lock<Vec<Section>>,
    last: AtomicI64,
    clock_us: AtomicI64,
    step_us: AtomicI64,
    full: std::sync::atomic::AtomicBool,
}

impl Shelf for Rows {
    fn row<'a>(&'a self, section: Section, key: &'a str) -> BoxFuture<'a, Result<Option<Row>, Failure>> {
        Box::pin(std::future::ready(Ok(self.rows.lock().unwrap().get(&(section.name, key.to_owned())).cloned())))
    }

    fn rows<'a>(
        &'a self,
        section: Section,
        owner: Option<&'a str>,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<Row>, Failure>> {
        if self.broken.load(Ordering::SeqCst) {
            let failure = Failure::before(Reason::StoreUnavailable, "it cannot be read");
            return Box::pin(std::future::ready(Err(failure)));
        }
        let rows = self.rows.lock().unwrap();
        let rows = rows.iter().filter(|((name, _), _)| *name == section.name).map(|(_, row)| row);
        let fits = |row: &&Row| {
            owner.is_none_or(|owner| row.owner == owner) && after.is_none_or(|after| row.key.as_str() > after)
        };
        Box::pin(std::future::ready(Ok(rows.filter(fits).cloned().collect())))
    }

    fn change(&self, changes: Vec<Change>, _: Tell) -> BoxFuture<'_, Result<Changed, Failure>> {
        let mut rows = self.rows.lock().unwrap();
        for change in changes {
            self.sections.lock().unwrap().push(change.section);
            if self.full.load(Ordering::SeqCst) {
                return Box::pin(std::future::ready(Ok(Changed::Full(0))));
            }
            let place = (change.section.name, change.key.clone());
            let before = rows.get(&place).map(|row| row.version);
            let holds = match change.expect {
                Expect::Absent => before.is_none(),
                Expect::Version(version) => before == Some(version),
                Expect::Anything => true,
            };
            if !holds {
                return Box::pin(std::future::ready(Ok(Changed::Conflict(0))));
            }
            let version = Version(self.last.fetch_add(1, Ordering::SeqCst) + 1);
            match change.action {
                Action::Put { owner, body, expires_at_us } => {
                    let row = Row { key: change.key, version, owner, body, number: 0, expires_at_us };
                    rows.insert(place, row);
                }
                Action::Remove => drop(rows.remove(&place)),
                other => panic!("{other:?}"),
            }
        }
        if self.lost.swap(false, Ordering::SeqCst) {
            let failure = Failure::before(Reason::StoreUnavailable, "its answer was lost");
            return Box::pin(std::future::ready(Err(failure)));
        }
        let version = Version(self.last.load(Ordering::SeqCst));
        Box::pin(std::future::ready(Ok(Changed::Done { numbers: vec![0], version, epoch: None })))
    }

    fn clock_us(&self) -> BoxFuture<'_, Result<i64, Failure>> {
        let step = self.step_us.load(Ordering::SeqCst);
        Box::pin(std::future::ready(Ok(self.clock_us.fetch_add(step, Ordering::SeqCst))))
    }
}

struct World {
    rows: Arc<Rows>,
    server: Arc<ServerConfig>,
    account: Arc<OauthConfig>,
    asked: Arc<AtomicUsize>,
    origin: String,
    spoken: Arc<Spoken>,
}

/// What was said to the authorization server, and what it answers.
#[derive(Debug, Default)]
struct Spoken {
    forms: Lock<Vec<String>>,
    given_back: Lock<Vec<(Option<String>, String)>>,
    /// The status of what it answers to who gives something back, if not 200.
    taking: AtomicUsize,
    /// What it answers instead of tokens.
    error: Lock<Option<&'static str>>,
    /// The access token that it gives, if not one that says nothing.
    access: Lock<Option<String>>,
}

/// An authorization server that renews after a moment, and names so many bytes of scopes.
async fn world(scope_bytes: usize) -> World {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let (counted, named, issuer) = (Arc::clone(&asked), origin.clone(), origin.clone());
    let spoken = Arc::new(Spoken::default());
    let (told, taken) = (Arc::clone(&spoken), Arc::clone(&spoken));
    let token = move |form: String| async move {
        told.forms.lock().unwrap().push(form);
        let error = *told.error.lock().unwrap();
        if let Some(error) = error {
            counted.fetch_add(1, Ordering::SeqCst);
            return (axum::http::StatusCode::BAD_REQUEST, Json(json!({ "error": error })));
        }
        let number = counted.fetch_add(1, Ordering::SeqCst);
        let access = told.access.lock().unwrap().clone().unwrap_or_else(|| format!("at-{number}"));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answer = json!({ "access_token": access, "refresh_token": format!("rt-{number}"),
            "token_type": "bearer", "expires_in": 3_600 });
        (axum::http::StatusCode::OK, Json(answer))
    };
    let revoke = move |headers: axum::http::HeaderMap, form: String| async move {
        let proof = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        taken.given_back.lock().unwrap().push((proof, form));
        let status = u16::try_from(taken.taking.load(Ordering::SeqCst)).unwrap();
        axum::http::StatusCode::from_u16(if status == 0 { 200 } else { status }).unwrap()
    };
    let protected = json!({ "resource": format!("{named}/mcp"), "authorization_servers": [named],
        "scopes_supported": ["s".repeat(scope_bytes)] });
    let metadata = json!({ "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"), "registration_endpoint": format!("{issuer}/register"),
        "code_challenge_methods_supported": ["S256"] });
    let router = Router::new()
        .route("/token", post(token))
        .route("/revoke", post(revoke))
        .route("/register", post(|| async { Json(json!({ "client_id": "us" })) }))
        .route("/.well-known/oauth-protected-resource/mcp", get(move || async move { Json(protected) }))
        .route("/.well-known/oauth-authorization-server", get(move || async move { Json(metadata) }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let account = Arc::new(OauthConfig {
        issuer: None,
        client_id: None,
        client_secret: None,
        resource: None,
        scope: None,
        use_max: Duration::from_secs(300),
    });
    let long = Duration::from_secs(10);
    let server = ServerConfig {
        id: ServerId::new("notes").unwrap(),
        title: None,
        owner: "user:corp/owner".to_owned(),
        review: None,
        expires: None,
        discoverable: false,
        pins: crate::config::PinMode::Off,
        environment: Environment::new("development").unwrap(),
        transport: TransportConfig::Http { url: Url::parse(&format!("{origin}/mcp")).unwrap(), allow_private: true },
        credential: crate::config::CredentialConfig::Oauth(Arc::clone(&account)),
        tool_credentials: BTreeMap::new(),
        tool_budgets: BTreeMap::new(),
        prefix: Prefix::Server,
        list_as: ListAs::Caller,
        isolation: Isolation::Principal,
        on_down: long,
        list_refresh_min: long,
        uris: Vec::new(),
        health: HealthConfig {
            connect_timeout: long,
            first_byte_timeout: long,
            idle_timeout: long,
            call_timeout: long,
            input_timeout: long,
            calls_in_flight_max: 1,
        },
        forward_headers: Vec::new(),
        elicit_url_hosts: Vec::new(),
        redact: Vec::new(),
        idempotent: Vec::new(),
    };
    let rows = Arc::new(Rows { clock_us: AtomicI64::new(1_000_000_000), ..Rows::default() });
    World { rows, server: Arc::new(server), account, asked, origin, spoken }
}

impl World {
    fn replica(&self) -> Arc<Vault> {
        self.replica_with(Arc::default())
    }

    fn replica_with(&self, revocations: Arc<crate::identity::Revocations>) -> Arc<Vault> {
        let sealer = Sealer::new([&[7_u8; 32][..]]).unwrap();
        let ourselves = Ourselves::at(&Url::parse(&self.origin).unwrap());
        let config = crate::identity::fixture::config();
        let (tasks, stop) = (tokio_util::task::TaskTracker::new(), tokio_util::sync::CancellationToken::new());
        let identity = crate::identity::Identity::new(&config, revocations, tasks, stop);
        Vault::new(Arc::clone(&self.rows) as _, sealer, ourselves, Arc::new(identity))
    }

    /// An account whose access token is over.
    async fn link(&self, vault: &Vault) -> Owner {
        let owner = Owner::of(&crate::identity::fixture::somebody()).unwrap();
        vault.keep(&owner, &self.server.id, &self.over()).await.unwrap();
        owner
    }

    /// What is kept of an account whose access token is over.
    fn over(&self) -> Entry {
        Entry {
            asked: None,
            key: None,
            access: "at-old".to_owned().into(),
            refresh: Some("rt-old".to_owned().into()),
            given_at: now_s() - 100,
            expires_at: Some(now_s() - 1),
            scope: None,
            authority: self.origin.clone(),
            token_endpoint: Url::parse(&format!("{}/token", self.origin)).unwrap(),
            revocation_endpoint: None,
            client: Registered::public("us".to_owned()),
            client_is_written: false,
            resource: format!("{}/mcp", self.origin),
            account: None,
            linked_at: 1,
        }
    }

    /// An account of a client that an administrator wrote, whose tokens can be given back.
    async fn link_written(&mut self, vault: &Vault) -> Owner {
        let account = OauthConfig {
            issuer: Some(self.origin.clone()),
            client_id: Some("us".to_owned()),
            client_secret: Some(crate::config::SecretReference::Plain("secret-a".into())),
            ..OauthConfig::clone(&self.account)
        };
        self.write(account);
        let owner = Owner::of(&crate::identity::fixture::somebody()).unwrap();
        let entry = Entry {
            client_is_written: true,
            revocation_endpoint: Some(Url::parse(&format!("{}/revoke", self.origin)).unwrap()),
            ..self.over()
        };
        vault.keep(&owner, &self.server.id, &entry).await.unwrap();
        owner
    }

    /// What the files say of the account from now on.
    fn write(&mut self, account: OauthConfig) {
        self.account = Arc::new(account);
        let credential = crate::config::CredentialConfig::Oauth(Arc::clone(&self.account));
        self.server = Arc::new(ServerConfig { credential, ..ServerConfig::clone(&self.server) });
    }

    fn config(&self) -> Arc<crate::config::Config> {
        let mut config = crate::identity::fixture::config();
        config.servers = vec![Arc::clone(&self.server)];
        Arc::new(config)
    }

    fn owed(&self) -> usize {
        let rows = self.rows.rows.lock().unwrap();
        rows.keys().filter(|(section, _)| *section == owed::OWED.name).count()
    }

    async fn secret(&self, vault: &Arc<Vault>) -> Result<String, Stop> {
        let caller = crate::identity::fixture::somebody();
        let (held, _) = vault.account(&caller, &self.server, &self.account).await?;
        Ok(held.secret.expose_secret().to_owned())
    }

    fn only_row(&self) -> Row {
        let rows = self.rows.rows.lock().unwrap();
        rows.iter().find(|((section, _), _)| *section == ACCOUNTS.name).unwrap().1.clone()
    }
}

mod back;

#[tokio::test]
async fn what_was_begun_with_an_account_ends_when_it_is_taken_back_and_not_with_its_row() {
    use crate::identity::described::AccountName;
    use crate::identity::revoked::{Held, Revocation, RevocationMode, RevocationTarget};
    let world = world(0).await;
    let revocations = Arc::new(crate::identity::Revocations::default());
    let vault = world.replica_with(Arc::clone(&revocations));
    let owner = world.link(&vault).await;
    let linked_at = vault.list(None).await.unwrap()[0].linked_at;
    let tie = AccountTie { place: owner.place(&world.server.id), linked_at };
    assert!(vault.stands(tie).await.unwrap());
    let target = RevocationTarget::Account(owner.issuer.clone(), AccountName::new(&world.server.id, &owner.subject));
    let revocation = Revocation {
        target,
        mode: RevocationMode::Block,
        actor: "host:0".to_owned(),
        note: String::new(),
        at: crate::identity::now_s(),
    };
    let epoch = crate::ids::RevocationEpoch(1);
    revocations.replace(epoch, vec![Held { since: epoch, revocation }]);
    assert!(!vault.stands(tie).await.unwrap(), "its row is there still");
}

#[tokio::test]
async fn replicas_that_want_an_account_at_once_renew_it_once() {
    let world = world(1).await;
    let (one, two) = (world.replica(), world.replica());
    world.link(&one).await;
    let all = (0..50).map(|number| world.secret(if number % 2 == 0 { &one } else { &two }));
    for secret in futures_util::future::join_all(all).await {
        assert_eq!(secret.unwrap(), "at-0");
    }
    assert_eq!(world.asked.load(Ordering::SeqCst), 1);
    let row = world.only_row();
    assert!(!row.body.contains("at-0") && !row.body.contains("rt-0"), "{}", row.body);
    assert!(!row.body.contains("renewed_until_us"), "{}", row.body);
    let idle_us = i64::try_from(limit::VAULT_IDLE_MAX.as_micros()).unwrap();
    assert_eq!(row.expires_at_us, Some(1_000_000_000 + idle_us));
}

#[tokio::test]
async fn an_account_that_somebody_died_over_is_renewed_once_their_time_is_over() {
    let world = world(1).await;
    let vault = world.replica();
    let owner = world.link(&vault).await;
    // Somebody else says that they renew it, and is never heard of again.
    let lease_us = i64::try_from(limit::VAULT_LEASE.as_micros()).unwrap();
    let row = world.only_row();
    let mut kept: Kept = serde_json::from_str(&row.body).unwrap();
    kept.renewed_until_us = Some(1_000_000_000 + lease_us);
    let action = renew::put(&owner.spelled(), &kept, None).unwrap();
    let change = Change::new(ACCOUNTS, row.key, Expect::Version(row.version), action);
    assert!(world.rows.change(vec![change], Tell::Nobody).await.unwrap().is_done());
    world.rows.step_us.store(lease_us / 3, Ordering::SeqCst);
    assert_eq!(world.secret(&vault).await.unwrap(), "at-0");
    assert!(world.rows.clock_us.load(Ordering::SeqCst) >= 1_000_000_000 + lease_us);
    assert_eq!(world.asked.load(Ordering::SeqCst), 1);
}

/// A JWT of the issuer of callers for that audience; nobody looks at its signature.
fn token_for(audience: &str) -> String {
    use base64::Engine as _;
    let claims = json!({ "iss": "https://idp.example", "aud": ["https://notes.example", audience] }).to_string();
    format!("e30.{}.c2ln", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims))
}

#[tokio::test]
async fn a_token_that_is_good_at_this_gateway_is_used_for_no_account() {
    for audience in ["https://gw.example/mcp", "api://bailiwick"] {
        let world = world(1).await;
        let vault = world.replica();
        world.link(&vault).await;
        *world.spoken.access.lock().unwrap() = Some(token_for(audience));
        let stop = world.secret(&vault).await.unwrap_err();
        assert_eq!(stop.reason(), Reason::CredentialUnavailable, "{audience}");
        assert!(stop.to_string().contains("good at this gateway itself"), "{stop}");
        // One that was kept before anybody looked is renewed, whatever is left of its time.
        let entry = Entry { access: token_for(audience).into(), expires_at: Some(now_s() + 1_000), ..world.over() };
        let owner = Owner::of(&crate::identity::fixture::somebody()).unwrap();
        vault.keep(&owner, &world.server.id, &entry).await.unwrap();
        *world.spoken.access.lock().unwrap() = Some(token_for("https://other.example"));
        assert_eq!(world.secret(&vault).await.unwrap(), token_for("https://other.example"), "that one is not");
    }
}

#[tokio::test]
async fn nothing_is_kept_where_nothing_more_fits() {
    let world = world(1).await;
    let vault = world.replica();
    let owner = world.link(&vault).await;
    world.rows.full.store(true, Ordering::SeqCst);
    let entry = entry::tests::entry(None, None);
    let failure = vault.keep(&owner, &world.server.id, &entry).await.unwrap_err();
    assert!(failure.detail.contains("full"), "{failure}");
    assert_eq!(world.rows.sections.lock().unwrap().last().unwrap().rows_max, limit::VAULT_ENTRIES_MAX);
    let problem = vault.authority(&world.server, &world.account).await.unwrap_err();
    assert!(problem.contains("registration cannot be kept"), "{problem}");
    assert_eq!(world.rows.sections.lock().unwrap().last().unwrap().rows_max, limit::VAULT_CLIENTS_MAX);
}

#[tokio::test]
async fn a_server_that_asks_for_more_scopes_than_fit_is_not_asked_for_them() {
    let fits = world(limit::VAULT_SCOPE_BYTES_MAX).await;
    assert!(fits.replica().authority(&fits.server, &fits.account).await.is_ok());
    let more = world(limit::VAULT_SCOPE_BYTES_MAX + 1).await;
    let problem = more.replica().authority(&more.server, &more.account).await.unwrap_err();
    assert!(problem.contains("more scopes than fit"), "{problem}");
}

#[tokio::test]
async fn nobody_else_and_nothing_of_another_place_is_used() {
    let world = world(1).await;
    let vault = world.replica();
    world.link(&vault).await;
    let mut elsewhere = ServerConfig::clone(&world.server);
    elsewhere.transport =
        TransportConfig::Http { url: Url::parse("http://127.0.0.1:9/mcp").unwrap(), allow_private: true };
    let caller = crate::identity::fixture::somebody();
    let stop = vault.account(&caller, &Arc::new(elsewhere), &world.account).await.unwrap_err();
    assert_eq!(stop.reason(), Reason::AccountLinkRequired, "a token of one place never goes to another");
    assert_eq!(world.asked.load(Ordering::SeqCst), 0);
    assert_eq!(world.secret(&vault).await.unwrap(), "at-0");
}
