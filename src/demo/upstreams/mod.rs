//! Two sample MCP servers in memory, one for each era, for the demo, the tests and the examples.
//!
//! Decides what they offer and that they listen on loopback only; knows nothing of gateways, callers or
//! policy. Invariant: the same calls in the same order give the same answers, and nothing grows without bound.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

use axum::Router;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

mod backstage;
mod deploy;
mod notes;

pub use backstage::Backstage;

/// Starts one sample server at `http://ADDRESS/mcp`; port 0 takes a free one.
///
/// # Errors
/// The address is not loopback, or cannot be listened on.
pub async fn start(sample: Sample, listen: SocketAddr) -> io::Result<Started> {
    if !listen.ip().is_loopback() {
        let message = format!("sample server `{sample}` does not listen on {listen}: use a loopback address");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let config = StreamableHttpServerConfig::default().with_cancellation_token(stop.child_token());
    let mut backstage = None;
    let router = match sample {
        Sample::Notes => {
            let notes = notes::Notes::new();
            // Modern requests are stateless; an answer that streams nothing is plain JSON.
            let config = config
                .with_legacy_session_mode(false)
                .with_json_response(true)
                .with_stateless_protocol_metadata_required(true);
            let sessions = std::sync::Arc::new(LocalSessionManager::default());
            Router::new().nest_service("/mcp", StreamableHttpService::new(move || Ok(notes.clone()), sessions, config))
        }
        Sample::Deploy => {
            let deploy = deploy::Deploy::new(backstage.insert(Backstage::default()).clone());
            let sessions = std::sync::Arc::new(LocalSessionManager::default());
            Router::new().nest_service("/mcp", StreamableHttpService::new(move || Ok(deploy.clone()), sessions, config))
        }
    };
    let stopped = stop.clone().cancelled_owned();
    let task = tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
    Ok(Started { address, backstage, stop: stop.drop_guard(), task })
}

/// Which sample server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sample {
    /// Notes of a team: tools, resources and a prompt; 2026-07-28 only, stateless.
    Notes,
    /// Rollouts of services: tools that matter, with progress; 2025-11-25 and older, with sessions.
    Deploy,
}

impl Sample {
    /// Both, in the order of the demo.
    pub const ALL: [Self; 2] = [Self::Notes, Self::Deploy];

    /// Its name, which the demo also uses as server id.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Notes => "notes",
            Self::Deploy => "deploy",
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// There is no sample server of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no sample server `{0}`: use `notes` or `deploy`")]
pub struct UnknownSample(String);

impl FromStr for Sample {
    type Err = UnknownSample;

    fn from_str(name: &str) -> Result<Self, UnknownSample> {
        Self::ALL.into_iter().find(|sample| sample.as_str() == name).ok_or_else(|| UnknownSample(name.to_owned()))
    }
}

/// A sample server that runs; dropping it stops it.
#[derive(Debug)]
pub struct Started {
    address: SocketAddr,
    backstage: Option<Backstage>,
    stop: DropGuard,
    task: JoinHandle<io::Result<()>>,
}

impl Started {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its MCP endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// What can be done to it in this process; only `deploy` has anything of the kind.
    #[must_use]
    pub const fn backstage(&self) -> Option<&Backstage> {
        self.backstage.as_ref()
    }

    /// Stops it: ends its sessions and streams, and waits for the last answer.
    ///
    /// # Errors
    /// The listener had failed before.
    pub async fn stop(self) -> io::Result<()> {
        drop(self.stop);
        self.task.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sample_server_listens_on_loopback_only() {
        for sample in Sample::ALL {
            let error = start(sample, "0.0.0.0:0".parse().unwrap()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{sample}");
        }
    }

    #[test]
    fn names_read_back_as_themselves() {
        for sample in Sample::ALL {
            assert_eq!(sample.as_str().parse(), Ok(sample));
        }
        assert!("Notes".parse::<Sample>().is_err());
    }
}
