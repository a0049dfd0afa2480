//! The room against an authorization server on loopback that answers what the test wants.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use url::Url;

mod strategies;
mod taken;

use super::*;
use crate::config::{
    ClientAuthentication, ExchangeConfig, HealthConfig, Isolation, ListAs, OnStale, Prefix, StaticConfig, TokenRequest,
    TransportConfig,
};
use crate::identity::fixture::{Signer, config};
use crate::identity::{Presented, Resource, Revocations, now_s};
use crate::ids::{Environment, IssuerAlias};

/// The `Authorization` header and the form of one question.
type Asked = (Option<String>, BTreeMap<String, String>);

/// What the server was asked, and what it answers next.
#[derive(Default)]
struct Script {
    asked: Mutex<Vec<Asked>>,
    answer: Mutex<Option<(u16, Value)>>,
    /// What one of the endpoints answers instead.
    answers_at: Mutex<BTreeMap<String, (u16, Value)>>,
    count: AtomicUsize,
}

struct World {
    delegate: Arc<Delegate>,
    identity: Arc<Identity>,
    script: Arc<Script>,
    signer: Signer,
    revocations: Arc<Revocations>,
    url: String,
    config: Config,
}

async fn answer(
    State(script): State<Arc<Script>>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, Json<Value>) {
    let mut form: BTreeMap<_, _> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    form.insert("(path)".to_owned(), uri.path().to_owned());
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    script.asked.lock().unwrap().push((authorization, form));
    let number = script.count.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let here = script.answers_at.lock().unwrap().get(uri.path()).cloned();
    let scripted = here.or_else(|| script.answer.lock().unwrap().clone());
    let (status, body) = scripted.unwrap_or_else(|| (200, good(&format!("exchanged-{number}"), json!(600))));
    (StatusCode::from_u16(status).unwrap(), Json(body))
}

#[expect(clippy::needless_pass_by_value, reason = "the callers read better with a literal in the call")]
fn good(token: &str, expires_in: Value) -> Value {
    json!({
        "access_token": token, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer", "expires_in": expires_in,
    })
}

fn asks(scope: &str) -> TokenRequest {
    TokenRequest {
        issuer: None,
        token_endpoint: None,
        revocation_endpoint: None,
        client_id: "gate way".into(),
        client: ClientAuthentication::Basic(SecretReference::Plain("s:cret".into())),
        assertion: None,
        audience: Some("https://up.example".into()),
        resource: None,
        scope: Some(scope.into()),
        extra: BTreeMap::new(),
        use_max: Duration::from_secs(300),
        token_life_max: None,
    }
}

fn exchange(scope: &str) -> ExchangeConfig {
    ExchangeConfig { asks: asks(scope), actor: None }
}

fn server(credential: CredentialConfig) -> ServerConfig {
    let long = Duration::from_secs(10);
    ServerConfig {
        id: ServerId::new("git").unwrap(),
        title: None,
        owner: "user:corp/owner".into(),
        review: None,
        expires: None,
        environment: Environment::new("development").unwrap(),
        transport: TransportConfig::Http { url: Url::parse("https://up.example/mcp").unwrap(), allow_private: false },
        credential,
        tool_credentials: BTreeMap::new(),
        tool_budgets: BTreeMap::new(),
        prefix: Prefix::Server,
        list_as: ListAs::Caller,
        isolation: Isolation::Principal,
        pins: crate::config::PinMode::Off,
        on_down: long,
        list_refresh_min: long,
        uris: Vec::new(),
        health: HealthConfig {
            connect_timeout: long,
            first_byte_timeout: long,
            idle_timeout: long,
            call_timeout: long,
            input_timeout: Duration::from_secs(10),
            calls_in_flight_max: 10,
        },
        forward_headers: Vec::new(),
        discoverable: false,
        elicit_url_hosts: Vec::new(),
        redact: Vec::new(),
        idempotent: Vec::new(),
    }
}

async fn world(server: ServerConfig) -> World {
    world_with(|_| server, |delegate| delegate).await
}

/// A world whose server is made for the address of its authorization servers.
async fn world_with(server: impl FnOnce(&str) -> ServerConfig, more: impl FnOnce(Delegate) -> Delegate) -> World {
    let signer = Signer::new("one");
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let metadata = json!({
        "issuer": url, "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/jwks"), "revocation_endpoint": format!("{url}/revoke"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
    });
    let other = json!({
        "issuer": format!("{url}/as"), "token_endpoint": format!("{url}/as/token"),
        "revocation_endpoint": format!("{url}/as/revoke"),
    });
    let (keys, script) = (json!({ "keys": [signer.jwk()] }), Arc::new(Script::default()));
    let router = Router::new()
        .route("/.well-known/openid-configuration", get(move || async move { Json(metadata) }))
        .route("/jwks", get(move || async move { Json(keys) }))
        .route("/token", post(answer))
        .route("/revoke", post(answer))
        // Another authorization server.
        .route("/.well-known/oauth-authorization-server/as", get(move || async move { Json(other) }))
        .route("/as/token", post(answer))
        .route("/as/revoke", post(answer))
        .with_state(Arc::clone(&script));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut config = config();
    config.issuers.truncate(1);
    Arc::make_mut(&mut config.issuers[0]).issuer.clone_from(&url);
    config.servers = vec![Arc::new(server(&url))];
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let revocations = Arc::new(Revocations::default());
    let identity = Identity::new(&config, Arc::clone(&revocations), tasks.clone(), stop.clone());
    let identity = Arc::new(identity);
    let delegate = Arc::new(more(Delegate::new(&config, Arc::clone(&identity), &tasks, stop).await));
    World { delegate, identity, script, signer, revocations, url, config }
}

impl World {
    async fn caller(&self, subject: &str, life_s: i64) -> (Caller, String) {
        let now = now_s();
        let token = self.signer.token(&json!({
            "iss": self.url, "sub": subject, "aud": "https://gw.example/mcp", "exp": now + life_s, "iat": now,
            "jti": format!("{subject}-{life_s}"), "client_id": "desk-client", "groups": [],
        }));
        let caller = self.identity.authenticate(Presented::Bearer(&token), &Resource::Gateway).await.unwrap();
        (caller, token)
    }

    async fn ask(&self, caller: &Caller, tool: Option<&str>) -> Result<Credential, Stop> {
        self.delegate.credential_for(caller, &self.config.servers[0], tool, Bound::default()).await
    }

    /// What one of the endpoints answers.
    fn answers_at(&self, path: &str, status: u16, body: Value) {
        self.script.answers_at.lock().unwrap().insert(path.to_owned(), (status, body));
    }

    /// The forms that one of the endpoints was sent.
    fn asked_at(&self, path: &str) -> Vec<BTreeMap<String, String>> {
        let asked = self.script.asked.lock().unwrap();
        asked.iter().map(|(_, form)| form.clone()).filter(|form| form["(path)"] == path).collect()
    }

    fn answers(&self, status: u16, body: Value) {
        *self.script.answer.lock().unwrap() = Some((status, body));
    }
}

fn value(credential: &Credential) -> String {
    credential.header.as_ref().unwrap().value.expose_secret().to_owned()
}

#[tokio::test]
async fn the_callers_token_is_exchanged_and_never_presented() {
    let world = world(server(CredentialConfig::Exchange(Arc::new(exchange("read write"))))).await;
    let (alice, token) = world.caller("alice", 600).await;
    let before = now_s();
    let credential = world.ask(&alice, None).await.unwrap();
    assert_eq!(value(&credential), "Bearer exchanged-0");
    assert_eq!(credential.header.as_ref().unwrap().name, "authorization");
    assert_eq!(credential.context, AuthorizationContext::Principal(alice.principal()));
    let facts = &credential.facts;
    assert_eq!((facts.kind, facts.audience.as_deref()), (CredentialKind::Exchange, Some("https://up.example")));
    let ends = credential.ends;
    assert!(ends.used_until.unwrap() - before <= 301 && ends.expires_at.unwrap() - before >= 600);
    let (authorization, form) = world.script.asked.lock().unwrap()[0].clone();
    assert_eq!(authorization.as_deref(), Some("Basic Z2F0ZSt3YXk6cyUzQWNyZXQ="), "gate+way:s%3Acret");
    assert_eq!(form["subject_token"], token);
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:token-exchange");
    assert_eq!((form["audience"].as_str(), form["scope"].as_str()), ("https://up.example", "read write"));
    assert!(!form.contains_key("client_secret") && !form.contains_key("resource"));
    assert!(!format!("{credential:?}{:?}", world.delegate).contains("exchanged-0"), "secrets are not printed");

    world.answers(200, good(&token, json!(600)));
    let (bob, token) = world.caller("bob", 600).await;
    world.answers(200, good(&token, json!(600)));
    let stop = world.ask(&bob, None).await.unwrap_err();
    assert_eq!(stop.reason(), Reason::CredentialUnavailable);
    assert!(stop.to_string().contains("own token") && !stop.to_string().contains(&token), "{stop}");
}

#[tokio::test]
async fn a_hundred_first_calls_are_one_exchange_and_another_caller_has_another() {
    let world = world(server(CredentialConfig::Exchange(Arc::new(exchange("read"))))).await;
    let (alice, _) = world.caller("alice", 600).await;
    let many = futures_util::future::join_all((0..100).map(|_| world.ask(&alice, None))).await;
    assert!(many.into_iter().all(|credential| value(&credential.unwrap()) == "Bearer exchanged-0"));
    assert_eq!(world.script.count.load(Ordering::SeqCst), 1);
    let (again, _) = world.caller("alice", 601).await;
    assert_eq!(
        value(&world.ask(&again, None).await.unwrap()),
        "Bearer exchanged-1",
        "another token of hers is another key"
    );
    let (bob, _) = world.caller("bob", 600).await;
    assert_eq!(value(&world.ask(&bob, None).await.unwrap()), "Bearer exchanged-2");

    let corp = IssuerAlias::new("corp").unwrap();
    assert_eq!(world.delegate.drop_for(&RevocationTarget::Subject(corp, "alice".into())).await, 2);
    assert_eq!(value(&world.ask(&bob, None).await.unwrap()), "Bearer exchanged-2");
    assert_eq!(value(&world.ask(&alice, None).await.unwrap()), "Bearer exchanged-3");
}

#[tokio::test]
async fn a_tool_with_a_scope_of_its_own_has_a_token_of_its_own() {
    let mut server = server(CredentialConfig::Exchange(Arc::new(exchange("read"))));
    server.tool_credentials.insert("push".into(), CredentialConfig::Exchange(Arc::new(exchange("write"))));
    server.tool_credentials.insert("public".into(), CredentialConfig::None);
    let world = world(server).await;
    let (alice, _) = world.caller("alice", 600).await;
    assert_eq!(value(&world.ask(&alice, Some("log")).await.unwrap()), "Bearer exchanged-0");
    assert_eq!(value(&world.ask(&alice, Some("push")).await.unwrap()), "Bearer exchanged-1");
    assert_eq!(value(&world.ask(&alice, Some("other")).await.unwrap()), "Bearer exchanged-0");
    let public = world.ask(&alice, Some("public")).await.unwrap();
    assert!(public.header.is_none() && public.context == AuthorizationContext::Gateway);
    let server = &world.config.servers[0];
    assert_eq!(Delegate::context(&alice, server, Some("public")), AuthorizationContext::Gateway);
    assert_eq!(Delegate::context(&alice, server, None), AuthorizationContext::Principal(alice.principal()));
    let scopes: Vec<_> = world.script.asked.lock().unwrap().iter().map(|(_, form)| form["scope"].clone()).collect();
    assert_eq!(scopes, ["read", "write"]);
}

#[tokio::test]
async fn every_wrong_answer_is_told_apart_and_nothing_is_kept_of_it() {
    let world = world(server(CredentialConfig::Exchange(Arc::new(exchange("read"))))).await;
    let (alice, token) = world.caller("alice", 600).await;
    let changed = |name: &str, value: Value| {
        let mut answer = good("t", json!(600));
        answer[name] = value;
        answer
    };
    let oauth = |code: &str| json!({"error": code, "error_description": format!("the token {token} is not for that")});
    for (status, body, reason) in [
        (400, oauth("invalid_target"), Reason::ExchangeRefused),
        (400, oauth("invalid_scope"), Reason::ExchangeRefused),
        (400, oauth("invalid_grant"), Reason::ExchangeRefused),
        (401, oauth("invalid_client"), Reason::CredentialUnavailable),
        (400, oauth("unauthorized_client"), Reason::CredentialUnavailable),
        (500, oauth("invalid_grant"), Reason::CredentialUnavailable),
        (503, json!("down"), Reason::CredentialUnavailable),
        (302, json!({}), Reason::CredentialUnavailable),
        (200, json!(["garbage"]), Reason::CredentialUnavailable),
        (200, json!({"access_token": 7}), Reason::CredentialUnavailable),
        (200, changed("access_token", json!("")), Reason::CredentialUnavailable),
        (200, changed("access_token", json!("a\r\nX: b")), Reason::CredentialUnavailable),
        (
            200,
            changed("access_token", json!("x".repeat(crate::limit::TOKEN_BYTES_MAX + 1))),
            Reason::CredentialUnavailable,
        ),
        (200, changed("token_type", json!("DPoP")), Reason::CredentialUnavailable),
        (200, changed("token_type", Value::Null), Reason::CredentialUnavailable),
        (200, changed("issued_token_type", Value::Null), Reason::CredentialUnavailable),
        (
            200,
            changed("issued_token_type", json!("urn:ietf:params:oauth:token-type:id_token")),
            Reason::CredentialUnavailable,
        ),
        (200, changed("expires_in", json!(0)), Reason::CredentialUnavailable),
        (200, changed("expires_in", json!(-5)), Reason::CredentialUnavailable),
    ] {
        world.answers(status, body.clone());
        let stop = world.ask(&alice, None).await.unwrap_err();
        assert_eq!(stop.reason(), reason, "{status} {body}");
        assert!(!stop.to_string().contains(&token), "{stop}");
    }
    for body in [
        changed("token_type", json!("N_A")),
        changed("token_type", json!("bearer")),
        changed("expires_in", Value::Null),
    ] {
        world.answers(200, body);
        let (caller, _) =
            world.caller("alice", 500 + i64::try_from(world.script.count.load(Ordering::SeqCst)).unwrap()).await;
        assert!(world.ask(&caller, None).await.is_ok());
    }
}

#[tokio::test]
async fn use_ends_at_the_least_of_all_ends() {
    let mut short = exchange("read");
    short.asks.use_max = Duration::from_secs(40);
    let world = world(server(CredentialConfig::Exchange(Arc::new(short)))).await;
    let until = async |life_s: i64, expires_in: Value| {
        let (caller, _) = world.caller("alice", life_s).await;
        world.answers(200, good("t", expires_in));
        let now = now_s();
        world.ask(&caller, None).await.unwrap().ends.used_until.unwrap() - now
    };
    assert!((39..=41).contains(&until(600, json!(600)).await), "use_max");
    assert!((19..=21).contains(&until(601, json!(30)).await), "its own life, less the margin");
    assert!((24..=26).contains(&until(25, json!(600)).await), "the caller's token");
    // After its use has ended it is exchanged again.
    let (caller, _) = world.caller("bob", 600).await;
    world.answers(200, good("first", json!(2)));
    assert_eq!(value(&world.ask(&caller, None).await.unwrap()), "Bearer first");
    world.answers(200, good("second", json!(600)));
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    assert_eq!(value(&world.ask(&caller, None).await.unwrap()), "Bearer second");
}

#[tokio::test]
async fn a_server_that_changed_does_not_find_old_tokens() {
    let mut world = world(server(CredentialConfig::Exchange(Arc::new(exchange("read"))))).await;
    let (alice, _) = world.caller("alice", 600).await;
    assert_eq!(value(&world.ask(&alice, None).await.unwrap()), "Bearer exchanged-0");
    let url = Url::parse("https://elsewhere.example/mcp").unwrap();
    Arc::make_mut(&mut world.config.servers[0]).transport = TransportConfig::Http { url, allow_private: false };
    world.delegate.reload(&world.config).await;
    assert_eq!(value(&world.ask(&alice, None).await.unwrap()), "Bearer exchanged-1");
}

#[tokio::test]
async fn a_static_secret_is_the_gateways_own() {
    let fixed = |secret| {
        CredentialConfig::Static(Arc::new(StaticConfig {
            header: "x-api-key".into(),
            prefix: "Key ".into(),
            slots: vec![secret],
            max_age: None,
            rotated_at: None,
            on_stale: OnStale::Warn,
        }))
    };
    let world = world(server(fixed(SecretReference::Plain("k".into())))).await;
    let (alice, _) = world.caller("alice", 600).await;
    let credential = world.ask(&alice, None).await.unwrap();
    assert_eq!(
        (credential.header.as_ref().unwrap().name.as_str(), value(&credential).as_str()),
        ("x-api-key", "Key k")
    );
    assert_eq!(credential.context, AuthorizationContext::Gateway);
    assert_eq!(credential.facts.kind, CredentialKind::Static);
    // It has no end of its own, and its use for her ends with her token, or with what the call is part of.
    assert_eq!(credential.ends, Ends { expires_at: None, used_until: Some(alice.token().expires_at) });
    let bound = Bound { mandate: None, ends_at: Some(now_s() + 20) };
    let bounded = world.delegate.credential_for(&alice, &world.config.servers[0], None, bound).await.unwrap();
    assert_eq!(bounded.ends.used_until, bound.ends_at);
    assert_eq!(bounded.header.unwrap().used_until, None, "what is everybody's ends with nobody");
    let missing = Arc::new(server(fixed(SecretReference::File("/nonexistent/secret".into()))));
    let stop = world.delegate.gateway_credential(&missing, None).await.unwrap_err();
    assert_eq!(stop.reason(), Reason::CredentialUnavailable);
    assert!(stop.to_string().contains("file:/nonexistent/secret"), "{stop}");
    let exchanged = Arc::new(server(CredentialConfig::Exchange(Arc::new(exchange("read")))));
    assert!(world.delegate.gateway_credential(&exchanged, None).await.is_err());
}
