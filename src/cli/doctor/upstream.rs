//! The servers behind the gateway: whether each can be reached and listed with the credentials at hand.
//!
//! Connects and lists as the gateway does and calls nothing. Invariant: it uses no directory of a gateway that runs,
//! and a credential made for a caller is the one of the token that was given.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::finding::Finding;
use crate::config::{Config, CredentialConfig, ListAs, ServerConfig, TransportConfig};
use crate::delegate::{Bound, Delegate};
use crate::identity::{Caller, Identity};
use crate::ids::AuthorizationContext;
use crate::limit;
use crate::outcome::{Failure, Reason, Stop};
use crate::upstream::{Access, Upstreams, host_facts};
use crate::wire::mcp::Kind;

/// Our own connections to the servers; they end with [`Bench::close`].
pub struct Bench {
    delegate: Delegate,
    upstreams: Arc<Upstreams>,
    place: PathBuf,
    stop: CancellationToken,
}

impl Bench {
    /// Opens them, in a place of their own.
    pub async fn open(config: &Config, identity: Arc<Identity>) -> Self {
        let place = std::env::temp_dir().join(format!("bailiwick-doctor-{}", ulid::Ulid::generate()));
        let mut config = config.clone();
        config.gateway.state.clone_from(&place);
        let stop = CancellationToken::new();
        let delegate = Delegate::new(&config, identity, &TaskTracker::new(), stop.clone()).await;
        Self { delegate, upstreams: Upstreams::new(&config), place, stop }
    }

    /// Ends connections and processes.
    pub async fn close(self) {
        self.upstreams.shutdown().await;
        self.stop.cancel();
        drop(self.upstreams);
        // A start that was under way may make its directory anew, a moment after it was removed.
        for _ in 0..limit::DOCTOR_CLEAR_TRIES {
            let _was_it_made = std::fs::remove_dir_all(&self.place);
            tokio::time::sleep(limit::DOCTOR_CLEAR_PAUSE).await;
            if !self.place.exists() {
                return;
            }
        }
    }

    /// Looks at one server.
    pub async fn look(&self, server: &Arc<ServerConfig>, caller: Option<&Caller>) -> Vec<Finding> {
        let name = server.id.as_str();
        let needs_caller = server.credential.is_per_caller();
        if needs_caller && caller.is_none() {
            return vec![Finding::ok(
                name,
                "its credential is made for each caller: doctor --token - tries it with one",
            )];
        }
        let access = match self.access(server, caller).await {
            Ok(access) => access,
            Err(stop) => return vec![without_credential(server, &stop)],
        };
        let began = Instant::now();
        let finding = match self.upstreams.list(&server.id, &access, Kind::Tool).await {
            Ok(listing) => Finding::ok(
                name,
                format!(
                    "{} tools in {:.1} s, {}",
                    listing.items.len(),
                    began.elapsed().as_secs_f64(),
                    presented(server)
                ),
            ),
            Err(failure) => unreachable(server, &failure),
        };
        vec![finding]
    }

    async fn access(&self, server: &Arc<ServerConfig>, caller: Option<&Caller>) -> Result<Access, Stop> {
        match caller {
            Some(caller) if server.list_as == ListAs::Caller => {
                let credential = self.delegate.credential_for(caller, server, None, Bound::default()).await?.header;
                let context = Delegate::context(caller, server, None);
                Ok(Access { context, principal: Some(caller.principal()), credential })
            }
            _ => {
                let credential = self.delegate.gateway_credential(server, None).await?.header;
                Ok(Access { context: AuthorizationContext::Gateway, principal: None, credential })
            }
        }
    }
}

const fn presented(server: &ServerConfig) -> &'static str {
    match server.credential {
        CredentialConfig::None => "nothing presented",
        CredentialConfig::Static(_) => "with the gateway's credential",
        CredentialConfig::ClientCredentials(_) => "with a token of the gateway's own",
        CredentialConfig::Exchange(_) => "with a credential exchanged for this token",
        CredentialConfig::IdJag(_) => "with a credential that the identity provider vouched for",
    }
}

fn without_credential(server: &ServerConfig, stop: &Stop) -> Finding {
    let detail = match stop {
        Stop::Failed(failure) => failure.detail.clone(),
        Stop::Refused(refusal) => refusal.hint.to_string(),
    };
    let fix = match (stop.reason(), server.credential.secrets().first()) {
        (Reason::ExchangeRefused, _) => format!(
            "at the authorization server let client_id of [servers.{}.credential] exchange this token (RFC 8693), for \
             its audience and scope",
            server.id
        ),
        (_, Some(secret)) => format!("put the secret where {secret} says, for the gateway's user"),
        _ => format!("look at [servers.{}.credential]", server.id),
    };
    Finding::bad(server.id.as_str(), format!("no credential: {detail}"), fix)
}

fn unreachable(server: &ServerConfig, failure: &Failure) -> Finding {
    let name = server.id.as_str();
    let fix = match (&server.transport, failure.reason) {
        (TransportConfig::Http { .. }, Reason::UpstreamStatus) => match &server.credential {
            CredentialConfig::None => format!("if it wants a credential: [servers.{name}.credential]"),
            _ => format!("it refused what [servers.{name}.credential] presents, or the URL: renew the secret"),
        },
        (TransportConfig::Http { url, .. }, _) => format!("curl -v {url}"),
        (TransportConfig::Stdio { command, .. }, _) => {
            format!("start it by hand: {}", command.first().map_or("", String::as_str))
                + " with its arguments; what it writes to standard error is in the gateway's log"
        }
    };
    Finding::bad(name, failure.detail.clone(), fix)
}

/// What this host can hold a child with.
pub async fn sandbox(config: &Config) -> Vec<Finding> {
    let stdio: Vec<&Arc<ServerConfig>> =
        config.servers.iter().filter(|server| matches!(server.transport, TransportConfig::Stdio { .. })).collect();
    let mut findings: Vec<Finding> = stdio
        .iter()
        .filter(|server| server.is_unconfined())
        .map(|server| {
            let found = "its process can do whatever the gateway's user can";
            Finding::warn(server.id.as_str(), found, "remove sandbox = \"none\", unless it is meant")
        })
        .collect();
    let confined = stdio.iter().any(|server| !server.is_unconfined());
    findings.push(match host_facts(config).await {
        Err(problem) if confined => Finding::bad("host", problem, "run this as the gateway's user, and again"),
        Err(problem) => Finding::warn("host", problem, "it matters once a server with a command is added"),
        Ok(host) => match host.lacks {
            Some(lacks) if confined => Finding::bad("host", lacks, "bailiwick check names the servers it is about"),
            Some(lacks) => Finding::warn("host", lacks, "it matters once a server with a command is added"),
            None => {
                let namespaces = if host.namespaces { "namespaces" } else { "no namespaces" };
                let found = format!("Landlock {}, system calls filtered, {namespaces}", host.landlock);
                if host.signals {
                    Finding::ok("host", found)
                } else {
                    let fix = "use Linux 6.12 or newer: until then children can signal the gateway";
                    Finding::warn("host", found, fix)
                }
            }
        },
    });
    findings
}
