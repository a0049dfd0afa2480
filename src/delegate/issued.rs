//! A token that an authorization server issued to us, and until when it is used.
//!
//! Decides when use ends: at the least of the configured time, the token's own end and the caller's. Refuses to know
//! how the token was asked for. Invariants: what may live longer than allowed is refused; of what a token says of
//! itself nothing is believed that would prolong its use.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;

use super::answer::Token;
use super::endpoint::AuthorizationServer;
use super::wanted::Wanted;
use super::{CredentialFacts, CredentialKind, seconds, unavailable};
use crate::config::TokenRequest;
use crate::identity::TokenFacts;
use crate::ids::{AgentId, Digest, ServerId};
use crate::inversion::{self, Control};
use crate::limit;
use crate::outcome::{Failure, Reason, Stop};

/// When a credential ends, seconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    /// By itself; absent where nobody knows of an end.
    pub expires_at: Option<i64>,
    /// For this caller and what is done with it: never later than any of the other ends there are.
    pub used_until: Option<i64>,
}

impl Ends {
    /// The same, used no longer than until then.
    pub(super) fn by(self, other: Option<i64>) -> Self {
        Self { used_until: self.used_until.into_iter().chain(other).min(), ..self }
    }
}

/// One token that was issued.
#[derive(Debug)]
pub(super) struct Issued {
    secret: SecretString,
    facts: Arc<CredentialFacts>,
    /// When it ends by itself; absent where nobody says so.
    expires_at: Option<i64>,
    /// Not to be used from this second since 1970 on.
    used_until: i64,
    /// Its name in the ledger.
    pub id: String,
    /// Where the cache has it.
    pub key: Digest,
    pub issued_at: i64,
    /// For whom; nobody, where it is the gateway's own.
    pub inbound: Option<TokenFacts>,
    /// The agents that act, outermost first.
    pub agents: Vec<AgentId>,
    /// The governed task that it is for.
    pub mandate: Option<String>,
    /// For which server.
    pub server: ServerId,
    /// Who issued it, and takes it back.
    pub from: AuthorizationServer,
    /// As whom it was asked for.
    pub asks: Arc<TokenRequest>,
    /// Fires when it is taken back here, so that whatever goes on by itself with it ends.
    pub taken_back: CancellationToken,
}

impl Issued {
    /// Takes over what an authorization server answered to a question that was asked at that second.
    ///
    /// # Errors
    /// [`Reason::CredentialLifeExceeded`] where it lives too long, [`Reason::CredentialUnavailable`] where it ends too
    /// soon to be used.
    pub fn new(
        kind: CredentialKind,
        token: Token,
        asks: &TokenRequest,
        wanted: &Wanted<'_>,
        from: AuthorizationServer,
        asked_at: i64,
    ) -> Result<Self, Stop> {
        let server = wanted.id();
        // What the server says and what the token says may differ: use ends at the earlier one, and the record tells
        // the later one, because until then it may work for whoever has it.
        let told = token.life.map(|life| asked_at.saturating_add(life));
        let ends = [told, token.said.exp];
        let (first, last) = (ends.into_iter().flatten().min(), ends.into_iter().flatten().max());
        if let Some(most) = asks.token_life_max
            && last.is_none_or(|last| last.saturating_sub(asked_at) > seconds(most))
        {
            return Err(too_long(server, last.map(|last| last.saturating_sub(asked_at)), seconds(most)));
        }
        // Without a word about its life a token is used for a minute.
        let life = first.map_or(seconds(limit::EXCHANGED_UNKNOWN_LIFE), |at| at.saturating_sub(asked_at));
        let margin = seconds(limit::EXCHANGED_MARGIN).min(life / 2);
        let inbound = wanted.caller.map(|caller| caller.token().clone());
        let use_max = if inversion::is_off(Control::CredentialLife) { life } else { seconds(asks.use_max) };
        let used_until = asked_at
            .saturating_add(life.saturating_sub(margin).min(use_max))
            .min(inbound.as_ref().map_or(i64::MAX, |token| token.expires_at));
        if used_until <= asked_at {
            return Err(unavailable(server, "the token that was issued, or the caller's, expires too soon to be used"));
        }
        let shown = |text: String| text.chars().take(limit::ERROR_SHOWN_CHARACTERS_MAX).collect::<String>();
        let audience = token.said.aud.map(|aud| aud.as_str().map_or_else(|| aud.to_string(), str::to_owned));
        let id = ulid::Ulid::generate().to_string();
        let facts = CredentialFacts {
            kind,
            issue: Some(id.clone()),
            id: token.said.jti.map(shown),
            audience: audience.or_else(|| asks.audience.clone().or_else(|| asks.resource.clone())).map(shown),
        };
        let persona = wanted.caller.map(crate::identity::Caller::persona);
        let agents = persona.map(|persona| persona.agent.iter().chain(&persona.chain).map(|agent| agent.id.clone()));
        Ok(Self {
            secret: token.secret,
            facts: Arc::new(facts),
            expires_at: last,
            used_until,
            id,
            key: wanted.key,
            issued_at: asked_at,
            inbound,
            agents: agents.into_iter().flatten().collect(),
            mandate: wanted.bound.mandate.map(str::to_owned),
            server: server.clone(),
            from,
            asks: Arc::new(asks.clone()),
            taken_back: CancellationToken::new(),
        })
    }

    pub const fn secret(&self) -> &SecretString {
        &self.secret
    }

    pub const fn used_until(&self) -> i64 {
        self.used_until
    }

    /// What the record says of it.
    pub const fn facts(&self) -> &Arc<CredentialFacts> {
        &self.facts
    }

    /// When it ends, whoever uses it.
    pub const fn ends(&self) -> Ends {
        Ends { expires_at: self.expires_at, used_until: Some(self.used_until) }
    }

    /// The same by another name.
    #[cfg(test)]
    pub fn named(&self, id: &str) -> Self {
        Self {
            secret: self.secret.clone(),
            facts: Arc::clone(&self.facts),
            expires_at: self.expires_at,
            used_until: self.used_until,
            id: id.to_owned(),
            key: self.key,
            issued_at: self.issued_at,
            inbound: self.inbound.clone(),
            agents: self.agents.clone(),
            mandate: self.mandate.clone(),
            server: self.server.clone(),
            from: self.from.clone(),
            asks: Arc::clone(&self.asks),
            taken_back: CancellationToken::new(),
        }
    }

    /// The same after its use, if it is to be.
    #[cfg(test)]
    pub fn used_up(self, is: bool) -> Self {
        Self { used_until: if is { 0 } else { self.used_until }, ..self }
    }

    /// Its SHA-256.
    pub fn digest(&self) -> Digest {
        Digest::sha256(self.secret.expose_secret().as_bytes())
    }

    /// What it costs the cache.
    pub fn weight(&self) -> u32 {
        u32::try_from(self.secret.expose_secret().len().saturating_add(limit::EXCHANGED_ENTRY_BYTES_MIN))
            .unwrap_or(u32::MAX)
    }
}

fn too_long(server: &ServerId, life: Option<i64>, most: i64) -> Stop {
    let life = life.map_or_else(|| "nobody says how long".to_owned(), |life| format!("{life} s"));
    let detail = format!(
        "the token for server `{server}` lives longer than token_life_max allows ({life}, at most {most} s): have the \
         authorization server issue shorter ones"
    );
    Failure::before(Reason::CredentialLifeExceeded, detail).into()
}
