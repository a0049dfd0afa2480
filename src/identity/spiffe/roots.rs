//! The roots of a trust domain as the Workload API says them, apart from its keys for JWT-SVIDs.
//!
//! Decides which certificates are roots, and which of those that they issued were withdrawn. Refuses to know where they come
//! from. Invariant: they come whole or not at all; one that cannot be read leaves the others out as well.

use std::sync::Arc;
use std::time::Instant;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::danger::ClientCertVerifier;
use x509_cert::der::{Reader as _, SliceReader};

use super::bundle::verifier;
use crate::egress::workload::Told;
use crate::ids::Digest;
use crate::limit;

/// What a trust domain vouches for certificates with.
#[derive(Debug)]
pub(super) struct Roots {
    /// Who verifies certificates against them; nobody, where there are none.
    pub verifier: Option<Arc<dyn ClientCertVerifier>>,
    pub digest: Digest,
    pub fetched_at: Instant,
}

impl Roots {
    /// Reads certificates that stand one after the other, and lists of those that were withdrawn.
    ///
    /// # Errors
    /// When something of it is none, or there are too many.
    pub fn read(told: &Told) -> Result<Self, String> {
        let unreadable = |error| format!("a root in it cannot be read: {error}");
        let (mut roots, mut count) = (RootCertStore::empty(), 0_usize);
        // Nothing is no certificate, and the API may say just that.
        let mut reader = match told.bundle.is_empty() {
            true => None,
            false => Some(SliceReader::new(&told.bundle).map_err(unreadable)?),
        };
        while let Some(reader) = reader.as_mut().filter(|reader| !reader.is_finished()) {
            count = count.saturating_add(1);
            if count > limit::JWKS_KEYS_MAX {
                return Err(format!("it has more than {} roots", limit::JWKS_KEYS_MAX));
            }
            let certificate = CertificateDer::from(reader.tlv_bytes().map_err(unreadable)?.to_vec());
            roots.add(certificate).map_err(|error| format!("a root in it cannot be used: {error}"))?;
        }
        let withdrawn = told.withdrawn.iter().map(|list| CertificateRevocationListDer::from(list.to_vec()));
        let parts: Vec<&[u8]> = std::iter::once(&told.bundle).chain(&told.withdrawn).map(AsRef::as_ref).collect();
        Ok(Self {
            verifier: verifier(&Arc::new(roots), withdrawn.collect())?,
            digest: Digest::of("bailiwick/roots/v1", &parts),
            fetched_at: Instant::now(),
        })
    }

    /// Those of a trust domain of which nothing is said any more.
    pub fn none() -> Self {
        Self { verifier: None, digest: Digest::sha256(b""), fetched_at: Instant::now() }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn read(bundle: &[u8], withdrawn: &[&[u8]]) -> Result<Roots, String> {
        let withdrawn = withdrawn.iter().map(|list| Bytes::copy_from_slice(list)).collect();
        Roots::read(&Told { bundle: Bytes::copy_from_slice(bundle), withdrawn })
    }

    #[test]
    fn what_is_no_certificate_is_no_root_and_nothing_is_none() {
        assert!(read(b"", &[]).unwrap().verifier.is_none());
        for bad in [&b"x"[..], &[0x30, 0x82, 0x01], &[0x30, 0x03, 1, 2, 3], &[0x30, 0x80, 0, 0], &[0x30, 0x01]] {
            assert!(read(bad, &[]).is_err(), "{bad:?}");
        }
    }
}
