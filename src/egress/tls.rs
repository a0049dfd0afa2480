//! The TLS configuration of every outgoing connection: aws-lc-rs, TLS 1.2 or 1.3, the system's roots.
//!
//! Decides whom we trust. Invariant: without usable roots nothing is trusted; plain HTTP on loopback
//! goes on working, so that a minimal image can run the demo.

use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::{ConfigBuilder, WantsVerifier};

use super::EgressError;

static ROOTS: OnceLock<Arc<rustls::RootCertStore>> = OnceLock::new();

/// A client configuration that offers these application protocols.
///
/// The system's roots are read once per process, on first use, which takes some milliseconds.
///
/// # Errors
/// When the provider does not support the protocol versions.
pub fn client_config(protocols: &[&[u8]]) -> Result<rustls::ClientConfig, EgressError> {
    let roots = Arc::clone(ROOTS.get_or_init(system_roots));
    let mut config = builder()?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// The same where somebody else says whom we trust, and the system's roots count for nothing. Each connection is looked at:
/// none goes on with what another one had agreed.
///
/// # Errors
/// As [`client_config`].
pub fn client_config_trusting(
    protocols: &[&[u8]],
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<rustls::ClientConfig, EgressError> {
    let builder = builder()?.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn builder() -> Result<ConfigBuilder<rustls::ClientConfig, WantsVerifier>, EgressError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| EgressError::Build(error.to_string()))
}

fn system_roots() -> Arc<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        tracing::warn!(
            ignored,
            problems = found.errors.len(),
            "no root certificate was found, so no https: server can be trusted; install ca-certificates or set SSL_CERT_FILE"
        );
    }
    Arc::new(roots)
}
