//! A JWT as text: its three parts, its header and its claims, before anything is believed.
//!
//! Decides what can be read at all. Refuses to know issuers and keys. Invariant: a [`Jwt`] is within the
//! size limit, has exactly three parts, no duplicate member in header or claims, and keeps its signed bytes.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::limit;
use crate::outcome::{Reason, Refusal};

/// A JWT whose parts were decoded and whose signature was not looked at.
#[derive(Debug)]
pub(super) struct Jwt<'a> {
    /// Header and claims as they were signed.
    pub signed: &'a str,
    /// The signature, base64url.
    pub signature: &'a str,
    header: Vec<u8>,
    claims: Vec<u8>,
}

/// The header members that decide something. `jku`, `x5u`, `x5c` and `jwk` are not among them: a token
/// never says which key to believe.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    /// The signature algorithm.
    pub alg: String,
    /// The media type.
    pub typ: Option<String>,
    /// Which key.
    pub kid: Option<String>,
    /// Extensions that must be understood; we understand none.
    pub crit: Option<serde::de::IgnoredAny>,
}

/// The claims, each as the JSON text that was signed; no name twice.
#[derive(Debug)]
pub(super) struct Claims<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Jwt<'a> {
    /// Takes the token apart.
    pub fn parse(text: &'a str) -> Result<Self, Refusal> {
        if text.len() > limit::TOKEN_BYTES_MAX {
            return Err(malformed("the token is larger than the limit"));
        }
        let (signed, signature) = text.rsplit_once('.').ok_or_else(|| malformed("the token is not a JWT"))?;
        let (header, claims) = signed.split_once('.').ok_or_else(|| malformed("the token is not a JWT"))?;
        if claims.contains('.') {
            return Err(malformed("the token is encrypted, or not a JWT"));
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed("the token is not base64url"));
        Ok(Self { signed, signature, header: decode(header)?, claims: decode(claims)? })
    }

    /// Its header.
    pub fn header(&self) -> Result<Header, Refusal> {
        serde_json::from_slice(&self.header).map_err(|_| malformed("the token's header is not a JOSE header"))
    }

    /// The header of a JWT that is no token, with the members that such have.
    pub fn header_as<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.header).ok()
    }

    /// Its claims.
    pub fn claims(&self) -> Result<Claims<'_>, Refusal> {
        serde_json::from_slice(&self.claims).map_err(|_| malformed("the token's claims are not one JSON object"))
    }
}

impl<'a> Claims<'a> {
    /// The JSON text of a claim; `null` counts as absent.
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.get()).filter(|text| *text != "null")
    }

    /// The names of all.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_ref())
    }

    /// Whether it is there.
    pub fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// A text claim; empty counts as absent.
    pub fn text(&self, name: &str) -> Result<Option<String>, Refusal> {
        let text = self.typed::<String>(name)?.filter(|text| !text.is_empty());
        text.map(|text| nameable(name, text)).transpose()
    }

    /// A text claim that must be there.
    pub fn required(&self, name: &'static str) -> Result<String, Refusal> {
        self.text(name)?.ok_or_else(|| missing(name))
    }

    /// A claim of any type.
    pub fn typed<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Refusal> {
        self.raw(name).map(|text| serde_json::from_str(text).map_err(|_| wrong_type(name))).transpose()
    }

    /// A NumericDate, in whole seconds since 1970; a fraction is cut off without passing through a float.
    pub fn date(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.raw(name) else { return Ok(None) };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong_type(name));
        }
        whole.parse().map(Some).map_err(|_| wrong_type(name))
    }

    /// One text or a list of texts, as `aud` may be.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Refusal> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum OneOrMany {
            One(String),
            Many(Vec<String>),
        }
        let texts = self.typed(name)?.map(|value| match value {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        });
        let texts = texts.map(|texts| texts.into_iter().map(|text| nameable(name, text)).collect());
        texts.transpose()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Claims<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Claims<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut claims: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
                    if claims.len() >= limit::TOKEN_CLAIMS_MAX {
                        return Err(serde::de::Error::custom("too many claims"));
                    }
                    if claims.iter().any(|(own, _)| *own == name) {
                        return Err(serde::de::Error::custom("a claim stands there twice"));
                    }
                    claims.push((name, map.next_value()?));
                }
                Ok(Claims(claims))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Whether a text has the form of a signed or encrypted JWT, however broken the rest of it is: parts with dots between
/// them, of which the first is the base64url of a JSON object.
pub(super) fn is_jose(text: &str) -> bool {
    let Some((header, _)) = text.split_once('.') else { return false };
    // Whole groups of characters are whole bytes; a blank or two may stand before the brace.
    let start = header.get(..8).or_else(|| header.get(..4));
    start
        .and_then(|start| URL_SAFE_NO_PAD.decode(start).ok())
        .is_some_and(|bytes| bytes.trim_ascii_start().first() == Some(&b'{'))
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// A text by which somebody can be named, and taken back: not every store keeps U+0000.
fn nameable(name: &str, text: String) -> Result<String, Refusal> {
    if text.contains('\0') {
        return Err(Refusal::new(Reason::TokenMalformed).hint(format!("the claim `{name}` has a U+0000 in it")));
    }
    Ok(text)
}

fn malformed(hint: &'static str) -> Refusal {
    Refusal::new(Reason::TokenMalformed).hint(hint)
}

fn wrong_type(name: &str) -> Refusal {
    Refusal::new(Reason::TokenMalformed).hint(format!("the claim `{name}` has the wrong type"))
}

/// A claim that must be there and is not.
pub(super) fn missing(name: &'static str) -> Refusal {
    Refusal::new(Reason::ClaimMissing)
        .hint(format!("the claim `{name}` is missing; have the issuer follow RFC 9068, or see optional_claims"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: &str) -> Result<(), Refusal> {
        let text = format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#), URL_SAFE_NO_PAD.encode(json));
        Jwt::parse(&text)?.claims().map(|_| ())
    }

    #[test]
    fn only_three_base64url_parts_within_the_limit_are_a_token() {
        let long = format!("{}.{}.{}", "e30", "A".repeat(limit::TOKEN_BYTES_MAX), "c2ln");
        for bad in ["", ".", "..", "a.b", "e30.e30.e30.e30.e30", "e30=.e30=.x", "e3 0.e30.x", &long, "not a token"] {
            let parsed = Jwt::parse(bad).and_then(|jwt| jwt.header().map(|_| ()).and(jwt.claims().map(|_| ())));
            assert_eq!(parsed.unwrap_err().reason, Reason::TokenMalformed, "{bad:.40}");
        }
    }

    #[test]
    fn a_duplicate_claim_is_refused_however_it_is_escaped() {
        assert!(claims(r#"{"sub":"a","aud":"b"}"#).is_ok());
        assert!(claims(r#"{"sub":"a","sub":"b"}"#).is_err());
        assert!(claims(r#"{"sub":"a","\u0073ub":"b"}"#).is_err());
        assert!(claims("[1]").is_err());
        assert!(claims("").is_err());
    }

    #[test]
    fn nobody_has_a_name_that_a_store_could_not_keep() {
        let claims: Claims<'_> = serde_json::from_str(r#"{"a":"x\u0000y","b":["x","\u0000"],"c":"x\u0001"}"#).unwrap();
        for refused in [claims.text("a").map(drop), claims.texts("a").map(drop), claims.texts("b").map(drop)] {
            assert_eq!(refused.unwrap_err().reason, Reason::TokenMalformed);
        }
        assert_eq!(claims.text("c").unwrap().as_deref(), Some("x\u{1}"));
    }

    #[test]
    fn dates_are_whole_seconds_and_nothing_else_passes_for_one() {
        let json = br#"{"a":1700000000,"b":1700000000.9,"c":"1700000000","d":1.7e9,"e":1700000000.5e3,"f":99999999999999999999,"g":null}"#;
        let claims: Claims<'_> = serde_json::from_slice(json).unwrap();
        assert_eq!(claims.date("a").unwrap(), Some(1_700_000_000));
        assert_eq!(claims.date("b").unwrap(), Some(1_700_000_000));
        assert_eq!(claims.date("g").unwrap(), None);
        for bad in ["c", "d", "e", "f"] {
            assert_eq!(claims.date(bad).unwrap_err().reason, Reason::TokenMalformed, "{bad}");
        }
    }

    #[test]
    fn the_number_of_claims_is_bounded() {
        let token = |count: usize| {
            let members: Vec<String> = (0..count).map(|number| format!("\"c{number}\":1")).collect();
            claims(&format!("{{{}}}", members.join(",")))
        };
        assert!(token(limit::TOKEN_CLAIMS_MAX).is_ok());
        assert_eq!(token(limit::TOKEN_CLAIMS_MAX + 1).unwrap_err().reason, Reason::TokenMalformed);
    }
}
