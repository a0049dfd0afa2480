//! An authorization server that issues tokens to the gateway: by exchange, of the gateway's own, and takes them back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A running authorization server.
pub struct Sts {
    pub url: String,
    state: Arc<Shared>,
}

type Form = BTreeMap<String, String>;

struct Shared {
    asked: Mutex<Vec<Form>>,
    revoked: Mutex<Vec<Form>>,
    /// What it answers to whoever takes a token back.
    revoking: Mutex<u16>,
    /// Whether whoever asks for a token waits.
    held: AtomicBool,
    /// What whoever asks for a token gets instead of one.
    scripted: Mutex<Option<(u16, String)>>,
}

/// Whether it takes tokens back.
#[derive(PartialEq, Eq)]
pub enum Revocation {
    Has,
    HasNot,
}

impl Sts {
    pub async fn start(revocation: Revocation) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let revoking = Mutex::new(200);
        let held = AtomicBool::new(false);
        let state = Arc::new(Shared {
            asked: Mutex::default(),
            revoked: Mutex::default(),
            revoking,
            held,
            scripted: Mutex::default(),
        });
        let mut metadata = json!({ "issuer": url, "token_endpoint": format!("{url}/token") });
        if revocation == Revocation::Has {
            metadata["revocation_endpoint"] = json!(format!("{url}/revoke"));
        }
        let router = axum::Router::new()
            .route("/.well-known/oauth-authorization-server", get(move || async move { Json(metadata) }))
            .route("/token", post(token))
            .route("/revoke", post(revoke))
            .with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, state }
    }

    /// What it was asked for.
    pub fn asked(&self) -> Vec<Form> {
        self.state.asked.lock().unwrap().clone()
    }

    /// What it was asked to take back.
    pub fn revoked(&self) -> Vec<Form> {
        self.state.revoked.lock().unwrap().clone()
    }

    /// Has whoever asks for a token wait, or wait no longer.
    pub fn hold(&self, held: bool) {
        self.state.held.store(held, Ordering::SeqCst);
    }

    /// Answers so whoever asks for a token.
    pub fn answers(&self, status: u16, body: &str) {
        *self.state.scripted.lock().unwrap() = Some((status, body.to_owned()));
    }

    /// Answers with tokens again.
    pub fn behaves(&self) {
        *self.state.scripted.lock().unwrap() = None;
    }

    /// Answers with this status whoever takes a token back.
    pub fn revoking(&self, status: u16) {
        *self.state.revoking.lock().unwrap() = status;
    }
}

async fn token(State(state): State<Arc<Shared>>, body: String) -> Response {
    let form: Form = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let now = jiff::Timestamp::now().as_second();
    let subject = form.get("subject_token").map(|token| claims(token)["sub"].clone());
    let mut said = json!({
        "sub": subject.unwrap_or_else(|| json!("gateway")), "aud": form.get("audience"), "scope": form.get("scope"),
        "jti": ulid::Ulid::generate().to_string(), "iat": now, "exp": now + 600,
    });
    if let Some(subject) = form.get("subject_token").map(|token| claims(token)) {
        said["for"] = json!([subject["iss"], subject["sub"], subject["client_id"], subject["act"]["sub"]]);
    }
    if let Some(actor) = form.get("actor_token") {
        said["act"] = json!({ "sub": claims(actor)["sub"] });
    }
    state.asked.lock().unwrap().push(form);
    if let Some((status, body)) = state.scripted.lock().unwrap().clone() {
        let status = StatusCode::from_u16(status).unwrap();
        return (status, [("content-type", "application/json")], body).into_response();
    }
    // Long enough for others to come while one is being asked for.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    while state.held.load(Ordering::SeqCst) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let token = format!("{}.{}.c2ln", encode(&json!({ "alg": "ES256", "typ": "at+jwt" })), encode(&said));
    Json(json!({
        "access_token": token, "token_type": "Bearer", "expires_in": 600,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    }))
    .into_response()
}

async fn revoke(State(state): State<Arc<Shared>>, body: String) -> StatusCode {
    state.revoked.lock().unwrap().push(url::form_urlencoded::parse(body.as_bytes()).into_owned().collect());
    StatusCode::from_u16(*state.revoking.lock().unwrap()).unwrap()
}

/// What a token says of itself.
pub fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or(Value::Null)
}
