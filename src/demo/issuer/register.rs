//! Dynamic client registration (RFC 7591), and which redirect URIs are good (RFC 8252).
//!
//! Decides where a code may be sent. Invariant: a code goes only to a URI that its client registered,
//! compared character by character; only the port of a loopback URI is free (RFC 8252 section 7.3).

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Extracted;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::parameters::{OauthError, error};
use super::state::{Registered, State, digest, now_s, random};
use crate::egress::is_loopback;
use crate::limit;

/// What a client says of itself; everything else that it says is ignored, as RFC 7591 wants.
#[derive(Deserialize)]
pub(super) struct Registration {
    redirect_uris: Vec<String>,
    #[serde(default)]
    client_name: Option<String>,
    #[serde(default)]
    token_endpoint_auth_method: Option<String>,
}

pub(super) async fn register(
    Extracted(state): Extracted<Arc<State>>,
    body: Result<Json<Registration>, axum::extract::rejection::JsonRejection>,
) -> Result<(StatusCode, Json<Value>), OauthError> {
    let Json(asked) = body.map_err(|problem| error("invalid_client_metadata", problem.body_text()))?;
    if asked.redirect_uris.is_empty() || asked.redirect_uris.len() > limit::DEMO_REDIRECT_URIS_MAX {
        return Err(error("invalid_redirect_uri", "send between one and a few redirect_uris"));
    }
    if let Some(bad) = asked.redirect_uris.iter().find(|uri| !is_acceptable(uri)) {
        let shown: String = bad.chars().take(limit::HOST_SHOWN_CHARACTERS_MAX).collect();
        return Err(error(
            "invalid_redirect_uri",
            format!("`{shown}` is neither https, nor loopback, nor an app's own scheme"),
        ));
    }
    let method = asked.token_endpoint_auth_method.as_deref().unwrap_or("none");
    let secret = match method {
        "none" => None,
        "client_secret_basic" | "client_secret_post" => Some(random()?),
        _ => return Err(error("invalid_client_metadata", "that token_endpoint_auth_method is not supported")),
    };
    let id: String = format!("dcr-{}", random()?.chars().take(22).collect::<String>());
    let name = asked.client_name.unwrap_or_default().chars().take(limit::DEMO_CLIENT_NAME_CHARACTERS_MAX).collect();
    let mut answer = json!({
        "client_id": id,
        "client_id_issued_at": now_s(),
        "client_name": name,
        "redirect_uris": asked.redirect_uris,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method,
    });
    if let (Some(secret), Some(members)) = (&secret, answer.as_object_mut()) {
        members.insert("client_secret".into(), secret.clone().into());
        members.insert("client_secret_expires_at".into(), 0.into());
    }
    let secret = secret.as_deref().map(digest);
    state.registered.insert(id, Registered { name, redirect_uris: asked.redirect_uris, secret });
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Whether a client may register this redirect URI.
fn is_acceptable(uri: &str) -> bool {
    let Ok(url) = Url::parse(uri) else { return false };
    let plain = uri.len() <= limit::DEMO_PARAMETER_BYTES_MAX
        && uri.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&byte))
        && url.username().is_empty()
        && url.password().is_none();
    plain
        && match url.scheme() {
            "https" => url.host().is_some(),
            "http" => is_loopback(&url),
            // Schemes that a browser would run, show or fetch itself.
            "javascript" | "data" | "vbscript" | "file" | "blob" | "about" | "ftp" | "ws" | "wss" | "view-source"
            | "filesystem" => false,
            // An app's own scheme (RFC 8252 section 7.1).
            _ => true,
        }
}

/// Whether the URI of a request is the registered one.
pub(super) fn matches(registered: &str, asked: &str) -> bool {
    if registered == asked {
        return true;
    }
    let (Ok(mut one), Ok(mut other)) = (Url::parse(registered), Url::parse(asked)) else { return false };
    let same_spelling = |url: &Url, text: &str| url.as_str() == text;
    if one.scheme() != "http" || !is_loopback(&one) || !same_spelling(&other, asked) {
        return false;
    }
    one.set_port(None).is_ok() && other.set_port(None).is_ok() && one == other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_loopback_and_app_schemes_can_be_registered() {
        for good in [
            "http://127.0.0.1/callback",
            "http://localhost:33418/cb?x=1",
            "http://[::1]:9/",
            "https://vscode.dev/redirect",
            "cursor://anysphere.cursor-mcp/oauth/callback",
        ] {
            assert!(is_acceptable(good), "{good}");
        }
        for bad in [
            "http://evil.example/cb",
            "http://127.0.0.1.evil.example/cb",
            "javascript:alert(1)",
            "data:text/html,x",
            "https://user@evil.example/",
            "https://a.example/#fragment",
            "https://a.example/\"><script>",
            "/callback",
            "",
        ] {
            assert!(!is_acceptable(bad), "{bad}");
        }
    }

    #[test]
    fn only_the_port_of_a_loopback_uri_is_free() {
        assert!(matches("http://127.0.0.1/cb", "http://127.0.0.1:5555/cb"));
        assert!(matches("http://localhost:1/cb", "http://localhost:2/cb"));
        assert!(matches("https://a.example/cb", "https://a.example/cb"));
        for (registered, asked) in [
            ("http://127.0.0.1/cb", "http://127.0.0.1:5555/other"),
            ("http://127.0.0.1/cb", "http://localhost:5555/cb"),
            ("http://127.0.0.1/cb", "https://127.0.0.1:5555/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:5555/x/../cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:5555/cb?code=1"),
            ("http://127.0.0.1/cb", "http://user@127.0.0.1:5555/cb"),
            ("https://a.example/cb", "https://a.example:8443/cb"),
            ("https://a.example/cb", "https://a.example/cb/"),
            ("app://x/cb", "app://x:1/cb"),
        ] {
            assert!(!matches(registered, asked), "{registered} {asked}");
        }
    }
}
