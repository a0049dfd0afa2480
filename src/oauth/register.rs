//! Who we are at an authorization server: as an administrator wrote it, by our own document, or newly registered.
//!
//! Decides how a registration is asked for (RFC 7591) and read. Invariant: a secret that a server gives stands in a
//! type that is not printed.

use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE};
use openidconnect::{AuthType, ClientSecret};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use super::Server;
use crate::egress::OauthClient;

/// Who we are at an authorization server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registered {
    /// The client id.
    pub id: String,
    /// Some servers give every client a secret, asked or not.
    #[serde(serialize_with = "open_optional", deserialize_with = "close_optional")]
    pub secret: Option<SecretString>,
    /// The secret stands in the body, not in a header.
    pub secret_in_body: bool,
}

/// Why we are not registered.
#[derive(Debug)]
pub enum RegisterError {
    /// The server does not register us.
    Refused(StatusCode),
    /// It answers something else.
    Unreadable,
    /// Nobody knows: it did not answer.
    Unknown(String),
}

/// What RFC 7591 answers, as far as we look at it.
#[derive(Deserialize)]
struct Registration {
    client_id: String,
    client_secret: Option<String>,
    token_endpoint_auth_method: Option<String>,
    client_secret_expires_at: Option<i64>,
}

/// Registers us with these facts; answers also when the secret ends, seconds since 1970, where it does.
///
/// # Errors
/// [`RegisterError`].
pub async fn register(
    client: &OauthClient,
    endpoint: &Url,
    asked: &serde_json::Value,
) -> Result<(Registered, Option<i64>), RegisterError> {
    let request = http::Request::post(endpoint.as_str())
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .body(asked.to_string().into_bytes())
        .map_err(|error| RegisterError::Unknown(error.to_string()))?;
    let answer = client.send(request).await.map_err(|error| RegisterError::Unknown(error.to_string()))?;
    if !matches!(answer.status(), StatusCode::CREATED | StatusCode::OK) {
        return Err(RegisterError::Refused(answer.status()));
    }
    let read: Registration = serde_json::from_slice(answer.body()).map_err(|_| RegisterError::Unreadable)?;
    let made = Registered {
        id: read.client_id,
        secret: read.client_secret.map(SecretString::from),
        secret_in_body: read.token_endpoint_auth_method.as_deref() == Some("client_secret_post"),
    };
    // Zero stands for a secret that does not end.
    Ok((made, read.client_secret_expires_at.filter(|at| *at > 0)))
}

impl Registered {
    /// A client that an administrator registered.
    #[must_use]
    pub fn written(id: &str, secret: Option<SecretString>, server: &Server) -> Self {
        let post = |ways: &Vec<String>| {
            ways.iter().any(|way| way == "client_secret_post") && !ways.iter().any(|way| way == "client_secret_basic")
        };
        let secret_in_body = server.token_endpoint_auth_methods_supported.as_ref().is_some_and(post);
        Self { id: id.to_owned(), secret, secret_in_body }
    }

    /// A client without a secret.
    #[must_use]
    pub const fn public(id: String) -> Self {
        Self { id, secret: None, secret_in_body: false }
    }

    /// The secret, and how it is presented.
    #[must_use]
    pub fn proof(&self) -> Option<(ClientSecret, AuthType)> {
        let secret = self.secret.as_ref()?.expose_secret().to_owned();
        let how = if self.secret_in_body { AuthType::RequestBody } else { AuthType::BasicAuth };
        Some((ClientSecret::new(secret), how))
    }
}

/// Writes a secret down: for what is kept where nobody else reads.
///
/// # Errors
/// The serializer's.
pub fn open<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

/// The same for one that may be absent.
///
/// # Errors
/// The serializer's.
pub fn open_optional<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|secret| secret.expose_secret()).serialize(serializer)
}

/// Reads a secret that was kept.
///
/// # Errors
/// The deserializer's.
pub fn close<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}

/// The same for one that may be absent.
///
/// # Errors
/// The deserializer's.
pub fn close_optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}
