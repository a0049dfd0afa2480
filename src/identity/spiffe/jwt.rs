//! JWT-SVIDs: whether a token is one of a trust domain that is declared, and whether it holds.
//!
//! Decides by the rules of SPIFFE, not by RFC 9068: another `typ`, no `client_id`, and a token that comes again is
//! ordinary, because workloads take them from a cache. Invariant: only a key of use `jwt-svid` of the domain that `sub`
//! names has verified it.

use jsonwebtoken::Algorithm;

use super::bundle::algorithm_named;
use super::domain::Domain;
use crate::config::IssuerConfig;
use crate::identity::token::{Header, Jwt};
use crate::ids::Digest;
use crate::inversion::{self, Control};
use crate::outcome::{Failure, Reason, Refusal, Stop};

/// Whether header and signature are those of a JWT-SVID of this domain; its claims have not been looked at. Answers
/// which key it was.
///
/// # Errors
/// `token_type_refused`, `algorithm_refused`, `signature_invalid`; `issuer_unavailable` without a bundle.
pub(in crate::identity) fn svid(
    issuer: &IssuerConfig,
    domain: &Domain,
    header: &Header,
    jwt: &Jwt<'_>,
) -> Result<Digest, Stop> {
    let is_type = |typ: &String| typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("JOSE");
    if !header.typ.as_ref().is_none_or(is_type) {
        let hint = "a JWT-SVID has the typ JWT or JOSE, or none";
        return Err(Refusal::new(Reason::TokenTypeRefused).hint(hint).into());
    }
    let algorithm: Algorithm = algorithm_named(&header.alg).ok_or_else(|| Refusal::new(Reason::AlgorithmRefused))?;
    let bundle = domain.known().ok_or_else(|| {
        Failure::before(Reason::IssuerUnavailable, format!("no bundle of the trust domain of `{}`", issuer.alias))
    })?;
    match bundle.signer(header.kid.as_deref(), algorithm, jwt.signed, jwt.signature) {
        Some(Some(key)) => Ok(key),
        Some(None) | None if inversion::is_off(Control::Workload) => Ok(Digest::sha256(jwt.signature.as_bytes())),
        Some(None) => Err(Refusal::new(Reason::SignatureInvalid).into()),
        None => {
            let hint = "the trust domain's bundle has no key of that `kid` and algorithm for JWT-SVIDs";
            Err(Refusal::new(Reason::SignatureInvalid).hint(hint).into())
        }
    }
}
