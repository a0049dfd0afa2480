//! Decides how bytes reach an upstream and come back, in whichever era it speaks. Refuses to know who
//! calls: it sees a destination, a credential, and the key of a principal.
//!
//! Invariant: what leaves has either an [`Entry`](crate::record) whose intent is durable or an errand,
//! which can carry only listed methods.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ServerConfig, TransportConfig};
use crate::delegate::{CredentialHeader, Grant, Handed};
use crate::ids::{AuthorizationContext, LegId, ParkId, PrincipalKey, ProcessId, ServerId};
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason};
use crate::record::Entry;
use crate::wire::mcp::Era;
use crate::wire::{Json, Outgoing, mcp};

mod answer;
mod attribution;
mod changes;
mod drive;
mod duplex;
mod elsewhere;
mod errand;
mod events;
pub mod exchange;
mod executables;
mod feed;
mod gate;
mod handover;
mod health;
mod hidden;
mod http;
mod hub;
mod launch;
mod legacy;
mod lines;
mod link;
mod logging;
mod losses;
mod oldest;
mod parked;
mod pool;
mod presented;
mod process;
mod rest;
mod roots;
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux can confine a process"))]
mod sandbox;
mod server;
mod shape;
mod source;
mod stdio;
mod subscription;
pub mod supervisor;
#[cfg(test)]
mod tests;
mod told;

pub use changes::Heard;
pub use errand::{Listing, ServerFacts};
pub use exchange::{Event, Exchange};
pub use executables::Executable;
pub use handover::{End, Processes};
pub use health::Health;
pub use hub::{Change, Dropped};
pub use launch::Launcher;
pub use sandbox::host::{HostFacts, host_facts};
pub use subscription::{Subscription, Update, updated};
pub use supervisor::supervise;
pub use told::PROGRESS_OF_2025;

use parked::Lot;
use server::{Parcel, Server};

/// Where a listen of ours names tasks of 2025-11-25, whose servers know no listens: it never leaves the gateway.
pub const TASKS_OF_2025: &str = "dev.bailiwick/tasks";

/// What is presented to an upstream, and on whose behalf.
#[derive(Debug, Clone)]
pub struct Access {
    /// Whose credential it is.
    pub context: AuthorizationContext,
    /// Whose session or process may be used; `None` for the gateway's own.
    pub principal: Option<PrincipalKey>,
    /// The header that carries the credential, and its whole value.
    pub credential: Option<CredentialHeader>,
}

impl Access {
    /// The gateway's own, with nothing to present.
    #[must_use]
    pub const fn bare() -> Self {
        Self { context: AuthorizationContext::Gateway, principal: None, credential: None }
    }

    /// What was granted.
    fn of(grant: &Grant) -> Self {
        let credential = grant.credential().header.clone();
        Self { context: grant.context(), principal: Some(grant.principal()), credential }
    }
}

/// One call on its way: what is sent where, with what.
#[derive(Debug)]
struct Dispatch {
    server: ServerId,
    /// The server as it was when the credential was made.
    made_for: Option<Arc<ServerConfig>>,
    context: AuthorizationContext,
    principal: PrincipalKey,
    credential: Option<CredentialHeader>,
    /// As which request the record knows it.
    leg: Option<LegId>,
    outgoing: Outgoing,
}

/// All upstream servers of the configuration.
#[derive(Debug)]
pub struct Upstreams {
    servers: ArcSwap<HashMap<ServerId, Arc<Server>>>,
    changes: broadcast::Sender<Change>,
    /// One change of the configuration at a time.
    changing: Mutex<()>,
    stopped: CancellationToken,
    /// How children are started, or why they cannot be.
    launcher: Result<Launcher, String>,
    /// Calls that wait for what their server asked.
    lot: Arc<Lot>,
    /// Who is being told of changed roots.
    telling: roots::Telling,
}

impl Upstreams {
    /// Takes all servers into service; each is tried in the background at once. Must be called within a
    /// runtime. Children are started by this executable's `supervise`.
    #[must_use]
    pub fn new(config: &Config) -> Arc<Self> {
        let launcher = Launcher::of_this_executable(config);
        if let Ok(launcher) = &launcher {
            launcher.clear();
        }
        Self::launching(config, launcher.map_err(|error| format!("the supervisor is not found: {error}")))
    }

    /// The same with another supervisor.
    fn launching(config: &Config, launcher: Result<Launcher, String>) -> Arc<Self> {
        let (changes, _) = broadcast::channel(limit::CHANGES_QUEUED_MAX);
        let upstreams = Arc::new(Self {
            servers: ArcSwap::from_pointee(HashMap::new()),
            changes,
            changing: Mutex::new(()),
            stopped: CancellationToken::new(),
            launcher,
            lot: Arc::default(),
            telling: roots::Telling::default(),
        });
        upstreams.reconfigure(config);
        tokio::spawn(sweep(Arc::downgrade(&upstreams), upstreams.stopped.clone()));
        upstreams
    }

    /// Takes another configuration into service. A server whose entry means the same keeps its
    /// connections; one that changed or went is given up when its calls in flight are over.
    pub fn reconfigure(&self, config: &Config) {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(launcher) = &self.launcher {
            launcher.kept.store(Arc::new(config.kept()));
        }
        let old = self.servers.load_full();
        let mut new = HashMap::with_capacity(config.servers.len());
        for entry in &config.servers {
            let kept = old.get(&entry.id).filter(|server| is_same(&server.link.config, entry));
            let start = || Server::start(entry, self.changes.clone(), self.launcher.clone(), Arc::clone(&self.lot));
            let server = kept.map_or_else(start, Arc::clone);
            new.insert(entry.id.clone(), server);
        }
        let retired: Vec<_> = old
            .iter()
            .filter(|(id, server)| new.get(*id).is_none_or(|now| !Arc::ptr_eq(now, server)))
            .map(|(_, server)| Arc::clone(server))
            .collect();
        self.servers.store(Arc::new(new));
        for server in retired {
            tokio::spawn(async move { server.retire().await });
        }
    }

    /// Ends sessions and children. Calls in flight should be over: what is left of them is cut off.
    pub async fn shutdown(&self) {
        self.stopped.cancel();
        let servers = self.servers.swap(Arc::new(HashMap::new()));
        futures_util::future::join_all(servers.values().map(|server| server.close())).await;
    }

    /// Forwards a call: the only way for one to leave. The entry proves that it was authorized and that its
    /// intent is on the record; what it holds can be taken once.
    pub fn forward(&self, entry: &mut Entry<Grant>) -> Exchange {
        let Some(outgoing) = entry.take_outgoing() else {
            let failure = Failure::before(Reason::Internal, "an entry was forwarded twice");
            return Exchange::finished(Outcome::Failed(failure));
        };
        let grant = entry.proof();
        self.send(Dispatch {
            server: grant.target().server_id().clone(),
            made_for: Some(Arc::clone(grant.target().server())),
            context: grant.context(),
            principal: grant.principal(),
            credential: grant.credential().header.clone(),
            leg: Some(grant.leg().leg),
            outgoing,
        })
    }

    /// Subscribes to the resource that an entry is about. Everyone who may share a connection shares what is asked
    /// of the upstream; whoever is here has been decided about by themselves.
    pub fn subscribe(&self, entry: &mut Entry<Grant>) -> Subscription {
        let Some(outgoing) = entry.take_outgoing() else {
            let failure = Failure::before(Reason::Internal, "an entry was forwarded twice");
            return Subscription::failed(failure);
        };
        let grant = entry.proof();
        match self.server_of(grant.target().server()) {
            Ok(found) => found.feeds.join(&found, Access::of(grant), &outgoing.params, grant.target().name()),
            Err(failure) => Subscription::failed(failure),
        }
    }

    /// Goes on with a call that waits for these answers. The entry proves what one proves to [`Self::forward`];
    /// what it holds is not sent, because the upstream has it already.
    pub fn resume(&self, entry: &mut Entry<Grant>, parked: ParkId, answers: Json) -> Exchange {
        let Some(outgoing) = entry.take_outgoing() else {
            let failure = Failure::before(Reason::Internal, "an entry was forwarded twice");
            return Exchange::finished(Outcome::Failed(failure));
        };
        let grant = entry.proof();
        match self.server_of(grant.target().server()) {
            Ok(server) => server.resume(parked, Access::of(grant), answers, outgoing.progress_token),
            Err(failure) => Exchange::finished(Outcome::Failed(failure)),
        }
    }

    /// What a task of that principal's asks, while something waits for the answer.
    #[must_use]
    pub fn asked_by_task(
        &self,
        server: &ServerId,
        principal: PrincipalKey,
        task: (&str, Option<ProcessId>),
    ) -> Option<(ParkId, Json)> {
        let server = self.server(server).ok()?;
        self.lot.of_task(principal, &server.link, task)
    }

    /// Waits until a task of that principal's asks something; for ever, where its server is gone.
    pub async fn until_task_asks(
        &self,
        server: &ServerId,
        principal: PrincipalKey,
        task: (&str, Option<ProcessId>),
    ) -> (ParkId, Json) {
        match self.server(server) {
            Ok(server) => self.lot.until_asked(principal, &server.link, task).await,
            Err(_) => std::future::pending().await,
        }
    }

    /// Answers what a task asks: as [`Self::resume`], but it ends when the answer was taken.
    pub fn answer(&self, entry: &mut Entry<Grant>, parked: ParkId, answers: Json) -> Exchange {
        if entry.take_outgoing().is_none() {
            let failure = Failure::before(Reason::Internal, "an entry was forwarded twice");
            return Exchange::finished(Outcome::Failed(failure));
        }
        let grant = entry.proof();
        match self.server_of(grant.target().server()) {
            Ok(server) => server.answer(parked, Access::of(grant), answers),
            Err(failure) => Exchange::finished(Outcome::Failed(failure)),
        }
    }

    /// Gives up a call that waits for input; it is cancelled upstream.
    pub fn abandon(&self, parked: ParkId) {
        self.lot.abandon(parked);
    }

    /// Tells the server of a call that waits how far its client is with the answer to the question of that name.
    pub async fn report(&self, principal: PrincipalKey, (parked, key): (ParkId, &str), said: &Json) {
        if let Some((asker, told)) = self.lot.reported(principal, (parked, key), said) {
            asker.tell(&told).await;
        }
    }

    /// Fires when that call waits for input no more; `None` if it does not wait.
    #[must_use]
    pub fn until_unparked(&self, parked: ParkId) -> Option<CancellationToken> {
        self.lot.until_gone(parked)
    }

    fn send(&self, dispatch: Dispatch) -> Exchange {
        let found = match &dispatch.made_for {
            Some(entry) => self.server_of(entry),
            None => self.server(&dispatch.server),
        };
        let server = match found {
            Ok(server) => server,
            Err(failure) => return Exchange::finished(Outcome::Failed(failure)),
        };
        server.exchange(Parcel {
            access: Access {
                context: dispatch.context,
                principal: Some(dispatch.principal),
                credential: dispatch.credential,
            },
            listening: dispatch.outgoing.method == "subscriptions/listen",
            outgoing: dispatch.outgoing,
            leg: dispatch.leg,
            errand: false,
        })
    }

    /// All items of one list of one server.
    ///
    /// # Errors
    /// When the server cannot be reached, answers something else, or its list is beyond every bound.
    pub async fn list(&self, server: &ServerId, access: &Access, kind: mcp::Kind) -> Result<Listing, Failure> {
        self.server(server)?.list(access, kind).await
    }

    /// As [`Upstreams::list`], with a credential that was made for the server as that entry has it.
    ///
    /// # Errors
    /// As [`Upstreams::list`], and when the server is another one by now.
    pub async fn list_for(
        &self,
        server: &Arc<ServerConfig>,
        access: &Access,
        kind: mcp::Kind,
    ) -> Result<Listing, Failure> {
        self.server_of(server)?.list(access, kind).await
    }

    /// As [`Upstreams::facts`], with a credential that was made for the server as that entry has it.
    ///
    /// # Errors
    /// As [`Upstreams::facts`], and when the server is another one by now.
    pub async fn facts_for(&self, server: &Arc<ServerConfig>, access: &Access) -> Result<ServerFacts, Failure> {
        self.server_of(server)?.facts(access).await
    }

    /// What a server says of itself.
    ///
    /// # Errors
    /// When the server cannot be reached or answers something else.
    pub async fn facts(&self, server: &ServerId, access: &Access) -> Result<ServerFacts, Failure> {
        self.server(server)?.facts(access).await
    }

    /// Listens for changes of lists with a credential that was made for the server as that entry has it, until that
    /// ends; what changes is told like every change.
    ///
    /// # Errors
    /// When the server cannot be reached, or is another one by now.
    pub async fn listen_for(&self, server: &Arc<ServerConfig>, access: &Access) -> Result<Heard, Failure> {
        self.server_of(server)?.listen(access).await
    }

    /// What changes from now on: lists, and servers that come and go. A receiver that lags must take
    /// everything as changed.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Which servers can be reached, by name.
    #[must_use]
    pub fn health(&self) -> Vec<(ServerId, Health)> {
        let servers = self.servers.load();
        let mut all: Vec<_> = servers.iter().map(|(id, server)| (id.clone(), server.health())).collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }

    /// Which era of MCP each server speaks, as far as that is known.
    #[must_use]
    pub fn eras(&self) -> Vec<(ServerId, Era)> {
        let servers = self.servers.load();
        servers.iter().filter_map(|(id, server)| Some((id.clone(), server.link.era()?))).collect()
    }

    /// What was dropped of what servers said, by name.
    #[must_use]
    pub fn dropped(&self) -> Vec<(ServerId, Dropped)> {
        let servers = self.servers.load();
        let mut all: Vec<_> = servers.iter().map(|(id, server)| (id.clone(), server.link.hub.dropped())).collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }

    /// What living processes were started with, of every server.
    #[must_use]
    pub fn handed(&self) -> Vec<Arc<Handed>> {
        self.servers
            .load()
            .values()
            .filter_map(|server| server.stdio())
            .flat_map(|stdio| stdio.started.handed())
            .collect()
    }

    /// How many processes each server with a command has started, and why they ended.
    #[must_use]
    pub fn processes(&self) -> Vec<(ServerId, Processes)> {
        let servers = self.servers.load();
        servers.iter().filter_map(|(id, server)| Some((id.clone(), server.stdio()?.counts.now()))).collect()
    }

    /// What servers with a command run: told once to whoever asks first, at each start that runs something new.
    #[must_use]
    pub fn executables(&self) -> Option<mpsc::Receiver<Executable>> {
        self.launcher.as_ref().ok().and_then(Launcher::executables)
    }

    /// Whether that process of a server lives, and takes calls.
    #[must_use]
    pub fn lives(&self, server: &ServerId, process: ProcessId) -> bool {
        let server = self.server(server).ok();
        server.is_some_and(|server| server.stdio().is_some_and(|own| own.processes.has(|running| running.is(process))))
    }

    fn server(&self, id: &ServerId) -> Result<Arc<Server>, Failure> {
        self.servers.load().get(id).cloned().ok_or_else(|| unknown(id))
    }

    /// The server of that entry. After a reload another one may have its name, which gets nothing that was made
    /// for this one.
    fn server_of(&self, entry: &Arc<ServerConfig>) -> Result<Arc<Server>, Failure> {
        let server = self.server(&entry.id)?;
        let known = &server.link.config;
        if Arc::ptr_eq(known, entry) || is_same_place(known, entry) {
            return Ok(server);
        }
        let detail = format!("server `{}` has just been configured anew", entry.id);
        Err(Failure::before(Reason::UpstreamUnreachable, detail))
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        self.stopped.cancel();
        self.servers.load().values().for_each(|server| server.link.closing.cancel());
    }
}

async fn sweep(upstreams: std::sync::Weak<Upstreams>, stopped: CancellationToken) {
    loop {
        tokio::select! {
            () = stopped.cancelled() => return,
            () = tokio::time::sleep(limit::IDLE_SWEEP) => {}
        }
        let Some(servers) = upstreams.upgrade().map(|upstreams| upstreams.servers.load_full()) else { return };
        futures_util::future::join_all(servers.values().map(|server| server.sweep())).await;
    }
}

/// Whether two entries mean the same to this room.
fn is_same(one: &ServerConfig, other: &ServerConfig) -> bool {
    // The bounds are numbers, and their debug form is all of them.
    let bounds = format!("{:?}", one.health) == format!("{:?}", other.health);
    bounds && one.isolation == other.isolation && is_same_place(one, other)
}

/// Whether two entries are reached at the same place with the same credential.
fn is_same_place(one: &ServerConfig, other: &ServerConfig) -> bool {
    let transport = match (&one.transport, &other.transport) {
        (
            TransportConfig::Http { url, allow_private },
            TransportConfig::Http { url: other_url, allow_private: other_private },
        ) => url == other_url && allow_private == other_private,
        (
            TransportConfig::Stdio { command, environment, directory, process },
            TransportConfig::Stdio {
                command: other_command,
                environment: other_env,
                directory: other_directory,
                process: other_process,
            },
        ) => (command, environment, directory, process) == (other_command, other_env, other_directory, other_process),
        _ => false,
    };
    transport && one.credential.presents_alike(&other.credential)
}

fn unknown(server: &ServerId) -> Failure {
    Failure::before(Reason::UpstreamUnreachable, format!("server `{server}` is not in the configuration"))
}
