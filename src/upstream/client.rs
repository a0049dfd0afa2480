//! The HTTP client of one upstream.

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::config::HealthConfig;
use crate::limit;

/// The client of one upstream: a pool of HTTP/1.1 connections of its own.
pub(super) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Builds the client of one upstream.
///
/// # Errors
/// When TLS cannot be set up.
pub(super) fn client(health: &HealthConfig) -> Result<HttpClient, String> {
    let mut dialler = HttpConnector::new();
    dialler.enforce_http(false);
    dialler.set_nodelay(true);
    dialler.set_connect_timeout(Some(health.connect_timeout));
    let secure = HttpsConnectorBuilder::new()
        .with_native_roots()
        .map_err(|error| format!("the system's certificates cannot be read: {error}"))?
        .https_or_http()
        .enable_http1()
        .wrap_connector(dialler);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(limit::POOLED_CONNECTION_IDLE)
        .pool_max_idle_per_host(health.calls_in_flight_max)
        .build(secure))
}
