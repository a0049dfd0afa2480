//! What a process is started with instead of a header: the credential itself, and what its use hangs on.
//!
//! Decides when a process that has it takes nothing new any more, and when it is over. Refuses to know processes.
//! Invariants: two of these have the same key only where everything that the credential depends on is the same; nothing
//! of the inbound token is in here but its digest; what was taken back stays so.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;

use super::issued::Issued;
use super::key::strategy;
use super::wanted::Wanted;
use super::{Credential, CredentialHeader, Delegate, Tie, seconds};
use crate::config::process::Handover;
use crate::config::{CredentialConfig, Isolation, ServerConfig, TransportConfig};
use crate::identity::{TokenFacts, now_s};
use crate::ids::{AgentId, Digest, ServerId};
use crate::limit;

/// A credential for one process.
pub struct Handed {
    secret: SecretString,
    key: Digest,
    holder: Digest,
    /// From when on a process that has it takes nothing new, and until when it may use it; seconds since 1970.
    ends: Option<(i64, i64)>,
    hangs: Hangs,
    taken_back: CancellationToken,
}

/// What its use hangs on.
struct Hangs {
    /// The caller's token; nothing, where the process is nobody's in particular.
    inbound: Option<TokenFacts>,
    agents: Vec<AgentId>,
    server: ServerId,
    /// The mandate, with those above it, the outermost first.
    mandate: Option<String>,
    tie: Option<Tie>,
}

/// How a process of that server gets its credential; nothing, where it is no process or gets none.
pub(super) const fn handover(server: &ServerConfig) -> Option<&Handover> {
    match &server.transport {
        TransportConfig::Stdio { process, .. } => process.handover.as_ref(),
        TransportConfig::Http { .. } => None,
    }
}

/// So long before the end of a use of that many seconds nothing new is begun with it.
pub(super) fn lead(use_s: i64) -> i64 {
    seconds(limit::PROCESS_DRAIN_MAX).min(use_s / 4)
}

/// Whether a process should still be started with one that was issued: nobody starts one that is replaced at once, if
/// another credential would last longer.
pub(super) fn is_worth_a_process(issued: &Issued, now: i64) -> bool {
    let until = issued.used_until();
    let is_callers_end = issued.inbound.as_ref().is_some_and(|token| token.expires_at <= until);
    is_callers_end || now < until.saturating_sub(lead(until.saturating_sub(issued.issued_at)))
}

impl Credential {
    /// The same, to be handed to a process as well, where it is for one.
    pub(super) fn handed(self, config: &CredentialConfig, wanted: &Wanted<'_>, secret: &SecretString) -> Self {
        let Some(way) = handover(wanted.server) else { return self };
        let caller = wanted.caller.filter(|_| config.is_per_caller());
        // The process is the caller's own also where the credential is everybody's, unless somebody wrote otherwise.
        let own = wanted.caller.filter(|_| caller.is_some() || wanted.server.isolation == Isolation::Principal);
        // A secret that is everybody's is no mandate's either.
        let mandate = wanted.bound.mandate.filter(|_| !matches!(config, CredentialConfig::Static(_)));
        let shown = match way {
            Handover::Variable(_) => secret.expose_secret(),
            // Whoever reads it again gets another one in the same process.
            Handover::File(_) => "",
        };
        let principal = caller.map(|caller| caller.principal().0);
        let optional = |digest: Option<&Digest>| digest.map_or([0; 32], |digest| *digest.as_bytes());
        let account = self.account.map(|account| account.digest());
        let key = Digest::of(
            "bailiwick/handed/v1",
            &[
                wanted.key.as_bytes(),
                wanted.revision.as_bytes(),
                strategy(config).as_bytes(),
                wanted.id().as_str().as_bytes(),
                &optional(principal.as_ref()),
                &optional(caller.map(|caller| &caller.token().digest)),
                &optional(account.as_ref()),
                mandate.unwrap_or_default().as_bytes(),
                Digest::sha256(shown.as_bytes()).as_bytes(),
            ],
        );
        let persona = own.map(crate::identity::Caller::persona);
        let agents = persona.map(|persona| persona.agent.iter().chain(&persona.chain).map(|agent| agent.id.clone()));
        // Where whatever else ends it ends first, no other credential would last longer.
        let outer = caller.map_or(i64::MAX, |caller| caller.token().expires_at);
        let outer = outer.min(wanted.bound.ends_at.unwrap_or(i64::MAX));
        // What is everybody's ends with nobody in particular.
        let own_end = self.header.as_ref().and_then(|header| header.used_until);
        let ends = own_end.map(|until| {
            let lead = lead(until.saturating_sub(now_s()).max(0));
            let before = match way {
                _ if outer <= until => 0,
                Handover::Variable(_) => lead,
                // The next one is there for half of that time, and comes with the next call.
                Handover::File(_) => lead / 2,
            };
            (until.saturating_sub(before), until)
        });
        let handed = Handed {
            secret: secret.clone(),
            key,
            holder: wanted.holder(),
            ends,
            hangs: Hangs {
                inbound: own.map(|caller| caller.token().clone()),
                agents: agents.into_iter().flatten().collect(),
                server: wanted.id().clone(),
                mandate: mandate.map(str::to_owned),
                tie: self.tie(),
            },
            taken_back: CancellationToken::new(),
        };
        let header = self.header.map(|header| CredentialHeader { handed: Some(Arc::new(handed)), ..header });
        Self { header, ..self }
    }
}

impl Handed {
    /// The credential, as the process gets it.
    #[must_use]
    pub const fn secret(&self) -> &SecretString {
        &self.secret
    }

    /// What two have to have in common to share a process.
    #[must_use]
    pub const fn key(&self) -> Digest {
        self.key
    }

    /// Whose places its processes take: of all clients and agents of one person together.
    #[must_use]
    pub const fn holder(&self) -> Digest {
        self.holder
    }

    /// The governed task that it is for, the innermost; nothing, where there is none.
    #[must_use]
    pub fn mandate(&self) -> Option<&str> {
        self.hangs.mandate.as_deref().and_then(|path| path.rsplit('/').next())
    }

    /// How long a process with it takes something new; nothing, where there is no end.
    #[must_use]
    pub fn begins_for(&self) -> Option<Duration> {
        self.ends.map(|(replaced_at, _)| until(replaced_at))
    }

    /// How long a process with it may live; nothing, where there is no end.
    #[must_use]
    pub fn lasts_for(&self) -> Option<Duration> {
        self.ends.map(|(_, used_until)| until(used_until))
    }

    /// Whether this is to be in the place of that one: another secret, or the same for longer.
    #[must_use]
    pub fn follows(&self, known: &Self) -> bool {
        let end = |handed: &Self| handed.ends.map_or(i64::MAX, |(_, used_until)| used_until);
        let same = self.secret.expose_secret() == known.secret.expose_secret();
        end(self) > end(known) || (end(self) == end(known) && !same)
    }

    /// Fires when it was taken back.
    #[must_use]
    pub const fn taken_back(&self) -> &CancellationToken {
        &self.taken_back
    }

    /// One that hangs on nothing, with this end of what may be begun with it, and of itself.
    #[cfg(test)]
    pub(crate) fn of(secret: &str, holder: &[u8], ends: Option<(i64, i64)>) -> Arc<Self> {
        Arc::new(Self {
            secret: secret.to_owned().into(),
            key: Digest::sha256(secret.as_bytes()),
            holder: Digest::sha256(holder),
            ends,
            hangs: Hangs {
                inbound: None,
                agents: Vec::new(),
                server: ServerId::new("a").unwrap(),
                mandate: None,
                tie: None,
            },
            taken_back: CancellationToken::new(),
        })
    }
}

impl Delegate {
    /// Whether a process may go on with that: nobody took back the token, the agents, the server, the credential or the
    /// account that it hangs on. Where nobody knows, it may not.
    pub async fn may_go_on(&self, handed: &Handed) -> bool {
        let hangs = &handed.hangs;
        let owners = self.owners.load_full();
        let agents: Vec<String> = hangs.agents.iter().map(ToString::to_string).collect();
        let owns = |owner: &str| owners.owns(owner, &agents, hangs.server.as_str());
        if self.identity.took_back(hangs.inbound.as_ref(), &hangs.agents, &hangs.server, owns) {
            return false;
        }
        match &hangs.tie {
            Some(tie) => self.still_stands(tie).await.is_ok(),
            None => true,
        }
    }
}

impl fmt::Debug for Handed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Handed").field("key", &self.key).field("ends", &self.ends).finish_non_exhaustive()
    }
}

/// From now until that second since 1970.
fn until(second: i64) -> Duration {
    let left = second.saturating_mul(1_000_000).saturating_sub(jiff::Timestamp::now().as_microsecond());
    Duration::from_micros(u64::try_from(left).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_quarter_of_a_use_is_for_what_was_begun_and_so_many_seconds_at_most() {
        assert_eq!((lead(8), lead(3), lead(0)), (2, 0, 0));
        assert_eq!(lead(300), seconds(limit::PROCESS_DRAIN_MAX));
    }

    #[test]
    fn another_secret_or_a_later_end_takes_the_place_and_an_earlier_one_does_not() {
        let handed = |secret: &str, until| Handed::of(secret, b"", until);
        let known = handed("a", Some((8, 10)));
        assert!(handed("a", Some((9, 11))).follows(&known));
        assert!(handed("b", Some((8, 10))).follows(&known));
        assert!(!handed("a", Some((8, 10))).follows(&known));
        assert!(!handed("b", Some((7, 9))).follows(&known));
        assert!(handed("b", None).follows(&handed("a", None)));
    }
}
