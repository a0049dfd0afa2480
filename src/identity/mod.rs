//! Decides who calls, on whose behalf, and how that was proven. Refuses to know what they may do.
//!
//! Invariant: a [`Caller`] exists only for a credential that was verified against this configuration, and
//! for which the revocations of the moment were looked at.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

mod acquaintances;
mod agent;
pub mod api_key;
mod assertion;
mod bearer;
mod binding;
mod cache;
pub mod caller;
mod chain;
pub mod described;
mod discovery;
mod dpop;
mod ground;
mod groups;
mod introspect;
mod issuer;
mod jwt;
mod keys;
mod marks;
mod nobody;
mod opaque;
mod own;
pub mod persona;
mod presented;
pub mod proposed;
mod prove;
mod replay;
pub mod resource;
pub mod revoked;
mod spiffe;
mod standing;
pub mod statement;
mod strangers;
pub mod survey;
mod token;
mod transmitter;
mod verify;
mod workload;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

pub use agent::end_of;
pub use bearer::Bearer;
pub use caller::{Caller, Elevation, Hop, Person, TokenFacts};
pub use dpop::ALGORITHMS as PROOF_ALGORITHMS;
pub use issuer::IssuerReadiness;
pub use persona::{AgentFacts, Behind, ClientProof, Groups, Persona};
pub use presented::{ClientCertificate, Presented, Shown};
pub use resource::{Resource, ResourceNames};
pub use revoked::Revocations;
pub use spiffe::{BundleFacts, look_at_bundle};
pub use standing::still_stands;
pub use strangers::Strangers;

use acquaintances::Acquaintances;
use agent::AgentIndex;
use api_key::ApiKeys;
use cache::{Basis, Entry, TokenCache};
use caller::Verified;
use chain::Fresh;
use introspect::Introspector;
use issuer::{Issuer, News};
use proposed::Sightings;
use replay::Replays;
use spiffe::{Domain, Neighbours};
use workload::{AcceptedDomain, Certified};

use crate::config::spiffe::{IssuerKind, TrustDomain};
use crate::config::{AgentConfig, Config, CredentialConfig, DpopMode, IssuerConfig};
use crate::egress::EgressPolicy;
use crate::ids::{AgentId, Digest, IssuerAlias, ServerId};
use crate::limit;
use crate::outcome::{Reason, Refusal, Stop};
use crate::shelf::Shelf;
use crate::wire::handle::Sealer;

/// The alias and the name of somebody without a credential; no issuer may be called that.
pub const ANONYMOUS: &str = crate::config::load::ANONYMOUS_ALIAS;
/// The alias of the one user of a gateway in the assistant's own process; no issuer may be called that.
pub const LOCAL: &str = crate::config::load::LOCAL_ALIAS;
/// The alias that vouches for API keys: ours; no issuer may be called that.
pub const KEYS: &str = crate::config::load::KEYS_ALIAS;

/// The room: issuers, their keys, and what is remembered of tokens.
#[derive(Debug)]
pub struct Identity {
    settings: ArcSwap<Settings>,
    cache: TokenCache,
    acquaintances: Acquaintances,
    replays: Replays,
    /// With what nonces for proofs are made; without it there are none.
    sealer: Option<Arc<Sealer>>,
    revocations: Arc<Revocations>,
    sightings: Arc<Sightings>,
    /// Moves whenever an issuer's keys or a trust domain's bundle change.
    news: News,
    /// The trust domains, one of which may vouch for the bundle endpoint of another.
    neighbours: Arc<Neighbours>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What of the configuration decides about tokens.
#[derive(Debug)]
struct Settings {
    /// Rises with every configuration.
    revision: u64,
    names: ResourceNames,
    /// By the exact `iss`.
    issuers: HashMap<String, Accepted>,
    /// SPIFFE trust domains, by name.
    domains: HashMap<TrustDomain, AcceptedDomain>,
    /// By feed: who signs its events, where that is not the issuer.
    transmitters: HashMap<ServerId, Arc<Issuer>>,
    agents: AgentIndex,
    keys: ApiKeys,
    anonymous: Option<Arc<Verified>>,
    /// The user of a gateway in the assistant's own process, and the agent that the assistant is.
    local: Option<(Arc<Verified>, Arc<AgentConfig>)>,
    /// Whether any credential is made from the inbound token; if not, it is forgotten at once.
    keep_tokens: bool,
    /// Whether a proof needs a nonce of ours.
    needs_nonce: bool,
}

/// An issuer whose tokens are accepted: what is configured, and what it told us.
#[derive(Debug)]
struct Accepted {
    config: Arc<IssuerConfig>,
    issuer: Arc<Issuer>,
    /// Who asks it about opaque tokens, where it has any.
    introspector: Option<Arc<Introspector>>,
}

impl Accepted {
    /// Whether it can say now whose a token is.
    fn is_ready(&self) -> bool {
        let asks = self.introspector.as_ref().is_some_and(|own| own.config().endpoint.is_some());
        asks || self.issuer.known().is_some_and(|known| self.introspector.is_some() || known.keys.len() > 0)
    }
}

impl Identity {
    /// The revision of the settings that it starts with.
    pub const FIRST_REVISION: u64 = 1;

    /// Starts to fetch the issuers' keys in tasks of `tasks`, which end with `stop`. Waits for nobody: an
    /// issuer that is down refuses its own tokens with `issuer_unavailable` until it is back.
    #[must_use]
    pub fn new(config: &Config, revocations: Arc<Revocations>, tasks: TaskTracker, stop: CancellationToken) -> Self {
        let identity = Self {
            settings: ArcSwap::from_pointee(Settings::empty(config, 0)),
            cache: TokenCache::new(),
            acquaintances: Acquaintances::new(),
            replays: Replays::new(),
            sealer: None,
            revocations,
            sightings: Arc::default(),
            news: News::default(),
            neighbours: Arc::default(),
            tasks,
            stop,
        };
        identity.reload(config);
        identity
    }

    /// The same with what nonces for DPoP proofs are made with.
    #[must_use]
    pub fn with_nonces(self, sealer: Arc<Sealer>) -> Self {
        Self { sealer: Some(sealer), ..self }
    }

    /// Takes over another configuration. Issuers that did not change keep their keys; every remembered
    /// token is looked at again. Answers which revision of the settings that is, counted from
    /// [`Self::FIRST_REVISION`]; callers say under which they were verified.
    pub fn reload(&self, config: &Config) -> u64 {
        let before = self.settings.load_full();
        // A gateway without a listener is presented no tokens, and asks nobody for keys.
        let believed = if config.local.is_some() { &[][..] } else { config.issuers.as_slice() };
        let loopback = config.gateway.listen.ip().is_loopback();
        let domains = workload::domains(
            believed,
            &before,
            (&self.news, &self.neighbours),
            |own, spiffe| Domain::new(own, spiffe, loopback, self.stop.child_token()),
            |domain| drop(self.tasks.spawn(domain.run())),
        );
        let issuers: HashMap<String, Accepted> = believed
            .iter()
            .filter(|own| own.kind == IssuerKind::Oidc)
            .map(|own| {
                // The configuration has refused loopback issuers where they are not allowed; what may listen
                // on other interfaces never talks to one, whatever the configuration says.
                let fresh = Issuer::new(own, loopback, self.stop.child_token()).telling(&self.news);
                let kept = before.issuers.get(&own.issuer).filter(|kept| kept.issuer.is_like(&fresh));
                let issuer = kept.map(|kept| Arc::clone(&kept.issuer)).unwrap_or_else(|| {
                    let issuer = Arc::new(fresh);
                    self.tasks.spawn(Arc::clone(&issuer).run());
                    issuer
                });
                let introspector = Introspector::new(own, loopback).map(|fresh| {
                    let before = before.issuers.get(&own.issuer).and_then(|kept| kept.introspector.as_ref());
                    before.filter(|kept| kept.is_like(&fresh)).map(Arc::clone).unwrap_or_else(|| Arc::new(fresh))
                });
                (own.issuer.clone(), Accepted { config: Arc::clone(own), issuer, introspector })
            })
            .collect();
        let transmitters = self.transmitters(config, &before);
        for (name, old) in &before.issuers {
            if !issuers.get(name).is_some_and(|kept| Arc::ptr_eq(&kept.issuer, &old.issuer)) {
                old.issuer.retire();
            }
        }
        let agents = AgentIndex::new(config, Arc::clone(&self.sightings));
        let keys = ApiKeys::new(config);
        let revision = before.revision + 1;
        let made = Settings { issuers, domains, transmitters, agents, keys, ..Settings::empty(config, revision) };
        self.settings.store(Arc::new(made));
        revision
    }

    /// Those who sign events of feeds and are no issuers; who did not change keeps its keys.
    fn transmitters(&self, config: &Config, before: &Settings) -> HashMap<ServerId, Arc<Issuer>> {
        let loopback = config.gateway.listen.ip().is_loopback();
        let mut all = HashMap::new();
        for feed in &config.feeds {
            let named = feed.events.as_ref().and_then(|events| events.transmitter.as_ref());
            let issuer = config.issuers.iter().find(|issuer| issuer.alias == feed.issuer);
            let (Some(named), Some(issuer)) = (named, issuer) else { continue };
            let fresh = Issuer::transmitter(named, issuer, loopback, self.stop.child_token());
            let kept = before.transmitters.get(&feed.name).filter(|kept| kept.is_like(&fresh)).cloned();
            let transmitter = kept.unwrap_or_else(|| {
                let transmitter = Arc::new(fresh);
                self.tasks.spawn(Arc::clone(&transmitter).run());
                transmitter
            });
            all.insert(feed.name.clone(), transmitter);
        }
        for (name, old) in &before.transmitters {
            if !all.get(name).is_some_and(|kept| Arc::ptr_eq(kept, old)) {
                old.retire();
            }
        }
        all
    }

    /// Who presents this, at this resource. The only maker of [`Caller`]s.
    ///
    /// A token that was seen before is answered without waiting for anything ([`Self::recall`]); only a
    /// token with a key that is not known yet waits, for its issuer.
    ///
    /// # Errors
    /// Every refusal has its own [`Reason`]; [`Reason::IssuerUnavailable`] is a failure.
    pub async fn authenticate<'a>(&self, shown: impl Into<Shown<'a>>, resource: &Resource) -> Result<Caller, Stop> {
        let shown = shown.into();
        let certified = match shown.certificate {
            Some(certificate) => Box::pin(self.certified(certificate)).await?,
            None => Certified::Nobody,
        };
        let (Presented::Bearer(text) | Presented::Dpop(text)) = shown.credential else {
            return match &certified {
                Certified::Nobody => self.anonymous(&shown, resource),
                Certified::Stranger => Err(Refusal::new(Reason::CertificateRefused).into()),
                Certified::Agent(entry) if entry.reach.covers(resource) => self.checked(&entry.verified, None),
                Certified::Agent(_) => Err(Refusal::new(Reason::TokenMissing).into()),
            };
        };
        let by = match &certified {
            Certified::Agent(by) => Some(by.as_ref()),
            Certified::Nobody => None,
            // It names somebody, and nobody here can say that the token is theirs.
            Certified::Stranger => return Err(Refusal::new(Reason::IdentityMismatch).into()),
        };
        if text.len() > limit::TOKEN_BYTES_MAX {
            return Err(Refusal::new(Reason::TokenMalformed).hint("the token is larger than the limit").into());
        }
        let digest = Digest::sha256(text.as_bytes());
        if let Some(known) = self.recall(&digest, (&shown, by), resource) {
            return known;
        }
        let entry = Box::pin(self.examine(text, digest)).await?;
        self.caller(&entry, (&shown, by), &digest, resource)
    }

    /// The answer for a token that was seen before, by its SHA-256: no lock, no allocation, no waiting, unless it is
    /// bound to a key and comes with a proof.
    fn recall(
        &self,
        digest: &Digest,
        shown: (&Shown<'_>, Option<&Entry>),
        resource: &Resource,
    ) -> Option<Result<Caller, Stop>> {
        let (revision, now) = (self.settings.load().revision, now_s());
        if let Some(entry) = self.cache.verified(digest, revision, now) {
            return Some(self.caller(&entry, shown, digest, resource));
        }
        self.cache.refused(digest, revision, now).map(|refusal| Err(refusal.into()))
    }

    /// Writes software down that came without being registered, until it is dropped.
    pub async fn keep_proposals(&self, shelf: &dyn Shelf) {
        self.sightings.keep(shelf).await;
    }

    /// Whether anybody can be authenticated: some issuer's keys are here, or none is configured.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let settings = self.settings.load();
        let nobody = settings.issuers.is_empty() && settings.domains.is_empty();
        nobody
            || settings.issuers.values().any(Accepted::is_ready)
            || settings.domains.values().any(|accepted| accepted.domain.is_ready())
    }

    /// How each issuer is, by alias.
    #[must_use]
    pub fn readiness(&self) -> Vec<IssuerReadiness> {
        let settings = self.settings.load();
        let domains = settings.domains.values().map(|accepted| accepted.domain.readiness());
        let mut all: Vec<_> =
            settings.issuers.values().map(|accepted| accepted.issuer.readiness()).chain(domains).collect();
        all.sort_by(|one, other| one.alias.cmp(&other.alias));
        all
    }

    /// The token endpoint of an issuer's metadata, and where it may be reached; for `delegate`.
    #[must_use]
    pub fn token_endpoint(&self, alias: &IssuerAlias) -> Option<(Url, EgressPolicy)> {
        let settings = self.settings.load();
        let issuer = &settings.issuers.values().find(|accepted| accepted.config.alias == *alias)?.issuer;
        Some((issuer.known()?.token_endpoint.clone()?, issuer.policy().clone()))
    }

    /// An issuer's `iss`, where it authorizes people and redeems codes, and how it may be reached.
    #[must_use]
    pub fn endpoints(&self, alias: &IssuerAlias) -> Option<(String, Url, Url, EgressPolicy)> {
        let settings = self.settings.load();
        let accepted = settings.issuers.values().find(|accepted| accepted.config.alias == *alias)?;
        let known = accepted.issuer.known()?;
        let (authorize, token) = (known.authorization_endpoint.clone()?, known.token_endpoint.clone()?);
        Some((accepted.config.issuer.clone(), authorize, token, accepted.issuer.policy().clone()))
    }

    /// Whether anything of this was taken back: the token, an agent, the server, or an owner who answers for one of
    /// them; for `delegate`, whose questions to others take long enough for that.
    #[must_use]
    pub fn took_back(
        &self,
        token: Option<&TokenFacts>,
        agents: &[AgentId],
        server: &ServerId,
        owns: impl Fn(&str) -> bool,
    ) -> bool {
        let barred = self.revocations.barred();
        token.is_some_and(|token| self.revocations.check(token).is_err())
            || agents.iter().any(|agent| barred.agents.contains(agent))
            || barred.servers.contains(server)
            || barred.stopped.servers.contains(server)
            || barred.owners.iter().any(|owner| owns(owner))
    }

    /// Whether a token of that issuer for those audiences would be good here; for `delegate`, which presents none such.
    #[must_use]
    pub fn reaches<'a>(&self, issuer: Option<&str>, audiences: impl IntoIterator<Item = &'a str>) -> bool {
        let settings = self.settings.load();
        let Some(accepted) = issuer.and_then(|issuer| settings.issuers.get(issuer)) else { return false };
        let (further, admin) = (&accepted.config.audiences, &accepted.config.admin_audiences);
        !settings.names.reach(audiences, further, admin).is_empty()
    }

    /// The exact `iss` of an issuer; for `delegate`.
    #[must_use]
    pub fn issuer_url(&self, alias: &IssuerAlias) -> Option<String> {
        let settings = self.settings.load();
        let accepted = settings.issuers.values().find(|accepted| accepted.config.alias == *alias)?;
        Some(accepted.config.issuer.clone())
    }

    fn anonymous(&self, shown: &Shown<'_>, resource: &Resource) -> Result<Caller, Stop> {
        let settings = self.settings.load();
        if let Some((verified, agent)) = &settings.local {
            if *resource == Resource::Admin {
                return Err(Refusal::new(Reason::TokenMissing).into());
            }
            agent::may_act(agent, now_s())?;
            return self.checked(verified, None);
        }
        match &settings.anonymous {
            Some(_) if shown.forwarded => {
                let hint = "this came through a proxy, and callers without a token are accepted from this machine only";
                Err(Refusal::new(Reason::TokenMissing).hint(hint).into())
            }
            Some(verified) if *resource != Resource::Admin => self.checked(verified, None),
            _ => Err(Refusal::new(Reason::TokenMissing).into()),
        }
    }

    fn caller(
        &self,
        entry: &Entry,
        (shown, by): (&Shown<'_>, Option<&Entry>),
        digest: &Digest,
        resource: &Resource,
    ) -> Result<Caller, Stop> {
        if !entry.reach.covers(resource) {
            return Err(Refusal::new(Reason::AudienceMismatch).into());
        }
        if let Some(key) = entry.binding.check(shown)? {
            self.prove(entry, shown, (digest, key), resource)?;
        }
        match by {
            Some(by) => {
                // Who was taken back by the name in the certificate is not let in by another.
                self.revocations.check(&by.verified.token)?;
                self.checked(Self::agreed(entry, by)?, Some(&by.verified))
            }
            None => self.checked(Self::bound(entry), None),
        }
    }

    fn checked(&self, verified: &Arc<Verified>, by: Option<&Arc<Verified>>) -> Result<Caller, Stop> {
        // The lower of both: what is taken back in between is looked at again before anything is forwarded.
        let epoch = by.map(|by| self.revocations.check(&by.token)).transpose()?;
        let own = self.revocations.check(&verified.token)?;
        let epoch = epoch.map_or(own, |by| by.min(own));
        Ok(Caller { verified: Arc::clone(verified), by: by.map(Arc::clone), epoch, elevation: None })
    }

    /// Moves whenever callers who were verified may not stand any more, because keys have changed.
    #[must_use]
    pub fn news(&self) -> tokio::sync::watch::Receiver<u64> {
        self.news.subscribe()
    }

    async fn examine(&self, text: &str, digest: Digest) -> Result<Arc<Entry>, Stop> {
        let settings = self.settings.load_full();
        let mut basis = Basis { issuer: None, bundle: None, revision: settings.revision };
        let found = chain::examine(&settings, Fresh { text, digest, comes: true }, &mut basis).await;
        match &found {
            Ok(entry) => self.keep(digest, entry),
            // A clock catches up, an issuer comes back: those are asked again each time.
            Err(Stop::Refused(refusal)) if refusal.reason != Reason::TokenNotYetValid => {
                self.cache.keep_refused(digest, refusal.clone(), basis, now_s());
            }
            Err(_) => {}
        }
        found
    }
}

impl Settings {
    fn empty(config: &Config, revision: u64) -> Self {
        let keep_tokens = config.servers.iter().any(|server| {
            server.credential.needs_inbound_token()
                || server.tool_credentials.values().any(CredentialConfig::needs_inbound_token)
        });
        Self {
            revision,
            names: match &config.admin {
                Some(admin) => ResourceNames::new(&config.gateway.public_url).with_admin(admin.resource()),
                None => ResourceNames::new(&config.gateway.public_url),
            },
            issuers: HashMap::new(),
            domains: HashMap::new(),
            transmitters: HashMap::new(),
            agents: AgentIndex::default(),
            keys: ApiKeys::default(),
            anonymous: nobody::anonymous(config, revision).map(Arc::new),
            local: nobody::local(config, revision).map(|(verified, agent)| (Arc::new(verified), agent)),
            keep_tokens,
            needs_nonce: config.gateway.dpop == DpopMode::Nonce,
        }
    }
}

/// Seconds since 1970 by this machine's clock.
pub(crate) fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
