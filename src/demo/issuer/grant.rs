//! The token endpoint: what is given for a code, a refresh token, a client's own secret, or another token.
//!
//! Decides which grants are good. Invariants: a code and a refresh token work once; an exchanged token
//! names every actor (RFC 8693 section 4.1), lives no longer than its subject token, and is for one resource.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Extracted;
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::StatusCode;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::CLICKED;
use super::mint::AccessClaims;
use super::parameters::{OauthError, Parameters, error, resource};
use super::state::{Grant, State, digest, now_s, random};
use crate::ids::Digest;
use crate::limit;

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// Who asks at the token endpoint.
struct Asker {
    id: String,
    /// It presented its secret.
    proven: bool,
}

/// `POST /token`.
pub(super) async fn token(
    Extracted(state): Extracted<Arc<State>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, OauthError> {
    let parameters = Parameters::parse(&body)?;
    let asker = asker(&state, &headers, &parameters)?;
    let answer = match parameters.need("grant_type")? {
        "authorization_code" => code(&state, &asker, &parameters)?,
        "refresh_token" => refresh(&state, &asker, &parameters)?,
        "client_credentials" => own(&state, &asker, &parameters)?,
        "urn:ietf:params:oauth:grant-type:token-exchange" => exchange(&state, &asker, &parameters)?,
        _ => return Err(error("unsupported_grant_type", "see grant_types_supported in the metadata")),
    };
    Ok(Json(answer))
}

/// `POST /revoke` (RFC 7009): ends the session that a token belongs to.
pub(super) async fn revoke(
    Extracted(state): Extracted<Arc<State>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, OauthError> {
    let parameters = Parameters::parse(&body)?;
    let asker = asker(&state, &headers, &parameters)?;
    let token = parameters.need("token")?;
    let of_refresh = state.refresh.get(&digest(token)).map(|grant| (grant.authorization.client, Some(grant.session)));
    let of_access = || state.mint.own(token, &state.url).map(|claims| (claims.client_id, claims.sid));
    if let Some((client, Some(session))) = of_refresh.or_else(of_access)
        && client == asker.id
    {
        state.ended.insert(session, ());
    }
    Ok(StatusCode::OK)
}

fn asker(state: &State, headers: &HeaderMap, parameters: &Parameters) -> Result<Asker, OauthError> {
    let refuse = || error("invalid_client", "the client is unknown or its secret is wrong");
    let (id, secret) = match headers.get(AUTHORIZATION) {
        Some(value) => {
            let encoded = value.to_str().ok().and_then(|value| value.strip_prefix("Basic ")).ok_or_else(refuse)?;
            let decoded =
                STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(refuse)?;
            let (id, secret) = decoded.split_once(':').ok_or_else(refuse)?;
            // RFC 6749 section 2.3.1: both are form-encoded first.
            let plain = |text: &str| {
                let spaced = text.replace('+', " ");
                percent_encoding::percent_decode_str(&spaced).decode_utf8().map(|text| text.into_owned()).ok()
            };
            (plain(id).ok_or_else(refuse)?, Some(plain(secret).ok_or_else(refuse)?))
        }
        None => (parameters.need("client_id")?.to_owned(), parameters.get("client_secret").map(str::to_owned)),
    };
    let expected: Option<Digest> = match (state.confidential(&id), state.client(&id)) {
        (Some(client), _) => Some(digest(client.secret.expose_secret())),
        (None, Some(client)) => client.secret,
        (None, None) => return Err(refuse()),
    };
    match (expected, secret.as_deref().map(digest)) {
        (None, None) => Ok(Asker { id, proven: false }),
        // Digests of secrets are compared, so the time says nothing about the secret.
        (Some(expected), Some(presented)) if expected == presented => Ok(Asker { id, proven: true }),
        _ => Err(refuse()),
    }
}

fn code(state: &State, asker: &Asker, parameters: &Parameters) -> Result<Value, OauthError> {
    let refuse = |what: &'static str| error("invalid_grant", what);
    let code = parameters.need("code")?;
    let grant = state.codes.remove(&digest(code)).ok_or_else(|| refuse("the code is unknown, used or too old"))?;
    let asked = &grant.authorization;
    if asked.client != asker.id || parameters.need("redirect_uri")? != asked.redirect_uri {
        return Err(refuse("the code was given to another client or redirect_uri"));
    }
    let verifier = parameters.need("code_verifier")?;
    let hashed = URL_SAFE_NO_PAD.encode(Digest::sha256(verifier.as_bytes()).as_bytes());
    if verifier.len() < limit::PKCE_S256_CHARACTERS || hashed != asked.challenge {
        return Err(refuse("the code_verifier does not fit the code_challenge"));
    }
    if let Some(named) = parameters.get("resource")
        && named != asked.resource
    {
        return Err(error("invalid_target", "the code is for another resource"));
    }
    let identity =
        if asked.scope.split(' ').any(|scope| scope == "openid") { Some(id_token(state, &grant)?) } else { None };
    let mut answer = for_user(state, grant)?;
    if let (Some(identity), Some(members)) = (identity, answer.as_object_mut()) {
        members.insert("id_token".into(), identity.into());
    }
    Ok(answer)
}

fn refresh(state: &State, asker: &Asker, parameters: &Parameters) -> Result<Value, OauthError> {
    let refuse = |what: &'static str| error("invalid_grant", what);
    let presented = digest(parameters.need("refresh_token")?);
    // Taken before anything is looked at: of two that come at once, one works.
    let grant =
        state.refresh.remove(&presented).ok_or_else(|| refuse("the refresh token is unknown, used or too old"))?;
    if grant.authorization.client != asker.id {
        return Err(refuse("the refresh token was given to another client"));
    }
    if state.ended.contains_key(&grant.session) {
        return Err(refuse("the session was ended"));
    }
    for_user(state, grant)
}

fn own(state: &State, asker: &Asker, parameters: &Parameters) -> Result<Value, OauthError> {
    if !asker.proven || state.confidential(&asker.id).is_none() {
        return Err(error("unauthorized_client", "this client cannot get tokens for itself"));
    }
    let claims = of_client(state, &asker.id, parameters.get("resource"), parameters.get("scope").unwrap_or_default())?;
    answer(state, &claims, &[])
}

/// The token of a client that calls for itself.
pub(super) fn for_client(
    state: &State,
    id: &str,
    named: Option<&str>,
    scope: &str,
) -> Result<SecretString, OauthError> {
    Ok(state.mint.sign("at+jwt", &of_client(state, id, named, scope)?)?.into())
}

fn of_client(state: &State, id: &str, named: Option<&str>, scope: &str) -> Result<AccessClaims, OauthError> {
    let now = now_s();
    Ok(AccessClaims {
        iss: state.url.clone(),
        sub: id.to_owned(),
        aud: resource(named, &state.options.resource)?,
        client_id: id.to_owned(),
        jti: random()?,
        iat: now,
        exp: now.saturating_add(life()),
        sid: None,
        auth_time: None,
        acr: None,
        scope: scope.to_owned(),
        groups: None,
        act: None,
    })
}

fn exchange(state: &State, asker: &Asker, parameters: &Parameters) -> Result<Value, OauthError> {
    if !asker.proven || !state.confidential(&asker.id).is_some_and(|client| client.may_exchange) {
        return Err(error("unauthorized_client", "this client may not exchange tokens"));
    }
    let kinds = [parameters.get("subject_token_type"), parameters.get("requested_token_type").or(Some(ACCESS_TOKEN))];
    if kinds != [Some(ACCESS_TOKEN); 2] || parameters.get("actor_token").is_some() {
        return Err(error(
            "invalid_request",
            "only access tokens are exchanged for access tokens, without an actor_token",
        ));
    }
    let subject = state
        .mint
        .own(parameters.need("subject_token")?, &state.url)
        .ok_or_else(|| error("invalid_grant", "the subject_token is not a valid token of this issuer"))?;
    if subject.sid.as_ref().is_some_and(|session| state.ended.contains_key(session)) {
        return Err(error("invalid_grant", "the session of the subject_token was ended"));
    }
    let target = parameters.get("resource").or(parameters.get("audience"));
    let target =
        target.ok_or_else(|| error("invalid_target", "name the resource or audience that the token is for"))?;
    let mut actor = json!({ "sub": asker.id });
    if let (Some(before), Some(members)) = (subject.act, actor.as_object_mut()) {
        if depth(&before) >= limit::ACTOR_DEPTH_MAX {
            return Err(error("invalid_request", "the delegation chain is too deep"));
        }
        members.insert("act".into(), before);
    }
    let now = now_s();
    let lives = i64::try_from(limit::DEMO_EXCHANGED_LIFE.as_secs()).unwrap_or(0);
    let claims = AccessClaims {
        aud: target.to_owned(),
        client_id: asker.id.clone(),
        jti: random()?,
        iat: now,
        exp: now.saturating_add(lives).min(subject.exp),
        scope: parameters.get("scope").unwrap_or_default().to_owned(),
        act: Some(actor),
        ..subject
    };
    answer(state, &claims, &[("issued_token_type", ACCESS_TOKEN)])
}

fn for_user(state: &State, grant: Grant) -> Result<Value, OauthError> {
    let now = now_s();
    let claims = AccessClaims {
        iss: state.url.clone(),
        sub: grant.user.name.clone(),
        aud: grant.authorization.resource.clone(),
        client_id: grant.authorization.client.clone(),
        jti: random()?,
        iat: now,
        exp: now.saturating_add(life()),
        sid: Some(grant.session.clone()),
        auth_time: Some(grant.signed_in_at),
        acr: Some(CLICKED.to_owned()),
        scope: grant.authorization.scope.clone(),
        groups: Some(grant.user.groups.clone()),
        act: None,
    };
    let fresh = random()?;
    state.refresh.insert(digest(&fresh), grant);
    answer(state, &claims, &[("refresh_token", &fresh)])
}

fn id_token(state: &State, grant: &Grant) -> Result<String, String> {
    let now = now_s();
    let claims = json!({
        "iss": state.url, "sub": grant.user.name, "aud": grant.authorization.client, "iat": now,
        "exp": now.saturating_add(life()), "auth_time": grant.signed_in_at, "acr": CLICKED, "sid": grant.session,
        "nonce": grant.authorization.nonce,
    });
    state.mint.sign("JWT", &claims)
}

fn answer(state: &State, claims: &AccessClaims, further: &[(&str, &str)]) -> Result<Value, OauthError> {
    let mut answer = json!({
        "access_token": state.mint.sign("at+jwt", claims)?,
        "token_type": "Bearer",
        "expires_in": claims.exp.saturating_sub(claims.iat),
        "scope": claims.scope,
    });
    if let Some(members) = answer.as_object_mut() {
        members.extend(further.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))));
    }
    Ok(answer)
}

fn life() -> i64 {
    i64::try_from(limit::DEMO_TOKEN_LIFE_MAX.as_secs()).unwrap_or(0)
}

fn depth(act: &Value) -> usize {
    std::iter::successors(Some(act), |act| act.get("act")).count()
}
