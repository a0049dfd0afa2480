//! What clients find out before they ask for anything: RFC 8414 and OpenID Connect Discovery, and the key.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Extracted;
use serde_json::{Value, json};

use super::state::State;

pub(super) async fn metadata(Extracted(state): Extracted<Arc<State>>) -> Json<Value> {
    let url = &state.url;
    Json(json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/jwks"),
        "registration_endpoint": format!("{url}/register"),
        "revocation_endpoint": format!("{url}/revoke"),
        "scopes_supported": state.options.scopes,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": [
            "authorization_code", "refresh_token", "client_credentials",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
        "revocation_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
        "authorization_response_iss_parameter_supported": true,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
}

pub(super) async fn jwks(Extracted(state): Extracted<Arc<State>>) -> Json<Value> {
    Json(json!({ "keys": [state.mint.jwk()] }))
}
