//! An OIDC issuer on loopback that mints whatever a test needs, right and wrong.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::{Form, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// A running issuer.
pub struct Issuer {
    pub url: String,
    keys: Arc<Keys>,
}

struct Keys {
    url: String,
    current: Mutex<Key>,
    door: Mutex<Door>,
}

/// Who sits in front of the login page, and what the issuer gives them.
#[derive(Clone)]
pub struct Person {
    pub name: String,
    pub groups: Vec<String>,
    /// Seconds that an access token is good for.
    pub token_life_s: i64,
    /// Whether they get something to renew it with.
    pub renewable: bool,
    /// What is wrong with the ID token.
    pub spoilt: Option<(&'static str, Value)>,
}

#[derive(Default)]
struct Door {
    people: Vec<Person>,
    codes: HashMap<String, Asked>,
    refresh: HashMap<String, Asked>,
    asked: Vec<HashMap<String, String>>,
}

/// A login that was asked for.
#[derive(Clone)]
struct Asked {
    person: Person,
    query: HashMap<String, String>,
    authenticated_at: i64,
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

impl Keys {
    fn sign_with(&self, claims: &Value, spoil: impl FnOnce(&mut Header)) -> String {
        let key = self.current.lock().unwrap().clone();
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(key.id);
        spoil(&mut header);
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ec_der(&key.pkcs8)).unwrap()
    }

    /// What somebody gets for a code or a refresh token.
    fn tokens(&self, asked: Asked, resource: &str) -> Value {
        let Asked { person, query, authenticated_at } = &asked;
        let now = jiff::Timestamp::now().as_second();
        let client = &query["client_id"];
        let acr = if query.contains_key("acr_values") { "strong" } else { "weak" };
        let access = json!({
            "iss": self.url, "sub": person.name, "aud": resource, "client_id": client, "groups": person.groups,
            "iat": now, "exp": now + person.token_life_s, "jti": ulid::Ulid::generate().to_string(),
            "auth_time": authenticated_at, "acr": acr,
        });
        let mut id = json!({
            "iss": self.url, "sub": person.name, "aud": client, "iat": now, "exp": now + 60,
            "nonce": query.get("nonce"), "auth_time": authenticated_at, "acr": acr,
        });
        if let Some((claim, value)) = &person.spoilt {
            id[*claim] = value.clone();
        }
        let mut answer = json!({
            "access_token": self.sign_with(&access, |_| {}), "token_type": "Bearer", "expires_in": person.token_life_s,
            "id_token": self.sign_with(&id, |header| header.typ = Some("JWT".to_owned())),
        });
        if person.renewable {
            let refresh = ulid::Ulid::generate().to_string();
            answer["refresh_token"] = json!(refresh);
            self.door.lock().unwrap().refresh.insert(refresh, asked);
        }
        answer
    }
}

/// The login page: whoever sits alone in front of it is sent back at once; several choose who they are.
async fn authorize(State(keys): State<Arc<Keys>>, Query(query): Query<HashMap<String, String>>) -> Response {
    let mut door = keys.door.lock().unwrap();
    door.asked.push(query.clone());
    let chosen = query.get("chosen");
    let person = match &door.people[..] {
        [] => return "nobody sits here".into_response(),
        [alone] => alone.clone(),
        several => match several.iter().find(|person| chosen == Some(&person.name)) {
            Some(person) => person.clone(),
            None => {
                let link = |person: &Person| {
                    let query: String = url::form_urlencoded::Serializer::new(String::new())
                        .extend_pairs(&query)
                        .append_pair("chosen", &person.name)
                        .finish();
                    format!("<p><a href=\"/authorize?{}\">{}</a></p>", query.replace('&', "&amp;"), person.name)
                };
                let links: String = several.iter().map(link).collect();
                let page = format!(
                    "<!doctype html><html lang=\"en\"><link rel=\"icon\" href=\"data:,\"><title>Issuer</title><h1>Who are you?</h1>{links}"
                );
                return axum::response::Html(page).into_response();
            }
        },
    };
    assert_eq!(query["response_type"], "code");
    assert_eq!(query["code_challenge_method"], "S256");
    let now = jiff::Timestamp::now().as_second();
    let authenticated_at = if query.get("max_age").is_some_and(|age| age == "0") { now } else { now - 3_600 };
    let code = ulid::Ulid::generate().to_string();
    let mut back = url::Url::parse(&query["redirect_uri"]).unwrap();
    back.query_pairs_mut()
        .append_pair("code", &code)
        .append_pair("state", &query["state"])
        .append_pair("iss", &keys.url);
    door.codes.insert(code, Asked { person, query, authenticated_at });
    Redirect::to(back.as_str()).into_response()
}

/// The token endpoint for public clients.
async fn token(State(keys): State<Arc<Keys>>, Form(form): Form<HashMap<String, String>>) -> Response {
    let refused = || (axum::http::StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" }))).into_response();
    let of = |name: &str| form.get(name).cloned().unwrap_or_default();
    let asked = {
        let mut door = keys.door.lock().unwrap();
        match of("grant_type").as_str() {
            "authorization_code" => door.codes.remove(&of("code")).filter(|asked| {
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, of("code_verifier").as_bytes());
                asked.query["code_challenge"] == URL_SAFE_NO_PAD.encode(digest.as_ref())
                    && asked.query["redirect_uri"] == of("redirect_uri")
                    && asked.query["resource"] == of("resource")
            }),
            "refresh_token" => door.refresh.remove(&of("refresh_token")),
            _ => None,
        }
    };
    match asked {
        Some(asked) => Json(keys.tokens(asked, &of("resource"))).into_response(),
        None => refused(),
    }
}

impl Issuer {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let url = format!("http://{address}");
        let current = Mutex::new(Key::generate("key-1"));
        let keys = Arc::new(Keys { url: url.clone(), current, door: Mutex::default() });
        let router = axum::Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(jwks))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
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

    /// A good access token of a person.
    pub fn token(&self, user: &str, groups: &[&str], resource: &str) -> String {
        self.sign(&self.claims(user, groups, resource))
    }

    /// Sits somebody in front of the login page, who logged in an hour ago and does so again only where that is asked.
    pub fn seat(&self, name: &str, groups: &[&str]) {
        self.seat_like(Person {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            token_life_s: 600,
            renewable: false,
            spoilt: None,
        });
    }

    /// The same with everything said.
    pub fn seat_like(&self, person: Person) {
        self.keys.door.lock().unwrap().people = vec![person];
    }

    /// Lets whoever comes to the login page choose who they are.
    pub fn seat_all(&self, people: &[(&str, &[&str])]) {
        let all = people.iter().map(|(name, groups)| {
            self.seat(name, groups);
            self.keys.door.lock().unwrap().people.remove(0)
        });
        let all: Vec<Person> = all.collect();
        self.keys.door.lock().unwrap().people = all;
    }

    /// What the login page was asked, the last time last.
    pub fn asked(&self) -> Vec<HashMap<String, String>> {
        self.keys.door.lock().unwrap().asked.clone()
    }

    /// Replaces the signing key; the old one is withdrawn.
    pub fn rotate(&self, id: &str) {
        *self.keys.current.lock().unwrap() = Key::generate(id);
    }
}

async fn discovery(State(keys): State<Arc<Keys>>) -> Json<Value> {
    Json(json!({
        "issuer": keys.url, "authorization_endpoint": format!("{}/authorize", keys.url),
        "token_endpoint": format!("{}/token", keys.url), "jwks_uri": format!("{}/jwks", keys.url),
        "response_types_supported": ["code"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "authorization_response_iss_parameter_supported": true,
    }))
}

async fn jwks(State(keys): State<Arc<Keys>>) -> Json<Value> {
    Json(json!({ "keys": [keys.current.lock().unwrap().public.clone()] }))
}
