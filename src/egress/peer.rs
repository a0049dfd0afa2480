//! The client with which one replica hands another what is bound there.
//!
//! Decides whom it trusts: what the replicas' own authority signed, under the name that was dialled, and nobody else.
//! It shows a certificate of its own. Invariant: an inbound token leaves this replica over such a connection only.

use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

use super::{EgressError, EgressPolicy, GuardedResolver};
use crate::config::ClusterConfig;
use crate::lanes::PerLane;
use crate::limit;

type Secured = HttpsConnector<HttpConnector<GuardedResolver>>;
type Pooled = Client<Dialler, Full<Bytes>>;

/// The client for all other replicas.
pub struct PeerClient {
    config: ClusterConfig,
    current: ArcSwap<Dialled>,
}

struct Dialled {
    dialler: Dialler,
    clients: PerLane<Pooled>,
}

/// Connects, TLS included, within [`limit::RELAY_CONNECT_TIMEOUT`].
#[derive(Clone)]
struct Dialler(Secured);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl tower::Service<http::Uri> for Dialler {
    type Response = <Secured as tower::Service<http::Uri>>::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let connecting = tokio::time::timeout(limit::RELAY_CONNECT_TIMEOUT, self.0.call(uri));
        Box::pin(async move { connecting.await.unwrap_or_else(|_| Err("it does not answer in time".into())) })
    }
}

/// Why there is no answer of another replica.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// No connection: nothing was sent.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// Something was sent, and no answer came.
    #[error("the connection was lost: {0}")]
    Lost(String),
}

impl PeerClient {
    /// A client with the certificate and the authority that these files hold.
    ///
    /// # Errors
    /// [`EgressError::Build`] when a file cannot be used.
    pub fn new(config: &ClusterConfig) -> Result<Self, EgressError> {
        Ok(Self { config: config.clone(), current: ArcSwap::from_pointee(Dialled::read(config)?) })
    }

    /// Reads the files again; connections that are open stay.
    ///
    /// # Errors
    /// As [`PeerClient::new`]; what was in use stays so.
    pub fn reload(&self) -> Result<(), EgressError> {
        self.current.store(Arc::new(Dialled::read(&self.config)?));
        Ok(())
    }

    /// Looks at the files every [`limit::TLS_RELOAD_INTERVAL`] and reads them when they changed.
    pub async fn watch(&self, stop: CancellationToken) {
        let mut seen = self.stamps();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(limit::TLS_RELOAD_INTERVAL) => {}
            }
            let now = self.stamps();
            if now != seen {
                seen = now;
                if let Err(error) = self.reload() {
                    tracing::error!(%error, "the certificate for other replicas was not replaced; the old one stays");
                }
            }
        }
    }

    fn stamps(&self) -> [Option<SystemTime>; 3] {
        let files = [&self.config.tls.certificate, &self.config.tls.key, &self.config.ca];
        files.map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
    }

    /// Sends a request and waits for the head of its answer, however long that takes: a replica that dies meanwhile is
    /// found out about by the pings of its connection.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn request(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, PeerError> {
        let current = self.current.load_full();
        let answer = match current.clients.here(|| current.pooled()) {
            Some(client) => client.request(request),
            None => current.pooled().request(request),
        };
        answer.await.map_err(|error| {
            let said = told(&error);
            if error.is_connect() { PeerError::Unreachable(said) } else { PeerError::Lost(said) }
        })
    }
}

/// With what is behind it: what the client says by itself is no more than that it failed.
fn told(error: &hyper_util::client::legacy::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl Dialled {
    fn read(config: &ClusterConfig) -> Result<Self, EgressError> {
        let problem = |path: &Path, what: &dyn std::fmt::Display| {
            EgressError::Build(format!("the file {} of [cluster] cannot be used: {what}", path.display()))
        };
        let certificates = |path: &Path| {
            let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let found = found.map_err(|error| problem(path, &error))?;
            if found.is_empty() { Err(problem(path, &"it holds no certificate")) } else { Ok(found) }
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(&config.ca)? {
            roots.add(certificate).map_err(|error| problem(&config.ca, &error))?;
        }
        let chain = certificates(&config.tls.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&config.tls.key).map_err(|error| problem(&config.tls.key, &error))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| EgressError::Build(error.to_string()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| problem(&config.tls.certificate, &error))?;
        let mut dialler = HttpConnector::new_with_resolver(GuardedResolver::new(EgressPolicy::server(true)));
        dialler.enforce_http(false);
        dialler.set_nodelay(true);
        let secured =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http2().wrap_connector(dialler);
        Ok(Self { dialler: Dialler(secured), clients: PerLane::new() })
    }

    fn pooled(&self) -> Pooled {
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(limit::UPSTREAM_IDLE_TIMEOUT)
            .http2_only(true)
            .http2_keep_alive_interval(limit::RELAY_PING)
            .http2_keep_alive_timeout(limit::RELAY_PING)
            .http2_adaptive_window(true)
            .build(self.dialler.clone())
    }
}

impl std::fmt::Debug for PeerClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PeerClient").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::PathBuf;
    use std::time::Instant;

    use super::*;
    use crate::config::TlsConfig;

    /// A client whose certificate signed itself.
    pub(crate) fn client() -> PeerClient {
        let fixture = |name: &str| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/front/fixture")).join(name);
        PeerClient::new(&ClusterConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            advertise: None,
            tls: TlsConfig { certificate: fixture("localhost.crt"), key: fixture("localhost.key") },
            ca: fixture("localhost.crt"),
        })
        .unwrap()
    }

    fn to(port: u16) -> Request<Full<Bytes>> {
        Request::get(format!("https://localhost:{port}/mcp")).body(Full::default()).unwrap()
    }

    #[tokio::test]
    async fn whoever_takes_a_connection_and_says_nothing_is_waited_for_so_long_and_was_sent_nothing() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let began = Instant::now();
        let error = client().request(to(silent.local_addr().unwrap().port())).await.unwrap_err();
        assert!(matches!(error, PeerError::Unreachable(_)), "{error}");
        let took = began.elapsed();
        // Above, only that it is not waited for without end: a machine under load is slow.
        assert!(took >= limit::RELAY_CONNECT_TIMEOUT && took < 15 * limit::RELAY_CONNECT_TIMEOUT, "{took:?}");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_and_none_of_it_told() {
        let mut config = client().config;
        config.ca = config.tls.key.clone();
        let error = PeerClient::new(&config).unwrap_err().to_string();
        assert!(error.contains("localhost.key") && !error.contains("PRIVATE"), "{error}");
    }
}
