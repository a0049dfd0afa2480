//! The gateway's own word to an issuer: an assertion signed with its key (RFC 7523, `private_key_jwt`).
//!
//! Decides what it says. Refuses to know to whom it is sent. Invariant: it names the issuer as its audience, not an
//! endpoint, and is good for a minute and once, so that nobody who sees it can use it anywhere else.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use crate::limit;

/// `client_assertion_type`.
pub(super) const KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
    jti: String,
}

/// Signs one for this client at this issuer; `now` in seconds since 1970.
///
/// # Errors
/// When the key is not a private key that we can sign with; nothing of it is repeated.
pub(super) fn sign(
    key: &SecretString,
    id: Option<&str>,
    client: &str,
    issuer: &str,
    now: i64,
) -> Result<SecretString, String> {
    let (algorithm, key) = signer(key.expose_secret().as_bytes())
        .ok_or("our private key is not one that can sign: write a PKCS #8 PEM key of P-256, Ed25519 or RSA")?;
    let header = Header { kid: id.map(str::to_owned), ..Header::new(algorithm) };
    let life = i64::try_from(limit::ASSERTION_LIFE.as_secs()).unwrap_or(i64::MAX);
    let jti = ulid::Ulid::generate().to_string();
    let claims = Claims { iss: client, sub: client, aud: issuer, iat: now, exp: now.saturating_add(life), jti };
    jsonwebtoken::encode(&header, &claims, &key)
        .map(SecretString::from)
        .map_err(|_| "our private key does not sign".to_owned())
}

/// The key, and what it signs with: the algorithm is the key's.
fn signer(pem: &[u8]) -> Option<(Algorithm, EncodingKey)> {
    let elliptic = EncodingKey::from_ec_pem(pem).ok().map(|key| (Algorithm::ES256, key));
    let edwards = || EncodingKey::from_ed_pem(pem).ok().map(|key| (Algorithm::EdDSA, key));
    let rsa = || EncodingKey::from_rsa_pem(pem).ok().map(|key| (Algorithm::RS256, key));
    elliptic.or_else(edwards).or_else(rsa)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::identity::token::Jwt;

    fn pem(der: &[u8]) -> SecretString {
        SecretString::from(format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(der)
        ))
    }

    #[test]
    fn an_assertion_is_for_the_issuer_and_good_for_a_minute_and_once() {
        use aws_lc_rs::rand::SystemRandom;
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
        let random = SystemRandom::new();
        let elliptic = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let edwards = Ed25519KeyPair::generate_pkcs8v1(&random).unwrap();
        for (key, algorithm) in [(pem(elliptic.as_ref()), "ES256"), (pem(edwards.as_ref()), "EdDSA")] {
            let one = sign(&key, Some("k1"), "gateway", "https://idp.example", 1_000).unwrap();
            let jwt = Jwt::parse(one.expose_secret()).unwrap();
            let header = jwt.header().unwrap();
            assert_eq!((header.alg.as_str(), header.kid.as_deref()), (algorithm, Some("k1")));
            let claims = jwt.claims().unwrap();
            for (name, value) in [("iss", "gateway"), ("sub", "gateway"), ("aud", "https://idp.example")] {
                assert_eq!(claims.required(name).unwrap(), value, "{name}");
            }
            let life = i64::try_from(limit::ASSERTION_LIFE.as_secs()).unwrap();
            assert_eq!(claims.date("exp").unwrap(), Some(1_000 + life));
            let other = sign(&key, Some("k1"), "gateway", "https://idp.example", 1_000).unwrap();
            let other = Jwt::parse(other.expose_secret()).unwrap();
            assert_ne!(claims.required("jti").unwrap(), other.claims().unwrap().required("jti").unwrap());
        }
    }

    #[test]
    fn what_is_no_private_key_is_said_not_to_be_one_and_not_repeated() {
        for bad in ["", "hunter2", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            let problem = sign(&SecretString::from(bad), None, "gateway", "https://idp.example", 0).unwrap_err();
            assert!(problem.contains("PKCS #8") && !problem.contains("hunter2"), "{problem}");
        }
    }
}
