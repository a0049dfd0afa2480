//! What one configuration says about the outside: who may come in by which name, and which headers go further.
//!
//! Decides nothing of a request. Invariant: what a caller proves itself with never goes further, whatever a file says.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName};

use super::{metadata, origin};
use crate::config::Config;

/// What a caller proves itself with never goes further, whatever a file says; neither does what belongs to
/// this connection or is computed anew.
const NEVER_FORWARDED: [&str; 15] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "dpop",
    "client-cert",
    "client-cert-chain",
    "x-forwarded-client-cert",
    "host",
    "connection",
    "transfer-encoding",
    "content-length",
    "content-type",
    "mcp-session-id",
    "mcp-protocol-version",
    "forwarded",
];

/// What one configuration says about the outside.
pub(super) struct Outside {
    pub(super) config: Arc<Config>,
    pub(super) guard: origin::Guard,
    pub(super) own_pages: origin::Guard,
    pub(super) names: metadata::Names,
    /// Every header that some server's `forward_headers` names.
    forwarded: Vec<HeaderName>,
}

impl Outside {
    pub(super) fn new(config: Arc<Config>) -> Self {
        // Where calls are followed, it says which trace they belong to; it goes on as our own.
        let trace = config.telemetry.is_some().then(|| "traceparent".to_owned());
        let named = config.servers.iter().flat_map(|server| &server.forward_headers);
        let forwarded = forwardable(named.chain(&trace));
        let gateway = &config.gateway;
        let own_pages = origin::Guard::for_own_pages(gateway.listen, &gateway.public_url, &gateway.allowed_hosts);
        Self {
            own_pages,
            guard: origin::Guard::new(&config.gateway),
            names: metadata::Names::new(&config),
            forwarded,
            config,
        }
    }

    /// The values of the headers that some server's `forward_headers` names.
    pub(super) fn forwarded(&self, headers: &HeaderMap) -> Vec<(String, String)> {
        let values = |name: &HeaderName| {
            let name = name.clone();
            headers
                .get_all(&name)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .map(|value| (name.as_str().to_owned(), value.to_owned()))
                .collect::<Vec<_>>()
        };
        self.forwarded.iter().flat_map(values).collect()
    }
}

/// The headers among these names that may go further at all, each once.
pub(super) fn forwardable<'a>(names: impl Iterator<Item = &'a String>) -> Vec<HeaderName> {
    let parsed = names.filter_map(|name| name.parse::<HeaderName>().ok());
    let mut names: Vec<HeaderName> = parsed.filter(|name| !NEVER_FORWARDED.contains(&name.as_str())).collect();
    names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    names
}
