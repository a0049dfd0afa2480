//! RFC 8693: the caller's token is exchanged for one that is good at one upstream.
//!
//! Decides what is asked, and whom the caller's token lets act. Invariants: the inbound token goes to its
//! authorization server and nowhere else; where it says who may act for its subject (`may_act`) and that is not us,
//! nothing is asked; where an agent is to be named as the actor, a token that names none is refused.

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::answer::{self, ACCESS_TOKEN, Expected, JWT, Token};
use super::endpoint::{AuthorizationServer, Endpoints, Form};
use super::id_jag::within;
use super::issued::Issued;
use super::wanted::Wanted;
use super::{CredentialKind, assertion, unavailable};
use crate::config::{ActorToken, ClientAuthentication, ExchangeConfig, TokenRequest};
use crate::identity::{Caller, now_s};
use crate::outcome::{Reason, Refusal, Stop};

pub(super) const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// Who the subject of a token lets act (RFC 8693, section 4.4).
#[derive(Debug, Default, Deserialize)]
struct MayAct {
    sub: Option<String>,
    iss: Option<String>,
    client_id: Option<String>,
}

#[derive(Default, Deserialize)]
struct Subject {
    iss: Option<String>,
    may_act: Option<serde_json::Value>,
}

/// Exchanges the caller's token.
///
/// # Errors
/// [`Reason::ExchangeRefused`] where the authorization server, or the token itself, says no;
/// [`Reason::CredentialUnavailable`] where it does not answer as it should.
pub(super) async fn issue(
    endpoints: &Endpoints,
    exchange: &ExchangeConfig,
    wanted: &Wanted<'_>,
) -> Result<Issued, Stop> {
    let failed = |problem: String| unavailable(wanted.id(), &problem);
    let (caller, subject) = subject(wanted)?;
    let server = endpoints.server(&exchange.asks, Some(&caller.token().issuer)).await.map_err(failed)?;
    may_act(caller, subject, (&exchange.asks.client_id, exchange.actor.as_ref()), &server)?;
    let asked_at = now_s();
    let mut form = Form::new(GRANT, &exchange.asks)
        .with("subject_token_type", ACCESS_TOKEN)
        .with("requested_token_type", ACCESS_TOKEN)
        .with_secret("subject_token", SecretString::from(subject.expose_secret()));
    if let Some(actor) = &exchange.actor {
        let (token, kind) = actor_token(endpoints, actor, caller, &exchange.asks, &server).await.map_err(failed)?;
        form = form.with("actor_token_type", &kind).with_secret("actor_token", token);
    }
    let answered = endpoints.token(&server, &exchange.asks, form, Expected::Exchanged).await;
    let token = answered.map_err(|problem| problem.stop(wanted.id()))?;
    warn_if_wider(wanted, &exchange.asks, &token);
    if exchange.actor.is_some() {
        names_an_actor(&token).map_err(failed)?;
    }
    Issued::new(CredentialKind::Exchange, token, &exchange.asks, wanted, server, asked_at)
}

/// Says it where more came than was asked for. It is used all the same: many providers add scopes of their own.
pub(super) fn warn_if_wider(wanted: &Wanted<'_>, asks: &TokenRequest, token: &Token) {
    if within(asks.scope.as_deref(), token.scope.as_deref()).is_err() {
        let (asked, granted) = (asks.scope.as_deref(), token.scope.as_deref().map(crate::oauth::shown));
        tracing::warn!(server = %wanted.id(), asked, granted, "a token may do more than was asked for");
    }
}

/// The caller, and the token that the caller sent.
pub(super) fn subject<'a>(wanted: &Wanted<'a>) -> Result<(&'a Caller, &'a SecretString), Stop> {
    let found = wanted.caller.and_then(|caller| Some((caller, caller.subject_token()?)));
    found.ok_or_else(|| {
        Refusal::new(Reason::ExchangeRefused).hint("this server needs a signed-in caller; send an access token").into()
    })
}

/// Whether the token lets us, by the name that we have at that authorization server, act for its subject. An opaque token does not say; its authorization server knows.
pub(super) fn may_act(
    caller: &Caller,
    subject: &SecretString,
    (ours, actor): (&str, Option<&ActorToken>),
    server: &AuthorizationServer,
) -> Result<(), Refusal> {
    let Some(said) = answer::claims::<Subject>(subject.expose_secret()) else { return Ok(()) };
    let Some(may_act) = said.may_act else { return Ok(()) };
    // What cannot be read names nobody.
    let may_act: MayAct = serde_json::from_value(may_act).unwrap_or_default();
    let agent = caller.persona().agent.as_ref().map(|agent| agent.id.as_str());
    let client = caller.persona().client.as_deref();
    let is_us = |name: &str| match actor {
        // The agent acts, in our name or under its own.
        Some(ActorToken::Agent) => name == ours || Some(name) == agent || Some(name) == client,
        _ => name == ours,
    };
    let named = [may_act.sub.as_deref(), may_act.client_id.as_deref()];
    let allowed = named.iter().flatten().count() > 0 && named.into_iter().flatten().all(is_us);
    let from = [said.iss.as_deref(), server.issuer.as_deref()];
    let here = may_act.iss.as_deref().is_none_or(|issuer| from.contains(&Some(issuer)));
    if allowed && here {
        return Ok(());
    }
    Err(Refusal::new(Reason::MayActRefused))
}

async fn actor_token(
    endpoints: &Endpoints,
    actor: &ActorToken,
    caller: &Caller,
    asks: &TokenRequest,
    server: &AuthorizationServer,
) -> Result<(SecretString, String), String> {
    let subject = match actor {
        ActorToken::Kept { token, kind } => {
            let token = endpoints.secret(token).await?;
            return Ok((SecretString::from(token.expose_secret()), kind.clone()));
        }
        ActorToken::Agent => caller.persona().agent.as_ref().map(|agent| agent.id.as_str()),
        ActorToken::Gateway => None,
    };
    let ClientAuthentication::PrivateKey(key) = &asks.client else {
        return Err("who acts is said with private_key, and there is none".to_owned());
    };
    let issuer = server.issuer.as_deref().ok_or("who acts is said to an issuer: set issuer")?;
    let pem = endpoints.secret(&key.key).await?;
    let token = assertion::sign(key, &pem, &asks.client_id, subject.unwrap_or(&asks.client_id), issuer)?;
    Ok((token, JWT.to_owned()))
}

/// A token that can be read has to say who acts; of one that cannot, only its issuer knows.
fn names_an_actor(token: &Token) -> Result<(), String> {
    let readable = answer::claims::<serde_json::Value>(token.secret.expose_secret()).is_some();
    if readable && token.said.act.is_none() {
        return Err("the token that was issued does not say who acts (act), though it was asked to".to_owned());
    }
    Ok(())
}
