//! Opaque tokens against an issuer that answers what the test says, and whatever else that might be taken for one.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Form, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use tokio::sync::Semaphore;

use super::*;
use crate::config::{IntrospectionConfig, IntrospectionProof, Nameless, SecretReference};

/// An issuer that is asked about tokens.
struct Oracle {
    url: String,
    state: Arc<Answers>,
}

#[derive(Default)]
struct Answers {
    /// By token; what is not here is not active.
    by_token: Mutex<HashMap<String, (u16, String)>>,
    /// What it was asked, with the `Authorization` that came along.
    asked: Mutex<Vec<(HashMap<String, String>, String)>>,
    /// Questions that wait for an answer, and the most there ever were at once.
    held: Mutex<Option<Arc<Semaphore>>>,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Oracle {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Answers::default());
        let metadata = json!({ "issuer": url, "introspection_endpoint": format!("{url}/introspect") });
        let router = axum::Router::new()
            // It speaks no OpenID Connect, signs nothing and says so where RFC 8414 has it.
            .route("/.well-known/oauth-authorization-server", get(move || async move { Json(metadata) }))
            .route("/introspect", post(introspect))
            .with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, state }
    }

    fn says(&self, token: &str, status: u16, body: &(impl ToString + ?Sized)) {
        self.state.by_token.lock().unwrap().insert(token.to_owned(), (status, body.to_string()));
    }

    fn asked(&self) -> usize {
        self.state.asked.lock().unwrap().len()
    }

    /// What it says of a good token of a person.
    fn good(&self) -> Value {
        with(claims(&self.url), json!({ "active": true, "jti": null, "token_type": "Bearer" }))
    }

    fn config(&self) -> Config {
        let mut config = config_at(&self.url);
        Arc::make_mut(&mut config.issuers[0]).introspection = Some(Arc::new(asks(None)));
        config
    }
}

async fn introspect(
    State(state): State<Arc<Answers>>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let authorization =
        headers.get("authorization").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let token = form["token"].clone();
    state.asked.lock().unwrap().push((form, authorization));
    let now = state.under_way.fetch_add(1, Ordering::SeqCst) + 1;
    state.most.fetch_max(now, Ordering::SeqCst);
    let held = state.held.lock().unwrap().clone();
    if let Some(held) = held {
        held.acquire().await.unwrap().forget();
    }
    state.under_way.fetch_sub(1, Ordering::SeqCst);
    let answer = state.by_token.lock().unwrap().get(&token).cloned();
    let (status, body) = answer.unwrap_or_else(|| (200, json!({ "active": false }).to_string()));
    (StatusCode::from_u16(status).unwrap(), [("content-type", "application/json")], body).into_response()
}

fn asks(prefix: Option<&str>) -> IntrospectionConfig {
    IntrospectionConfig {
        endpoint: None,
        client_id: "the gateway".to_owned(),
        proof: IntrospectionProof::Secret(SecretReference::Plain("s:cret".to_owned())),
        prefix: prefix.map(str::to_owned),
        nameless: Nameless::Refused,
    }
}

#[tokio::test]
async fn an_opaque_token_is_what_its_issuer_says_and_is_asked_about_once() {
    let oracle = Oracle::start().await;
    let room = room(&oracle.config());
    oracle.says("good", 200, &with(oracle.good(), json!({ "sid": "s1" })));
    let caller = room.ask("good").await.unwrap();
    assert_eq!(caller.persona().user.as_ref().unwrap().as_str(), "user:corp/alice");
    assert_eq!(caller.persona().agent.as_ref().unwrap().id.as_str(), "desk");
    assert_eq!((caller.token().session.as_deref(), caller.token().id.as_deref()), (Some("s1"), None));
    assert!(room.identity.is_ready());
    let asked = oracle.state.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1, "the second time it is remembered");
    let form: HashMap<&str, &str> = asked[0].0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(form, HashMap::from([("token", "good"), ("token_type_hint", "access_token")]));
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode("the+gateway:s%3Acret");
    assert_eq!(asked[0].1, format!("Basic {pair}"));
}

#[tokio::test]
async fn only_not_active_is_a_refusal_and_everything_else_is_trouble_that_lets_nobody_in() {
    let oracle = Oracle::start().await;
    let room = room(&oracle.config());
    let good = oracle.good().to_string();
    let padded = |length: usize| {
        let start = good.trim_end_matches('}');
        format!("{start},\"x\":\"{}\"}}", "x".repeat(length - start.len() - 8))
    };
    for (number, (status, body, reason)) in [
        (200, r#"{"active":false}"#.to_owned(), Reason::TokenInactive),
        (200, r#"{"active":false,"sub":"alice"}"#.to_owned(), Reason::TokenInactive),
        (400, r#"{"active":false}"#.to_owned(), Reason::IssuerUnavailable),
        (500, r#"{"active":false}"#.to_owned(), Reason::IssuerUnavailable),
        (302, good.clone(), Reason::IssuerUnavailable),
        (201, good.clone(), Reason::IssuerUnavailable),
        (200, "<html>".to_owned(), Reason::IssuerUnavailable),
        (200, "[true]".to_owned(), Reason::IssuerUnavailable),
        (200, "{}".to_owned(), Reason::IssuerUnavailable),
        (200, good.replace("\"active\":true", "\"active\":\"true\""), Reason::IssuerUnavailable),
        (200, good.replace("\"active\":true", "\"active\":1"), Reason::IssuerUnavailable),
        (200, good.replace("\"active\":true", "\"active\":false,\"active\":true"), Reason::IssuerUnavailable),
        (200, padded(limit::INTROSPECTED_BYTES_MAX + 1), Reason::IssuerUnavailable),
    ]
    .into_iter()
    .enumerate()
    {
        let token = format!("token-{number}");
        oracle.says(&token, status, &body);
        assert_eq!(room.ask(&token).await.map(|_| ()), Err(reason), "{status} {body:.80}");
    }
    oracle.says("largest", 200, &padded(limit::INTROSPECTED_BYTES_MAX));
    assert!(room.ask("largest").await.is_ok());
}

#[tokio::test]
async fn what_the_issuer_says_is_held_against_the_rules_for_claims() {
    let oracle = Oracle::start().await;
    let room = room(&oracle.config());
    let now = now_s();
    let key = "A".repeat(43);
    for (number, (changes, reason)) in [
        (json!({ "aud": "https://elsewhere.example" }), Reason::AudienceMismatch),
        (json!({ "aud": "https://gw.example/mcp/" }), Reason::AudienceMismatch),
        (json!({ "aud": null }), Reason::ClaimMissing),
        (json!({ "iss": "https://other.example" }), Reason::IssuerUnknown),
        (json!({ "iss": format!("{}/", oracle.url) }), Reason::IssuerUnknown),
        (json!({ "exp": now - 31 }), Reason::TokenExpired),
        (json!({ "exp": null }), Reason::ClaimMissing),
        (json!({ "exp": now + 7200 }), Reason::TokenLifetimeExceeded),
        (json!({ "nbf": now + 600 }), Reason::TokenNotYetValid),
        (json!({ "sub": null }), Reason::ClaimMissing),
        (json!({ "client_id": null }), Reason::ClaimMissing),
        (json!({ "client_id": "suspended-client" }), Reason::AgentInactive),
        (json!({ "cnf": { "jkt": "x" } }), Reason::TokenBound),
        (json!({ "token_type": "DPoP" }), Reason::TokenBound),
        (json!({ "token_type": "DPoP", "cnf": { "x5t#S256": &key } }), Reason::TokenBound),
        (json!({ "token_type": "DPoP", "cnf": { "jkt": &key } }), Reason::TokenBound),
        (json!({ "token_type": "Bearer", "cnf": { "jkt": &key } }), Reason::TokenBound),
        (json!({ "token_type": "refresh_token" }), Reason::TokenTypeRefused),
        (json!({ "token_use": "refresh_token" }), Reason::TokenTypeRefused),
        (json!({ "typ": "Refresh" }), Reason::TokenTypeRefused),
        (json!({ "nonce": "n" }), Reason::TokenTypeRefused),
        (json!({ "act": { "sub": "stranger" } }), Reason::ChainRefused),
    ]
    .into_iter()
    .enumerate()
    {
        let token = format!("token-{number}");
        oracle.says(&token, 200, &with(oracle.good(), changes.clone()));
        assert_eq!(room.ask(&token).await.map(|_| ()), Err(reason), "{changes}");
    }
    // RFC 7662 demands of an answer nothing but `active`; that the issuer said it is enough.
    for (token, changes) in [("no-iss", json!({ "iss": null })), ("no-type", json!({ "token_type": null }))] {
        oracle.says(token, 200, &with(oracle.good(), changes));
        assert!(room.ask(token).await.is_ok(), "{token}");
    }
}

#[tokio::test]
async fn an_answer_without_a_subject_is_the_clients_own_only_where_the_files_say_so() {
    let oracle = Oracle::start().await;
    let mut config = oracle.config();
    let own = json!({ "sub": null, "client_id": "bot-client", "groups": null });
    oracle.says("own", 200, &with(oracle.good(), own.clone()));
    oracle.says("named", 200, &with(with(oracle.good(), own), json!({ "username": "alice" })));
    let strict = room(&config);
    assert_eq!(strict.ask("own").await.map(|_| ()), Err(Reason::ClaimMissing));
    let introspection = IntrospectionConfig { nameless: Nameless::Client, ..asks(None) };
    Arc::make_mut(&mut config.issuers[0]).introspection = Some(Arc::new(introspection));
    let room = room(&config);
    let caller = room.ask("own").await.unwrap();
    assert_eq!(caller.persona().user.as_ref().unwrap().as_str(), "user:corp/bot-client");
    assert_eq!(caller.persona().client_proof, ClientProof::Secret);
    assert_eq!(room.ask("named").await.map(|_| ()), Err(Reason::ClaimMissing), "it is somebody else's");
}

#[tokio::test]
async fn an_answer_is_believed_for_half_a_minute_and_a_revocation_holds_at_once() {
    let oracle = Oracle::start().await;
    let room = room(&oracle.config());
    oracle.says("good", 200, &oracle.good());
    assert!(room.ask("good").await.is_ok());
    let digest = Digest::sha256(b"good");
    let known_in =
        |seconds: i64| room.identity.cache.verified(&digest, Identity::FIRST_REVISION, now_s() + seconds).is_some();
    let life = i64::try_from(limit::INTROSPECTED_LIFE_MAX.as_secs()).unwrap();
    assert!(known_in(life - 5) && !known_in(life));
    // The same holds where the token ends sooner.
    oracle.says("short", 200, &with(oracle.good(), json!({ "exp": now_s() + 10 })));
    assert!(room.ask("short").await.is_ok());
    let short = Digest::sha256(b"short");
    assert!(room.identity.cache.verified(&short, Identity::FIRST_REVISION, now_s() + 11).is_none());
    let target = RevocationTarget::Token(digest.to_string());
    let revocation =
        Revocation { target, mode: RevocationMode::Block, actor: "host:0".into(), note: String::new(), at: 0 };
    room.revocations.replace(RevocationEpoch(1), vec![Held { since: RevocationEpoch(1), revocation }]);
    assert_eq!(room.ask("good").await.map(|_| ()), Err(Reason::Revoked));
    assert_eq!(oracle.asked(), 2, "nobody was asked for that");
}

#[tokio::test]
async fn fifty_requests_with_one_token_ask_once_and_many_tokens_not_all_at_the_same_time() {
    let oracle = Oracle::start().await;
    let room = room(&oracle.config());
    oracle.says("good", 200, &oracle.good());
    let gate = Arc::new(Semaphore::new(0));
    *oracle.state.held.lock().unwrap() = Some(Arc::clone(&gate));
    let ask = |token: String| {
        let identity = Arc::clone(&room.identity);
        tokio::spawn(async move {
            let presented = Presented::Bearer(&token);
            identity.authenticate(presented, &Resource::Gateway).await.map(|_| ()).map_err(|stop| stop.reason())
        })
    };
    let same: Vec<_> = (0..50).map(|_| ask("good".to_owned())).collect();
    while oracle.asked() == 0 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    for asked in same {
        assert_eq!(asked.await.unwrap(), Ok(()));
    }
    assert_eq!(oracle.asked(), 1);
    let junk: Vec<_> = (0..limit::INTROSPECTIONS_MAX * 2).map(|number| ask(format!("junk-{number}"))).collect();
    while oracle.state.under_way.load(Ordering::SeqCst) < limit::INTROSPECTIONS_MAX {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    gate.add_permits(limit::INTROSPECTIONS_MAX * 2);
    let reasons: HashSet<Reason> =
        futures_util::future::join_all(junk).await.into_iter().map(|asked| asked.unwrap().unwrap_err()).collect();
    assert_eq!(reasons, HashSet::from([Reason::TokenInactive]), "who waited was asked about in turn");
    assert_eq!(oracle.state.most.load(Ordering::SeqCst), limit::INTROSPECTIONS_MAX);
}

#[tokio::test]
async fn one_who_leaves_takes_nobody_elses_answer_along() {
    let oracle = Oracle::start().await;
    let room = room(&oracle.config());
    oracle.says("good", 200, &oracle.good());
    let gate = Arc::new(Semaphore::new(0));
    *oracle.state.held.lock().unwrap() = Some(Arc::clone(&gate));
    let ask = || {
        let identity = Arc::clone(&room.identity);
        tokio::spawn(async move { identity.authenticate(Presented::Bearer("good"), &Resource::Gateway).await.is_ok() })
    };
    let first = ask();
    while oracle.asked() == 0 {
        tokio::task::yield_now().await;
    }
    let second = ask();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    gate.add_permits(2);
    assert!(second.await.unwrap());
}

#[tokio::test]
async fn a_token_is_shown_to_its_own_issuer_and_what_is_no_opaque_token_to_none() {
    let (oracle, other) = (Oracle::start().await, Oracle::start().await);
    let mut config = config();
    for (position, (url, prefix)) in [(&oracle.url, None), (&other.url, Some("oth_"))].into_iter().enumerate() {
        let issuer = Arc::make_mut(&mut config.issuers[position]);
        url.clone_into(&mut issuer.issuer);
        issuer.introspection = Some(Arc::new(asks(prefix)));
    }
    let room = room(&config);
    for (oracle, token) in [(&oracle, "plain.with.dots"), (&other, "oth_1")] {
        oracle.says(token, 200, &oracle.good());
    }
    other.says("plain", 200, &other.good());
    assert_eq!(room.ask("plain.with.dots").await.unwrap().persona().issuer.as_str(), "corp");
    let caller = room.ask("oth_1").await.unwrap();
    assert_eq!(caller.persona().issuer.as_str(), "other");
    assert_eq!(
        caller.persona().agent.as_ref().unwrap().id.as_str(),
        "assistant",
        "`corp` knows the client, `other` does not"
    );
    assert_eq!(room.ask("plain").await.map(|_| ()), Err(Reason::TokenInactive), "it is corp's, who does not know it");
    assert_eq!((oracle.asked(), other.asked()), (2, 1));

    // Whatever has the form of a JWT or of a key is verified as one, or refused, and no issuer hears of it.
    let signer = Signer::new("one");
    let jwt = signer.token(&claims("https://unknown.example"));
    let (header, rest) = jwt.split_once('.').unwrap();
    for (token, reason) in [
        (jwt.clone(), Reason::IssuerUnknown),
        (signer.token(&claims(&oracle.url)), Reason::SignatureInvalid),
        (format!("{header}.{rest}.more.parts"), Reason::TokenMalformed),
        (format!("{header}.broken"), Reason::TokenMalformed),
        (format!("{}!.{rest}", &header[..12]), Reason::TokenMalformed),
        (format!("bwk_{}", "A".repeat(43)), Reason::KeyUnknown),
        ("bwk_".to_owned(), Reason::KeyUnknown),
        ("has space".to_owned(), Reason::TokenMalformed),
        ("has\"quote".to_owned(), Reason::TokenMalformed),
        ("====".to_owned(), Reason::TokenMalformed),
    ] {
        assert_eq!(room.ask(&token).await.map(|_| ()), Err(reason), "{token:.40}");
    }
    assert_eq!((oracle.asked(), other.asked()), (2, 1));
}

#[tokio::test]
async fn an_issuer_that_is_away_lets_nobody_in_and_is_asked_again_when_it_is_back() {
    let oracle = Oracle::start().await;
    let mut config = oracle.config();
    let mut elsewhere = asks(None);
    elsewhere.endpoint = Some("http://127.0.0.1:9/introspect".parse().unwrap());
    Arc::make_mut(&mut config.issuers[0]).introspection = Some(Arc::new(elsewhere));
    let room = room(&config);
    assert_eq!(room.ask("good").await.map(|_| ()), Err(Reason::IssuerUnavailable));
    oracle.says("good", 200, &oracle.good());
    Arc::make_mut(&mut config.issuers[0]).introspection = Some(Arc::new(asks(None)));
    room.identity.reload(&config);
    assert!(room.ask("good").await.is_ok());
    assert_eq!(oracle.asked(), 1);
    // A reload that changes nothing of it keeps what was said.
    room.identity.reload(&config);
    assert!(room.ask("good").await.is_ok());
    assert_eq!(oracle.asked(), 1);
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_key_is_called_dpop_and_comes_with_its_proof() {
    use base64::Engine as _;
    let oracle = Oracle::start().await;
    let room = room(&oracle.config());
    let holder = Signer::new("holder");
    let mut jwk = holder.jwk();
    for member in ["use", "alg", "kid"] {
        jwk.as_object_mut().unwrap().remove(member);
    }
    let spelled = |text: &str| {
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Digest::sha256(text.as_bytes()).as_bytes())
    };
    let canonical = format!(
        r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#,
        jwk["x"].as_str().unwrap(),
        jwk["y"].as_str().unwrap()
    );
    let bound = json!({ "cnf": { "jkt": spelled(&canonical) } });
    for (token, kind) in [("dpop", json!("DPoP")), ("silent", json!(null)), ("bearer", json!("Bearer"))] {
        oracle.says(token, 200, &with(with(oracle.good(), bound.clone()), json!({ "token_type": kind })));
        let claims = json!({
            "htm": "POST", "htu": "https://gw.example/mcp", "iat": now_s(), "jti": token, "ath": spelled(token),
        });
        let proof = holder.token_with(&json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk }), &claims);
        let shown =
            Shown { credential: Presented::Dpop(token), proof: Some(&proof), method: "POST", ..Shown::default() };
        let came =
            room.identity.authenticate(shown, &Resource::Gateway).await.map(|_| ()).map_err(|stop| stop.reason());
        // RFC 9449, section 6.2: what is bound is not called a bearer token.
        let expected = if token == "bearer" { Err(Reason::TokenBound) } else { Ok(()) };
        assert_eq!(came, expected, "{token}");
        assert_eq!(room.ask(token).await.map(|_| ()), Err(Reason::TokenBound), "{token}");
    }
}

#[tokio::test]
async fn junk_takes_no_place_from_tokens_that_are_used() {
    let oracle = Oracle::start().await;
    let room = room(&oracle.config());
    oracle.says("good", 200, &oracle.good());
    assert!(room.ask("good").await.is_ok());
    assert!(
        limit::INTROSPECTED_LATELY > limit::INTROSPECTED_LIFE_MAX,
        "it is known when it has to be asked about again"
    );
    let gate = Arc::new(Semaphore::new(0));
    *oracle.state.held.lock().unwrap() = Some(Arc::clone(&gate));
    let ask = |token: String| {
        let identity = Arc::clone(&room.identity);
        tokio::spawn(async move {
            let presented = Presented::Bearer(&token);
            identity.authenticate(presented, &Resource::Gateway).await.map(|_| ()).map_err(|stop| stop.reason())
        })
    };
    let junk: Vec<_> = (0..limit::INTROSPECTIONS_MAX * 2).map(|number| ask(format!("junk-{number}"))).collect();
    while oracle.state.under_way.load(Ordering::SeqCst) < limit::INTROSPECTIONS_MAX {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // As if the half minute had passed for which the answer is believed.
    let introspector = Arc::clone(room.identity.settings.load().issuers[&oracle.url].introspector.as_ref().unwrap());
    introspector.forget_replies();
    room.identity.reload(&oracle.config());
    let asked = oracle.asked();
    let good = ask("good".to_owned());
    while oracle.asked() == asked {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    gate.add_permits(limit::INTROSPECTIONS_MAX * 2 + 1);
    assert_eq!(good.await.unwrap(), Ok(()));
    for junk in junk {
        assert_eq!(junk.await.unwrap(), Err(Reason::TokenInactive));
    }
}

#[tokio::test]
async fn whoever_came_with_an_opaque_token_is_no_stranger_when_its_issuer_has_to_be_asked_again() {
    let oracle = Oracle::start().await;
    let room = room(&oracle.config());
    oracle.says("good", 200, &oracle.good());
    assert!(room.ask("good").await.is_ok() && room.ask("bad").await.is_err());
    let (digest, later) = (Digest::sha256(b"good"), |seconds: Duration| now_s() + super::verify::seconds(seconds));
    let believed = later(limit::INTROSPECTED_LIFE_MAX + Duration::from_secs(2));
    let revision = room.identity.settings.load().revision;
    assert!(room.identity.cache.verified(&digest, revision, believed).is_none(), "what was found is over");
    assert!(room.identity.acquaintances.know(&digest, believed));
    assert!(!room.identity.acquaintances.know(&Digest::sha256(b"bad"), now_s()));
    let seen = |token: &'static str| room.identity.has_seen(&Presented::Bearer(token).into());
    room.identity.reload(&oracle.config());
    assert!(seen("good") && !seen("bad"), "whatever is configured since");
    assert!(room.identity.cache.verified(&digest, revision + 1, now_s()).is_none(), "and verified anew all the same");
}

#[tokio::test]
async fn an_issuer_that_refuses_our_client_is_not_asked_with_each_request() {
    let oracle = Oracle::start().await;
    let room = room(&oracle.config());
    let refused = json!({ "error": "invalid_client" });
    for number in 0..20 {
        let token = format!("token-{number}");
        oracle.says(&token, 401, &refused);
        assert_eq!(room.ask(&token).await.map(|_| ()), Err(Reason::IssuerUnavailable));
    }
    assert!(oracle.asked() <= 2, "{}", oracle.asked());
    oracle.says("good", 200, &oracle.good());
    for _ in 0..100 {
        if room.ask_once("good").await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("our client was put right, and nobody asks");
}

#[tokio::test]
async fn whoever_acts_with_an_opaque_token_is_asked_about_for_as_long_as_they_do() {
    let oracle = Oracle::start().await;
    let room = room(&oracle.config());
    oracle.says("good", 200, &oracle.good());
    let caller = room.ask("good").await.unwrap();
    assert!(caller.still_verified().is_ok());
    let disowned = caller.disowned().expect("its issuer has to be asked");
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let signed = super::room(&config_at(&idp.url)).ask(&signer.token(&claims(&idp.url))).await.unwrap();
    assert!(signed.disowned().is_none(), "a key says it");
    oracle.state.by_token.lock().unwrap().clear();
    let life = limit::INTROSPECTED_LIFE_MAX + Duration::from_secs(10);
    assert_eq!(tokio::time::timeout(life, disowned).await, Ok(Reason::TokenInactive));
}
