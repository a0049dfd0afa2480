//! The room against a real issuer on loopback: every refusal by its reason, keys that come and go.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod api_key;
mod bad_input;
mod bearer;
mod opaque;
mod standing;
mod workload;

use super::fixture::{Signer, config};
use super::revoked::{Held, Revocation, RevocationMode, RevocationTarget};
use super::*;
use crate::config::{DeclaredProof, ScopeMode};
use crate::ids::{RevocationEpoch, ServerId};

/// An issuer on loopback whose key set and health the test changes.
struct Idp {
    url: String,
    keys: Arc<Mutex<Option<Vec<Value>>>>,
    fetches: Arc<AtomicU64>,
}

impl Idp {
    async fn start(keys: Vec<Value>) -> Self {
        Self::start_with(keys, &|url| {
            json!({
                "issuer": url, "authorization_endpoint": format!("{url}/authorize"),
                "token_endpoint": format!("{url}/token"), "jwks_uri": format!("{url}/jwks"),
                "response_types_supported": ["code"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            })
        })
        .await
    }

    /// The same with metadata of the test's own, for the URL that it gets.
    async fn start_with(keys: Vec<Value>, metadata: &dyn Fn(&str) -> Value) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let keys = Arc::new(Mutex::new(Some(keys)));
        let fetches = Arc::new(AtomicU64::new(0));
        let metadata = metadata(&url);
        let (served, counted) = (Arc::clone(&keys), Arc::clone(&fetches));
        let router = axum::Router::new()
            .route("/.well-known/openid-configuration", get(move || async move { Json(metadata) }))
            .route(
                "/jwks",
                get(move || async move {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let keys = served.lock().unwrap().clone();
                    keys.map(|keys| Json(json!({ "keys": keys }))).ok_or(StatusCode::SERVICE_UNAVAILABLE)
                }),
            );
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, keys, fetches }
    }
}

struct Room {
    identity: Arc<Identity>,
    revocations: Arc<Revocations>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

fn room(config: &Config) -> Room {
    let (revocations, tasks, stop) = (Arc::new(Revocations::default()), TaskTracker::new(), CancellationToken::new());
    let identity = Identity::new(config, Arc::clone(&revocations), tasks.clone(), stop.clone());
    Room { identity: Arc::new(identity), revocations, tasks, stop }
}

/// The fixture's configuration with `corp` at that URL only.
fn config_at(url: &str) -> Config {
    let mut config = config();
    config.issuers.truncate(1);
    Arc::make_mut(&mut config.issuers[0]).issuer = url.to_owned();
    config
}

fn claims(issuer: &str) -> Value {
    let now = now_s();
    json!({
        "iss": issuer, "sub": "alice", "aud": "https://gw.example/mcp", "exp": now + 600, "iat": now,
        "jti": "j1", "client_id": "desk-client", "groups": ["dev"], "scope": "deploy read",
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the callers read better with a literal in the call")]
fn with(mut claims: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

impl Room {
    async fn ask(&self, token: &str) -> Result<Caller, Reason> {
        self.ask_at(token, &Resource::Gateway).await
    }

    async fn ask_once(&self, token: &str) -> Result<Caller, Reason> {
        let answer = self.identity.authenticate(Presented::Bearer(token), &Resource::Gateway).await;
        answer.map_err(|stop| stop.reason())
    }

    async fn ask_at(&self, token: &str, resource: &Resource) -> Result<Caller, Reason> {
        let first = self.identity.authenticate(Presented::Bearer(token), resource).await;
        // Whatever was answered, the remembered answer is the same.
        let again = self.identity.authenticate(Presented::Bearer(token), resource).await;
        assert_eq!(
            first.as_ref().map(Caller::principal).map_err(Stop::reason),
            again.as_ref().map(Caller::principal).map_err(Stop::reason)
        );
        first.map_err(|stop| stop.reason())
    }
}

#[tokio::test]
async fn a_good_token_says_who_calls() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let room = room(&config_at(&idp.url));
    let token = signer.token(&with(claims(&idp.url), json!({"sid": "s1", "auth_time": 1_700_000_000, "acr": "mfa"})));
    let caller = room.ask(&token).await.unwrap();
    let persona = caller.persona();
    assert_eq!(persona.user.as_ref().unwrap().as_str(), "user:corp/alice");
    assert_eq!(persona.agent.as_ref().unwrap().id.as_str(), "desk");
    assert_eq!(persona.scopes, ["deploy", "read"]);
    assert_eq!(persona.default_roles, ["employee"]);
    assert_eq!(persona.client_proof, ClientProof::Public);
    assert_eq!((persona.authenticated_at, persona.acr.as_deref()), (Some(1_700_000_000), Some("mfa")));
    assert_eq!(caller.token().id.as_deref(), Some("j1"));
    assert_eq!(caller.token().session.as_deref(), Some("s1"));
    assert!(caller.subject_token().is_none(), "no server exchanges, so the token is forgotten");
    assert!(room.identity.is_ready());
    assert_eq!(room.identity.readiness()[0].keys, 1);
    assert_eq!(idp.fetches.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn every_bad_claim_has_its_own_reason() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let room = room(&config_at(&idp.url));
    let now = now_s();
    for (changes, reason) in [
        (json!({"exp": now - 31}), Reason::TokenExpired),
        (json!({"exp": null}), Reason::ClaimMissing),
        (json!({"exp": "soon"}), Reason::TokenMalformed),
        (json!({"nbf": now + 60}), Reason::TokenNotYetValid),
        (json!({"iat": now + 60, "exp": now + 120}), Reason::TokenNotYetValid),
        (json!({"iat": null}), Reason::ClaimMissing),
        (json!({"exp": now + 7200}), Reason::TokenLifetimeExceeded),
        (json!({"iat": now - 3600, "exp": now + 60}), Reason::TokenLifetimeExceeded),
        (json!({"iss": "https://evil.example"}), Reason::IssuerUnknown),
        (json!({"iss": format!("{}/", idp.url)}), Reason::IssuerUnknown),
        (json!({"iss": null}), Reason::ClaimMissing),
        (json!({"aud": "https://gw.example/mcp/"}), Reason::AudienceMismatch),
        (json!({"aud": ["https://elsewhere.example"]}), Reason::AudienceMismatch),
        (json!({"aud": []}), Reason::AudienceMismatch),
        (json!({"aud": null}), Reason::ClaimMissing),
        (json!({"aud": {"a": 1}}), Reason::TokenMalformed),
        (json!({"sub": null}), Reason::ClaimMissing),
        (json!({"sub": ""}), Reason::ClaimMissing),
        (json!({"sub": 7}), Reason::TokenMalformed),
        (json!({"jti": null}), Reason::ClaimMissing),
        (json!({"client_id": null}), Reason::ClaimMissing),
        (json!({"cnf": {"jkt": "x"}}), Reason::TokenBound),
        (json!({"typ": "ID"}), Reason::TokenTypeRefused),
        (json!({"act": {"sub": "stranger"}}), Reason::ChainRefused),
        (json!({"client_id": "suspended-client"}), Reason::AgentInactive),
        (json!({"client_id": "robot", "sub": "robot"}), Reason::AgentUnknown),
        (json!({"client_id": "robot", "idtyp": "app"}), Reason::AgentUnknown),
        (json!({"client_id": "robot", "sub": "robot@clients"}), Reason::AgentUnknown),
        (json!({"client_id": "robot", "gty": "client-credentials"}), Reason::AgentUnknown),
        (json!({"client_id": "Robot", "preferred_username": "service-account-robot"}), Reason::AgentUnknown),
    ] {
        let token = signer.token(&with(claims(&idp.url), changes.clone()));
        assert_eq!(room.ask(&token).await.map(|_| ()), Err(reason), "{changes}");
    }
    for accepted in [
        json!({"exp": now - 10, "iat": now - 600}),
        json!({"nbf": now + 20}),
        json!({"aud": ["https://elsewhere.example", "api://bailiwick"]}),
        json!({"client_id": null, "azp": "desk-client"}),
        json!({"nonce": "n"}),
        json!({"client_id": "unregistered"}),
    ] {
        let token = signer.token(&with(claims(&idp.url), accepted.clone()));
        assert!(room.ask(&token).await.is_ok(), "{accepted}");
    }
}

#[tokio::test]
async fn every_bad_header_and_signature_has_its_own_reason() {
    let (signer, stranger) = (Signer::new("one"), Signer::new("one"));
    let idp = Idp::start(vec![signer.jwk(), Signer::new("two").jwk()]).await;
    let room = room(&config_at(&idp.url));
    let good = claims(&idp.url);
    let header = |changes: Value| with(json!({"alg": "ES256", "typ": "at+jwt", "kid": "one"}), changes);
    for (changes, reason) in [
        (json!({"alg": "none"}), Reason::AlgorithmRefused),
        (json!({"alg": "HS256"}), Reason::AlgorithmRefused),
        (json!({"alg": "RS256"}), Reason::AlgorithmRefused),
        (json!({"alg": "es256"}), Reason::AlgorithmRefused),
        (json!({"alg": null}), Reason::TokenMalformed),
        (json!({"typ": "id+jwt"}), Reason::TokenTypeRefused),
        (json!({"typ": null}), Reason::TokenTypeRefused),
        (json!({"crit": ["b64"]}), Reason::TokenMalformed),
        (json!({"kid": "two"}), Reason::SignatureInvalid),
        (json!({"kid": "three"}), Reason::SignatureInvalid),
        (json!({"kid": null}), Reason::SignatureInvalid),
    ] {
        let token = signer.token_with(&header(changes.clone()), &good);
        assert_eq!(room.ask(&token).await.map(|_| ()), Err(reason), "{changes}");
    }
    // Whatever key the header offers, the issuer's own is used.
    let offered =
        header(json!({"jwk": stranger.jwk(), "jku": "https://evil.example/jwks", "x5u": "https://evil.example"}));
    assert!(room.ask(&signer.token_with(&offered, &good)).await.is_ok());
    assert_eq!(room.ask(&stranger.token_with(&offered, &good)).await.map(|_| ()), Err(Reason::SignatureInvalid));
    for typ in ["application/at+jwt", "AT+JWT", "JWT"] {
        assert!(room.ask(&signer.token_with(&header(json!({"typ": typ})), &good)).await.is_ok(), "{typ}");
    }
    // An ID token is signed by the same key and is not an access token.
    for claim in ["nonce", "at_hash", "c_hash", "events"] {
        let token = signer.token_with(&header(json!({"typ": "JWT"})), &with(good.clone(), json!({claim: "x"})));
        assert_eq!(room.ask(&token).await.map(|_| ()), Err(Reason::TokenTypeRefused), "{claim}");
    }
    let token = signer.token(&good);
    let (rest, signature) = token.rsplit_once('.').unwrap();
    for broken in
        [format!("{rest}."), format!("{rest}.AAAA"), format!("{rest}.{}", signature.to_lowercase()), rest.to_owned()]
    {
        let reason = room.ask(&broken).await.map(|_| ()).unwrap_err();
        assert!(matches!(reason, Reason::SignatureInvalid | Reason::TokenMalformed), "{reason}");
    }
    assert_eq!(room.ask(&"a".repeat(limit::TOKEN_BYTES_MAX + 1)).await.map(|_| ()), Err(Reason::TokenMalformed));
    // All of those unknown keys made the gateway ask once more.
    assert_eq!(idp.fetches.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn optional_claims_may_be_left_out_but_the_life_stays_bounded() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let mut config = config_at(&idp.url);
    Arc::make_mut(&mut config.issuers[0]).optional_claims = vec!["iat".into(), "jti".into(), "client_id".into()];
    let room = room(&config);
    let bare = with(claims(&idp.url), json!({"iat": null, "jti": null, "client_id": null}));
    let caller = room.ask(&signer.token(&bare)).await.unwrap();
    assert_eq!((caller.persona().client_proof, caller.token().issued_at), (ClientProof::None, None));
    let long = with(bare, json!({"exp": now_s() + 7200}));
    assert_eq!(room.ask(&signer.token(&long)).await.map(|_| ()), Err(Reason::TokenLifetimeExceeded));
}

#[tokio::test]
async fn software_that_got_a_token_for_itself_has_proven_itself() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let room = room(&config_at(&idp.url));
    let own = with(claims(&idp.url), json!({"sub": "bot-client", "client_id": "bot-client", "groups": null}));
    let caller = room.ask(&signer.token(&own)).await.unwrap();
    assert_eq!(caller.persona().client_proof, ClientProof::Secret);
    assert!(caller.persona().agent.as_ref().unwrap().autonomous);
    assert_eq!(caller.persona().groups, Groups::Known(Vec::new()));
    let person = with(claims(&idp.url), json!({"groups": null}));
    let caller = room.ask(&signer.token(&person)).await.unwrap();
    assert!(matches!(caller.persona().groups, Groups::Unknown(_)));
}

#[tokio::test]
async fn a_client_that_acts_for_a_person_has_the_proof_that_its_entry_declares_while_it_does() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let public = config_at(&idp.url);
    let mut declared = public.clone();
    let bot = declared.agents.values_mut().find(|agent| agent.id.as_str() == "bot").unwrap();
    Arc::make_mut(bot).clients[0].proof = DeclaredProof::PrivateKey;
    let token = signer.token(&with(claims(&idp.url), json!({"client_id": "bot-client"})));
    let proven = room(&declared).ask(&token).await.unwrap();
    assert_eq!(proven.persona().client_proof, ClientProof::PrivateKey);
    assert!(!proven.persona().lacks_proof());
    assert!(still_stands(&declared, &proven).is_ok());
    assert_eq!(still_stands(&public, &proven).unwrap_err().reason, Reason::ClientProofInsufficient);
    let bare = room(&public).ask(&token).await.unwrap();
    assert_eq!(bare.persona().client_proof, ClientProof::Public);
    assert!(bare.persona().lacks_proof());
    assert!(still_stands(&declared, &bare).is_ok(), "to be believed more is no reason to stop");
}

#[tokio::test]
async fn a_token_works_only_at_its_resource() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let room = room(&config_at(&idp.url));
    let git = Resource::Server(ServerId::new("git").unwrap());
    let jira = Resource::Server(ServerId::new("jira").unwrap());
    let narrow = signer.token(&with(claims(&idp.url), json!({"aud": "https://gw.example/mcp/git"})));
    assert!(room.ask_at(&narrow, &git).await.is_ok());
    for elsewhere in [&jira, &Resource::Gateway, &Resource::Admin] {
        assert_eq!(room.ask_at(&narrow, elsewhere).await.map(|_| ()), Err(Reason::AudienceMismatch));
    }
    let wide = signer.token(&claims(&idp.url));
    assert!(room.ask_at(&wide, &jira).await.is_ok());
    assert_eq!(room.ask_at(&wide, &Resource::Admin).await.map(|_| ()), Err(Reason::AudienceMismatch));
}

#[tokio::test]
async fn a_revocation_holds_for_a_remembered_token_at_once() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let room = room(&config_at(&idp.url));
    let token = signer.token(&claims(&idp.url));
    assert_eq!(room.ask(&token).await.unwrap().epoch(), RevocationEpoch(0));
    let alias = IssuerAlias::new("corp").unwrap();
    let revoke = |target, mode| {
        let revocation = Revocation { target, mode, actor: "host:0".into(), note: String::new(), at: 0 };
        Held { since: RevocationEpoch(1), revocation }
    };
    let digest = Digest::sha256(token.as_bytes()).to_string();
    for (epoch, target) in (1..).zip([
        RevocationTarget::Token("j1".into()),
        RevocationTarget::Token(digest),
        RevocationTarget::Subject(alias.clone(), "alice".into()),
        RevocationTarget::Client(alias.clone(), "desk-client".into()),
        RevocationTarget::Everything,
    ]) {
        room.revocations.replace(RevocationEpoch(epoch), vec![revoke(target.clone(), RevocationMode::Block)]);
        assert_eq!(room.ask(&token).await.map(|_| ()), Err(Reason::Revoked), "{target:?}");
    }
    let other = IssuerAlias::new("other").unwrap();
    let elsewhere = revoke(RevocationTarget::Subject(other, "alice".into()), RevocationMode::Block);
    let earlier = RevocationMode::SignOut { issued_before: now_s() - 60 };
    let subject = RevocationTarget::Subject(alias, "alice".into());
    room.revocations.replace(RevocationEpoch(9), vec![elsewhere, revoke(subject.clone(), earlier)]);
    assert_eq!(room.ask(&token).await.unwrap().epoch(), RevocationEpoch(9));
    let later = RevocationMode::SignOut { issued_before: now_s() + 60 };
    room.revocations.replace(RevocationEpoch(10), vec![revoke(subject, later)]);
    assert_eq!(room.ask(&token).await.map(|_| ()), Err(Reason::Revoked));
}

#[tokio::test]
async fn groups_that_are_older_than_the_files_allow_are_unknown_and_end_what_they_opened() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let mut config = config_at(&idp.url);
    Arc::make_mut(&mut config.issuers[0]).claims.groups_age_max = Some(Duration::from_secs(300));
    let room = room(&config);
    let of = |age: i64| signer.token(&with(claims(&idp.url), json!({ "iat": now_s() - age, "jti": age.to_string() })));
    let token = of(200);
    let fresh = room.ask(&token).await.unwrap();
    assert!(matches!(fresh.persona().groups, Groups::Known(_)));
    assert!(fresh.expires_at() <= now_s() + 101, "not for as long as the token lives");
    let digest = Digest::sha256(token.as_bytes());
    assert!(room.identity.cache.verified(&digest, Identity::FIRST_REVISION, now_s() + 80).is_some());
    assert!(room.identity.cache.verified(&digest, Identity::FIRST_REVISION, now_s() + 120).is_none());
    let old = room.ask(&of(400)).await.unwrap();
    let Groups::Unknown(why) = &old.persona().groups else { panic!("its groups are believed") };
    assert!(why.contains("at most 300 s"), "{why}");
    assert_eq!(old.expires_at(), old.token().expires_at);
    Arc::make_mut(&mut config.issuers[0]).claims.groups_age_max = None;
    room.identity.reload(&config);
    assert!(matches!(room.ask(&of(400)).await.unwrap().persona().groups, Groups::Known(_)));
}

#[tokio::test]
async fn a_reload_looks_at_every_token_again_and_keeps_the_keys() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let mut config = config_at(&idp.url);
    let room = room(&config);
    let token = signer.token(&claims(&idp.url));
    assert_eq!(room.ask(&token).await.unwrap().settings_revision(), Identity::FIRST_REVISION);
    assert_eq!(room.identity.reload(&config), Identity::FIRST_REVISION + 1);
    assert_eq!(room.ask(&token).await.unwrap().settings_revision(), Identity::FIRST_REVISION + 1);
    let desk = config.agents.iter_mut().find(|(id, _)| id.as_str() == "desk").unwrap().1;
    Arc::make_mut(desk).state = crate::config::AgentState::Suspended;
    Arc::make_mut(&mut config.issuers[0]).scopes = ScopeMode::Ignored;
    room.identity.reload(&config);
    assert_eq!(room.ask(&token).await.map(|_| ()), Err(Reason::AgentInactive));
    assert_eq!(idp.fetches.load(Ordering::SeqCst), 1, "the issuer itself did not change");
    config.issuers.clear();
    room.identity.reload(&config);
    assert_eq!(room.ask(&token).await.map(|_| ()), Err(Reason::IssuerUnknown));
}

#[tokio::test]
async fn an_issuer_that_is_down_stops_neither_the_start_nor_the_others() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    *idp.keys.lock().unwrap() = None;
    let other = Idp::start(vec![signer.jwk()]).await;
    let mut config = config();
    Arc::make_mut(&mut config.issuers[0]).issuer = idp.url.clone();
    Arc::make_mut(&mut config.issuers[1]).issuer = other.url.clone();
    let room = room(&config);
    let token = signer.token(&claims(&idp.url));
    assert_eq!(room.ask(&token).await.map(|_| ()), Err(Reason::IssuerUnavailable));
    assert!(room.ask(&signer.token(&claims(&other.url))).await.is_ok());
    assert!(room.identity.is_ready(), "one of the two can authenticate people");
    let down = &room.identity.readiness()[0];
    assert!(down.keys == 0 && down.problem.as_ref().unwrap().contains("503"), "{down:?}");
    // It comes back, and nobody has to do anything.
    *idp.keys.lock().unwrap() = Some(vec![signer.jwk()]);
    for _ in 0..100 {
        if room.ask(&token).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the issuer came back and its tokens are still refused");
}

#[tokio::test]
async fn withdrawn_keys_leave_at_once_and_take_remembered_tokens_along() {
    let (old, new, third) = (Signer::new("old"), Signer::new("new"), Signer::new("third"));
    let idp = Idp::start(vec![old.jwk()]).await;
    let config = config_at(&idp.url);
    let room = room(&config);
    let from_old = old.token(&claims(&idp.url));
    assert!(room.ask(&from_old).await.is_ok());
    *idp.keys.lock().unwrap() = Some(vec![new.jwk()]);
    let fifty: Vec<String> =
        (0..50).map(|n| new.token(&with(claims(&idp.url), json!({"jti": format!("n{n}")})))).collect();
    let asked = fifty.iter().map(|token| room.identity.authenticate(Presented::Bearer(token), &Resource::Gateway));
    assert!(futures_util::future::join_all(asked).await.iter().all(Result::is_ok));
    assert_eq!(idp.fetches.load(Ordering::SeqCst), 2, "fifty tokens with an unknown key are one fetch");
    assert_eq!(room.ask(&from_old).await.map(|_| ()), Err(Reason::SignatureInvalid));
    // Within the interval another unknown key makes nobody fetch: the token is refused.
    *idp.keys.lock().unwrap() = Some(vec![third.jwk()]);
    let early = third.token(&claims(&idp.url));
    assert_eq!(room.ask(&early).await.map(|_| ()), Err(Reason::SignatureInvalid));
    assert_eq!(idp.fetches.load(Ordering::SeqCst), 2);
    room.identity.settings.load().issuers[&idp.url].issuer.forget_last_question();
    let later = third.token(&with(claims(&idp.url), json!({"jti": "j2"})));
    assert!(room.ask(&later).await.is_ok());
    assert_eq!(idp.fetches.load(Ordering::SeqCst), 3);
    assert!(room.ask(&early).await.is_ok(), "the refusal was forgotten with the old keys");
}

#[tokio::test]
async fn the_keys_of_an_issuer_that_stays_away_leave_after_their_time() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let mut config = config_at(&idp.url);
    Arc::make_mut(&mut config.issuers[0]).jwks_stale_max = Duration::from_secs(2);
    let room = room(&config);
    let token = signer.token(&claims(&idp.url));
    assert!(room.ask(&token).await.is_ok());
    *idp.keys.lock().unwrap() = None;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert!(room.ask(&token).await.is_ok(), "while the issuer is away its last keys hold for a time");
    for _ in 0..80 {
        if room.ask(&token).await.map(|_| ()) == Err(Reason::IssuerUnavailable) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("stale keys are still used");
}

#[tokio::test]
async fn metadata_that_names_another_issuer_is_not_believed() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let spelled = idp.url.replace("127.0.0.1", "localhost");
    let room = room(&config_at(&spelled));
    assert_eq!(room.ask(&signer.token(&claims(&spelled))).await.map(|_| ()), Err(Reason::IssuerUnavailable));
    assert!(room.identity.readiness()[0].problem.as_ref().unwrap().contains("issuer"));
    assert!(!room.identity.is_ready());
}

#[tokio::test]
async fn nobody_is_anonymous_unless_that_is_configured_on_loopback() {
    let mut config = config_at("http://127.0.0.1:9");
    let nothing = |room: Room, resource: Resource| async move {
        room.identity.authenticate(Presented::Nothing, &resource).await.map_err(|stop| stop.reason())
    };
    assert_eq!(nothing(room(&config), Resource::Gateway).await.map(|_| ()), Err(Reason::TokenMissing));
    config.anonymous = true;
    assert_eq!(
        nothing(room(&config), Resource::Gateway).await.map(|_| ()),
        Err(Reason::TokenMissing),
        "under a public name"
    );
    config.gateway.public_url = Url::parse("http://127.0.0.1:7800").unwrap();
    config.gateway.trusted_proxies = vec!["10.0.0.1".parse().unwrap()];
    assert_eq!(
        nothing(room(&config), Resource::Gateway).await.map(|_| ()),
        Err(Reason::TokenMissing),
        "behind a proxy"
    );
    config.gateway.trusted_proxies.clear();
    let passed_on = Shown { forwarded: true, ..Shown::default() };
    let refused = room(&config).identity.authenticate(passed_on, &Resource::Gateway).await;
    assert_eq!(refused.map(|_| ()).map_err(|stop| stop.reason()), Err(Reason::TokenMissing), "through a proxy");
    let caller = nothing(room(&config), Resource::Gateway).await.unwrap();
    assert_eq!(caller.persona().user.as_ref().unwrap().as_str(), "user:anonymous/anonymous");
    assert!(caller.persona().agent.is_none());
    assert_eq!(nothing(room(&config), Resource::Admin).await.map(|_| ()), Err(Reason::TokenMissing));
    config.gateway.listen = "0.0.0.0:8080".parse().unwrap();
    assert_eq!(nothing(room(&config), Resource::Gateway).await.map(|_| ()), Err(Reason::TokenMissing));
    config.gateway.listen = "127.0.0.1:8080".parse().unwrap();
    Arc::make_mut(&mut config.issuers[0]).alias = IssuerAlias::new(ANONYMOUS).unwrap();
    assert_eq!(nothing(room(&config), Resource::Gateway).await.map(|_| ()), Err(Reason::TokenMissing));
}

#[tokio::test]
async fn the_local_user_is_made_from_the_configuration_in_memory_alone() {
    let mut config = config_at("http://127.0.0.1:9");
    let desk = crate::ids::AgentId::new("desk").unwrap();
    config.local = Some(crate::config::LocalUser { name: "ann,*".to_owned(), agent: desk.clone() });
    config.anonymous = true;
    let gateway = room(&config);
    // Nobody is asked for keys, because nobody can present a token.
    assert!(gateway.identity.is_ready() && gateway.identity.readiness().is_empty());
    let caller = gateway.identity.authenticate(Presented::Nothing, &Resource::Gateway).await.unwrap();
    let persona = caller.persona();
    assert_eq!(persona.user.as_ref().unwrap().as_str(), "user:local/ann%2C%2A");
    assert_eq!((persona.agent.as_ref().unwrap().id.as_str(), persona.client_proof), ("desk", ClientProof::None));
    assert!(caller.subject_token().is_none(), "there is nothing to exchange");
    assert!(super::still_stands(&config, &caller).is_ok());
    let refused = |resource| gateway.identity.authenticate(Presented::Nothing, resource);
    assert_eq!(refused(&Resource::Admin).await.map(|_| ()).map_err(|stop| stop.reason()), Err(Reason::TokenMissing));

    let agent = Arc::make_mut(config.agents.get_mut(&desk).unwrap());
    agent.state = crate::config::AgentState::Suspended;
    gateway.identity.reload(&config);
    let stopped = gateway.identity.authenticate(Presented::Nothing, &Resource::Gateway).await;
    assert_eq!(stopped.map(|_| ()).map_err(|stop| stop.reason()), Err(Reason::AgentInactive));
    config.local = None;
    assert_eq!(super::still_stands(&config, &caller).unwrap_err().reason, Reason::IssuerUnknown);
}

#[tokio::test]
async fn the_tasks_end_when_they_are_stopped() {
    let room = room(&config_at("http://127.0.0.1:9"));
    room.stop.cancel();
    room.tasks.close();
    tokio::time::timeout(Duration::from_secs(5), room.tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn audiences_and_scopes_of_a_token_are_bounded() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let room = room(&config_at(&idp.url));
    let audiences = |count: usize| {
        let mut all: Vec<String> = (1..count).map(|number| format!("https://a{number}.example")).collect();
        all.push("https://gw.example/mcp".to_owned());
        signer.token(&with(claims(&idp.url), json!({ "aud": all })))
    };
    assert!(room.ask(&audiences(limit::TOKEN_AUDIENCES_MAX)).await.is_ok());
    let refused = room.ask(&audiences(limit::TOKEN_AUDIENCES_MAX + 1)).await;
    assert_eq!(refused.map(|_| ()), Err(Reason::TokenMalformed));
    let scopes = |count: usize| {
        let all: Vec<String> = (0..count).map(|number| format!("s{number}")).collect();
        signer.token(&with(claims(&idp.url), json!({ "scope": all.join(" ") })))
    };
    assert_eq!(
        room.ask(&scopes(limit::TOKEN_SCOPES_MAX)).await.unwrap().persona().scopes.len(),
        limit::TOKEN_SCOPES_MAX
    );
    assert_eq!(room.ask(&scopes(limit::TOKEN_SCOPES_MAX + 1)).await.map(|_| ()), Err(Reason::TokenMalformed));
}

#[tokio::test]
async fn a_person_with_an_administrators_client_is_alone_and_gets_in_at_their_listener_only() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let mut config = config_at(&idp.url);
    let corp = config.issuers[0].alias.clone();
    Arc::make_mut(&mut config.issuers[0]).admin_audiences = vec!["api://admin".to_owned()];
    let client = |client_id: &str| {
        let (issuer, client_id) = (corp.clone(), client_id.to_owned());
        crate::config::AdminClient { issuer, client_id, approves: false }
    };
    config.admin = Some(crate::config::AdminConfig {
        listen: "127.0.0.1:9443".parse().unwrap(),
        public_url: Url::parse("https://admin.example").unwrap(),
        allowed_hosts: Vec::new(),
        tls: None,
        clients: vec![client("admin-client")],
        acr: Vec::new(),
        auth_age_max: Duration::from_secs(300),
        console: None,
    });
    let room = room(&config);
    let token = |changes: Value| signer.token(&with(claims(&idp.url), changes));
    let ours = "https://admin.example/admin";
    for audience in [json!(ours), json!([ours, "https://gw.example/mcp"]), json!("api://admin")] {
        let token = token(json!({ "aud": audience, "client_id": "admin-client" }));
        let caller = room.ask_at(&token, &Resource::Admin).await.unwrap();
        assert_eq!((&caller.persona().agent, caller.persona().chain.len()), (&None, 0));
        assert!(still_stands(&config, &caller).is_ok());
        assert_eq!(room.ask(&token).await.map(|_| ()), Err(Reason::AudienceMismatch));
        let mut without = config.clone();
        without.admin.as_mut().unwrap().clients.clear();
        assert_eq!(still_stands(&without, &caller).unwrap_err().reason, Reason::AgentUnknown);
    }
    // Where it was not issued for administrators, it is a client like any other.
    let elsewhere = token(json!({ "client_id": "admin-client" }));
    assert_eq!(room.ask(&elsewhere).await.unwrap().persona().agent.as_ref().unwrap().id.as_str(), "assistant");
    assert_eq!(room.ask_at(&elsewhere, &Resource::Admin).await.map(|_| ()), Err(Reason::AudienceMismatch));
    // Other software stays what it is, and so does the client where no person or another actor stands behind it.
    for changes in [
        json!({ "aud": ours, "client_id": "desk-client" }),
        json!({ "aud": ours, "client_id": "admin-client", "act": { "sub": "h1" } }),
    ] {
        let caller = room.ask_at(&token(changes), &Resource::Admin).await.unwrap();
        assert!(caller.persona().agent.is_some());
    }
    let own = token(json!({ "aud": ours, "client_id": "admin-client", "sub": "admin-client" }));
    assert_eq!(room.ask_at(&own, &Resource::Admin).await.map(|_| ()), Err(Reason::AgentUnknown));
    // The gateway's own public URL is not the listener's name.
    let old = token(json!({ "aud": "https://gw.example/admin", "client_id": "admin-client" }));
    assert_eq!(room.ask_at(&old, &Resource::Admin).await.map(|_| ()), Err(Reason::AudienceMismatch));
}
