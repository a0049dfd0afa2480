//! Who a bundle endpoint of the profile `https_spiffe` has to be: a workload of the trust domain, by its X.509-SVID.
//!
//! Decides whom a connection is believed to lead to. Refuses to know names of hosts, which say nothing here. Invariant: only
//! the roots of the trust domain that are known already vouch for it, and only for the one name that is configured.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::x509::named;

/// The roots of the trust domain that are known at this moment.
pub(super) type Known = Arc<ArcSwapOption<RootCertStore>>;

/// Lets a connection to one workload through.
#[derive(Debug)]
pub(super) struct Endpoint {
    id: String,
    known: Known,
    provider: CryptoProvider,
}

impl Endpoint {
    /// The workload of that SPIFFE ID.
    pub fn new(id: &str, known: &Known) -> Arc<Self> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Arc::new(Self { id: id.to_owned(), known: Arc::clone(known), provider })
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
        let roots = self.known.load_full().ok_or_else(none)?;
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
