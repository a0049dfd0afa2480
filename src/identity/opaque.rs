//! Opaque tokens: whose they are by their prefix, and what their issuer says of them (RFC 7662).
//!
//! Decides which issuer is asked. Refuses to know how. Invariant: a token is shown to the one issuer that it belongs
//! to; what that issuer says of it is held against the same rules as the claims of a JWT.

use std::sync::Arc;

use secrecy::SecretString;

use super::cache::{Basis, Entry};
use super::caller::Verified;
use super::chain::{Declined, Fresh};
use super::ground::Ground;
use super::introspect::Introspector;
use super::verify::{self, Source};
use super::{Accepted, Settings, now_s, token};
use crate::limit;
use crate::outcome::{Reason, Refusal};

/// What this way says of a credential.
pub(super) async fn examine(settings: &Settings, shown: Fresh<'_>, basis: &mut Basis) -> Result<Entry, Declined> {
    let not_mine = || Declined::NotMine(Refusal::new(Reason::TokenMalformed).hint("no issuer here has such tokens"));
    // A JWT is verified or refused. Whom an introspection endpoint would let in with it is another question.
    if token::is_jose(shown.text) {
        return Err(not_mine());
    }
    let (Accepted { config, issuer, .. }, introspector) = owner(settings, shown.text).ok_or_else(not_mine)?;
    if !is_bearer(shown.text) {
        let hint = "the token has characters that no bearer token has (RFC 6750, section 2.1)";
        return Err(Refusal::new(Reason::TokenMalformed).hint(hint).into());
    }
    let reply = introspector.ask(issuer, shown).await?;
    let claims = reply.claims()?;
    let source = Source::Introspected(introspector.config());
    let found =
        verify::verify(config, &settings.names, &shown.agents(settings), source, &claims, shown.digest, now_s())?;
    let raw = shown.raw(settings);
    let verified = Verified::new(found.persona, found.token, found.declared_proof, settings.revision, raw);
    let believed = reply.asked_at.saturating_add(verify::seconds(limit::INTROSPECTED_LIFE_MAX));
    let ground = Ground::Word {
        issuer: Arc::clone(issuer),
        introspector: Arc::clone(introspector),
        token: SecretString::from(shown.text),
        asked_at: reply.asked_at,
    };
    Ok(Entry {
        verified: Arc::new(verified.resting_on(config, found.rests, ground)),
        reach: found.reach,
        binding: found.binding,
        until: found.until.min(believed),
        basis: basis.clone(),
        with_certificate: std::sync::OnceLock::new(),
    })
}

/// The issuer whose prefix the token has, or else the one that takes what has none.
fn owner<'a>(settings: &'a Settings, text: &str) -> Option<(&'a Accepted, &'a Arc<Introspector>)> {
    let introspecting = || {
        let all = settings.issuers.values();
        all.filter_map(|accepted| Some((accepted, accepted.introspector.as_ref()?)))
    };
    let prefix = |introspector: &'a Arc<Introspector>| introspector.config().prefix.as_deref();
    // The configuration has seen to it that no two fit.
    introspecting()
        .find(|(_, own)| prefix(own).is_some_and(|prefix| text.starts_with(prefix)))
        .or_else(|| introspecting().find(|(_, own)| prefix(own).is_none()))
}

/// `b64token` of RFC 6750.
fn is_bearer(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}
