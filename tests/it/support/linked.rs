//! An upstream that is called with people's own accounts, and its authorization server, both on one address: what is
//! wrong with them is the test's choice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Json, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

/// What every token contains: no file of the gateway may have it.
pub const CANARY: &str = "canary-7f3a";

/// A running upstream.
pub struct Linked {
    pub origin: String,
    shared: Arc<Shared>,
}

struct Shared {
    origin: String,
    state: Mutex<Inner>,
}

/// What is the test's choice, and what happened.
pub struct Inner {
    /// What the resource calls itself.
    pub resource: Option<String>,
    /// Which authorization server it names.
    pub authority: Option<String>,
    /// What an answer says of who gives it.
    pub iss: Option<String>,
    /// Whether it reads our document.
    pub cimd: bool,
    /// Whether clients can register.
    pub dcr: bool,
    /// Whether it says that it checks PKCE.
    pub pkce: bool,
    /// Seconds that a token is good for.
    pub life_s: i64,
    /// How long a renewal takes.
    pub slow_ms: u64,
    /// Who logs in there.
    pub account: String,
    /// What access tokens say of themselves, where they say anything.
    pub says: Option<Value>,
    /// Which scope calls need.
    pub needs: Option<String>,
    /// It grants whatever is asked for, and not one scope alone.
    pub generous: bool,
    /// What access tokens may.
    pub scopes: HashMap<String, String>,
    /// Refresh tokens that are worth something, and whose they are.
    pub refresh: HashMap<String, String>,
    /// Access tokens that are good, and whose they are.
    pub access: HashMap<String, String>,
    /// What the page was asked for.
    pub asked: Vec<HashMap<String, String>>,
    /// What the token endpoint was sent.
    pub forms: Vec<HashMap<String, String>>,
    /// What was given back.
    pub revoked: Vec<String>,
    /// So many times more nothing is taken back.
    pub revoking_fails: usize,
    /// It has a resource to hear of, and a tool that does not come to an end.
    pub lively: bool,
    /// It believes whoever comes with a token.
    pub trusting: bool,
    /// Tokens that it was listened to with.
    pub listened_with: Vec<String>,
    /// Listens that ended.
    pub listens_ended: usize,
    /// Requests that came with a token of somebody's.
    pub presented: usize,
    /// Registrations that it has forgotten.
    pub forgotten: Vec<String>,
    pub registrations: usize,
    /// Accounts that tools were called with.
    pub called_as: Vec<String>,
    codes: HashMap<String, (String, HashMap<String, String>)>,
    made: usize,
}

impl Linked {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let inner = Inner {
            resource: None,
            authority: None,
            iss: None,
            cimd: false,
            dcr: true,
            pkce: true,
            life_s: 3_600,
            slow_ms: 0,
            account: "ann@service".to_owned(),
            says: None,
            needs: None,
            generous: false,
            scopes: HashMap::new(),
            refresh: HashMap::new(),
            access: HashMap::new(),
            asked: Vec::new(),
            forms: Vec::new(),
            revoked: Vec::new(),
            revoking_fails: 0,
            lively: false,
            trusting: false,
            listened_with: Vec::new(),
            listens_ended: 0,
            presented: 0,
            forgotten: Vec::new(),
            registrations: 0,
            called_as: Vec::new(),
            codes: HashMap::new(),
            made: 0,
        };
        let shared = Arc::new(Shared { origin: origin.clone(), state: Mutex::new(inner) });
        let router = Router::new()
            .route("/mcp", post(mcp))
            .route("/.well-known/oauth-protected-resource/mcp", get(resource))
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/register", post(register))
            .route("/revoke", post(revoke))
            .with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { origin, shared }
    }

    pub fn url(&self) -> String {
        format!("{}/mcp", self.origin)
    }

    pub fn state(&self) -> MutexGuard<'_, Inner> {
        self.shared.state.lock().unwrap()
    }

    /// How many renewals were asked for.
    pub fn renewals(&self) -> usize {
        self.state().forms.iter().filter(|form| form["grant_type"] == "refresh_token").count()
    }
}

impl Inner {
    fn token(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}-{CANARY}-{}", self.made)
    }
}

async fn resource(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let state = shared.state.lock().unwrap();
    let resource = state.resource.clone().unwrap_or_else(|| format!("{}/mcp", shared.origin));
    let authority = state.authority.clone().unwrap_or_else(|| shared.origin.clone());
    Json(json!({ "resource": resource, "authorization_servers": [authority], "scopes_supported": ["notes:read"] }))
}

async fn metadata(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let (state, origin) = (shared.state.lock().unwrap(), &shared.origin);
    let mut metadata = json!({
        "issuer": origin, "authorization_endpoint": format!("{origin}/authorize"),
        "token_endpoint": format!("{origin}/token"), "revocation_endpoint": format!("{origin}/revoke"),
        "scopes_supported": ["notes:read", "offline_access"], "response_types_supported": ["code"],
        "authorization_response_iss_parameter_supported": true,
        "client_id_metadata_document_supported": state.cimd,
    });
    if state.pkce {
        metadata["code_challenge_methods_supported"] = json!(["S256"]);
    }
    if state.dcr {
        metadata["registration_endpoint"] = json!(format!("{origin}/register"));
    }
    Json(metadata)
}

async fn register(State(shared): State<Arc<Shared>>, Json(asked): Json<Value>) -> Response {
    let mut state = shared.state.lock().unwrap();
    state.registrations += 1;
    let id = format!("made-{}", state.registrations);
    let answer = json!({ "client_id": id, "redirect_uris": asked["redirect_uris"], "client_secret": format!("cs-{CANARY}"),
        "token_endpoint_auth_method": "client_secret_basic" });
    (StatusCode::CREATED, Json(answer)).into_response()
}

async fn authorize(State(shared): State<Arc<Shared>>, Query(asked): Query<HashMap<String, String>>) -> Response {
    let mut state = shared.state.lock().unwrap();
    let code = state.token("code");
    let iss = state.iss.clone().unwrap_or_else(|| shared.origin.clone());
    let mut back = url::Url::parse(&asked["redirect_uri"]).unwrap();
    back.query_pairs_mut().extend_pairs([("code", code.as_str()), ("state", &asked["state"]), ("iss", &iss)]);
    let account = state.account.clone();
    state.codes.insert(code, (account, asked.clone()));
    state.asked.push(asked);
    Redirect::to(back.as_str()).into_response()
}

/// Which of the clients that registered here proves in a header who it is.
fn client_of(headers: &HeaderMap) -> Option<String> {
    let basic = headers.get("authorization")?.to_str().ok()?.strip_prefix("Basic ")?.to_owned();
    let pair = String::from_utf8(STANDARD.decode(basic).ok()?).ok()?;
    let (client, secret) = pair.split_once(':')?;
    (secret == format!("cs-{CANARY}")).then(|| client.to_owned())
}

async fn token(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let client = client_of(&headers);
    if client.is_some_and(|client| shared.state.lock().unwrap().forgotten.contains(&client)) {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "error": "invalid_client" }))).into_response();
    }
    let of = |name: &str| form.get(name).cloned().unwrap_or_default();
    let slow = {
        let mut state = shared.state.lock().unwrap();
        state.forms.push(form.clone());
        state.slow_ms
    };
    if of("grant_type") == "refresh_token" {
        tokio::time::sleep(std::time::Duration::from_millis(slow)).await;
    }
    let mut state = shared.state.lock().unwrap();
    let mut scope = "notes:read".to_owned();
    let generous = state.generous;
    let account = match of("grant_type").as_str() {
        "authorization_code" => state.codes.remove(&of("code")).and_then(|(account, asked)| {
            if generous {
                scope.clone_from(&asked["scope"]);
            }
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, of("code_verifier").as_bytes());
            let fits = asked["code_challenge"] == URL_SAFE_NO_PAD.encode(digest.as_ref())
                && asked["code_challenge_method"] == "S256"
                && asked["redirect_uri"] == of("redirect_uri")
                && asked["resource"] == of("resource");
            fits.then_some(account)
        }),
        // Each is good once.
        "refresh_token" => state.refresh.remove(&of("refresh_token")),
        _ => None,
    };
    let Some(account) = account else {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" }))).into_response();
    };
    let (mut access, refresh) = (state.token("at"), state.token("rt"));
    if let Some(says) = &state.says {
        access = format!("e30.{}.{access}", URL_SAFE_NO_PAD.encode(says.to_string()));
    }
    state.access.insert(access.clone(), account.clone());
    state.scopes.insert(access.clone(), scope.clone());
    state.refresh.insert(refresh.clone(), account.clone());
    let claims = URL_SAFE_NO_PAD.encode(json!({ "iss": shared.origin, "sub": "1", "email": account }).to_string());
    let id_token = format!("{}.{claims}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
    let answer = json!({ "access_token": access, "refresh_token": refresh, "token_type": "Bearer",
        "expires_in": state.life_s, "scope": scope, "id_token": id_token });
    Json(answer).into_response()
}

async fn revoke(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> StatusCode {
    let mut state = shared.state.lock().unwrap();
    // As at the token endpoint, and nothing of it in the form.
    if client_of(&headers).is_none() || form.contains_key("client_secret") {
        return StatusCode::UNAUTHORIZED;
    }
    if state.revoking_fails > 0 {
        state.revoking_fails -= 1;
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    // One does not take the other along.
    state.refresh.remove(&form["token"]);
    state.access.remove(&form["token"]);
    state.revoked.push(form["token"].clone());
    StatusCode::OK
}

/// Counts the end of a listen.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().listens_ended += 1;
    }
}

/// Says that it tells of the resources, and nothing more.
fn listen(shared: &Arc<Shared>, message: &Value) -> Response {
    let agreed = json!({ "jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {
        "notifications": message["params"]["notifications"],
        "_meta": { "io.modelcontextprotocol/subscriptionId": message["id"] } } });
    let first = futures_util::stream::once(std::future::ready(format!("data: {agreed}\n\n")));
    let ends = Ends(Arc::clone(shared));
    let events = first.chain(futures_util::stream::pending()).map(move |event| {
        let _open = &ends;
        Ok::<_, std::convert::Infallible>(event)
    });
    ([("content-type", "text/event-stream")], axum::body::Body::from_stream(events)).into_response()
}

async fn mcp(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let account = {
        let state = shared.state.lock().unwrap();
        let known = state.access.get(bearer.trim_start_matches("Bearer ")).cloned();
        known.or_else(|| (state.trusting && !bearer.is_empty()).then(|| "anybody".to_owned()))
    };
    let Some(account) = account else {
        let place = format!("{}/.well-known/oauth-protected-resource/mcp", shared.origin);
        let challenge = format!("Bearer resource_metadata=\"{place}\"");
        return (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response();
    };
    let message: Value = serde_json::from_slice(&body).unwrap();
    let lacking = {
        let state = shared.state.lock().unwrap();
        let scopes = state.scopes.get(bearer.trim_start_matches("Bearer ")).cloned().unwrap_or_default();
        state.needs.clone().filter(|needed| scopes.split(' ').all(|scope| scope != needed))
    };
    if let Some(needed) = lacking.filter(|_| message["method"] == "tools/call") {
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{needed}\"");
        return (StatusCode::FORBIDDEN, [("www-authenticate", challenge)]).into_response();
    }
    let lively = {
        let mut state = shared.state.lock().unwrap();
        state.presented += 1;
        state.lively
    };
    let result = match message["method"].as_str().unwrap_or_default() {
        "server/discover" if lively => json!({ "supportedVersions": ["2026-07-28"],
            "capabilities": { "tools": {}, "resources": { "subscribe": true } } }),
        "server/discover" => json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} } }),
        "tools/list" if lively => json!({ "tools": [{ "name": "whoami", "inputSchema": { "type": "object" } },
            { "name": "slow", "inputSchema": { "type": "object" } }] }),
        "tools/list" => json!({ "tools": [{ "name": "whoami", "inputSchema": { "type": "object" } }] }),
        "resources/list" if lively => json!({ "resources": [{ "uri": "notes://a", "name": "a" },
            { "uri": "notes://b", "name": "b" }] }),
        "resources/templates/list" if lively => json!({ "resourceTemplates": [] }),
        "subscriptions/listen"
            if lively && message["params"]["notifications"].get("resourceSubscriptions").is_some() =>
        {
            shared.state.lock().unwrap().listened_with.push(bearer.to_owned());
            return listen(&shared, &message);
        }
        "tools/call" => {
            shared.state.lock().unwrap().called_as.push(account.clone());
            if message["params"]["name"] == "slow" {
                std::future::pending::<()>().await;
            }
            json!({ "content": [{ "type": "text", "text": account }], "params": message["params"] })
        }
        _ => {
            let error = json!({ "jsonrpc": "2.0", "id": message["id"], "error": { "code": -32601, "message": "no" } });
            return (StatusCode::NOT_FOUND, Json(error)).into_response();
        }
    };
    let mut result = result;
    result["resultType"] = json!("complete");
    result["ttlMs"] = json!(0);
    result["cacheScope"] = json!("private");
    Json(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result })).into_response()
}
