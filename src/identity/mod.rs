//! Decides who calls, on whose behalf, and how that was proven. Refuses to know what they may do.
//!
//! Invariant: a [`Caller`] exists only for a credential that was verified against this configuration, and
//! for which the revocations of the moment were looked at.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

mod agent;
mod binding;
mod cache;
pub mod caller;
pub mod described;
mod dpop;
mod groups;
mod issuer;
mod keys;
pub mod persona;
mod presented;
mod prove;
mod replay;
pub mod resource;
pub mod revoked;
mod spiffe;
pub mod survey;
mod token;
mod verify;
mod workload;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

pub use agent::still_stands;
pub use caller::{Caller, Person, TokenFacts};
pub use dpop::ALGORITHMS as PROOF_ALGORITHMS;
pub use issuer::IssuerReadiness;
pub use persona::{AgentFacts, ClientProof, Groups, Persona};
pub use presented::{ClientCertificate, Presented, Shown};
pub use resource::{Resource, ResourceNames};
pub use revoked::Revocations;
pub use spiffe::{BundleFacts, look_at_bundle};

use agent::AgentIndex;
use cache::{Basis, Entry, TokenCache};
use caller::Verified;
use issuer::Issuer;
use keys::Verification;
use replay::Replays;
use spiffe::Domain;
use token::Jwt;
use workload::{AcceptedDomain, Certified};

use crate::config::spiffe::{IssuerKind, TrustDomain};
use crate::config::{AgentConfig, Config, CredentialConfig, DeclaredProof, DpopMode, IssuerConfig};
use crate::egress::EgressPolicy;
use crate::ids::{Digest, IssuerAlias, Subject};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::wire::handle::Sealer;

/// The alias and the name of somebody without a credential; no issuer may be called that.
pub const ANONYMOUS: &str = crate::config::load::ANONYMOUS_ALIAS;
/// The alias of the one user of a gateway in the assistant's own process; no issuer may be called that.
pub const LOCAL: &str = crate::config::load::LOCAL_ALIAS;

/// The room: issuers, their keys, and what is remembered of tokens.
#[derive(Debug)]
pub struct Identity {
    settings: ArcSwap<Settings>,
    cache: TokenCache,
    replays: Replays,
    /// With what nonces for proofs are made; without it there are none.
    sealer: Option<Arc<Sealer>>,
    revocations: Arc<Revocations>,
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
    agents: AgentIndex,
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
            replays: Replays::new(),
            sealer: None,
            revocations,
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
            |own, spiffe| Domain::new(own, spiffe, loopback, self.stop.child_token()),
            |domain| drop(self.tasks.spawn(domain.run())),
        );
        let issuers: HashMap<String, Accepted> = believed
            .iter()
            .filter(|own| own.kind == IssuerKind::Oidc)
            .map(|own| {
                // The configuration has refused loopback issuers where they are not allowed; what may listen
                // on other interfaces never talks to one, whatever the configuration says.
                let fresh = Issuer::new(own, loopback, self.stop.child_token());
                let kept = before.issuers.get(&own.issuer).filter(|kept| kept.issuer.is_like(&fresh));
                let issuer = kept.map(|kept| Arc::clone(&kept.issuer)).unwrap_or_else(|| {
                    let issuer = Arc::new(fresh);
                    self.tasks.spawn(Arc::clone(&issuer).run());
                    issuer
                });
                (own.issuer.clone(), Accepted { config: Arc::clone(own), issuer })
            })
            .collect();
        for (name, old) in &before.issuers {
            if !issuers.get(name).is_some_and(|kept| Arc::ptr_eq(&kept.issuer, &old.issuer)) {
                old.issuer.retire();
            }
        }
        let agents = AgentIndex::new(config);
        let revision = before.revision + 1;
        self.settings.store(Arc::new(Settings { issuers, domains, agents, ..Settings::empty(config, revision) }));
        revision
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
                Certified::Nobody => self.anonymous(resource),
                Certified::Stranger => Err(Refusal::new(Reason::CertificateRefused).into()),
                Certified::Agent(entry) if entry.reach.covers(resource) => self.checked(&entry.verified),
                Certified::Agent(_) => Err(Refusal::new(Reason::TokenMissing).into()),
            };
        };
        let by = match &certified {
            Certified::Agent(by) => Some(by.as_ref()),
            Certified::Nobody | Certified::Stranger => None,
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

    /// Whether anybody can be authenticated: some issuer's keys are here, or none is configured.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let settings = self.settings.load();
        let nobody = settings.issuers.is_empty() && settings.domains.is_empty();
        nobody
            || settings.issuers.values().any(|accepted| accepted.issuer.known().is_some())
            || settings.domains.values().any(|accepted| accepted.domain.is_known())
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

    fn anonymous(&self, resource: &Resource) -> Result<Caller, Stop> {
        let settings = self.settings.load();
        if let Some((verified, agent)) = &settings.local {
            if *resource == Resource::Admin {
                return Err(Refusal::new(Reason::TokenMissing).into());
            }
            agent::may_act(agent, now_s())?;
            return self.checked(verified);
        }
        match &settings.anonymous {
            Some(verified) if *resource != Resource::Admin => self.checked(verified),
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
            Some(by) => self.checked(self.agreed(entry, by)?),
            None => self.checked(&entry.verified),
        }
    }

    fn checked(&self, verified: &Arc<Verified>) -> Result<Caller, Stop> {
        let epoch = self.revocations.check(&verified.token)?;
        Ok(Caller { verified: Arc::clone(verified), epoch })
    }

    async fn examine(&self, text: &str, digest: Digest) -> Result<Arc<Entry>, Stop> {
        let settings = self.settings.load_full();
        let mut basis = Basis { issuer: None, bundle: None, revision: settings.revision };
        let found = settings.examine(text, digest, &mut basis).await;
        match &found {
            Ok(entry) => self.cache.keep(digest, Arc::clone(entry), now_s()),
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
        let exchanges = |credential: &CredentialConfig| matches!(credential, CredentialConfig::Exchange(_));
        let keep_tokens = config
            .servers
            .iter()
            .any(|server| exchanges(&server.credential) || server.tool_credentials.values().any(exchanges));
        Self {
            revision,
            names: match &config.admin {
                Some(admin) => ResourceNames::new(&config.gateway.public_url).with_admin(admin.resource()),
                None => ResourceNames::new(&config.gateway.public_url),
            },
            issuers: HashMap::new(),
            domains: HashMap::new(),
            agents: AgentIndex::default(),
            anonymous: anonymous(config, revision).map(Arc::new),
            local: local(config, revision).map(|(verified, agent)| (Arc::new(verified), agent)),
            keep_tokens,
            needs_nonce: config.gateway.dpop == DpopMode::Nonce,
        }
    }

    async fn examine(&self, text: &str, digest: Digest, basis: &mut Basis) -> Result<Arc<Entry>, Stop> {
        let jwt = Jwt::parse(text)?;
        let header = jwt.header()?;
        if header.crit.is_some() {
            let hint = "the token needs extensions (`crit`) that are not understood here";
            return Err(Refusal::new(Reason::TokenMalformed).hint(hint).into());
        }
        let claims = jwt.claims()?;
        if let Some(workload) = self.workload(&claims)? {
            return Box::pin(self.examine_svid(workload, (&header, &claims, &jwt), (text, digest), basis)).await;
        }
        let named = claims.required("iss")?;
        let Accepted { config, issuer } =
            self.issuers.get(&named).ok_or_else(|| Refusal::new(Reason::IssuerUnknown))?;
        // Read before the keys: keys that change in between make the entry useless, not wrong.
        basis.issuer = Some((Arc::clone(issuer), issuer.generation()));
        let algorithm = keys::algorithm_named(&header.alg)
            .filter(|algorithm| config.algorithms.contains(algorithm))
            .ok_or_else(|| Refusal::new(Reason::AlgorithmRefused))?;
        verify::check_type(config, &header)?;
        check_signature(issuer, header.kid.as_deref(), algorithm, &jwt, basis).await?;
        let now = now_s();
        let found = verify::verify(config, &self.names, &self.agents, &header, &claims, digest, now)?;
        let raw = self.keep_tokens.then(|| SecretString::from(text));
        let verified = Verified::new(found.persona, found.token, found.declared_proof, self.revision, raw);
        Ok(Arc::new(Entry {
            verified: Arc::new(verified),
            reach: found.reach,
            binding: found.binding,
            until: found.until,
            basis: basis.clone(),
            with_certificate: OnceLock::new(),
        }))
    }
}

async fn check_signature(
    issuer: &Arc<Issuer>,
    kid: Option<&str>,
    algorithm: crate::config::Algorithm,
    jwt: &Jwt<'_>,
    basis: &mut Basis,
) -> Result<(), Stop> {
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
        Verification::Verified => Ok(()),
        Verification::Invalid => Err(Refusal::new(Reason::SignatureInvalid).into()),
        Verification::KeyUnknown => refused("the issuer has no key of that `kid` and algorithm"),
        Verification::Ambiguous => {
            refused("the token has no `kid` and the issuer has several keys; have it name the key")
        }
    }
}

/// Somebody without a credential, where the configuration allows that: on a loopback listener only.
fn anonymous(config: &Config, settings_revision: u64) -> Option<Verified> {
    let alias = IssuerAlias::new(ANONYMOUS).ok()?;
    let named_alike = config.issuers.iter().any(|issuer| issuer.alias == alias);
    if !config.anonymous || named_alike || !config.gateway.listen.ip().is_loopback() {
        return None;
    }
    Some(without_token(alias, ANONYMOUS, None, Digest::of("bailiwick/anonymous/v1", &[]), settings_revision))
}

/// The user of a gateway in the assistant's own process: what the operating system says, through the agent that the
/// files name. No client has proven anything, and nobody has authenticated.
fn local(config: &Config, settings_revision: u64) -> Option<(Verified, Arc<AgentConfig>)> {
    let user = config.local.as_ref()?;
    let alias = IssuerAlias::new(LOCAL).ok()?;
    let agent = Arc::clone(config.agents.get(&user.agent)?);
    let digest = Digest::of("bailiwick/local/v1", &[user.name.as_bytes()]);
    Some((without_token(alias, &user.name, Some(agent::facts(&agent)), digest, settings_revision), agent))
}

fn without_token(
    alias: IssuerAlias,
    name: &str,
    agent: Option<AgentFacts>,
    digest: Digest,
    settings_revision: u64,
) -> Verified {
    let persona = Persona {
        issuer: alias.clone(),
        user: Some(Subject::user(&alias, name)),
        groups: Groups::Known(Vec::new()),
        agent,
        chain: Vec::new(),
        default_roles: Vec::new(),
        scopes: Vec::new(),
        client: None,
        client_proof: ClientProof::None,
        authenticated_at: None,
        acr: None,
    };
    let token = TokenFacts {
        digest,
        issuer: alias,
        subject: Some(name.to_owned()),
        client: None,
        id: None,
        session: None,
        issued_at: None,
        expires_at: i64::MAX,
        for_administrators: false,
        person: Person::Unknown,
    };
    Verified::new(persona, token, DeclaredProof::Public, settings_revision, None)
}

/// Seconds since 1970 by this machine's clock.
pub(crate) fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
