//! `[cluster]`: how replicas reach each other.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::TlsConfig;

/// How replicas hand each other what is bound to one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Where others connect to.
    pub listen: SocketAddr,
    /// What the others are told, `host:port`; the listener's own address when absent.
    pub advertise: Option<String>,
    /// What this replica shows, both as a server and as a client.
    pub tls: TlsConfig,
    /// The authority whose certificates replicas have, and nobody else.
    pub ca: PathBuf,
}

impl ClusterConfig {
    /// What the others are told.
    ///
    /// # Errors
    /// A lower-case sentence when nobody could connect to what the listener calls itself.
    pub fn advertised(&self) -> Result<String, String> {
        match &self.advertise {
            Some(advertise) => Ok(advertise.clone()),
            None if self.listen.ip().is_unspecified() || self.listen.port() == 0 => Err(format!(
                "no other replica can connect to {}: write advertise = \"HOST:PORT\" below [cluster], or start with \
                 --advertise HOST:PORT",
                self.listen
            )),
            None => Ok(self.listen.to_string()),
        }
    }
}

/// Reads `HOST:PORT`.
///
/// # Errors
/// A lower-case sentence.
pub fn host_and_port(text: &str) -> Result<(), String> {
    let uri = text.parse::<http::uri::Authority>();
    let well = uri.is_ok_and(|uri| uri.port_u16().is_some_and(|port| port != 0) && !uri.as_str().contains('@'));
    if well { Ok(()) } else { Err(format!("`{text}` is not a host and a port: write one such as 10.0.0.7:7801")) }
}
