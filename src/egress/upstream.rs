//! The client for upstream MCP servers: hyper's own pool, because every call goes through it.
//!
//! Decides nothing but where it may go. Invariant: the guard stands in front of the dialler, so a pooled
//! connection was checked when it was made and belongs to the name that it was made for.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, Ready};
use http::Uri;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::{EgressError, EgressPolicy, GuardedResolver, tls};
use crate::lanes::PerLane;
use crate::limit;

/// The client for one upstream: HTTP/1.1 and HTTP/2 over TLS, HTTP/1.1 in plain. Cheap to clone.
///
/// Each lane has connections of its own: one that another lane drives would wake that lane for every call.
#[derive(Clone)]
pub struct UpstreamClient {
    connector: GuardedConnector,
    clients: Arc<PerLane<Pooled>>,
}

type Pooled = Client<GuardedConnector, Full<Bytes>>;

/// Builds the client of one upstream. Each upstream has its own, so that policies and pools never mix.
///
/// # Errors
/// [`EgressError::Build`] when TLS cannot be set up.
pub fn upstream_client(
    policy: EgressPolicy,
    connect_timeout: std::time::Duration,
) -> Result<UpstreamClient, EgressError> {
    let mut dialler = HttpConnector::new_with_resolver(GuardedResolver::new(policy.clone()));
    dialler.enforce_http(false);
    dialler.set_nodelay(true);
    dialler.set_keepalive(Some(limit::UPSTREAM_KEEPALIVE));
    dialler.set_connect_timeout(Some(connect_timeout));
    let secure = HttpsConnectorBuilder::new()
        .with_tls_config(tls::client_config(&[])?)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(dialler);
    let connector = GuardedConnector { policy: Arc::new(policy), secure };
    Ok(UpstreamClient { connector, clients: Arc::default() })
}

impl UpstreamClient {
    /// Sends a request over a connection of this lane.
    pub fn request(&self, request: http::Request<Full<Bytes>>) -> ResponseFuture {
        match self.clients.here(|| self.pooled()) {
            Some(client) => client.request(request),
            None => self.pooled().request(request),
        }
    }

    fn pooled(&self) -> Pooled {
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(limit::UPSTREAM_IDLE_TIMEOUT)
            .pool_max_idle_per_host(limit::UPSTREAM_IDLE_CONNECTIONS_MAX)
            .http2_keep_alive_interval(limit::UPSTREAM_KEEPALIVE)
            .http2_adaptive_window(true)
            .build(self.connector.clone())
    }
}

impl std::fmt::Debug for UpstreamClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("UpstreamClient").field("connector", &self.connector).finish_non_exhaustive()
    }
}

/// Checks the URL before anything is dialled; names are checked by the resolver inside.
#[derive(Clone)]
pub struct GuardedConnector {
    policy: Arc<EgressPolicy>,
    secure: HttpsConnector<HttpConnector<GuardedResolver>>,
}

type Inner = HttpsConnector<HttpConnector<GuardedResolver>>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl tower::Service<Uri> for GuardedConnector {
    type Response = <Inner as tower::Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Either<Ready<Result<Self::Response, BoxError>>, BoxFuture<'static, Result<Self::Response, BoxError>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.secure.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        match self.policy.check_uri(&uri) {
            Err(error) => Either::Left(futures_util::future::ready(Err(error.into()))),
            Ok(()) => Either::Right(Box::pin(self.secure.call(uri))),
        }
    }
}

impl std::fmt::Debug for GuardedConnector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("GuardedConnector").field("policy", &self.policy).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::routing::get;
    use http_body_util::BodyExt;

    use super::*;

    async fn get_text(policy: EgressPolicy, url: &str) -> Result<Bytes, String> {
        let client = upstream_client(policy, Duration::from_secs(2)).unwrap();
        let request = http::Request::get(url).body(Full::new(Bytes::new())).unwrap();
        let answer = client.request(request).await.map_err(|error| format!("{error:?}"))?;
        Ok(answer.into_body().collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn a_loopback_upstream_is_reached_only_where_that_is_allowed() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = axum::Router::new().route("/", get(|| async { "reached" }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        for host in ["127.0.0.1", "localhost"] {
            let url = format!("http://{host}:{port}/");
            assert_eq!(get_text(EgressPolicy::server(true), &url).await.unwrap(), "reached");
            assert!(get_text(EgressPolicy::public(), &url).await.unwrap_err().contains("Refused"));
        }
        let refused = get_text(EgressPolicy::public(), &format!("https://localhost:{port}/")).await.unwrap_err();
        assert!(refused.contains("loopback"), "{refused}");
    }
}
