//! The authorization endpoint (RFC 6749 section 4.1, RFC 7636): a page with one button per user.
//!
//! Decides nothing about who somebody is: the click is the proof, which is what makes this a demo.
//! Invariant: a mistake in client or redirect URI is shown and never redirected; everything on the page
//! that somebody else wrote is escaped; a page is good for one click.

use std::sync::Arc;

use axum::extract::{RawQuery, State as Extracted};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine;
use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, LOCATION};
use http::{HeaderValue, StatusCode};
use url::Url;

use super::parameters::{OauthError, Parameters, error, resource};
use super::register::matches;
use super::state::{Authorization, Grant, State, digest, now_s, random};
use crate::ids::Digest;
use crate::limit;

/// `GET /authorize`.
pub(super) async fn page(Extracted(state): Extracted<Arc<State>>, RawQuery(query): RawQuery) -> Response {
    let shown = |problem: &OauthError| {
        let body = format!("<h1>This request cannot be served</h1><p>{}</p>", escape(&problem.description));
        (StatusCode::BAD_REQUEST, document("Bailiwick demo", &body)).into_response()
    };
    let parameters = match Parameters::parse(query.unwrap_or_default().as_bytes()) {
        Ok(parameters) => parameters,
        Err(problem) => return shown(&problem),
    };
    let (client, name, redirect_uri) = match client(&state, &parameters) {
        Ok(found) => found,
        Err(problem) => return shown(&problem),
    };
    let asked = match authorization(&state, &parameters, client, &redirect_uri) {
        Ok(asked) => asked,
        Err(problem) => {
            let back = [("error", Some(problem.code)), ("error_description", Some(problem.description.as_str()))];
            return redirect(&state, &redirect_uri, parameters.get("state"), &back);
        }
    };
    let Ok(id) = random() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let body = sign_in_page(&state, &id, &name, &asked);
    state.pending.insert(id, asked);
    document("Bailiwick demo: who are you?", &body).into_response()
}

/// `POST /authorize`: somebody clicked.
pub(super) async fn signed_in(Extracted(state): Extracted<Arc<State>>, body: Bytes) -> Response {
    let refused = |text: &'static str| (StatusCode::BAD_REQUEST, text).into_response();
    let Ok(parameters) = Parameters::parse(&body) else { return refused("the form is malformed") };
    let pending = parameters.get("request").and_then(|id| state.pending.remove(id));
    let Some(authorization) = pending else { return refused("this page is too old; start again in your assistant") };
    let Some(user) = parameters.get("user").and_then(|name| state.user(name)).cloned() else {
        let back = [("error", Some("access_denied")), ("error_description", Some("nobody signed in"))];
        return redirect(&state, &authorization.redirect_uri, authorization.state.as_deref(), &back);
    };
    let (Ok(code), Ok(session)) = (random(), random()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let (uri, echoed) = (authorization.redirect_uri.clone(), authorization.state.clone());
    state.codes.insert(digest(&code), Grant { authorization, user, session, signed_in_at: now_s() });
    redirect(&state, &uri, echoed.as_deref(), &[("code", Some(&code))])
}

/// The client, what it calls itself, and where it wants its answer.
fn client(state: &State, parameters: &Parameters) -> Result<(String, String, String), OauthError> {
    let id = parameters.need("client_id")?;
    let unknown = || {
        error("invalid_client", "this client is not registered here (any more); remove its saved login and try again")
    };
    let client = state.client(id).ok_or_else(unknown)?;
    let uri = parameters.need("redirect_uri")?;
    if !client.redirect_uris.iter().any(|own| matches(own, uri)) {
        return Err(error("invalid_request", "the redirect_uri is not one that the client registered"));
    }
    let name = if client.name.is_empty() { id.to_owned() } else { client.name };
    Ok((id.to_owned(), name, uri.to_owned()))
}

fn authorization(
    state: &State,
    parameters: &Parameters,
    client: String,
    uri: &str,
) -> Result<Authorization, OauthError> {
    if parameters.need("response_type")? != "code" {
        return Err(error("unsupported_response_type", "only `code` is supported"));
    }
    let challenge = parameters.need("code_challenge")?;
    if parameters.get("code_challenge_method") != Some("S256") || challenge.len() != limit::PKCE_S256_CHARACTERS {
        return Err(error("invalid_request", "PKCE with S256 is required"));
    }
    Ok(Authorization {
        client,
        redirect_uri: uri.to_owned(),
        challenge: challenge.to_owned(),
        state: parameters.get("state").map(str::to_owned),
        nonce: parameters.get("nonce").map(str::to_owned),
        scope: parameters.get("scope").unwrap_or_default().to_owned(),
        resource: resource(parameters.get("resource"), &state.options.resource)?,
    })
}

/// Sends the browser back; `iss` tells the client who answers (RFC 9207).
fn redirect(state: &State, uri: &str, echoed: Option<&str>, answer: &[(&str, Option<&str>)]) -> Response {
    let Ok(mut url) = Url::parse(uri) else { return StatusCode::BAD_REQUEST.into_response() };
    {
        let mut query = url.query_pairs_mut();
        for (name, value) in answer.iter().chain(&[("state", echoed), ("iss", Some(state.url.as_str()))]) {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
    }
    match HeaderValue::from_str(url.as_str()) {
        Ok(location) => (StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

fn sign_in_page(state: &State, id: &str, client: &str, asked: &Authorization) -> String {
    let buttons: String = state
        .options
        .users
        .iter()
        .map(|user| {
            format!(
                "<p><button name=\"user\" value=\"{name}\">{name}</button> {title}</p>",
                name = escape(&user.name),
                title = escape(&user.title)
            )
        })
        .collect();
    let scope = if asked.scope.is_empty() { "no particular scope".to_owned() } else { escape(&asked.scope) };
    format!(
        "<h1>Who are you?</h1>\
         <p><strong>{client}</strong> wants to call <code>{resource}</code> for you ({scope}) \
         and gets its answer at <code>{uri}</code>.</p>\
         <form method=\"post\" action=\"/authorize\"><input type=\"hidden\" name=\"request\" value=\"{id}\">{buttons}\
         <p><button name=\"user\" value=\"\">Nobody: refuse</button></p></form>\
         <p>This is a demo: anyone on this machine may be anybody.</p>",
        client = escape(client),
        resource = escape(&asked.resource),
        uri = escape(&asked.redirect_uri),
    )
}

/// A whole page. It loads nothing, runs nothing and cannot be framed.
fn document(title: &str, body: &str) -> impl IntoResponse {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style></head><body><main>{body}</main></body></html>"
    );
    let style = base64::engine::general_purpose::STANDARD.encode(Digest::sha256(STYLE.as_bytes()).as_bytes());
    let policy = format!("default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; frame-ancestors 'none'");
    ([(CONTENT_SECURITY_POLICY, policy)], Html(html))
}

/// Readable in the dark and on a phone; the focus stays visible.
const STYLE: &str = ":root{color-scheme:light dark}body{font:1.1rem/1.5 system-ui,sans-serif;margin:0}\
main{max-width:36rem;margin:3rem auto;padding:0 1rem}code{overflow-wrap:anywhere}\
button{font:inherit;padding:.4rem 1rem;margin-right:.6rem;min-width:8rem}";

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Control and direction characters could make a page say something else than it does.
            other
                if other.is_control()
                    || matches!(other, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                safe.push('\u{fffd}');
            }
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_wrote_cannot_leave_its_place_on_the_page() {
        assert_eq!(escape("<b a=\"x\" c='y'>&\u{202e}"), "&lt;b a=&quot;x&quot; c=&#39;y&#39;&gt;&amp;\u{fffd}");
    }
}
