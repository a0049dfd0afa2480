//! Who a bundle endpoint of the profile `https_spiffe` has to be: the workload that is configured, by its X.509-SVID.
//!
//! Decides whom a connection is believed to lead to. Refuses to know names of hosts, which say nothing here. Invariant: only
//! the trust domain in its name vouches for it, with the roots that are known already: those of the bundle before where
//! it is the endpoint's own, and otherwise those of the other one as they are at that moment.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::Domain;
use super::x509::named;
use crate::config::spiffe::TrustDomain;
use crate::outcome::Reason;

/// The roots of the trust domain that are known at this moment.
pub(super) type Known = Arc<ArcSwapOption<RootCertStore>>;

/// The trust domains that there are; they know each other, and keep each other from nothing.
#[derive(Debug, Default)]
pub(in crate::identity) struct Neighbours(ArcSwap<HashMap<TrustDomain, Weak<Domain>>>);

impl Neighbours {
    /// From now on it is these.
    pub fn replace<'a>(&self, all: impl IntoIterator<Item = (&'a TrustDomain, &'a Arc<Domain>)>) {
        let known = all.into_iter().map(|(name, domain)| (name.clone(), Arc::downgrade(domain)));
        self.0.store(Arc::new(known.collect()));
    }

    /// The one of that name.
    pub fn find(&self, name: &TrustDomain) -> Option<Arc<Domain>> {
        self.0.load().get(name)?.upgrade()
    }
}

/// Who vouches for an endpoint.
#[derive(Debug, Clone)]
pub(super) enum Vouching {
    /// Its own trust domain, with these roots.
    Itself(Known),
    /// Another one.
    Another(TrustDomain, Arc<Neighbours>),
}

/// Lets a connection to one workload through.
#[derive(Debug)]
pub(super) struct Endpoint {
    id: String,
    vouching: Vouching,
    provider: CryptoProvider,
}

impl Endpoint {
    /// The workload of that SPIFFE ID.
    pub fn new(id: &str, vouching: Vouching) -> Arc<Self> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Arc::new(Self { id: id.to_owned(), vouching, provider })
    }
}

impl ServerCertVerifier for Endpoint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let named = named(end_entity).ok().flatten();
        if named.is_none_or(|named| named.id.text != self.id) {
            return Err(Error::General(format!("its certificate is not that of {}", self.id)));
        }
        let none = || Error::General("no root of the trust domain is known".to_owned());
        let roots = match &self.vouching {
            Vouching::Itself(known) => known.load_full().ok_or_else(none)?,
            Vouching::Another(name, neighbours) => {
                let domain = neighbours.find(name).ok_or_else(none)?;
                return match domain.issued(end_entity, intermediates, now) {
                    Ok(()) => Ok(ServerCertVerified::assertion()),
                    Err(Reason::IssuerUnavailable) => Err(Error::General(format!("no bundle of {name} is known"))),
                    Err(_) => Err(Error::General(format!("{name} has not issued its certificate"))),
                };
            }
        };
        let algorithms = self.provider.signature_verification_algorithms.all;
        let leaf = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&leaf, &roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
