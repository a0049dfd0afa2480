//! Enterprise-managed authorization: the identity provider vouches for the caller, the upstream's own authorization
//! server gives a token for that (ID-JAG, both legs).
//!
//! Decides what is asked of which of the two. Invariants: the caller's token goes to the identity provider only, the
//! assertion to the authorization server that it names only; an assertion that is for another server, resource or
//! client than ours is presented nowhere; the token is good for no more than the assertion was.

use std::collections::BTreeSet;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::answer::{self, Expected, ID_JAG, Token};
use super::endpoint::{Endpoints, Form};
use super::exchange::{GRANT, may_act, subject};
use super::issued::Issued;
use super::wanted::Wanted;
use super::{CredentialKind, unavailable};
use crate::config::{IdJagConfig, TokenRequest};
use crate::identity::now_s;
use crate::outcome::Stop;

pub(super) const BEARER_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ASSERTION_TYPE: &str = "oauth-id-jag+jwt";

/// What of an assertion has to fit. It is signed for the authorization server, which verifies it; we only look that
/// it is the one that was asked for.
#[derive(Deserialize)]
struct Assertion {
    aud: Audience,
    resource: Option<String>,
    client_id: Option<String>,
    exp: Option<i64>,
    scope: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Header {
    typ: Option<String>,
}

/// Asks the identity provider, then the upstream's authorization server.
///
/// # Errors
/// As [`super::exchange::issue`].
pub(super) async fn issue(endpoints: &Endpoints, both: &IdJagConfig, wanted: &Wanted<'_>) -> Result<Issued, Stop> {
    let failed = |problem: String| unavailable(wanted.id(), &problem);
    let (caller, subject) = subject(wanted)?;
    let provider = endpoints.server(&both.provider, Some(&caller.token().issuer)).await.map_err(failed)?;
    may_act(caller, subject, (&both.provider.client_id, None), &provider)?;
    let server = endpoints.server(&both.asks, None).await.map_err(failed)?;
    let issuer = server.issuer.as_deref().ok_or_else(|| failed("its authorization server has no issuer".to_owned()))?;
    // The assertion is asked for in the provider's words, and is about the upstream's.
    let about = TokenRequest {
        audience: Some(issuer.to_owned()),
        resource: both.asks.resource.clone(),
        scope: both.asks.scope.clone(),
        ..both.provider.clone()
    };
    let form = Form::new(GRANT, &about)
        .with("subject_token_type", &both.subject_token_type)
        .with("requested_token_type", ID_JAG)
        .with_secret("subject_token", SecretString::from(subject.expose_secret()));
    let vouched = endpoints.token(&provider, &about, form, Expected::Assertion).await;
    let vouched = vouched.map_err(|problem| problem.stop(wanted.id()))?;
    let granted = fits(&vouched, both, issuer).map_err(failed)?;

    let asked_at = now_s();
    // What the identity provider allowed is asked for, and no more.
    let narrowed = TokenRequest { scope: granted.clone(), audience: None, ..both.asks.clone() };
    let form =
        Form::new(BEARER_GRANT, &narrowed).with_secret("assertion", SecretString::from(vouched.secret.expose_secret()));
    let answered = endpoints.token(&server, &narrowed, form, Expected::Bearer).await;
    let token = answered.map_err(|problem| problem.stop(wanted.id()))?;
    within(granted.as_deref(), token.scope.as_deref()).map_err(failed)?;
    if token.secret.expose_secret() == subject.expose_secret() {
        return Err(failed("the caller's own token came back, which never goes upstream".to_owned()));
    }
    Issued::new(CredentialKind::IdJag, token, &both.asks, wanted, server, asked_at)
}

/// Whether the assertion is the one that was asked for; answers the scope that it grants.
fn fits(vouched: &Token, both: &IdJagConfig, issuer: &str) -> Result<Option<String>, String> {
    let wrong = |what: &str| Err(format!("the identity provider's assertion is not for us: {what}"));
    let token = vouched.secret.expose_secret();
    let typ = answer::header::<Header>(token).and_then(|header| header.typ);
    if !typ.is_some_and(|typ| typ.eq_ignore_ascii_case(ASSERTION_TYPE)) {
        return wrong("its typ is not oauth-id-jag+jwt");
    }
    let Some(said) = answer::claims::<Assertion>(token) else { return wrong("its claims cannot be read") };
    let audience = match &said.aud {
        Audience::One(one) => one == issuer,
        // It would be good elsewhere, too.
        Audience::Many(many) => matches!(many.as_slice(), [one] if one == issuer),
    };
    if !audience {
        return wrong("its aud is another authorization server");
    }
    if both.asks.resource.is_some() && said.resource != both.asks.resource {
        return wrong("its resource is another one");
    }
    if said.client_id.as_deref() != Some(both.asks.client_id.as_str()) {
        return wrong("its client_id is not ours at the upstream's authorization server");
    }
    if said.exp.is_none_or(|exp| exp <= now_s()) {
        return wrong("it has expired");
    }
    let granted = said.scope.or_else(|| vouched.scope.clone()).or_else(|| both.asks.scope.clone());
    within(both.asks.scope.as_deref(), granted.as_deref())?;
    Ok(granted)
}

/// Whether nothing was added to a scope on its way.
pub(super) fn within(asked: Option<&str>, answered: Option<&str>) -> Result<(), String> {
    let set = |scope: Option<&str>| -> BTreeSet<String> {
        scope.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()
    };
    // Where nothing was asked for by name, the server chooses.
    if asked.is_none() || set(answered).is_subset(&set(asked)) {
        return Ok(());
    }
    Err("more was granted than was asked for (scope)".to_owned())
}
