//! Proofs that a token is used by whoever it was issued to (RFC 9449): each with a key of our own.
//!
//! Decides what a proof says and which nonce stands in it. Refuses to know what the token is for. Invariants: a proof is
//! made for one request and is never sent twice; a key is kept only where tokens are, and is shown to nobody.

use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::future::BoxFuture;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

use super::register::{close, open};
use crate::egress::{EgressError, OauthClient};
use crate::limit;

/// The header that carries a proof.
pub const PROOF: HeaderName = HeaderName::from_static("dpop");
/// The header that a server says its nonce with.
const NONCE: &str = "dpop-nonce";
/// What we sign with.
pub const ALGORITHM: &str = "ES256";

/// A key that tokens are bound to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProofKey {
    /// PKCS #8, in base64.
    #[serde(serialize_with = "open", deserialize_with = "close")]
    pkcs8: SecretString,
}

/// Makes proofs with one key, and remembers which nonce the other end wants in them.
#[derive(Debug)]
pub struct Prover {
    key: ProofKey,
    nonce: Mutex<Option<String>>,
}

/// Our guarded client, which adds a proof to what it sends where there is a key.
#[derive(Debug, Clone)]
pub struct Proving {
    /// The client.
    pub client: OauthClient,
    /// The key.
    pub prover: Option<Arc<Prover>>,
}

#[derive(Serialize)]
struct Claims<'a> {
    jti: String,
    htm: &'a str,
    htu: &'a str,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
}

impl ProofKey {
    /// A fresh key.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate() -> Result<Self, String> {
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let made = made.map_err(|_| "no key can be made".to_owned())?;
        Ok(Self { pkcs8: SecretString::from(STANDARD.encode(made.as_ref())) })
    }

    fn sign(&self, claims: &Claims<'_>) -> Result<String, String> {
        let unusable = || "the key of a proof cannot be used".to_owned();
        let der = STANDARD.decode(self.pkcs8.expose_secret()).map_err(|_| unusable())?;
        let key = EncodingKey::from_ec_der(&der);
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).map_err(|_| unusable())?;
        jwk.common = jsonwebtoken::jwk::CommonParameters::default();
        let header = Header { typ: Some("dpop+jwt".to_owned()), jwk: Some(jwk), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &key).map_err(|_| unusable())
    }
}

impl Prover {
    /// With that key.
    #[must_use]
    pub fn new(key: ProofKey) -> Arc<Self> {
        Arc::new(Self { key, nonce: Mutex::new(None) })
    }

    /// A proof for one request; `token` goes with it, where one does.
    ///
    /// # Errors
    /// When the address cannot be spelled, or the key not be used.
    pub fn prove(&self, method: &str, url: &str, token: Option<&str>) -> Result<HeaderValue, String> {
        let mut url = Url::parse(url).map_err(|error| error.to_string())?;
        url.set_query(None);
        url.set_fragment(None);
        let claims = Claims {
            jti: ulid::Ulid::generate().to_string(),
            htm: method,
            htu: url.as_str(),
            iat: jiff::Timestamp::now().as_second(),
            ath: token.map(|token| URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes()))),
            nonce: self.nonce.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        HeaderValue::try_from(self.key.sign(&claims)?).map_err(|error| error.to_string())
    }

    /// Takes over the nonce that an answer wants from now on; whether it is another one than before.
    pub fn hear(&self, headers: &HeaderMap) -> bool {
        let fits = |nonce: &&str| !nonce.is_empty() && nonce.len() <= limit::PROOF_NONCE_BYTES_MAX;
        let told = headers.get(NONCE).and_then(|value| value.to_str().ok()).filter(fits);
        let Some(told) = told else { return false };
        let mut nonce = self.nonce.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = nonce.as_deref() != Some(told);
        *nonce = Some(told.to_owned());
        is_new
    }
}

impl Proving {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, EgressError> {
        let Some(prover) = &self.prover else { return self.client.send(request).await };
        let answer = self.client.send(proven(prover, request.clone())?).await?;
        let refused = matches!(answer.status(), StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED);
        // Whoever wants another nonce has not looked at anything else yet.
        if prover.hear(answer.headers()) && refused {
            let again: Response<Vec<u8>> = self.client.send(proven(prover, request)?).await?;
            prover.hear(again.headers());
            return Ok(again);
        }
        Ok(answer)
    }
}

fn proven(prover: &Prover, mut request: Request<Vec<u8>>) -> Result<Request<Vec<u8>>, EgressError> {
    let proof = prover.prove(request.method().as_str(), &request.uri().to_string(), None);
    request.headers_mut().insert(PROOF, proof.map_err(EgressError::Build)?);
    Ok(request)
}

impl<'c> AsyncHttpClient<'c> for Proving {
    type Error = EgressError;
    type Future = BoxFuture<'c, Result<HttpResponse, EgressError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn parts(proof: &HeaderValue) -> (Value, Value) {
        let part = |index: usize| {
            let text = proof.to_str().unwrap().split('.').nth(index).unwrap();
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
        };
        (part(0), part(1))
    }

    #[test]
    fn a_proof_is_for_one_request_and_shows_the_public_half_alone() {
        let prover = Prover::new(ProofKey::generate().unwrap());
        let proof = prover.prove("POST", "https://up.example/mcp?a=b#c", Some("at")).unwrap();
        let (header, claims) = parts(&proof);
        assert_eq!((&header["typ"], &header["alg"]), (&"dpop+jwt".into(), &"ES256".into()));
        let members: Vec<&String> = header["jwk"].as_object().unwrap().keys().collect();
        assert!(members.iter().all(|name| ["kty", "crv", "x", "y"].contains(&name.as_str())), "{members:?}");
        assert_eq!((&claims["htm"], &claims["htu"]), (&"POST".into(), &"https://up.example/mcp".into()));
        assert_eq!(claims["ath"], URL_SAFE_NO_PAD.encode(digest(&SHA256, b"at")));
        let other = prover.prove("POST", "https://up.example/mcp", None).unwrap();
        assert!(parts(&other).1.get("ath").is_none() && parts(&other).1["jti"] != claims["jti"]);
    }

    #[test]
    fn a_key_is_the_same_after_it_was_kept() {
        let key = ProofKey::generate().unwrap();
        let kept: ProofKey = serde_json::from_str(&serde_json::to_string(&key).unwrap()).unwrap();
        let jwk = |key: ProofKey| {
            parts(&Prover::new(key).prove("GET", "https://up.example/", None).unwrap()).0["jwk"].clone()
        };
        assert!(!format!("{key:?}").contains(kept.pkcs8.expose_secret()));
        assert_eq!(jwk(key), jwk(kept));
    }

    #[test]
    fn a_nonce_stands_in_every_proof_until_there_is_another_and_has_a_length() {
        let prover = Prover::new(ProofKey::generate().unwrap());
        let told = |nonce: &str| HeaderMap::from_iter([(HeaderName::from_static(NONCE), nonce.parse().unwrap())]);
        assert!(prover.hear(&told("n-1")) && !prover.hear(&told("n-1")) && prover.hear(&told("n-2")));
        assert!(!prover.hear(&HeaderMap::new()) && !prover.hear(&told("")));
        assert!(!prover.hear(&told(&"x".repeat(limit::PROOF_NONCE_BYTES_MAX + 1))));
        assert_eq!(parts(&prover.prove("GET", "https://up.example/", None).unwrap()).1["nonce"], "n-2");
        assert!(prover.hear(&told(&"x".repeat(limit::PROOF_NONCE_BYTES_MAX))));
    }
}
