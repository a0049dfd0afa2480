//! From files to a running gateway, and back: the order in which rooms are opened and closed.
//!
//! Invariant: nothing is served before the journal and the revocations are there, and the journal is closed
//! last.

mod facade;
mod feeds;
mod follow;
mod governs;
mod operations;
mod process;
mod replicas;
mod rest;
mod stop;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::keyfile::Missing;
use crate::config::{Durability, GatewayConfig, Mistake, Overrides, ReloadMode, TlsConfig};
use crate::control::{Administrators, Control, Operations, console};
use crate::delegate::Delegate;
use crate::delegate::vault::{Ourselves, Vault};
use crate::export::Exports;
use crate::facade::Facade;
use crate::feeds::Feeds;
use crate::front::{self, Certificates, Front};
use crate::gateway::keys::Keys;
use crate::gateway::pins::Keeper;
use crate::gateway::voided::void_handles;
use crate::gateway::{
    Along, Files, Gateway, Lifecycle, Own, Parts, Reloader, Snapshot, follow_keys, follow_store, record_missed, replay,
    review, send_messages, watch_files,
};
use crate::identity::revoked::RevocationStore as _;
use crate::identity::{Identity, Revocations};
use crate::ids::ReplicaId;
use crate::inversion;
use crate::lanes::Lanes;
use crate::policy::FailedTest;
use crate::record::event::{ExecutableNote, StartNote};
use crate::record::{Journal, JournalSettings, Keeping, Metrics};
use crate::store::{StateDirectory, Store};
use crate::telemetry::Telemetry;
use crate::upstream::{Executable, Upstreams};
use crate::wire::handle::Sealer;
use follow::follow_upstreams;
pub(crate) use process::hold_little;
use replicas::{Cluster, stand};

/// What is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// `servers.toml`.
    pub file: PathBuf,
    /// What the program adds in memory.
    pub overrides: Overrides,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The files have mistakes.
    #[error("{} in the files", if .0.len() == 1 { "a mistake".to_owned() } else { format!("{} mistakes", .0.len()) })]
    Mistakes(Vec<Mistake>),
    /// Something on this machine is in the way.
    #[error("{0}")]
    Trouble(String),
}

/// A gateway that is being served.
pub struct Served {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where administrators connect.
    pub admin: Option<SocketAddr>,
    front: tokio::task::JoinHandle<()>,
    cluster: Option<tokio::task::JoinHandle<()>>,
    administrators: Option<tokio::task::JoinHandle<()>>,
    opened: Opened,
}

/// A gateway without a listener, for the process that it runs in.
pub struct Standalone {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// What answers requests.
    pub front: Arc<Front>,
    opened: Opened,
}

/// The rooms, opened.
struct Opened {
    gateway: Arc<Gateway>,
    sealer: Arc<Sealer>,
    replica: ReplicaId,
    control: CancellationToken,
    control_task: tokio::task::JoinHandle<()>,
    tasks: TaskTracker,
    /// Ends what tells others, once calls in flight have finished.
    late: CancellationToken,
    lanes: Arc<Lanes>,
    /// Puts checkpoints into a bucket, until the last.
    putting: Option<tokio::task::JoinHandle<()>>,
    /// Holds the lock.
    _state: StateDirectory,
}

/// Starts a gateway; upstreams and issuers may still be connecting when this returns.
///
/// # Errors
/// [`StartError`].
pub async fn start(options: Options) -> Result<Served, StartError> {
    process::keep_to_ourselves().map_err(trouble)?;
    let (files, snapshot) = understood(options)?;
    let config = Arc::clone(&snapshot.config);
    // Keys are made, or a handshake is done. Elsewhere no random number is needed before there are callers.
    if config.gateway.tls.is_some() || !config.gateway.state.exists() {
        process::draw_early();
    }
    if config.local.is_some() {
        // Whoever could connect would be that user.
        return Err(trouble("a gateway for the local user alone is never served on an address"));
    }
    let listens = std::iter::once(config.gateway.listen).chain(config.admin.iter().map(|admin| admin.listen));
    if !listens.into_iter().all(|listen| inversion::serves(listen.ip().is_loopback())) {
        return Err(trouble("this build has controls that can be switched off: it serves this machine alone"));
    }
    let Door { listener, address, certificates } = Door::open_to_clients(&config.gateway).await?;
    let admin = match &config.admin {
        Some(admin) => Some(Door::open(admin.listen, admin.tls.as_ref()).await?),
        None => None,
    };
    let cluster = match &config.cluster {
        Some(config) => Some(Cluster::bind(config).await?),
        None => None,
    };
    let along: Vec<Along> = certificates
        .iter()
        .chain(admin.iter().flat_map(|admin| &admin.certificates))
        .map(Arc::clone)
        .map(|certificates| -> Along { Box::new(move || certificates.reload().map_err(|error| error.to_string())) })
        .chain(cluster.iter().flat_map(Cluster::along))
        .collect();
    let revision = snapshot.policy.revision();
    let advertise = cluster.as_ref().map(|cluster| cluster.advertise.clone());
    let lanes = Lanes::start().map_err(trouble)?;
    let opened = Box::pin(open(snapshot, Reloader::new(files, along), lanes, advertise)).await?;
    let gateway = Arc::clone(&opened.gateway);
    let relay = cluster.as_ref().map(Cluster::relay);
    cluster.iter().for_each(|cluster| cluster.lets_ask(&gateway));
    let front = Front::with_relay(Arc::clone(&gateway), Arc::clone(&opened.sealer), opened.replica, relay);
    let feeds = Feeds::new(Arc::clone(&gateway) as _);
    opened.tasks.spawn(Arc::clone(&feeds).run(gateway.stopping()));
    opened.tasks.spawn(rest::after_start(gateway.stopping()));
    front.hears(feeds);
    front.registers(Facade::new(Arc::clone(&gateway) as _, Arc::clone(&opened.sealer)));
    let lanes = || Arc::clone(&opened.lanes);
    let cluster = cluster.map(|cluster| cluster.serve(Arc::clone(&front), lanes(), gateway.stopping()));
    if let Some(certificates) = &certificates {
        certificates.trust(Arc::clone(&gateway) as _);
    }
    let front = tokio::spawn(front::serve(front, listener, certificates, lanes(), gateway.stopping()));
    tracing::info!(%address, revision = %revision.0.short(), servers = config.servers.len(), "serving");
    process::draw_early();
    let pages = match &admin {
        Some(_) => Some(console::pages(Arc::clone(&gateway) as _).map_err(trouble)?),
        None => None,
    };
    let admin_address = admin.as_ref().map(|admin| admin.address);
    let administrators = admin.map(|Door { listener, address, certificates }| {
        tracing::info!(%address, "serving administrators");
        let administrators = Administrators::new(Arc::clone(&gateway) as _);
        let administrators = Arc::new(match pages {
            Some(pages) => administrators.with_pages(pages),
            None => administrators,
        });
        // On no lane: what administrators do never waits for a call, and no call for them.
        let lanes = Arc::new(Lanes::none());
        tokio::spawn(front::serve(administrators, listener, certificates, lanes, gateway.stopping()))
    });
    Ok(Served { gateway, address, admin: admin_address, front, cluster, administrators, opened })
}

/// An address that is listened on, and what is shown there.
struct Door {
    listener: TcpListener,
    address: SocketAddr,
    certificates: Option<Arc<Certificates>>,
}

impl Door {
    /// A listener whose clients may show certificates, where it has TLS.
    async fn open_to_clients(gateway: &GatewayConfig) -> Result<Self, StartError> {
        let mut door = Self::open(gateway.listen, None).await?;
        if let Some(files) = gateway.tls.clone() {
            let certificates = Certificates::load_optional(files, gateway.client_ca.clone()).map_err(trouble)?;
            door.certificates = Some(Arc::new(certificates));
        }
        Ok(door)
    }

    async fn open(listen: SocketAddr, tls: Option<&TlsConfig>) -> Result<Self, StartError> {
        let listener =
            TcpListener::bind(listen).await.map_err(|error| trouble(format!("cannot listen on {listen}: {error}")))?;
        let address = listener.local_addr().map_err(trouble)?;
        let certificates = match tls.cloned() {
            Some(files) => Some(Arc::new(Certificates::load(files).map_err(trouble)?)),
            None => None,
        };
        Ok(Self { listener, address, certificates })
    }
}

/// Starts a gateway that nobody can connect to: its front is called in this process, by the one user that the
/// overrides name.
///
/// # Errors
/// [`StartError`].
pub async fn start_standalone(options: Options) -> Result<Standalone, StartError> {
    process::keep_to_ourselves().map_err(trouble)?;
    process::draw_early();
    let (files, snapshot) = understood(options)?;
    if snapshot.config.local.is_none() {
        return Err(trouble("a gateway without a listener needs its user"));
    }
    let opened = Box::pin(open(snapshot, Reloader::new(files, Vec::new()), Lanes::none(), None)).await?;
    let gateway = Arc::clone(&opened.gateway);
    let front = Front::new(Arc::clone(&gateway), Arc::clone(&opened.sealer), opened.replica);
    Ok(Standalone { gateway, front, opened })
}

/// What the files mean, free of mistakes and with their tests passed.
fn understood(options: Options) -> Result<(Files, Snapshot), StartError> {
    let files = Files { path: options.file, overrides: options.overrides };
    let understood = files.read().map_err(StartError::Mistakes)?;
    if let Some(mistake) = understood.loaded.files.seal_mistake() {
        return Err(StartError::Mistakes(vec![mistake]));
    }
    understood.log_warnings();
    let failed = understood.policy.run_tests().failed;
    if !failed.is_empty() {
        let mistake = |failed: FailedTest| Mistake::whole(understood.loaded.files.shown(&failed.place), failed.message);
        return Err(StartError::Mistakes(failed.into_iter().map(mistake).collect()));
    }
    Ok((files, Snapshot::from(understood)))
}

/// Opens the rooms in order; nothing is served yet.
async fn open(
    snapshot: Snapshot,
    reloader: Reloader,
    lanes: Lanes,
    advertise: Option<String>,
) -> Result<Opened, StartError> {
    let config = Arc::clone(&snapshot.config);
    let state = StateDirectory::open(&config.gateway.state).map_err(trouble)?;
    let control = Control::bind(state.path()).map_err(trouble)?;
    let store = Store::open(&state, &config.gateway.store).await.map_err(trouble)?;
    let replica = store.replica().await.map_err(trouble)?;
    let keys = Keys::read(&config, state.path(), replica, Missing::Make).await.map_err(trouble)?;
    let (sealer, vault_sealer) = (Arc::new(keys.sealer().map_err(trouble)?), keys.vault_sealer().map_err(trouble)?);
    reloader.start_with(&keys);
    let (key, checkpoint_keys) = keys.into_record();
    tracing::info!(keys = ?sealer.key_ids(), "handles are sealed with the first key, all are read");
    let metrics = Metrics::new();
    let exports = Exports::open(state.path(), &config.exports).map_err(StartError::Trouble)?;
    let (journal, recovered) = Journal::start(JournalSettings {
        state: state.path(),
        replica,
        durability: config.gateway.durability,
        key,
        metrics: Arc::clone(&metrics),
        keeping: Some(Keeping { config: config.record.clone(), keys: checkpoint_keys, holds: exports.holds() }),
    })
    .map_err(trouble)?;
    store.check_not_older_than(recovered.epoch).await.map_err(trouble)?;
    store.check_same_history(recovered.history).await.map_err(trouble)?;
    replay::approvals_used(&store, state.path(), replica).await.map_err(trouble)?;
    let memory = snapshot.policy.label_memory();
    replay::seen::seen_and_used(&store, state.path(), replica, memory).await.map_err(trouble)?;
    replay::seen::mark(&store, replica, journal.written().records()).await.map_err(trouble)?;
    let own = Own { replica, advertise };
    let served = snapshot.policy.revision();
    let standing = stand(&store, own, &config, served).await?;
    let recorded = record_missed(&store, &journal, replica, recovered.epoch).await.map_err(trouble)?;
    standing.recorded(recorded).await;
    let (epoch, held) = store.revocations().await.map_err(trouble)?;
    let voided = store.voided(sealer.voided_to()).await;
    void_handles(&store, &sealer, (epoch, &held), voided).await.map_err(trouble)?;
    let revocations = Arc::new(Revocations::default());
    let lifecycle = Lifecycle::read(&store, epoch).await.map_err(trouble)?;
    let now_s = store.now_s().await.map_err(trouble)?;
    let now = std::time::Duration::from_secs(u64::try_from(now_s).unwrap_or_default());
    revocations.replace_with(epoch, held, lifecycle.stopped(&snapshot.written, now));
    let ended = review::ended(&store).await.map_err(trouble)?;
    let snapshot = snapshot.with_ended(&ended, reloader.strictness()).map_err(trouble)?;
    let snapshot = snapshot.without(&revocations.barred());
    let (written, config) = (config, Arc::clone(&snapshot.config));

    let stopping = CancellationToken::new();
    let tasks = TaskTracker::new();
    let revision = snapshot.policy.revision();
    let identity = Identity::new(&config, Arc::clone(&revocations), tasks.clone(), stopping.clone());
    let identity = Arc::new(identity.with_nonces(Arc::clone(&sealer)));
    let upstreams = Upstreams::new(&config);
    let delegate = Delegate::new(&written, Arc::clone(&identity), &tasks, stopping.clone()).await;
    let ourselves = Ourselves::at(&config.gateway.public_url);
    let vault = Vault::new(Arc::new(store.clone()), vault_sealer, ourselves, Arc::clone(&identity));
    let delegate = Arc::new(delegate.with_ledger(Arc::new(store.clone())).with_vault(vault));
    // What is told of calls and sent of the record goes on while calls in flight finish.
    let late = CancellationToken::new();
    let telemetry = Telemetry::start(config.telemetry.as_ref(), replica, &metrics, &tasks, &late);
    exports.start(state.path(), &journal, &tasks, &late);
    let putting = config.record.object_store.as_ref();
    let putting = putting.and_then(|config| Exports::put(config, &journal, replica, &metrics));
    let keeper = Arc::new(Keeper::open(store.clone(), journal.clone()).await.map_err(trouble)?);
    let gateway = Gateway::new(Parts {
        snapshot,
        ended,
        revocations,
        identity,
        delegate,
        upstreams,
        journal,
        store,
        standing,
        sealer: Arc::clone(&sealer),
        stopping,
        reloader,
        telemetry,
        exports,
        keeper,
        lifecycle,
    });
    let scraped = Arc::downgrade(&gateway);
    let scrape = move || scraped.upgrade().map(|gateway| Operations::metrics(&*gateway)).unwrap_or_default();
    gateway.telemetry().follow_metrics(scrape, &tasks, &late);
    gateway
        .journal()
        .started(&StartNote {
            version: env!("CARGO_PKG_VERSION"),
            revision: Some(revision),
            // What others took back since is told by the follower, also after an end before it came to that.
            epoch: if gateway.standing().is_shared() { recorded } else { epoch },
            durability: match config.gateway.durability {
                Durability::Fsync => "fsync",
                Durability::Os => "os",
            },
        })
        .await
        .map_err(trouble)?;

    gateway.look_after_attestations().await;
    // A mistake in them is logged, and is none of the files that are served.
    let _problem = gateway.read_next().await;
    tasks.spawn(follow_store(Arc::clone(&gateway)));
    tasks.spawn(follow_keys(Arc::clone(&gateway)));
    tasks.spawn(send_messages(Arc::clone(&gateway)));
    tasks.spawn(follow_upstreams(Arc::clone(&gateway)));
    tasks.spawn(follow_executables(Arc::clone(&gateway)));
    tasks.spawn(housekeeping(Arc::clone(&gateway)));
    tasks.spawn(crate::gateway::processes::follow_what_ends(Arc::clone(&gateway)));
    tasks.spawn(keep_proposals(Arc::clone(&gateway)));
    tasks.spawn(Arc::clone(&gateway).look_after_accounts());
    if config.gateway.reload == ReloadMode::Watch {
        tasks.spawn(watch_files(Arc::clone(&gateway)));
    }
    let control_stop = CancellationToken::new();
    let control_task = tokio::spawn(serve_control(control, Arc::clone(&gateway), control_stop.clone()));
    Ok(Opened {
        gateway,
        sealer,
        replica,
        control: control_stop,
        control_task,
        tasks,
        late,
        lanes: Arc::new(lanes),
        putting,
        _state: state,
    })
}

/// Records what servers run, and warns where it is not what they ran before.
async fn follow_executables(gateway: Arc<Gateway>) {
    let Some(mut seen) = gateway.upstreams().executables() else { return };
    let stopping = gateway.stopping();
    loop {
        let executable = tokio::select! {
            () = stopping.cancelled() => return,
            executable = seen.recv() => executable,
        };
        let Some(Executable { server, path, digest }) = executable else { return };
        let before = match gateway.store().remember_executable(&server, digest).await {
            Ok(before) => before,
            Err(failure) => {
                tracing::error!(%failure, %server, "what it ran before is not known");
                None
            }
        };
        let path = path.to_string_lossy();
        let before = before.filter(|before| *before != digest);
        if let Some(before) = before {
            tracing::warn!(%server, %path, %digest, %before, "the executable of a server has changed");
        }
        let note = ExecutableNote { server: server.as_str(), path: &path, digest, before };
        if let Err(failure) = gateway.journal().executable(&note).await {
            tracing::error!(%failure, %server, "what it runs is not on the record");
        }
    }
}

/// Writes down software that came without being registered.
async fn keep_proposals(gateway: Arc<Gateway>) {
    let stopping = gateway.stopping();
    stopping.run_until_cancelled(gateway.identity().keep_proposals(gateway.store())).await;
}

async fn housekeeping(gateway: Arc<Gateway>) {
    let stopping = gateway.stopping();
    let mut marked = gateway.journal().written().records();
    gateway.tell_of_rotations().await;
    loop {
        // At once: a deadline may have passed while nobody was here.
        gateway.close_overdue_reviews().await;
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(crate::limit::HOUSEKEEPING_INTERVAL) => {
                gateway.quotas().forget_idle();
                gateway.look_after_attestations().await;
                gateway.mark_record(&mut marked).await;
                if let Err(failure) = gateway.store().sweep().await {
                    tracing::debug!(%failure, "rows that have expired stay for now");
                }
            }
        }
    }
}

async fn serve_control(control: Control, gateway: Arc<Gateway>, stop: CancellationToken) {
    if let Err(error) = control.serve(gateway, stop).await {
        tracing::error!(%error, "the control socket failed");
    }
}

fn trouble(error: impl std::fmt::Display) -> StartError {
    StartError::Trouble(error.to_string())
}
