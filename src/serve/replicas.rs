//! One of several replicas: its listener for the others, its way to them, its place among them.
//!
//! Invariant: nothing is handed on, or taken from another replica, over a connection whose ends have not shown
//! certificates of the replicas' own authority.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{StartError, trouble};
use crate::config::{ClusterConfig, Config};
use crate::egress::peer::PeerClient;
use crate::front::{self, Certificates, FromReplicas, Front, Relay};
use crate::gateway::{Along, Gateway, Own, Standing};
use crate::ids::PolicyRevision;
use crate::lanes::Lanes;
use crate::store::Store;

/// What one replica has for the others.
pub(super) struct Cluster {
    listener: TcpListener,
    certificates: Arc<Certificates>,
    client: Arc<PeerClient>,
    /// What the others are told.
    pub(super) advertise: String,
}

impl Cluster {
    /// Listens, and reads the certificates; serves nothing yet.
    pub(super) async fn bind(config: &ClusterConfig) -> Result<Self, StartError> {
        let advertise = config.advertised().map_err(trouble)?;
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|error| trouble(format!("cannot listen for other replicas on {}: {error}", config.listen)))?;
        let certificates = Certificates::load_mutual(config.tls.clone(), config.ca.clone()).map_err(trouble)?;
        let client = PeerClient::new(config).map_err(trouble)?;
        Ok(Self { listener, certificates: Arc::new(certificates), client: Arc::new(client), advertise })
    }

    /// What is read again along with the files.
    pub(super) fn along(&self) -> [Along; 2] {
        let (certificates, client) = (Arc::clone(&self.certificates), Arc::clone(&self.client));
        [
            Box::new(move || certificates.reload().map_err(|error| error.to_string())),
            Box::new(move || client.reload().map_err(|error| error.to_string())),
        ]
    }

    pub(super) fn relay(&self) -> Relay {
        Relay::new(Arc::clone(&self.client))
    }

    /// Lets the others be asked about their records.
    pub(super) fn lets_ask(&self, gateway: &Gateway) {
        gateway.asks(Arc::clone(&self.client));
    }

    /// Serves what other replicas hand on.
    pub(super) fn serve(self, front: Arc<Front>, lanes: Arc<Lanes>, stopping: CancellationToken) -> JoinHandle<()> {
        let (client, stop) = (self.client, stopping.clone());
        tokio::spawn(async move { client.watch(stop).await });
        tracing::info!(advertise = %self.advertise, "other replicas are served");
        tokio::spawn(front::serve(
            Arc::new(FromReplicas(front)),
            self.listener,
            Some(self.certificates),
            lanes,
            stopping,
        ))
    }
}

/// Takes this replica's place among those that have the store in common.
pub(super) async fn stand(
    store: &Store,
    own: Own,
    config: &Config,
    served: PolicyRevision,
) -> Result<Arc<Standing>, StartError> {
    let shared = config.gateway.store.is_shared();
    // Before it says so itself, it is to serve what it has.
    let member = Standing::new(own.clone(), shared, served, served).own(served);
    let active = store.join(&member).await.map_err(trouble)?;
    if active != served {
        tracing::error!(
            active = %active.0.short(), here = %served.0.short(),
            "the replicas are to serve other files: this one is not ready; bring those, or run `bailiwick reload` here"
        );
    }
    let standing = Standing::new(own, shared, active, served);
    // Known before the first request comes, which may belong to one of them: it would be told that its session is gone.
    standing.met(store.heartbeat(&member).await.map_err(trouble)?);
    Ok(standing)
}
