//! The listener's certificate, and its replacement when the files change.
//!
//! Invariant: what is served was read as a whole and fits together; a bad file never replaces a good one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_util::sync::CancellationToken;

use super::clients::{Clients, Domains, TrustDomains};
use crate::config::TlsConfig;
use crate::limit;

/// The certificate in force.
pub struct Certificates {
    files: TlsConfig,
    /// Whether who connects shows a certificate.
    clients: WhoConnects,
    current: ArcSwap<ServerConfig>,
    /// Of the files that were looked at last, good or bad.
    seen: ArcSwap<Stamps>,
}

/// Whether who connects shows a certificate.
#[derive(Clone)]
enum WhoConnects {
    /// Nobody is asked for one.
    Anybody,
    /// Nobody gets in without one of this authority.
    Of(PathBuf),
    /// Who has one of this authority, if there is one, or of a trust domain, may show it.
    MayShow(Option<PathBuf>, Domains),
}

impl WhoConnects {
    const fn authority(&self) -> Option<&PathBuf> {
        match self {
            Self::Anybody => None,
            Self::Of(authority) => Some(authority),
            Self::MayShow(authority, _) => authority.as_ref(),
        }
    }
}

/// When the files were changed, and how long they are.
type Stamps = [Option<(SystemTime, u64)>; 3];

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of the right kind.
    #[error("the TLS file {path} cannot be used: {what}: give a PEM certificate chain and its PEM private key")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Certificate and key do not fit together, or the key is of an unsupported kind.
    #[error("the TLS certificate {path} cannot be served: {what}")]
    Pair {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn load(files: TlsConfig) -> Result<Self, TlsError> {
        Self::of(files, WhoConnects::Anybody)
    }

    /// The same for a listener that takes only those who show a certificate of this authority.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn load_mutual(files: TlsConfig, ca: PathBuf) -> Result<Self, TlsError> {
        Self::of(files, WhoConnects::Of(ca))
    }

    /// The same for a listener whose clients may show a certificate of this authority, or of a trust domain once those
    /// are known.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn load_optional(files: TlsConfig, ca: Option<PathBuf>) -> Result<Self, TlsError> {
        Self::of(files, WhoConnects::MayShow(ca, Domains::default()))
    }

    fn of(files: TlsConfig, clients: WhoConnects) -> Result<Self, TlsError> {
        let seen = ArcSwap::from_pointee(stamps(&files, clients.authority()));
        let current = ArcSwap::from_pointee(read(&files, &clients)?);
        Ok(Self { files, clients, current, seen })
    }

    /// Lets certificates of these trust domains in as well, where clients may show any.
    pub fn trust(&self, domains: Arc<dyn TrustDomains>) {
        if let WhoConnects::MayShow(_, known) = &self.clients {
            known.set(domains);
        }
    }

    /// Reads the files again; the certificate in force stays when they are bad.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.seen.store(Arc::new(stamps(&self.files, self.clients.authority())));
        self.current.store(Arc::new(read(&self.files, &self.clients)?));
        Ok(())
    }

    /// Looks at the files every [`limit::TLS_RELOAD_INTERVAL`] and reads them when they changed.
    pub async fn watch(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(limit::TLS_RELOAD_INTERVAL) => {}
            }
            if stamps(&self.files, self.clients.authority()) == **self.seen.load() {
                continue;
            }
            if let Err(error) = self.reload() {
                tracing::error!(%error, "the TLS certificate was not replaced; the old one stays");
                continue;
            }
            tracing::info!(certificate = %self.files.certificate.display(), "the TLS certificate was replaced");
        }
    }

    /// What a new connection is served with.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

fn read(files: &TlsConfig, clients: &WhoConnects) -> Result<ServerConfig, TlsError> {
    let file =
        |path: &PathBuf, what: &dyn std::fmt::Display| TlsError::File { path: path.clone(), what: what.to_string() };
    let certificates = |path: &PathBuf| {
        let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let found = found.map_err(|error| file(path, &error))?;
        if found.is_empty() { Err(file(path, &"it holds no certificate")) } else { Ok(found) }
    };
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| file(&files.key, &error))?;
    let pair = |error: rustls::Error| TlsError::Pair { path: files.certificate.clone(), what: error.to_string() };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(pair)?;
    let algorithms = provider.signature_verification_algorithms;
    let issued_by = |ca: &PathBuf| {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|error| file(ca, &error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        verifier.map_err(|error| file(ca, &error))
    };
    let builder = match clients {
        WhoConnects::Anybody => builder.with_no_client_auth(),
        WhoConnects::Of(ca) => builder.with_client_cert_verifier(issued_by(ca)?),
        WhoConnects::MayShow(ca, domains) => {
            let authority = ca.as_ref().map(issued_by).transpose()?;
            let domains = domains.clone();
            builder.with_client_cert_verifier(Arc::new(Clients { authority, domains, algorithms }))
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn stamps(files: &TlsConfig, ca: Option<&PathBuf>) -> Stamps {
    [Some(&files.certificate), Some(&files.key), ca].map(|path| {
        let metadata = std::fs::metadata(path?).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = include_str!("fixture/localhost.crt");
    const KEY: &str = include_str!("fixture/localhost.key");
    const OTHER_KEY: &str = include_str!("fixture/other.key");

    #[test]
    fn a_bad_file_never_replaces_a_good_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let files = TlsConfig { certificate: directory.path().join("a.crt"), key: directory.path().join("a.key") };
        std::fs::write(&files.certificate, CERTIFICATE).unwrap();
        std::fs::write(&files.key, KEY).unwrap();
        let certificates = Certificates::load(files.clone()).unwrap();
        let good = certificates.current();
        for (certificate, key) in [("", KEY), ("nonsense", KEY), (CERTIFICATE, ""), (CERTIFICATE, OTHER_KEY)] {
            std::fs::write(&files.certificate, certificate).unwrap();
            std::fs::write(&files.key, key).unwrap();
            let error = certificates.reload().unwrap_err().to_string();
            assert!(error.contains("a.crt") || error.contains("a.key"), "{error}");
            assert!(!error.contains("PRIVATE KEY"), "{error}");
            assert!(Arc::ptr_eq(&good, &certificates.current()));
        }
        std::fs::remove_file(&files.key).unwrap();
        assert!(certificates.reload().is_err());
        std::fs::write(&files.key, KEY).unwrap();
        certificates.reload().unwrap();
        assert!(!Arc::ptr_eq(&good, &certificates.current()));
    }
}
