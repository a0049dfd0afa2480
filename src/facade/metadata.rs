//! What clients find (RFC 8414). Decides how we are called; everything else follows from it.

use serde_json::{Value, json};
use url::Url;

use super::Desk;
use crate::ids::IssuerAlias;

/// Where the document stands, between host and path.
pub const WELL_KNOWN: &str = "/.well-known/oauth-authorization-server";

/// How we are called where we stand for that issuer.
#[must_use]
pub fn issuer_url(public_url: &Url, alias: &IssuerAlias) -> String {
    format!("{}/oauth/{alias}", public_url.as_str().trim_end_matches('/'))
}

pub(super) fn document(desk: &Desk<'_>) -> Value {
    let issuer = &desk.issuer;
    json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "registration_endpoint": format!("{issuer}/register"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "authorization_response_iss_parameter_supported": true,
    })
}
