//! RFC 8693: the caller's token is exchanged for one that is good at one upstream.
//!
//! Decides what is asked, and whom the caller's token lets act. Invariants: the inbound token goes to its
//! authorization server and nowhere else; where it says who may act for its subject (`may_act`) and that is not us,
//! nothing is asked; where somebody is to be named as the actor, a token that names nobody or somebody else is refused.

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

/// Who acts now, as a token says it (RFC 8693, section 4.1); who acted before is history.
#[derive(Deserialize)]
struct Act {
    sub: Option<String>,
    iss: Option<String>,
    client_id: Option<String>,
}

/// The actor of an exchange: what it is said with, and by which names and whose a token may call it.
struct Actor {
    token: SecretString,
    kind: String,
    /// Nothing, where the token that says it cannot be read.
    names: Vec<String>,
    issuers: Vec<String>,
}

/// What the actor's own token says of it, where it is a kept one that can be read.
#[derive(Default, Deserialize)]
struct KeptActor {
    iss: Option<String>,
    sub: Option<String>,
    client_id: Option<String>,
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
    let actor = match &exchange.actor {
        Some(actor) => Some(Actor::new(endpoints, actor, caller, &exchange.asks, &server).await.map_err(failed)?),
        None => None,
    };
    if let Some(Actor { token, kind, .. }) = &actor {
        let token = SecretString::from(token.expose_secret());
        form = form.with("actor_token_type", kind).with_secret("actor_token", token);
    }
    let answered = endpoints.token(&server, &exchange.asks, form, Expected::Exchanged).await;
    let token = answered.map_err(|problem| problem.stop(wanted.id()))?;
    warn_if_wider(wanted, &exchange.asks, &token);
    if let Some(actor) = &actor {
        actor.is_named_by(&token, &exchange.asks.client_id).map_err(failed)?;
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

impl Actor {
    async fn new(
        endpoints: &Endpoints,
        actor: &ActorToken,
        caller: &Caller,
        asks: &TokenRequest,
        server: &AuthorizationServer,
    ) -> Result<Self, String> {
        let own = || asks.client_id.clone();
        let persona = caller.persona();
        let names = match (actor, &persona.agent) {
            (ActorToken::Kept { token, kind }, _) => {
                let token = endpoints.secret(token).await?;
                let said = answer::claims::<KeptActor>(token.expose_secret()).unwrap_or_default();
                return Ok(Self {
                    token: SecretString::from(token.expose_secret()),
                    kind: kind.clone(),
                    names: said.sub.into_iter().chain(said.client_id).collect(),
                    issuers: said.iss.into_iter().chain(server.issuer.clone()).collect(),
                });
            }
            // Its authorization server may know it by our name for it, or by its own there.
            (ActorToken::Agent, Some(agent)) => {
                std::iter::once(agent.id.to_string()).chain(persona.client.clone()).collect()
            }
            (ActorToken::Agent, None) | (ActorToken::Gateway, _) => vec![own()],
        };
        let ClientAuthentication::PrivateKey(key) = &asks.client else {
            return Err("who acts is said with private_key, and there is none".to_owned());
        };
        let issuer = server.issuer.as_deref().ok_or("who acts is said to an issuer: set issuer")?;
        let pem = endpoints.secret(&key.key).await?;
        let subject = names.first().map_or(asks.client_id.as_str(), String::as_str);
        let token = assertion::sign(key, &pem, &asks.client_id, subject, issuer)?;
        Ok(Self { token, kind: JWT.to_owned(), issuers: vec![issuer.to_owned(), own()], names })
    }

    /// Whether a token that was issued says that this one acts. What cannot be read only its issuer knows.
    fn is_named_by(&self, token: &Token, ours: &str) -> Result<(), String> {
        if answer::claims::<serde_json::Value>(token.secret.expose_secret()).is_none() {
            return Ok(());
        }
        let Some(act) = &token.said.act else {
            return Err("the token that was issued does not say who acts (act), though it was asked to".to_owned());
        };
        let known = |name: &String| self.names.is_empty() || self.names.contains(name);
        let here = |issuer: &String| self.issuers.contains(issuer) || token.said.iss.as_ref() == Some(issuer);
        let named = Act::deserialize(act).is_ok_and(|act| {
            let name = act.sub.as_ref().or(act.client_id.as_ref()).is_some_and(known);
            // Whoever acts may do so through our client.
            let client = act.client_id.as_ref().is_none_or(|client| known(client) || client == ours);
            name && client && act.iss.as_ref().is_none_or(here)
        });
        let other = "the token that was issued says that somebody else acts (act) than who was named";
        if named { Ok(()) } else { Err(other.to_owned()) }
    }
}
