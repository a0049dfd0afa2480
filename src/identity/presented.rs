//! What came with a request: the credential, and what shows that it is its bearer's own.
//!
//! Decides nothing; the front fills it in. Invariant: nothing of it has been believed yet.

use rustls::pki_types::CertificateDer;

use crate::ids::Digest;

/// The credential of a request.
#[derive(Clone, Copy, Default)]
pub enum Presented<'a> {
    /// No `Authorization` header.
    #[default]
    Nothing,
    /// The token of `Authorization: Bearer`.
    Bearer(&'a str),
    /// The token of `Authorization: DPoP` (RFC 9449).
    Dpop(&'a str),
}

/// A credential with everything that may show that it is its bearer's own.
#[derive(Clone, Copy, Default)]
pub struct Shown<'a> {
    /// The credential.
    pub credential: Presented<'a>,
    /// The `DPoP` header; empty where it came more than once or is no text.
    pub proof: Option<&'a str>,
    /// The HTTP method.
    pub method: &'a str,
    /// The certificate of the client's TLS connection.
    pub certificate: Option<&'a ClientCertificate>,
    /// A header says that it came through a proxy.
    pub forwarded: bool,
}

impl<'a> From<Presented<'a>> for Shown<'a> {
    fn from(credential: Presented<'a>) -> Self {
        Self { credential, ..Self::default() }
    }
}

/// A certificate whose private key the client has, as TLS has proven here or at a trusted proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    thumbprint: Digest,
    /// Leaf first; empty where a proxy told no more than the thumbprint.
    chain: Vec<CertificateDer<'static>>,
}

impl ClientCertificate {
    /// A certificate with those that lead from it to a root; `None` of an empty chain.
    #[must_use]
    pub fn of_chain(chain: Vec<CertificateDer<'static>>) -> Option<Self> {
        let thumbprint = Digest::sha256(chain.first()?);
        Some(Self { thumbprint, chain })
    }

    /// A certificate of which a proxy tells the SHA-256 alone: enough for a token that is bound to it, and for nothing
    /// else.
    #[must_use]
    pub const fn of_thumbprint(thumbprint: Digest) -> Self {
        Self { thumbprint, chain: Vec::new() }
    }

    /// SHA-256 of the certificate's DER.
    #[must_use]
    pub const fn thumbprint(&self) -> &Digest {
        &self.thumbprint
    }

    /// Leaf first; empty where only the thumbprint is known.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}
