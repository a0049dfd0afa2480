//! What the gateway says of itself to an authorization server, signed (RFC 7523).
//!
//! Decides what such a statement holds. Invariants: it is good at one authorization server, named by its issuer and
//! not by an address of it; for a minute; and once.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use crate::config::{PrivateKey, SigningAlgorithm};
use crate::identity::now_s;
use crate::limit;

/// The `client_assertion_type`.
pub(super) const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
    jti: String,
}

/// Signs a statement of the client about a subject (itself, where it proves its id) for one authorization server.
pub(super) fn sign(
    key: &PrivateKey,
    pem: &SecretString,
    client: &str,
    subject: &str,
    issuer: &str,
) -> Result<SecretString, String> {
    let bytes = pem.expose_secret().as_bytes();
    let (algorithm, read) = match key.algorithm {
        SigningAlgorithm::Es256 => (Algorithm::ES256, EncodingKey::from_ec_pem(bytes)),
        SigningAlgorithm::Es384 => (Algorithm::ES384, EncodingKey::from_ec_pem(bytes)),
        SigningAlgorithm::Rs256 => (Algorithm::RS256, EncodingKey::from_rsa_pem(bytes)),
        SigningAlgorithm::Ps256 => (Algorithm::PS256, EncodingKey::from_rsa_pem(bytes)),
        SigningAlgorithm::EdDsa => (Algorithm::EdDSA, EncodingKey::from_ed_pem(bytes)),
    };
    let wrong = |_| format!("the key {} cannot sign with {}: it is PEM, PKCS#8", key.key, key.algorithm.as_str());
    let encoding = read.map_err(wrong)?;
    let now = now_s();
    let claims = Claims {
        iss: client,
        sub: subject,
        aud: issuer,
        iat: now,
        exp: now.saturating_add(super::seconds(limit::ASSERTION_LIFE)),
        jti: ulid::Ulid::generate().to_string(),
    };
    let header = Header { kid: key.id.clone(), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, &claims, &encoding).map(SecretString::from).map_err(wrong)
}
