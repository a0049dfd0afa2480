//! An OIDC issuer on loopback that mints whatever a test needs, right and wrong.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Json};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::door::{Door, Person};

/// A running issuer.
pub struct Issuer {
    pub url: String,
    keys: Arc<Keys>,
}

struct Keys {
    url: String,
    current: Mutex<Key>,
    logins: Mutex<Logins>,
    door: Mutex<Door>,
    opaque: Mutex<Opaque>,
    /// Further keys in its set, in front of its own.
    crowd: Mutex<Vec<Value>>,
    /// Whether its metadata and its keys cannot be had.
    silent: AtomicBool,
    /// Whether its tokens are bound to a key of whoever asks.
    binds: AtomicBool,
}

/// Tokens that it can be asked about, and who asked.
#[derive(Default)]
struct Opaque {
    claims: HashMap<String, Value>,
    asked: Vec<(String, String)>,
    away: bool,
}

/// Who logs in when a page is opened, and what the pages were asked for.
#[derive(Default)]
struct Logins {
    /// The claims of the person that they know, as far as it is not `aud` and `client_id`.
    person: Value,
    /// The parameters of every page that was opened, oldest first.
    asked: Vec<HashMap<String, String>>,
}

#[derive(Clone)]
struct Key {
    id: String,
    pkcs8: Vec<u8>,
    public: Value,
}

impl Key {
    fn generate(id: &str) -> Self {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new())
                .unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
        let point = pair.public_key().as_ref();
        let public = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": id,
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..65]),
        });
        Self { id: id.to_owned(), pkcs8: pkcs8.as_ref().to_vec(), public }
    }
}

impl Issuer {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let url = format!("http://{address}");
        let keys = Arc::new(Keys {
            url: url.clone(),
            current: Mutex::new(Key::generate("key-1")),
            logins: Mutex::default(),
            door: Mutex::default(),
            opaque: Mutex::default(),
            crowd: Mutex::default(),
            silent: AtomicBool::new(false),
            binds: AtomicBool::new(false),
        });
        let router = axum::Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/.well-known/ssf-configuration", get(transmitter))
            .route("/jwks", get(jwks))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/device", post(device))
            .route("/introspect", post(introspect))
            .with_state(Arc::clone(&keys));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, keys }
    }

    /// Claims of a good access token of a person, for one resource.
    pub fn claims(&self, user: &str, groups: &[&str], resource: &str) -> Value {
        let now = jiff::Timestamp::now().as_second();
        json!({
            "iss": self.url, "sub": user, "aud": resource, "client_id": "test-assistant", "groups": groups,
            "iat": now, "exp": now + 600, "jti": format!("{user}-{}", ulid::Ulid::generate()), "scope": "mcp",
            "person": user,
        })
    }

    /// Claims of a person who logged in a moment ago with the administrators' client, for one resource.
    pub fn administrator(&self, user: &str, groups: &[&str], resource: &str) -> Value {
        let mut claims = self.claims(user, groups, resource);
        claims["client_id"] = json!("test-admin");
        claims["auth_time"] = json!(jiff::Timestamp::now().as_second());
        claims["acr"] = json!("strong");
        claims
    }

    /// Signs claims as an access token.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(claims, |_| {})
    }

    /// Signs claims under a header that the test spoils.
    pub fn sign_with(&self, claims: &Value, spoil: impl FnOnce(&mut Header)) -> String {
        self.keys.sign_with(claims, spoil)
    }
}

impl Keys {
    fn sign_with(&self, claims: &Value, spoil: impl FnOnce(&mut Header)) -> String {
        let key = self.current.lock().unwrap().clone();
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(key.id);
        spoil(&mut header);
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ec_der(&key.pkcs8)).unwrap()
    }
}

impl Issuer {
    /// A good access token of a person.
    pub fn token(&self, user: &str, groups: &[&str], resource: &str) -> String {
        self.sign(&self.claims(user, groups, resource))
    }

    /// Mints a token that says nothing; whoever asks is told these claims.
    pub fn opaque(&self, claims: &Value) -> String {
        let token = format!("opaque-{}", ulid::Ulid::generate());
        let mut told = claims.clone();
        told["active"] = json!(true);
        self.keys.opaque.lock().unwrap().claims.insert(token.clone(), told);
        token
    }

    /// A token is none any more.
    pub fn forgets(&self, token: &str) {
        self.keys.opaque.lock().unwrap().claims.remove(token);
    }

    /// Whoever asks about a token from now on gets an error.
    pub fn goes_away(&self, away: bool) {
        self.keys.opaque.lock().unwrap().away = away;
    }

    /// The tokens that it was asked about, and the `Authorization` that came along, oldest first.
    pub fn introspected(&self) -> Vec<(String, String)> {
        self.keys.opaque.lock().unwrap().asked.clone()
    }

    /// Whoever opens the login page from now on is this person, without a click; what the token says of the login is
    /// what was asked for.
    pub fn logs_in(&self, person: Value) {
        self.keys.logins.lock().unwrap().person = person;
    }

    /// Sits people in front of the login page, who logged in an hour ago and do so again only where that is asked; they
    /// get ID tokens as well, and several choose who they are.
    pub fn seat(&self, people: Vec<Person>) {
        self.keys.door.lock().unwrap().people = people;
    }

    /// What every login page was asked for, oldest first.
    pub fn asked(&self) -> Vec<HashMap<String, String>> {
        self.keys.logins.lock().unwrap().asked.clone()
    }

    /// Its tokens are bound to a key of whoever asks, who has to prove it with a nonce.
    pub fn binds(&self) {
        self.keys.binds.store(true, Ordering::SeqCst);
    }

    /// Nobody gets its metadata nor its keys from now on, or everybody again.
    pub fn falls_silent(&self, silent: bool) {
        self.keys.silent.store(silent, Ordering::SeqCst);
    }

    /// Publishes so many keys more that sign nothing.
    pub fn crowds(&self, count: usize) {
        let keys = (0..count).map(|number| Key::generate(&format!("crowd-{number}")).public);
        *self.keys.crowd.lock().unwrap() = keys.collect();
    }

    /// Replaces the signing key; the old one is withdrawn.
    pub fn rotate(&self, id: &str) {
        *self.keys.current.lock().unwrap() = Key::generate(id);
    }
}

async fn discovery(State(keys): State<Arc<Keys>>) -> Response {
    if keys.silent.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    Json(json!({
        "issuer": keys.url, "authorization_endpoint": format!("{}/authorize", keys.url),
        "token_endpoint": format!("{}/token", keys.url), "jwks_uri": format!("{}/jwks", keys.url),
        "introspection_endpoint": format!("{}/introspect", keys.url),
        "device_authorization_endpoint": format!("{}/device", keys.url),
        "response_types_supported": ["code"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"], "code_challenge_methods_supported": ["S256"],
        "dpop_signing_alg_values_supported": if keys.binds.load(Ordering::SeqCst) { &["ES256"][..] } else { &[] },
        "authorization_response_iss_parameter_supported": !keys.door.lock().unwrap().people.is_empty(),
    }))
    .into_response()
}

/// What a transmitter of security events says of itself.
async fn transmitter(State(keys): State<Arc<Keys>>) -> Json<Value> {
    Json(json!({ "spec_version": "1_0", "issuer": keys.url, "jwks_uri": format!("{}/jwks", keys.url) }))
}

/// The login page: whoever opens it is the person of the test, and goes back with a code.
async fn authorize(State(keys): State<Arc<Keys>>, Query(asked): Query<HashMap<String, String>>) -> Response {
    let opened = keys.door.lock().unwrap().open(&keys.url, &asked);
    let mut logins = keys.logins.lock().unwrap();
    let back = format!("{}?code={}&state={}", asked["redirect_uri"], logins.asked.len(), asked["state"]);
    logins.asked.push(asked);
    opened.unwrap_or_else(|| Redirect::to(&back).into_response())
}

/// A code for another device, where the person of the test has entered it already.
async fn device(State(keys): State<Arc<Keys>>, Form(asked): Form<HashMap<String, String>>) -> Response {
    let mut logins = keys.logins.lock().unwrap();
    let code = logins.asked.len().to_string();
    logins.asked.push(asked);
    let place = format!("{}/enter", keys.url);
    let answer = json!({ "device_code": code, "user_code": "AB-CD", "verification_uri": place, "expires_in": 60, "interval": 1 });
    Json(answer).into_response()
}

/// A token for a code. PKCE is not looked at: the command line's own tests do that with the demo's issuer.
async fn token(
    State(keys): State<Arc<Keys>>,
    headers: axum::http::HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let bound = match keys.binds.load(Ordering::SeqCst).then(|| bound(&keys.url, &headers)) {
        Some(Err(refused)) => return *refused,
        Some(Ok(confirmation)) => Some(confirmation),
        None => None,
    };
    if let Some(answer) =
        keys.door.lock().unwrap().token(&keys.url, &form, &|claims, kind| {
            keys.sign_with(claims, |header| header.typ = Some(kind.to_owned()))
        })
    {
        return answer;
    }
    let refreshed = form.get("refresh_token").map(|token| token.strip_prefix("refresh-").unwrap());
    let (mut claims, asked) = {
        let logins = keys.logins.lock().unwrap();
        let code = refreshed.unwrap_or_else(|| form.get("device_code").unwrap_or_else(|| &form["code"]));
        (logins.person.clone(), logins.asked[code.parse::<usize>().unwrap()].clone())
    };
    claims["aud"] = json!(asked["resource"]);
    claims["client_id"] = json!(asked["client_id"]);
    // A session that the browser still has lies an hour back, unless another login is asked for.
    let age = if asked.contains_key("max_age") { 0 } else { 3_600 };
    claims["auth_time"] = json!(jiff::Timestamp::now().as_second() - age);
    if let Some(acr) = asked.get("acr_values") {
        claims["acr"] = json!(acr);
    }
    let kind = if bound.is_some() { "DPoP" } else { "Bearer" };
    if let Some(confirmation) = bound {
        claims["cnf"] = confirmation;
    }
    let mut answer = json!({ "access_token": keys.sign_with(&claims, |_| {}), "token_type": kind, "expires_in": 600 });
    if asked["client_id"] == "shared" {
        // Nobody but the gateway itself has this client; an ID token is nothing for those behind it.
        answer["refresh_token"] = json!(format!("refresh-{}", refreshed.unwrap_or_else(|| &form["code"])));
        answer["id_token"] = json!("not for an assistant");
    }
    Json(answer).into_response()
}

/// To which key a token is bound that is asked for like this (RFC 9449).
fn bound(url: &str, headers: &axum::http::HeaderMap) -> Result<Value, Box<Response>> {
    let refuse = |error: &str| {
        let told = [("dpop-nonce", "the-issuers-nonce")];
        Box::new((StatusCode::BAD_REQUEST, told, Json(json!({ "error": error }))).into_response())
    };
    let proof = headers.get("dpop").ok_or_else(|| refuse("invalid_dpop_proof"))?;
    let (claims, confirmation) = super::holder::proven(proof.to_str().unwrap());
    assert_eq!((&claims["htm"], &claims["htu"]), (&json!("POST"), &json!(format!("{url}/token"))));
    if claims["nonce"] == "the-issuers-nonce" { Ok(confirmation) } else { Err(refuse("use_dpop_nonce")) }
}

/// RFC 7662.
async fn introspect(
    State(keys): State<Arc<Keys>>,
    headers: axum::http::HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let mut opaque = keys.opaque.lock().unwrap();
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    opaque.asked.push((form["token"].clone(), authorization.unwrap_or_default()));
    if opaque.away {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let told = opaque.claims.get(&form["token"]).cloned();
    Json(told.unwrap_or_else(|| json!({ "active": false }))).into_response()
}

async fn jwks(State(keys): State<Arc<Keys>>) -> Response {
    if keys.silent.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let mut all = keys.crowd.lock().unwrap().clone();
    all.push(keys.current.lock().unwrap().public.clone());
    Json(json!({ "keys": all })).into_response()
}
