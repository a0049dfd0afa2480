//! An issuer's public keys, and which of them may have signed a token.
//!
//! Decides which keys of a JWKS count. Refuses to know where they come from. Invariant: a key verifies
//! only with an algorithm of its own type and curve, so no token chooses how it is looked at.

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use serde::Deserialize;
use serde_json::Value;

use crate::config::Algorithm;
use crate::ids::Digest;
use crate::limit;

/// What an issuer publishes (RFC 7517, section 5).
#[derive(Debug, Deserialize)]
pub(super) struct Jwks {
    keys: Vec<Value>,
}

/// What of a key says which it is and how it is used; whatever else stands there may have any shape.
const MEMBERS: [&str; 9] = ["kty", "use", "alg", "kid", "n", "e", "crv", "x", "y"];

/// An issuer's public keys.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// How many the issuer lists, usable or not.
    listed: usize,
    /// Changes whenever any key does.
    pub digest: Digest,
}

#[derive(Debug)]
struct Key {
    /// Its own digest: the same key with the same id, use and algorithm is the same one.
    digest: Digest,
    id: Option<String>,
    /// The one algorithm that the key names, where it names one.
    only: Option<KeyAlgorithm>,
    kind: KeyKind,
    key: DecodingKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl KeySet {
    /// The usable keys of a JWKS, at most [`limit::JWKS_KEYS_MAX`]; others are left out. One without any is a set as
    /// well: the issuer has withdrawn them all.
    pub fn new(jwks: &Jwks) -> Self {
        let keys: Vec<Key> = jwks.keys.iter().filter_map(Key::read).take(limit::JWKS_KEYS_MAX).collect();
        let digests: Vec<&[u8]> = keys.iter().map(|key| key.digest.as_bytes().as_slice()).collect();
        let digest = Digest::of("bailiwick/key-set/v1", &digests);
        Self { keys, listed: jwks.keys.len(), digest }
    }

    /// No keys: of an issuer that signs nothing.
    pub fn none() -> Self {
        Self { keys: Vec::new(), listed: 0, digest: Digest::of("bailiwick/no-keys/v1", &[]) }
    }

    /// What is wrong with a set that nothing can be verified with.
    pub fn problem(&self) -> Option<String> {
        self.keys.is_empty().then(|| format!("none of its {} keys can verify a signature", self.listed))
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// How many can verify that algorithm.
    pub fn fitting(&self, algorithm: Algorithm) -> usize {
        self.keys.iter().filter(|key| key.fits(algorithm)).count()
    }

    /// Whether the signature is one of these keys'.
    ///
    /// A token with a `kid` is looked at with the keys of that id only; one without it needs the choice to
    /// be unambiguous: exactly one key that fits the algorithm.
    pub fn verify(&self, kid: Option<&str>, algorithm: Algorithm, signed: &str, signature: &str) -> Verification {
        let fitting = || self.keys.iter().filter(|key| key.fits(algorithm));
        let candidates: Vec<&Key> = match kid {
            Some(kid) => {
                let named = fitting().filter(|key| key.id.as_deref() == Some(kid));
                named.take(limit::JWKS_SAME_ID_MAX).collect()
            }
            None => match (fitting().next(), fitting().nth(1)) {
                (Some(only), None) => vec![only],
                (Some(_), Some(_)) => return Verification::Ambiguous,
                _ => Vec::new(),
            },
        };
        if candidates.is_empty() {
            return Verification::KeyUnknown;
        }
        let signer = candidates.iter().find(|key| {
            jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &key.key, algorithm_of(algorithm))
                .unwrap_or(false)
        });
        signer.map_or(Verification::Invalid, |key| Verification::Verified(key.digest))
    }

    /// Whether a key is one of these.
    pub fn has(&self, key: &Digest) -> bool {
        self.keys.iter().any(|known| known.digest == *key)
    }
}

/// Whether the signature is that of the key which the text itself brings: proves that whoever made it has the key, and
/// says nothing of whose it is.
pub(super) fn verify_with(jwk: &Jwk, algorithm: Algorithm, signed: &str, signature: &str) -> bool {
    let unnamed = Digest::from_bytes([0; 32]);
    let found = Key::new(jwk, unnamed).filter(|key| key.fits(algorithm)).map(|key| {
        jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &key.key, algorithm_of(algorithm)).unwrap_or(false)
    });
    found.unwrap_or(false)
}

/// What looking at a signature found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verification {
    /// It is the signature of this key of the issuer.
    Verified(Digest),
    /// It is not.
    Invalid,
    /// The issuer has no such key, as far as we know.
    KeyUnknown,
    /// The token names no key and several could have signed it.
    Ambiguous,
}

impl Key {
    /// One of a set.
    fn read(published: &Value) -> Option<Self> {
        let mut plain = serde_json::Map::new();
        for name in MEMBERS {
            plain.extend(published.get(name).map(|value| (name.to_owned(), value.clone())));
        }
        // RFC 9864 names the curve, as `algorithm_named` knows; the reader of keys does not.
        if plain.get("alg").and_then(Value::as_str) == Some("Ed25519") {
            plain.remove("alg");
            plain.get("crv").filter(|curve| *curve == "Ed25519")?;
        }
        let digest = Digest::sha256(Value::Object(plain.clone()).to_string().as_bytes());
        Self::new(&serde_json::from_value(Value::Object(plain)).ok()?, digest)
    }

    fn new(jwk: &Jwk, digest: Digest) -> Option<Self> {
        // `use` may be absent; other uses (enc, jwt-svid, x509-svid) are for something else.
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let kind = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => KeyKind::Rsa,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => KeyKind::P256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => KeyKind::P384,
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => KeyKind::Ed25519,
            _ => return None,
        };
        let key = DecodingKey::from_jwk(jwk).ok()?;
        Some(Self { digest, id: jwk.common.key_id.clone(), only: jwk.common.key_algorithm, kind, key })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let (kind, name) = match algorithm {
            Algorithm::Rs256 => (KeyKind::Rsa, KeyAlgorithm::RS256),
            Algorithm::Ps256 => (KeyKind::Rsa, KeyAlgorithm::PS256),
            Algorithm::Es256 => (KeyKind::P256, KeyAlgorithm::ES256),
            Algorithm::Es384 => (KeyKind::P384, KeyAlgorithm::ES384),
            Algorithm::EdDsa => (KeyKind::Ed25519, KeyAlgorithm::EdDSA),
        };
        self.kind == kind && self.only.is_none_or(|only| only == name)
    }
}

/// The algorithm of a header, where it is one that can be allowed at all.
pub(super) fn algorithm_named(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::Rs256,
        "PS256" => Algorithm::Ps256,
        "ES256" => Algorithm::Es256,
        "ES384" => Algorithm::Es384,
        // RFC 9864 names the curve; both spellings mean the same signature.
        "EdDSA" | "Ed25519" => Algorithm::EdDsa,
        _ => return None,
    })
}

const fn algorithm_of(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::Ps256 => jsonwebtoken::Algorithm::PS256,
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::Es384 => jsonwebtoken::Algorithm::ES384,
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::fixture::{Signer, jwks};

    fn set(keys: &[Value]) -> KeySet {
        KeySet::new(&jwks(keys))
    }

    fn is_verified(found: Verification) -> bool {
        matches!(found, Verification::Verified(_))
    }

    fn verify(set: &KeySet, signer: &Signer, kid: Option<&str>) -> Verification {
        set.verify(kid, Algorithm::Es256, "a.b", &signer.signature("a.b"))
    }

    #[test]
    fn a_token_with_a_key_id_is_looked_at_with_that_key_only() {
        let (one, two) = (Signer::new("one"), Signer::new("two"));
        let set = set(&[one.jwk(), two.jwk()]);
        assert!(is_verified(verify(&set, &one, Some("one"))));
        assert_eq!(verify(&set, &one, Some("two")), Verification::Invalid);
        assert_eq!(verify(&set, &one, Some("three")), Verification::KeyUnknown);
        assert_eq!(verify(&set, &one, None), Verification::Ambiguous);
    }

    #[test]
    fn without_a_key_id_a_single_key_is_enough() {
        let one = Signer::new("one");
        let set = set(&[one.jwk()]);
        assert!(is_verified(verify(&set, &one, None)));
        assert_eq!(verify(&set, &Signer::new("one"), None), Verification::Invalid);
    }

    #[test]
    fn every_algorithm_that_can_be_allowed_verifies_with_a_key_of_its_kind_only() {
        use aws_lc_rs::signature::{
            ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
            RsaEncoding,
        };
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        use jsonwebtoken::EncodingKey;
        use serde_json::json;

        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let random = aws_lc_rs::rand::SystemRandom::new();
        let rsa = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let rsa_public = aws_lc_rs::rsa::PublicKeyComponents::<Vec<u8>>::from(rsa.public_key());
        let rsa_sign = |encoding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; rsa.public_modulus_len()];
            rsa.sign(encoding, &random, b"a.b", &mut signature).unwrap();
            encode(&signature)
        };
        let p384 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
        let p384_pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, p384.as_ref()).unwrap();
        let p384_point = p384_pair.public_key().as_ref().to_vec();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ed_pair = Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap();
        let other_ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let other_ed_pair = Ed25519KeyPair::from_pkcs8(other_ed.as_ref()).unwrap();
        let p256 = Signer::new("p256");
        let all = set(&[
            json!({"kty": "RSA", "kid": "rsa", "n": encode(&rsa_public.n), "e": encode(&rsa_public.e), "x5c": ["AAAA"], "x5t": "a"}),
            json!({"kty": "EC", "crv": "P-384", "kid": "p384", "x": encode(&p384_point[1..49]), "y": encode(&p384_point[49..])}),
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "alg": "EdDSA", "x": encode(ed_pair.public_key().as_ref())}),
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed-9864", "alg": "Ed25519", "x": encode(other_ed_pair.public_key().as_ref())}),
            p256.jwk(),
        ]);
        let sign =
            |key: &EncodingKey, algorithm| jsonwebtoken::crypto::sign(b"a.b", key, algorithm_of(algorithm)).unwrap();
        let signatures = [
            ("rsa", Algorithm::Rs256, rsa_sign(&RSA_PKCS1_SHA256)),
            ("rsa", Algorithm::Ps256, rsa_sign(&RSA_PSS_SHA256)),
            ("p384", Algorithm::Es384, sign(&EncodingKey::from_ec_der(p384.as_ref()), Algorithm::Es384)),
            ("ed", Algorithm::EdDsa, sign(&EncodingKey::from_ed_der(ed.as_ref()), Algorithm::EdDsa)),
            ("ed-9864", Algorithm::EdDsa, sign(&EncodingKey::from_ed_der(other_ed.as_ref()), Algorithm::EdDsa)),
            ("p256", Algorithm::Es256, p256.signature("a.b")),
        ];
        for (kid, algorithm, signature) in &signatures {
            for (other, _, _) in &signatures {
                let found = all.verify(Some(other), *algorithm, "a.b", signature);
                assert_eq!(is_verified(found), kid == other, "{algorithm:?} with {other}: {found:?}");
            }
            let found = all.verify(Some(kid), *algorithm, "a.c", signature);
            assert_eq!(found, Verification::Invalid, "{algorithm:?}");
        }
    }

    #[test]
    fn a_duplicate_key_id_hides_neither_key() {
        let (old, new) = (Signer::new("same"), Signer::new("same"));
        let set = set(&[old.jwk(), new.jwk()]);
        assert!(is_verified(verify(&set, &old, Some("same"))));
        assert!(is_verified(verify(&set, &new, Some("same"))));
        assert_eq!(verify(&set, &Signer::new("same"), Some("same")), Verification::Invalid);
    }

    #[test]
    fn a_hundred_keys_are_all_found_and_no_more_than_the_limit_are_kept() {
        let signers: Vec<Signer> = (0..100).map(|n| Signer::new(&format!("k{n}"))).collect();
        let all: Vec<_> = signers.iter().map(Signer::jwk).collect();
        let hundred = set(&all);
        assert!(is_verified(verify(&hundred, &signers[99], Some("k99"))));
        let many: Vec<_> = all.iter().cycle().take(limit::JWKS_KEYS_MAX + 50).cloned().collect();
        assert_eq!(set(&many).len(), limit::JWKS_KEYS_MAX);
    }

    #[test]
    fn keys_for_something_else_do_not_verify() {
        let one = Signer::new("one");
        let with = |name: &str, value: serde_json::Value| {
            let mut jwk = one.jwk();
            jwk[name] = value;
            jwk
        };
        for unusable in [
            vec![with("use", "enc".into())],
            vec![with("use", "jwt-svid".into())],
            vec![serde_json::json!({"kty": "oct", "k": "c2VjcmV0", "kid": "one"})],
            Vec::new(),
        ] {
            let set = set(&unusable);
            assert_eq!((set.len(), set.problem().is_some()), (0, true));
            assert_eq!(verify(&set, &one, Some("one")), Verification::KeyUnknown);
        }
        assert!(serde_json::from_str::<Jwks>("{}").is_err(), "what is no set withdraws nothing");
        let other = set(&[with("alg", "ES384".into())]);
        assert_eq!(verify(&other, &one, Some("one")), Verification::KeyUnknown);
        let unreadable = set(&[serde_json::json!({"kty": "EC"}), one.jwk(), serde_json::json!({"kty": "PQC"})]);
        assert!(is_verified(verify(&unreadable, &one, Some("one"))));
    }

    #[test]
    fn only_so_many_keys_of_one_id_are_tried() {
        let right = Signer::new("same");
        let among = |before: usize| {
            let mut keys: Vec<_> = (0..before).map(|_| Signer::new("same").jwk()).collect();
            keys.push(right.jwk());
            verify(&set(&keys), &right, Some("same"))
        };
        assert!(is_verified(among(limit::JWKS_SAME_ID_MAX - 1)));
        assert_eq!(among(limit::JWKS_SAME_ID_MAX), Verification::Invalid);
    }

    #[test]
    fn a_set_knows_its_keys_again_whatever_else_comes_or_goes() {
        let (one, two) = (Signer::new("one"), Signer::new("two"));
        let Verification::Verified(key) = verify(&set(&[one.jwk()]), &one, None) else { panic!("not verified") };
        let mut dressed = one.jwk();
        dressed["x5c"] = "not a list".into();
        for with in [set(&[two.jwk(), one.jwk()]), set(&[dressed])] {
            assert!(with.has(&key) && is_verified(verify(&with, &one, Some("one"))));
        }
        assert!(!set(&[two.jwk()]).has(&key));
    }
}
