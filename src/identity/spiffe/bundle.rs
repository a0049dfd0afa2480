//! The bundle of a trust domain: a JWKS whose keys say what they are for (SPIFFE Trust Domain and Bundle).
//!
//! Decides which of its keys count for what. Refuses to know where it comes from. Invariant: a key for JWT-SVIDs
//! verifies no certificate, and the reverse; bundles are never put together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use serde::Deserialize;

use crate::ids::Digest;
use crate::limit;

/// What a trust domain vouches with.
#[derive(Debug)]
pub(super) struct Bundle {
    keys: Vec<JwtKey>,
    /// Who verifies certificates against its roots, where it has any.
    pub roots: Option<Arc<dyn ClientCertVerifier>>,
    /// Its roots.
    pub anchors: Arc<RootCertStore>,
    /// Rises with every change.
    pub sequence: Option<u64>,
    /// When it should be read again.
    pub refresh: Duration,
    pub digest: Digest,
    pub fetched_at: Instant,
}

#[derive(Debug)]
struct JwtKey {
    digest: Digest,
    id: Option<String>,
    kind: KeyKind,
    /// The one algorithm that the key names, where it names one.
    only: Option<Algorithm>,
    key: DecodingKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
    P384,
}

/// What a key is for that does not say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unmarked {
    LeftAlone,
    JwtSvid,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
    #[serde(rename = "spiffe_sequence")]
    sequence: Option<u64>,
    #[serde(rename = "spiffe_refresh_hint")]
    refresh_hint: Option<u64>,
}

/// The algorithms of JWT-SVIDs, without ES512, which no library of ours has.
pub(super) fn algorithm_named(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        _ => return None,
    })
}

impl Bundle {
    /// Reads a bundle. One without any key is a bundle as well: the trust domain has withdrawn them all.
    ///
    /// # Errors
    /// When it is no bundle, or a root in it cannot be read.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        Self::with(text, Unmarked::LeftAlone)
    }

    /// Reads what the Workload API says of keys for JWT-SVIDs, which need not say that they are.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn of_workload_api(text: &[u8]) -> Result<Self, String> {
        Self::with(text, Unmarked::JwtSvid)
    }

    /// The bundle of a trust domain of which nothing is said any more.
    ///
    /// # Errors
    /// None, but for those of [`Self::read`].
    pub fn of_nothing() -> Result<Self, String> {
        Self::read(br#"{"keys":[]}"#)
    }

    fn with(text: &[u8], unmarked: Unmarked) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(text).map_err(|error| format!("it is no bundle: {error}"))?;
        if document.keys.len() > limit::JWKS_KEYS_MAX {
            return Err(format!("{} keys are too many: at most {}", document.keys.len(), limit::JWKS_KEYS_MAX));
        }
        let (mut keys, mut roots) = (Vec::new(), RootCertStore::empty());
        for key in &document.keys {
            match key.get("use").and_then(serde_json::Value::as_str) {
                Some("jwt-svid") => keys.extend(JwtKey::read(key)),
                None if unmarked == Unmarked::JwtSvid => keys.extend(JwtKey::read(key)),
                Some("x509-svid") => {
                    roots.add(root(key)?).map_err(|error| format!("a root in it cannot be used: {error}"))?;
                }
                // SPIFFE: keys for anything else are left alone.
                _ => {}
            }
        }
        let roots = Arc::new(roots);
        let hint = document.refresh_hint.map_or(limit::BUNDLE_REFRESH_USUAL, Duration::from_secs);
        Ok(Self {
            keys,
            roots: verifier(&roots, Vec::new())?,
            anchors: roots,
            sequence: document.sequence,
            refresh: hint.clamp(limit::BUNDLE_REFRESH_MIN, limit::BUNDLE_REFRESH_MAX),
            digest: Digest::sha256(text),
            fetched_at: Instant::now(),
        })
    }

    /// How many keys verify JWT-SVIDs.
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether a key for JWT-SVIDs is in it.
    pub fn has(&self, key: &Digest) -> bool {
        self.keys.iter().any(|known| known.digest == *key)
    }

    /// Which of the keys for JWT-SVIDs made the signature, if one did; nothing where there is none that could have.
    pub fn signer(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        signed: &str,
        signature: &str,
    ) -> Option<Option<Digest>> {
        let named = |key: &&JwtKey| kid.is_none() || key.id.as_deref() == kid;
        let mut candidates = self
            .keys
            .iter()
            .filter(|key| key.fits(algorithm))
            .filter(named)
            .take(limit::BUNDLE_KEYS_TRIED_MAX)
            .peekable();
        candidates.peek()?;
        let signer = candidates.find(|key| {
            jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &key.key, algorithm).unwrap_or(false)
        });
        Some(signer.map(|key| key.digest))
    }
}

impl JwtKey {
    fn read(published: &serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(published.clone()).ok()?;
        let kind = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => KeyKind::Rsa,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => KeyKind::P256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => KeyKind::P384,
            _ => return None,
        };
        let only = match jwk.common.key_algorithm {
            None => None,
            Some(algorithm) => Some(algorithm_named(&algorithm.to_string())?),
        };
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let digest = Digest::sha256(published.to_string().as_bytes());
        Some(Self { digest, id: jwk.common.key_id, kind, only, key })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let kind = match algorithm {
            Algorithm::ES256 => KeyKind::P256,
            Algorithm::ES384 => KeyKind::P384,
            _ => KeyKind::Rsa,
        };
        self.kind == kind && self.only.is_none_or(|only| only == algorithm)
    }
}

/// The one certificate of a key for X.509-SVIDs.
fn root(key: &serde_json::Value) -> Result<CertificateDer<'static>, String> {
    let chain = key.get("x5c").and_then(serde_json::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let [serde_json::Value::String(only)] = chain else {
        return Err("a key of use x509-svid has not exactly one certificate in x5c".to_owned());
    };
    let bytes = STANDARD.decode(only).map_err(|_| "an x5c is not base64".to_owned())?;
    Ok(CertificateDer::from(bytes))
}

/// Who verifies certificates against these roots, without those that were withdrawn.
pub(super) fn verifier(
    roots: &Arc<RootCertStore>,
    withdrawn: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    if roots.is_empty() {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider);
    // Not every authority of a domain keeps such a list.
    let builder = match withdrawn.is_empty() {
        true => builder,
        false => builder.with_crls(withdrawn).allow_unknown_revocation_status(),
    };
    let verifier = builder.build();
    verifier.map(Some).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::identity::fixture::Signer;

    fn key(signer: &Signer, purpose: &str, id: &str) -> Value {
        let mut key = signer.jwk();
        key["use"] = json!(purpose);
        key["kid"] = json!(id);
        key
    }

    fn read(keys: &[Value]) -> Bundle {
        Bundle::read(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    fn verifies(bundle: &Bundle, signer: &Signer, kid: Option<&str>) -> Option<bool> {
        bundle.signer(kid, Algorithm::ES256, "a.b", &signer.signature("a.b")).map(|signer| signer.is_some())
    }

    #[test]
    fn only_keys_for_jwt_svids_verify_jwt_svids() {
        let (own, other) = (Signer::new("a"), Signer::new("b"));
        let bundle = read(&[key(&own, "jwt-svid", "one"), key(&other, "sig", "two")]);
        assert_eq!(verifies(&bundle, &own, Some("one")), Some(true));
        assert_eq!(verifies(&bundle, &own, None), Some(true));
        assert_eq!(verifies(&bundle, &other, None), Some(false));
        assert_eq!(verifies(&bundle, &other, Some("two")), None);
        assert_eq!(bundle.signer(None, Algorithm::RS256, "a.b", &own.signature("a.b")), None);
        let mut without = key(&own, "jwt-svid", "one");
        without.as_object_mut().unwrap().remove("use");
        assert_eq!(verifies(&read(&[without.clone()]), &own, None), None);
        let said = json!({ "keys": [without, key(&other, "sig", "two")] }).to_string();
        let said = Bundle::of_workload_api(said.as_bytes()).unwrap();
        assert_eq!((verifies(&said, &own, None), verifies(&said, &other, None)), (Some(true), Some(false)));
        assert_eq!(verifies(&read(&[]), &own, None), None, "all were withdrawn");
    }

    #[test]
    fn only_so_many_keys_are_tried_for_a_token_that_names_none() {
        let right = Signer::new("right");
        let among = |before: usize| {
            let mut keys: Vec<_> = (0..before).map(|_| key(&Signer::new("x"), "jwt-svid", "x")).collect();
            keys.push(key(&right, "jwt-svid", "right"));
            let bundle = read(&keys);
            assert_eq!(verifies(&bundle, &right, Some("right")), Some(true));
            verifies(&bundle, &right, None)
        };
        assert_eq!(among(limit::BUNDLE_KEYS_TRIED_MAX - 1), Some(true));
        assert_eq!(among(limit::BUNDLE_KEYS_TRIED_MAX), Some(false));
    }

    #[test]
    fn how_often_a_bundle_is_read_is_its_own_matter_within_bounds() {
        let refresh = |hint: Value| {
            let text = json!({ "keys": [], "spiffe_refresh_hint": hint }).to_string();
            Bundle::read(text.as_bytes()).map(|bundle| bundle.refresh)
        };
        assert_eq!(refresh(Value::Null), Ok(limit::BUNDLE_REFRESH_USUAL));
        assert_eq!(refresh(json!(60)), Ok(Duration::from_secs(60)));
        assert_eq!(refresh(json!(0)), Ok(limit::BUNDLE_REFRESH_MIN));
        assert_eq!(refresh(json!(u64::MAX)), Ok(limit::BUNDLE_REFRESH_MAX));
        assert!(refresh(json!(-1)).is_err());
    }

    #[test]
    fn what_is_no_bundle_is_not_taken() {
        let own = Signer::new("a");
        let many: Vec<Value> = vec![key(&own, "jwt-svid", "one"); limit::JWKS_KEYS_MAX + 1];
        let mut root = key(&own, "x509-svid", "one");
        let without = root.clone();
        root["x5c"] = json!(["bm90IGEgY2VydGlmaWNhdGU="]);
        let mut two = root.clone();
        two["x5c"] = json!(["AAAA", "AAAA"]);
        for bad in [
            String::new(),
            "[]".to_owned(),
            "{}".to_owned(),
            json!({ "keys": many }).to_string(),
            json!({ "keys": [without] }).to_string(),
            json!({ "keys": [root] }).to_string(),
            json!({ "keys": [two] }).to_string(),
            json!({ "keys": [], "spiffe_sequence": "7" }).to_string(),
        ] {
            assert!(Bundle::read(bad.as_bytes()).is_err(), "{bad:.100}");
        }
    }
}
