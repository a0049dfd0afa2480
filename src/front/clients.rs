//! Which client certificates a TLS handshake lets in: those of the configured authority and of trust domains.
//!
//! Decides that whoever shows a certificate has its key, and that somebody who is trusted here issued it. Refuses to
//! know whom it names: that is decided for each request. Invariant: nobody has to show one, and what is shown was
//! verified.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};

use crate::gateway::Gateway;
use crate::limit;

/// Whose certificates name somebody, beside those of the configured authority.
pub trait TrustDomains: Send + Sync {
    /// Whether there is any.
    fn is_any(&self) -> bool;

    /// Whether one of them issued this certificate; the others lead from it to a root.
    fn has_issued(&self, leaf: &CertificateDer<'_>, further: &[CertificateDer<'_>], now: UnixTime) -> bool;
}

impl TrustDomains for Gateway {
    fn is_any(&self) -> bool {
        self.identity().has_trust_domains()
    }

    fn has_issued(&self, leaf: &CertificateDer<'_>, further: &[CertificateDer<'_>], now: UnixTime) -> bool {
        self.identity().has_issued(leaf, further, now)
    }
}

/// The trust domains of the process, which are known a little later than its listeners.
#[derive(Clone, Default)]
pub(super) struct Domains(Arc<OnceLock<Arc<dyn TrustDomains>>>);

impl Domains {
    /// Those of the process: there are no others.
    pub(super) fn set(&self, domains: Arc<dyn TrustDomains>) {
        let _known_already = self.0.set(domains);
    }

    fn get(&self) -> Option<&Arc<dyn TrustDomains>> {
        self.0.get()
    }
}

impl fmt::Debug for Domains {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Domains")
    }
}

/// What a handshake asks of the client.
#[derive(Debug)]
pub(super) struct Clients {
    pub authority: Option<Arc<dyn ClientCertVerifier>>,
    pub domains: Domains,
    pub algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Clients {
    fn offer_client_auth(&self) -> bool {
        self.authority.is_some() || self.domains.get().is_some_and(|domains| domains.is_any())
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A hint would hide certificates of trust domains, whose roots change.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        further: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if further.len() >= limit::CERTIFICATE_CHAIN_MAX {
            return Err(CertificateError::BadEncoding.into());
        }
        let by_authority = self.authority.as_ref().map(|own| own.verify_client_cert(leaf, further, now));
        match by_authority {
            Some(Ok(verified)) => Ok(verified),
            _ if self.domains.get().is_some_and(|domains| domains.has_issued(leaf, further, now)) => {
                Ok(ClientCertVerified::assertion())
            }
            Some(Err(error)) => Err(error),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
