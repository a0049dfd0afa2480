//! To what a token is bound (`cnf`: RFC 7800, RFC 8705, RFC 9449), and whether it came with that.
//!
//! Decides which tokens may come as a plain bearer. Refuses to know how a proof is made. Invariant: a token that is
//! bound is accepted only with everything that it names, and one that is bound in a way not known here never.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::presented::{Presented, Shown};
use super::token::Claims;
use crate::config::SenderConstraint;
use crate::ids::Digest;
use crate::outcome::{Reason, Refusal};

/// To what a token is bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Binding {
    /// The thumbprint of a key (RFC 7638), of which each request brings a proof.
    key: Option<Digest>,
    /// The thumbprint of the client's certificate.
    certificate: Option<Digest>,
    /// What the issuer's entry demands.
    demanded: SenderConstraint,
}

/// What `cnf` may say; whatever else it says is not understood.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    jkt: Option<String>,
    #[serde(rename = "x5t#S256")]
    certificate: Option<String>,
}

impl Binding {
    /// What a token's claims say of it.
    ///
    /// # Errors
    /// [`Reason::TokenBound`] where it is bound in a way that is not known here.
    pub fn read(claims: &Claims<'_>, demanded: SenderConstraint) -> Result<Self, Refusal> {
        let Some(text) = claims.raw("cnf") else { return Ok(Self { demanded, ..Self::default() }) };
        let strange = || Refusal::new(Reason::TokenBound).hint("the token is bound in a way that is not known here");
        let said: Confirmation = serde_json::from_str(text).map_err(|_| strange())?;
        let thumbprint = |text: Option<String>| text.map(|text| digest(&text).ok_or_else(strange)).transpose();
        let (key, certificate) = (thumbprint(said.jkt)?, thumbprint(said.certificate)?);
        if key.is_none() && certificate.is_none() {
            return Err(strange());
        }
        Ok(Self { key, certificate, demanded })
    }

    /// Whether it is a key of which each request brings a proof.
    pub const fn names_key(&self) -> bool {
        self.key.is_some()
    }

    /// Whether it is a certificate of the client's: whoever passes [`Self::check`] has shown it.
    pub const fn names_certificate(&self) -> bool {
        self.certificate.is_some()
    }

    /// The same where no more is demanded than the token itself names.
    pub fn undemanded(self) -> Self {
        Self { demanded: SenderConstraint::None, ..self }
    }

    /// Whether it may come so; answers the thumbprint of the key that a proof is due of.
    ///
    /// # Errors
    /// [`Reason::TokenBound`], [`Reason::TokenUnbound`] or [`Reason::CertificateMismatch`].
    pub fn check(&self, shown: &Shown<'_>) -> Result<Option<&Digest>, Refusal> {
        if let Some(bound) = &self.certificate {
            match shown.certificate {
                Some(certificate) if certificate.thumbprint() == bound => {}
                Some(_) => return Err(Refusal::new(Reason::CertificateMismatch)),
                None => {
                    let hint = "the token is bound to a client certificate and came without one; connect with it";
                    return Err(Refusal::new(Reason::CertificateMismatch).hint(hint));
                }
            }
        }
        let due = match (shown.credential, &self.key) {
            (Presented::Dpop(_), Some(key)) => Some(key),
            (Presented::Dpop(_), None) => {
                let hint =
                    "the token came as DPoP and is bound to no key; send it as Bearer, or get one with a DPoP proof";
                return Err(Refusal::new(Reason::TokenUnbound).hint(hint));
            }
            (_, Some(_)) => return Err(Refusal::new(Reason::TokenBound)),
            (_, None) => None,
        };
        self.suffices().map(|()| due)
    }

    /// Whether it names as much as its issuer's entry demands.
    ///
    /// # Errors
    /// [`Reason::TokenUnbound`].
    pub fn suffices(&self) -> Result<(), Refusal> {
        let is_enough = match self.demanded {
            SenderConstraint::None => true,
            SenderConstraint::Dpop => self.key.is_some(),
            SenderConstraint::Mtls => self.certificate.is_some(),
            SenderConstraint::Any => self.key.is_some() || self.certificate.is_some(),
        };
        if is_enough { Ok(()) } else { Err(Refusal::new(Reason::TokenUnbound)) }
    }
}

/// SHA-256 as `cnf` spells it: 43 characters that mean exactly one value.
fn digest(text: &str) -> Option<Digest> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    Some(Digest::from_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::presented::ClientCertificate;

    fn binding(cnf: &str, demanded: SenderConstraint) -> Result<Binding, Reason> {
        let claims = format!("{{\"cnf\":{cnf}}}");
        Binding::read(&serde_json::from_str(&claims).unwrap(), demanded).map_err(|refusal| refusal.reason)
    }

    fn spelled(digest: &Digest) -> String {
        URL_SAFE_NO_PAD.encode(digest.as_bytes())
    }

    #[test]
    fn a_binding_that_is_not_known_is_never_a_plain_bearer() {
        let good = spelled(&Digest::sha256(b"key"));
        for bad in [
            "{}",
            "[]",
            "\"x\"",
            "{\"jwk\":{\"kty\":\"EC\"}}",
            "{\"kid\":\"a\"}",
            "{\"jkt\":7}",
            "{\"jkt\":\"\"}",
            "{\"jkt\":\"abc\"}",
            &format!("{{\"jkt\":\"{good}=\"}}"),
            &format!("{{\"jkt\":\"{good}\",\"jkt\":\"{good}\"}}"),
            &format!("{{\"jkt\":\"{good}\",\"x5u\":\"https://a.example\"}}"),
            "{\"x5t#S256\":\"abc\"}",
        ] {
            assert_eq!(binding(bad, SenderConstraint::None).unwrap_err(), Reason::TokenBound, "{bad}");
        }
        assert!(binding(&format!("{{\"jkt\":\"{good}\"}}"), SenderConstraint::None).is_ok());
    }

    #[test]
    fn a_token_comes_with_all_that_it_names_and_all_that_its_issuer_demands() {
        let (key, leaf) = (Digest::sha256(b"key"), Digest::sha256(b"leaf"));
        let (own, other) = (ClientCertificate::of_thumbprint(leaf), ClientCertificate::of_thumbprint(key));
        let by_key = format!("{{\"jkt\":\"{}\"}}", spelled(&key));
        let by_both = format!("{{\"jkt\":\"{}\",\"x5t#S256\":\"{}\"}}", spelled(&key), spelled(&leaf));
        let by_leaf = format!("{{\"x5t#S256\":\"{}\"}}", spelled(&leaf));
        let (bearer, dpop) = (Presented::Bearer("t"), Presented::Dpop("t"));
        use SenderConstraint::{Any, Dpop, Mtls, None as Free};
        let (none, due) = (Ok(false), Ok(true));
        let (bound, unbound, mismatch) =
            (Err(Reason::TokenBound), Err(Reason::TokenUnbound), Err(Reason::CertificateMismatch));
        for (cnf, demanded, credential, certificate, expected) in [
            ("null", Free, bearer, None, none),
            ("null", Free, bearer, Some(&own), none),
            ("null", Free, dpop, None, unbound),
            ("null", Dpop, bearer, None, unbound),
            ("null", Mtls, bearer, Some(&own), unbound),
            ("null", Any, bearer, Some(&own), unbound),
            (&by_key, Free, bearer, None, bound),
            (&by_key, Free, dpop, None, due),
            (&by_key, Any, dpop, None, due),
            (&by_key, Mtls, dpop, Some(&own), unbound),
            (&by_leaf, Free, bearer, None, mismatch),
            (&by_leaf, Free, bearer, Some(&other), mismatch),
            (&by_leaf, Mtls, bearer, Some(&own), none),
            (&by_leaf, Any, bearer, Some(&own), none),
            (&by_leaf, Dpop, bearer, Some(&own), unbound),
            (&by_leaf, Free, dpop, Some(&own), unbound),
            (&by_both, Free, bearer, Some(&own), bound),
            (&by_both, Free, dpop, None, mismatch),
            (&by_both, Mtls, dpop, Some(&own), due),
        ] {
            let binding = binding(cnf, demanded).unwrap();
            let shown = Shown { credential, certificate, ..Shown::default() };
            let found = binding.check(&shown).map(|due| due.is_some()).map_err(|refusal| refusal.reason);
            assert_eq!(found, expected, "{cnf} {demanded:?}");
        }
    }
}
