//! Workloads as callers: by a JWT-SVID, by the certificate of their connection, or by a token with a certificate.
//!
//! Decides whom a certificate makes the caller, and whether it and a token agree. Refuses to know how SVIDs are
//! verified. Invariant: where both name somebody both name the same agent, or nobody gets in.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::pki_types::{CertificateDer, UnixTime};

use super::binding::Binding;
use super::cache::{Basis, Entry};
use super::caller::Verified;
use super::chain::Fresh;
use super::ground::{Ground, Seen};
use super::issuer::News;
use super::persona::{Behind, ClientProof, Groups, Persona};
use super::presented::ClientCertificate;
use super::resource::Reach;
use super::spiffe::{Domain, Neighbours, SpiffeId, named, svid};
use super::token::{Claims, Header, Jwt};
use super::{Identity, Settings, TokenFacts, now_s, verify};
use crate::config::spiffe::IssuerKind;
use crate::config::{DeclaredProof, IssuerConfig};
use crate::ids::{Digest, Subject};
use crate::inversion::{self, Control};
use crate::outcome::{Failure, Reason, Refusal, Stop};

/// A trust domain whose SVIDs are accepted: what is configured, and its bundle.
#[derive(Debug, Clone)]
pub(super) struct AcceptedDomain {
    pub config: Arc<IssuerConfig>,
    pub domain: Arc<Domain>,
}

/// Whom a client certificate names.
pub(super) enum Certified {
    /// Nobody: it is no SVID.
    Nobody,
    /// A workload of a trust domain that is not declared.
    Stranger,
    /// An agent.
    Agent(Arc<Entry>),
}

impl Identity {
    /// Whether there is any trust domain.
    #[must_use]
    pub fn has_trust_domains(&self) -> bool {
        !self.settings.load().domains.is_empty()
    }

    /// Whether a trust domain issued this certificate, by the name in it.
    #[must_use]
    pub fn has_issued(&self, leaf: &CertificateDer<'_>, further: &[CertificateDer<'_>], now: UnixTime) -> bool {
        let Ok(Some(named)) = named(leaf) else { return false };
        let settings = self.settings.load();
        settings.domains.get(&named.id.domain).is_some_and(|known| known.domain.issued(leaf, further, now).is_ok())
    }

    /// Whom the certificate of the connection names.
    pub(super) async fn certified(&self, certificate: &ClientCertificate) -> Result<Certified, Stop> {
        let settings = self.settings.load_full();
        let [leaf, further @ ..] = certificate.chain() else { return Ok(Certified::Nobody) };
        if settings.domains.is_empty() {
            return Ok(Certified::Nobody);
        }
        let digest = digest(certificate);
        if let Some(known) = self.cache.verified(&digest, settings.revision, now_s()) {
            return Ok(Certified::Agent(known));
        }
        let Some(named) = named(leaf)? else { return Ok(Certified::Nobody) };
        let Some(AcceptedDomain { config, domain }) = settings.domains.get(&named.id.domain) else {
            return Ok(Certified::Stranger);
        };
        domain.wait_for_roots().await;
        let generation = domain.generation().load(Ordering::Acquire);
        domain.issued(leaf, further, UnixTime::now()).map_err(|reason| match reason {
            Reason::IssuerUnavailable => {
                Stop::from(Failure::before(reason, format!("no bundle of the trust domain of `{}`", config.alias)))
            }
            _ => Refusal::new(reason).hint("the trust domain in the client certificate did not issue it").into(),
        })?;
        let life = named.not_after.saturating_sub(named.not_before);
        let life_max = config.svid_life_max().map_or(i64::MAX, verify::seconds);
        if life > life_max && !inversion::is_off(Control::TokenLife) {
            let hint = format!(
                "the client certificate lives {life} s and at most {life_max} s are accepted: have shorter ones issued, \
                 or raise svid_life_max of `{}`",
                config.alias
            );
            return Err(Refusal::new(Reason::TokenLifetimeExceeded).hint(hint).into());
        }
        let id = named.id.text;
        let actors = settings.agents.actors(config, Some(&id), None, &id, None, now_s())?;
        let persona = Persona {
            issuer: config.alias.clone(),
            user: Some(Subject::user(&config.alias, &id)),
            groups: Groups::Known(Vec::new()),
            agent: actors.agent,
            chain: actors.chain,
            default_roles: config.default_roles.clone(),
            scopes: Vec::new(),
            client: Some(id.clone()),
            client_proof: ClientProof::Svid,
            behind: Behind::Nobody,
            authenticated_at: None,
            acr: None,
        };
        let token = TokenFacts {
            digest,
            issuer: config.alias.clone(),
            subject: Some(id.clone()),
            client: Some(id.clone()),
            id: None,
            session: None,
            issued_at: Some(named.not_before),
            expires_at: named.not_after,
            for_administrators: false,
            person: super::Person::Nobody,
            hops: Vec::new(),
        };
        let verified = Verified::new(persona, token, DeclaredProof::Public, settings.revision, None);
        let chain = certificate.chain().to_vec();
        let ground = Ground::Root { domain: Arc::clone(domain), chain, seen: Seen::at(generation) };
        let entry = Arc::new(Entry {
            verified: Arc::new(verified.resting_on(config, actors.rests, ground)),
            reach: Reach::for_mcp(),
            binding: Binding::default(),
            until: named.not_after.min(actors.until),
            basis: Basis {
                issuer: None,
                bundle: Some((Arc::clone(domain.generation()), generation)),
                revision: settings.revision,
            },
            with_certificate: std::sync::OnceLock::new(),
        });
        self.keep(digest, &entry);
        Ok(Certified::Agent(entry))
    }

    /// Who calls with a token over a connection whose certificate names an agent: whoever the token says, if that is the
    /// same agent, and with the proof that the certificate is.
    pub(super) fn agreed<'e>(token: &'e Entry, by: &Entry) -> Result<&'e Arc<Verified>, Refusal> {
        let (own, shown) = (&token.verified.persona, &by.verified.persona);
        let same = own.agent.as_ref().zip(shown.agent.as_ref()).is_some_and(|(own, shown)| own.id == shown.id);
        if !same {
            return Err(Refusal::new(Reason::IdentityMismatch));
        }
        Ok(Self::over_tls(token))
    }

    /// Who calls with a token that may be bound to a certificate, which came with it. Public clients bind tokens to
    /// certificates of their own as well (RFC 8705, section 4): that is no proof of a client, unless somebody vouches that
    /// its issuer asked for one.
    pub(super) fn bound(token: &Entry) -> &Arc<Verified> {
        let is_proven = token.verified.persona.client_proof > ClientProof::Public;
        if token.binding.names_certificate() && is_proven { Self::over_tls(token) } else { &token.verified }
    }

    /// The same caller, whose client has shown a certificate.
    fn over_tls(token: &Entry) -> &Arc<Verified> {
        let own = &token.verified.persona;
        if own.client_proof >= ClientProof::Mtls {
            return &token.verified;
        }
        token
            .with_certificate
            .get_or_init(|| Arc::new(token.verified.proven(Persona { client_proof: ClientProof::Mtls, ..own.clone() })))
    }
}

/// What a certificate is remembered by.
pub(super) fn digest(certificate: &ClientCertificate) -> Digest {
    Digest::of("bailiwick/certificate/v1", &[certificate.thumbprint().as_bytes()])
}

impl Settings {
    /// The trust domain of a token that is a JWT-SVID by its `sub`, and by no `iss` of another issuer.
    pub(super) fn workload(&self, claims: &Claims<'_>) -> Result<Option<&AcceptedDomain>, Refusal> {
        if self.domains.is_empty() || claims.text("iss")?.is_some_and(|iss| self.issuers.contains_key(&iss)) {
            return Ok(None);
        }
        let Some(id) = claims.text("sub")?.and_then(|sub| SpiffeId::parse(&sub)) else { return Ok(None) };
        match self.domains.get(&id.domain) {
            Some(known) => Ok(Some(known)),
            None => {
                Err(Refusal::new(Reason::IssuerUnknown)
                    .hint("the token is of a trust domain that is not declared here"))
            }
        }
    }

    /// Looks at everything that a JWT-SVID says.
    pub(super) async fn examine_svid(
        &self,
        accepted: &AcceptedDomain,
        (header, claims, jwt): (&Header, &Claims<'_>, &Jwt<'_>),
        shown: Fresh<'_>,
        basis: &mut Basis,
    ) -> Result<Entry, Stop> {
        let AcceptedDomain { config, domain } = accepted;
        domain.wait().await;
        // Read before the keys: a bundle that changes in between makes the entry useless, not wrong.
        let generation = domain.generation().load(Ordering::Acquire);
        basis.bundle = Some((Arc::clone(domain.generation()), generation));
        let key = svid(config, domain, header, jwt)?;
        let mut found = verify::verify(
            config,
            &self.names,
            &shown.agents(self),
            verify::Source::Signed(header),
            claims,
            shown.digest,
            now_s(),
        )?;
        found.persona.client_proof = ClientProof::Svid;
        let raw = shown.raw(self);
        let verified = Verified::new(found.persona, found.token, found.declared_proof, self.revision, raw);
        let ground = Ground::SvidKey { domain: Arc::clone(domain), key, seen: Seen::at(generation) };
        Ok(Entry {
            verified: Arc::new(verified.resting_on(config, found.rests, ground)),
            reach: found.reach,
            binding: found.binding,
            until: found.until,
            basis: basis.clone(),
            with_certificate: std::sync::OnceLock::new(),
        })
    }
}

/// The trust domains of a configuration; those that are read alike keep their bundles. Each may vouch for another's endpoint.
pub(super) fn domains(
    believed: &[Arc<IssuerConfig>],
    before: &Settings,
    (news, neighbours): (&News, &Arc<Neighbours>),
    start: impl Fn(&Arc<IssuerConfig>, &crate::config::spiffe::SpiffeConfig) -> Domain,
    run: impl FnMut(Arc<Domain>),
) -> std::collections::HashMap<crate::config::spiffe::TrustDomain, AcceptedDomain> {
    let declared = believed.iter().filter_map(|config| match &config.kind {
        IssuerKind::Spiffe(spiffe) => Some((config, spiffe)),
        IssuerKind::Oidc => None,
    });
    let mut started = Vec::new();
    let domains: std::collections::HashMap<_, _> = declared
        .map(|(config, spiffe)| {
            let old = before.domains.get(&spiffe.trust_domain);
            let fresh = start(config, spiffe).telling(news).among(neighbours);
            // However it is read from now on: it never goes back.
            let fresh = match old {
                Some(old) => fresh.after(&old.domain),
                None => fresh,
            };
            let kept = old.filter(|kept| kept.domain.is_like(&fresh));
            let domain = kept.map(|kept| Arc::clone(&kept.domain)).unwrap_or_else(|| {
                let domain = Arc::new(fresh);
                started.push(Arc::clone(&domain));
                domain
            });
            (spiffe.trust_domain.clone(), AcceptedDomain { config: Arc::clone(config), domain })
        })
        .collect();
    neighbours.replace(domains.iter().map(|(name, known)| (name, &known.domain)));
    started.into_iter().for_each(run);
    for (name, old) in &before.domains {
        if !domains.get(name).is_some_and(|kept| Arc::ptr_eq(&kept.domain, &old.domain)) {
            old.domain.retire();
        }
    }
    domains
}
