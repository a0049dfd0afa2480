//! An upstream that changes what it lists when a test says so: tools, prompts, templates, instructions, and for whom.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::scripted::{raw, result, text};

/// What it says to somebody.
#[derive(Clone, Default)]
pub struct Says {
    /// Each as it is written.
    pub tools: Vec<String>,
    pub prompts: Vec<String>,
    pub templates: Vec<String>,
    pub instructions: Option<String>,
    /// The second page of tools is an error.
    pub breaks_off: bool,
}

/// A running modern upstream over HTTP.
pub struct Changing {
    pub url: String,
    /// Where the gateway exchanges tokens, so that the upstream knows who lists.
    pub token_url: String,
    state: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    says: Mutex<HashMap<String, Says>>,
    calls: Mutex<Vec<Value>>,
    lists: Mutex<usize>,
    exchanges: Mutex<usize>,
    /// Whether tokens are held back.
    holds: tokio::sync::watch::Sender<bool>,
}

/// A tool with that description.
pub fn tool(name: &str, description: &str) -> String {
    json!({ "name": name, "description": description, "inputSchema": { "type": "object" } }).to_string()
}

/// Tools alone.
pub fn tools(tools: &[String]) -> Says {
    Says { tools: tools.to_vec(), ..Says::default() }
}

impl Changing {
    /// Says this to everybody.
    pub async fn start(says: Says) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Shared::default());
        let router =
            axum::Router::new().route("/mcp", post(answer)).route("/token", post(token)).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let changing = Self { url: format!("{base}/mcp"), token_url: format!("{base}/token"), state };
        changing.says(says);
        changing
    }

    /// Says this to everybody from now on.
    pub fn says(&self, says: Says) {
        self.says_to("", says);
    }

    /// Says this to one caller from now on.
    pub fn says_to(&self, who: &str, says: Says) {
        self.state.says.lock().unwrap().insert(who.to_owned(), says);
    }

    /// The calls that arrived.
    pub fn calls(&self) -> usize {
        self.state.calls.lock().unwrap().len()
    }

    /// How often a token was asked for.
    pub fn exchanges(&self) -> usize {
        *self.state.exchanges.lock().unwrap()
    }

    /// Holds tokens back, or gives them out again.
    pub fn holds(&self, holds: bool) {
        self.state.holds.send_replace(holds);
    }

    /// How often tools were listed.
    pub fn lists(&self) -> usize {
        *self.state.lists.lock().unwrap()
    }
}

async fn answer(State(state): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let message: Value = serde_json::from_slice(&body).unwrap();
    let who = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let who = who.trim_start_matches("Bearer ");
    let says = {
        let says = state.says.lock().unwrap();
        says.get(who).or_else(|| says.get("")).cloned().unwrap_or_default()
    };
    let listed = |member: &str, items: &[String], more: &str| {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{},"result":{{"resultType":"complete","ttlMs":0,"cacheScope":"private"{more},"{member}":[{}]}}}}"#,
            message["id"],
            items.join(",")
        );
        raw("application/json", body)
    };
    match message["method"].as_str().unwrap_or_default() {
        "server/discover" => {
            let mut capabilities = json!({ "tools": {} });
            if !says.prompts.is_empty() {
                capabilities["prompts"] = json!({});
            }
            if !says.templates.is_empty() {
                capabilities["resources"] = json!({});
            }
            let mut discovered = json!({
                "resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                "supportedVersions": ["2026-07-28"], "capabilities": capabilities,
            });
            if let Some(instructions) = &says.instructions {
                discovered["instructions"] = json!(instructions);
            }
            result(&message, discovered)
        }
        "tools/list" if message["params"]["cursor"] == "more" => {
            let error = json!({ "code": -32603, "message": "broken" });
            raw("application/json", json!({ "jsonrpc": "2.0", "id": message["id"], "error": error }).to_string())
        }
        "tools/list" => {
            *state.lists.lock().unwrap() += 1;
            listed("tools", &says.tools, if says.breaks_off { r#","nextCursor":"more""# } else { "" })
        }
        "prompts/list" => listed("prompts", &says.prompts, ""),
        "resources/list" => listed("resources", &[], ""),
        "resources/templates/list" => listed("resourceTemplates", &says.templates, ""),
        "tools/call" => {
            state.calls.lock().unwrap().push(message.clone());
            result(&message, text("done"))
        }
        _ => {
            let error = json!({ "code": -32601, "message": "Method not found" });
            raw("application/json", json!({ "jsonrpc": "2.0", "id": message["id"], "error": error }).to_string())
        }
    }
}

/// Exchanges a token for the name of whose it is.
async fn token(
    State(state): State<Arc<Shared>>,
    axum::Form(form): axum::Form<HashMap<String, String>>,
) -> axum::Json<Value> {
    *state.exchanges.lock().unwrap() += 1;
    state.holds.subscribe().wait_for(|holds| !holds).await.unwrap();
    let claims = form["subject_token"].split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    axum::Json(json!({
        "access_token": claims["sub"], "token_type": "Bearer", "expires_in": 600,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    }))
}
