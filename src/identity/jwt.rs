//! JWT access tokens: whose they are by `iss`, and whether that issuer signed them (RFC 9068).
//!
//! Decides what a JWT is worth. Refuses to know other kinds of credentials. Invariant: a JWT is looked at with the keys
//! of exactly the issuer that it names, and never with another's.

use std::sync::{Arc, OnceLock};

use super::cache::{Basis, Entry};
use super::caller::Verified;
use super::chain::{Declined, Fresh};
use super::ground::{Ground, Seen};
use super::issuer::Issuer;
use super::keys::{self, Verification};
use super::token::{self, Jwt};
use super::verify::{self, Source};
use super::{Accepted, Settings, now_s};
use crate::config::Algorithm;
use crate::ids::Digest;
use crate::outcome::{Failure, Reason, Refusal, Stop};

/// What this way says of a credential.
pub(super) async fn examine(settings: &Settings, shown: Fresh<'_>, basis: &mut Basis) -> Result<Entry, Declined> {
    let jwt = match Jwt::parse(shown.text) {
        Ok(jwt) => jwt,
        Err(refusal) if token::is_jose(shown.text) => return Err(refusal.into()),
        Err(refusal) => return Err(Declined::NotMine(refusal)),
    };
    if !token::is_jose(shown.text) {
        let refusal = Refusal::new(Reason::TokenMalformed).hint("the token's header is not a JOSE header");
        return Err(Declined::NotMine(refusal));
    }
    let header = jwt.header()?;
    if header.crit.is_some() {
        let hint = "the token needs extensions (`crit`) that are not understood here";
        return Err(Refusal::new(Reason::TokenMalformed).hint(hint).into());
    }
    let claims = jwt.claims()?;
    if let Some(workload) = settings.workload(&claims)? {
        let svid = settings.examine_svid(workload, (&header, &claims, &jwt), shown, basis);
        return Ok(Box::pin(svid).await?);
    }
    let named = claims.required("iss")?;
    let Some(Accepted { config, issuer, .. }) = settings.issuers.get(&named) else {
        return Err(Declined::NotMine(Refusal::new(Reason::IssuerUnknown)));
    };
    // Read before the keys: keys that change in between make the entry useless, not wrong.
    basis.issuer = Some((Arc::clone(issuer), issuer.generation()));
    let algorithm = keys::algorithm_named(&header.alg)
        .filter(|algorithm| config.algorithms.contains(algorithm))
        .ok_or_else(|| Refusal::new(Reason::AlgorithmRefused))?;
    verify::check_type(config, &header)?;
    let key = check_signature(issuer, header.kid.as_deref(), algorithm, &jwt, basis).await?;
    let generation = basis.issuer.as_ref().map_or(0, |(_, generation)| *generation);
    let source = Source::Signed(&header);
    let found =
        verify::verify(config, &settings.names, &shown.agents(settings), source, &claims, shown.digest, now_s())?;
    let raw = shown.raw(settings);
    let verified = Verified::new(found.persona, found.token, found.declared_proof, settings.revision, raw);
    let ground = Ground::Key { issuer: Arc::clone(issuer), key, seen: Seen::at(generation) };
    Ok(Entry {
        verified: Arc::new(verified.resting_on(config, found.rests, ground)),
        reach: found.reach,
        binding: found.binding,
        until: found.until,
        basis: basis.clone(),
        with_certificate: OnceLock::new(),
    })
}

/// Answers which key it was.
pub(super) async fn check_signature(
    issuer: &Arc<Issuer>,
    kid: Option<&str>,
    algorithm: Algorithm,
    jwt: &Jwt<'_>,
    basis: &mut Basis,
) -> Result<Digest, Stop> {
    let unavailable = || Failure::before(Reason::IssuerUnavailable, format!("no keys of issuer `{}`", issuer.alias()));
    if issuer.known().is_none() {
        issuer.first_attempt().await;
        basis.issuer = Some((Arc::clone(issuer), issuer.generation()));
    }
    let known = issuer.known().ok_or_else(unavailable)?;
    let mut found = known.keys.verify(kid, algorithm, jwt.signed, jwt.signature);
    if found == Verification::KeyUnknown {
        let fresh = issuer.refresh_for_unknown_key().await;
        basis.issuer = Some((Arc::clone(issuer), issuer.generation()));
        let known = issuer.known().ok_or_else(unavailable)?;
        found = known.keys.verify(kid, algorithm, jwt.signed, jwt.signature);
        if found == Verification::KeyUnknown && !fresh {
            // The issuer may have such a key by now; it did not say.
            return Err(unavailable().into());
        }
    }
    let refused = |hint: &'static str| Err(Refusal::new(Reason::SignatureInvalid).hint(hint).into());
    match found {
        Verification::Verified(key) => Ok(key),
        Verification::Invalid => Err(Refusal::new(Reason::SignatureInvalid).into()),
        Verification::KeyUnknown => refused("the issuer has no key of that `kid` and algorithm"),
        Verification::Ambiguous => {
            refused("the token has no `kid` and the issuer has several keys; have it name the key")
        }
    }
}
