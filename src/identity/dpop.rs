//! DPoP (RFC 9449): whether a request comes with a proof of the key that its token is bound to.
//!
//! Decides about one proof. Refuses to know tokens and whether the proof came before. Invariant: the proof is signed by
//! the public key that it brings, that key is the token's, and the proof was made for this token, this method, this
//! address and now.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use serde::Deserialize;
use url::Url;

use super::keys;
use super::token::Jwt;
use crate::ids::Digest;
use crate::limit;
use crate::outcome::{Reason, Refusal};

/// Signature algorithms of proofs, as challenges and metadata name them.
pub const ALGORITHMS: [&str; 5] = ["ES256", "ES384", "EdDSA", "PS256", "RS256"];

/// What a key that is made public must not hold (RFC 7518, sections 6.2.2, 6.3.2 and 6.4).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// What the proof has to be made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub method: &'a str,
    /// Our address as clients know it.
    pub address: &'a str,
    /// SHA-256 of the token.
    pub token: &'a Digest,
    /// The thumbprint of the key that the token is bound to.
    pub key: &'a Digest,
    /// Seconds since 1970.
    pub now: i64,
}

/// A proof that holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proof {
    /// What no other proof of that key may have.
    pub id: Digest,
    /// The nonce that it was made with.
    pub nonce: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    typ: Option<String>,
    alg: String,
    jwk: serde_json::Value,
    crit: Option<serde::de::IgnoredAny>,
}

/// Looks at the `DPoP` header of a request.
///
/// # Errors
/// [`Reason::DpopProofInvalid`]; the hint says what is wrong with it.
pub(super) fn check(text: Option<&str>, expected: &Expected<'_>) -> Result<Proof, Refusal> {
    let text = text.ok_or_else(|| invalid("there is no DPoP header; send a proof with every request"))?;
    if text.len() > limit::DPOP_PROOF_BYTES_MAX {
        return Err(invalid("the proof is larger than the limit"));
    }
    let unreadable = |_: Refusal| invalid("the proof is not one JWT");
    let jwt = Jwt::parse(text).map_err(unreadable)?;
    let header: Header = jwt.header_as().ok_or_else(|| invalid("the proof's header lacks alg or jwk"))?;
    if header.typ.as_deref() != Some("dpop+jwt") {
        return Err(invalid("the proof's typ is not dpop+jwt"));
    }
    if header.crit.is_some() {
        return Err(invalid("the proof needs extensions (`crit`) that are not understood here"));
    }
    let algorithm =
        keys::algorithm_named(&header.alg).ok_or_else(|| invalid("the proof is signed with another algorithm"))?;
    if PRIVATE_MEMBERS.iter().any(|member| header.jwk.get(member).is_some()) {
        return Err(invalid("the proof's jwk holds a private key, which is burnt now: make another"));
    }
    let key: Jwk = serde_json::from_value(header.jwk).map_err(|_| invalid("the proof's jwk is not a public key"))?;
    if !keys::verify_with(&key, algorithm, jwt.signed, jwt.signature) {
        return Err(invalid("the proof is not signed by the key that it brings"));
    }
    let thumbprint = key.thumbprint(ThumbprintHash::SHA256).unwrap_or_default();
    if thumbprint != spelled(expected.key) {
        return Err(invalid("the proof's key is not the one that the token is bound to"));
    }
    let claims = jwt.claims().map_err(unreadable)?;
    let text = |name: &str| claims.text(name).map_err(unreadable);
    if text("htm")?.as_deref() != Some(expected.method) {
        return Err(invalid("the proof's htm is not the method of the request"));
    }
    if !text("htu")?.is_some_and(|place| is_same(&place, expected.address)) {
        return Err(invalid("the proof's htu is not the URL of the request, as the gateway's public_url spells it"));
    }
    if text("ath")?.as_deref() != Some(spelled(expected.token).as_str()) {
        return Err(invalid("the proof's ath is not the SHA-256 of the token"));
    }
    let made = claims.date("iat").map_err(unreadable)?.ok_or_else(|| invalid("the proof has no iat"))?;
    let age_max = limit::DPOP_AGE_MAX.as_secs();
    if made.abs_diff(expected.now) > age_max {
        return Err(invalid("the proof was not made just now: make one for each request, and check the clock"));
    }
    let id = text("jti")?.ok_or_else(|| invalid("the proof has no jti"))?;
    if id.len() > limit::DPOP_ID_BYTES_MAX {
        return Err(invalid("the proof's jti is larger than the limit"));
    }
    let id = Digest::of("bailiwick/dpop/v1", &[expected.key.as_bytes(), id.as_bytes()]);
    Ok(Proof { id, nonce: text("nonce")? })
}

fn invalid(hint: &'static str) -> Refusal {
    Refusal::new(Reason::DpopProofInvalid).hint(hint)
}

/// As JWTs spell a SHA-256.
fn spelled(digest: &Digest) -> String {
    URL_SAFE_NO_PAD.encode(digest.as_bytes())
}

/// Whether both are the same place after URL normalisation; a query and a fragment do not count.
fn is_same(claimed: &str, own: &str) -> bool {
    let (Ok(mut claimed), Ok(own)) = (Url::parse(claimed), Url::parse(own)) else { return false };
    claimed.set_query(None);
    claimed.set_fragment(None);
    // `/mcp/` is answered like `/mcp`.
    claimed.as_str() == own.as_str() || claimed.as_str().strip_suffix('/') == Some(own.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::identity::fixture::Signer;

    const NOW: i64 = 1_800_000_000;
    const PLACE: &str = "https://gw.example/mcp";

    fn thumbprint(signer: &Signer) -> Digest {
        let jwk = signer.jwk();
        let canonical = format!(
            r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#,
            jwk["x"].as_str().unwrap(),
            jwk["y"].as_str().unwrap()
        );
        Digest::sha256(canonical.as_bytes())
    }

    fn good(signer: &Signer) -> (Value, Value) {
        let mut jwk = signer.jwk();
        for member in ["use", "alg", "kid"] {
            jwk.as_object_mut().unwrap().remove(member);
        }
        let ath = spelled(&Digest::sha256(b"token"));
        (
            json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk }),
            json!({ "htm": "POST", "htu": PLACE, "iat": NOW, "jti": "one", "ath": ath }),
        )
    }

    fn checked(signer: &Signer, text: Option<&str>) -> Result<Proof, Refusal> {
        let (token, key) = (Digest::sha256(b"token"), thumbprint(signer));
        check(text, &Expected { method: "POST", address: PLACE, token: &token, key: &key, now: NOW })
    }

    #[test]
    fn a_proof_for_this_request_holds() {
        let signer = Signer::new("k");
        let (header, mut claims) = good(&signer);
        let proof = checked(&signer, Some(&signer.token_with(&header, &claims))).unwrap();
        assert_eq!(proof.nonce, None);
        for place in ["HTTPS://GW.example:443/mcp", "https://gw.example/mcp/", "https://gw.example/mcp?a=b#c"] {
            claims["htu"] = json!(place);
            claims["nonce"] = json!("n");
            let proof = checked(&signer, Some(&signer.token_with(&header, &claims))).unwrap();
            assert_eq!(proof.nonce.as_deref(), Some("n"), "{place}");
        }
    }

    #[test]
    fn a_proof_that_is_spoilt_in_one_place_is_refused_and_the_hint_names_it() {
        let signer = Signer::new("k");
        let stranger = Signer::new("s");
        let (header, claims) = good(&signer);
        let with = |in_header: bool, name: &str, value: Value| {
            let (mut header, mut claims) = (header.clone(), claims.clone());
            let part = if in_header { &mut header } else { &mut claims };
            if let Some(member) = name.strip_prefix("jwk.") {
                part["jwk"][member] = value;
            } else if value.is_null() {
                part.as_object_mut().unwrap().remove(name);
            } else {
                part[name] = value;
            }
            signer.token_with(&header, &claims)
        };
        let foreign = stranger.token_with(&good(&stranger).0, &claims);
        let stolen = stranger.token_with(&header, &claims);
        let long = "j".repeat(limit::DPOP_ID_BYTES_MAX + 1);
        let huge = "x".repeat(limit::DPOP_PROOF_BYTES_MAX + 1);
        let age = i64::try_from(limit::DPOP_AGE_MAX.as_secs()).unwrap();
        let cases = [
            (None, "no DPoP header"),
            (Some(String::new()), "not one JWT"),
            (Some(huge), "larger than the limit"),
            (Some(with(true, "typ", json!("JWT"))), "typ"),
            (Some(with(true, "typ", Value::Null)), "typ"),
            (Some(with(true, "alg", json!("none"))), "another algorithm"),
            (Some(with(true, "alg", json!("HS256"))), "another algorithm"),
            (Some(with(true, "alg", json!("ES384"))), "not signed by the key"),
            (Some(with(true, "jwk", Value::Null)), "lacks alg or jwk"),
            (Some(with(true, "jwk", json!({ "kty": "oct", "x": "c2VjcmV0" }))), "not signed by the key"),
            (Some(with(true, "jwk.d", json!("AAAA"))), "private key"),
            (Some(with(true, "jwk.k", json!("AAAA"))), "private key"),
            (Some(with(true, "crit", json!(["b64"]))), "crit"),
            (Some(foreign), "not the one that the token is bound to"),
            (Some(stolen), "not signed by the key"),
            (Some(with(false, "htm", json!("GET"))), "htm"),
            (Some(with(false, "htm", json!("post"))), "htm"),
            (Some(with(false, "htu", Value::Null)), "htu"),
            (Some(with(false, "htu", json!("https://gw.example/mcp/git"))), "htu"),
            (Some(with(false, "htu", json!("http://gw.example/mcp"))), "htu"),
            (Some(with(false, "htu", json!("https://a@gw.example/mcp"))), "htu"),
            (Some(with(false, "htu", json!("https://gw.example.evil/mcp"))), "htu"),
            (Some(with(false, "htu", json!("/mcp"))), "htu"),
            (Some(with(false, "ath", Value::Null)), "ath"),
            (Some(with(false, "ath", json!(spelled(&Digest::sha256(b"another"))))), "ath"),
            (Some(with(false, "iat", Value::Null)), "iat"),
            (Some(with(false, "iat", json!(NOW - age - 1))), "not made just now"),
            (Some(with(false, "iat", json!(NOW + age + 1))), "not made just now"),
            (Some(with(false, "iat", json!(i64::MIN))), "not made just now"),
            (Some(with(false, "jti", Value::Null)), "jti"),
            (Some(with(false, "jti", json!(""))), "jti"),
            (Some(with(false, "jti", json!(long))), "jti"),
        ];
        for (text, expected) in cases {
            let refusal = checked(&signer, text.as_deref()).unwrap_err();
            assert_eq!(refusal.reason, Reason::DpopProofInvalid, "{expected}");
            assert!(refusal.hint.contains(expected), "{expected}: {}", refusal.hint);
        }
        for edge in [NOW - age, NOW + age] {
            assert!(checked(&signer, Some(&with(false, "iat", json!(edge)))).is_ok(), "{edge}");
        }
    }
}
