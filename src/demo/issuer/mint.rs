//! The mint: access tokens as RFC 9068 wants them, signed with a key that lives as long as the process.
//!
//! Invariant: the key is made at the start and leaves the process never.

use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use axum::extract::State as Extracted;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::parameters::resource;
use super::state::{State, now_s, random};
use super::{CLI_CLIENT, MintRequest};
use crate::limit;

/// The mint.
pub(super) struct Mint {
    key: EncodingKey,
    verifying: DecodingKey,
    id: String,
    public: (String, String),
}

/// The claims of an access token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AccessClaims {
    pub iss: String,
    pub sub: String,
    pub aud: String,
    pub client_id: String,
    pub jti: String,
    pub iat: i64,
    pub exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub act: Option<Value>,
}

impl Mint {
    /// A mint with a fresh key.
    pub fn new() -> Result<Self, String> {
        let failed = |_| "the demo issuer's key could not be made".to_owned();
        let generator = aws_lc_rs::rand::SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &generator).map_err(failed)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref())
            .map_err(|_| "the demo issuer's key could not be read".to_owned())?;
        // An uncompressed point: 4, x, y.
        let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
        let (x, y) = point.split_at(point.len() / 2);
        let public = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let verifying = DecodingKey::from_ec_components(&public.0, &public.1)
            .map_err(|error| format!("the demo issuer's key: {error}"))?;
        let id = random()?.chars().take(16).collect();
        Ok(Self { key: EncodingKey::from_ec_der(document.as_ref()), verifying, id, public })
    }

    /// The public key.
    pub fn jwk(&self) -> Value {
        let (x, y) = &self.public;
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id, "x": x, "y": y })
    }

    /// Signs claims as a token of that type.
    pub fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<String, String> {
        let mut header = Header::new(jsonwebtoken::Algorithm::ES256);
        header.typ = Some(typ.to_owned());
        header.kid = Some(self.id.clone());
        jsonwebtoken::encode(&header, claims, &self.key)
            .map_err(|error| format!("the token could not be signed: {error}"))
    }

    /// The claims of one of our own access tokens that is still valid.
    pub fn own(&self, token: &str, issuer: &str) -> Option<AccessClaims> {
        let mut validation = Validation::new(jsonwebtoken::Algorithm::ES256);
        validation.set_issuer(&[issuer]);
        validation.validate_aud = false;
        validation.leeway = 0;
        let decoded = jsonwebtoken::decode::<AccessClaims>(token, &self.verifying, &validation).ok()?;
        (decoded.header.typ.as_deref() == Some("at+jwt")).then_some(decoded.claims)
    }
}

impl std::fmt::Debug for Mint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Mint").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A token for one of the users.
pub(super) fn for_user(state: &State, request: &MintRequest) -> Result<SecretString, String> {
    let user = state.user(&request.user).ok_or_else(|| {
        let names: Vec<&str> = state.options.users.iter().map(|user| user.name.as_str()).collect();
        format!("the demo has no user `{:.80}`; it has {}", request.user, names.join(", "))
    })?;
    // `/notes` is a server's own endpoint below the gateway's: only the demo knows where that is.
    let named = request.resource.as_deref().map(|named| match named.strip_prefix('/') {
        Some(server) => format!("{}/{server}", state.options.resource),
        None => named.to_owned(),
    });
    let resource = resource(named.as_deref(), &state.options.resource).map_err(|problem| problem.description)?;
    let now = now_s();
    let life_max = limit::DEMO_TOKEN_LIFE_MAX.as_secs();
    let life = i64::try_from(request.lifetime_s.unwrap_or(life_max).min(life_max)).unwrap_or(0);
    let claims = AccessClaims {
        iss: state.url.clone(),
        sub: user.name.clone(),
        aud: resource,
        client_id: request.client_id.clone().unwrap_or_else(|| CLI_CLIENT.to_owned()),
        jti: random()?,
        iat: now,
        exp: now.saturating_add(life),
        sid: Some(random()?),
        auth_time: Some(now),
        // Nobody clicked.
        acr: None,
        scope: state.options.scopes.join(" "),
        groups: Some(user.groups.clone()),
        act: None,
    };
    state.mint.sign("at+jwt", &claims).map(SecretString::from)
}

/// `POST /demo/token`: for whoever can read the door file.
pub(super) async fn endpoint(Extracted(state): Extracted<Arc<State>>, headers: HeaderMap, body: Bytes) -> Response {
    let presented =
        headers.get(AUTHORIZATION).map(|value| value.as_bytes().strip_prefix(b"Bearer ").unwrap_or_default());
    let secret = state.door_secret.expose_secret().as_bytes();
    let known =
        presented.is_some_and(|presented| aws_lc_rs::constant_time::verify_slices_are_equal(presented, secret).is_ok());
    if !known {
        return (StatusCode::UNAUTHORIZED, "this needs the secret in the demo's state directory").into_response();
    }
    let Ok(request) = serde_json::from_slice::<MintRequest>(&body) else {
        return (StatusCode::BAD_REQUEST, "send {\"user\": ...}").into_response();
    };
    match for_user(&state, &request) {
        Ok(token) => token.expose_secret().to_owned().into_response(),
        Err(problem) => (StatusCode::BAD_REQUEST, problem).into_response(),
    }
}
