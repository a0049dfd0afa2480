//! Wires the rooms together. Decides nothing: it holds the handles that `call`, `list` and `watch` compose.
//!
//! Invariant: one [`Snapshot`] serves one decision; what may have changed is looked at again before forwarding.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub mod access;
pub mod accounts;
pub mod approvals;
pub mod ask;
pub mod barred;
pub mod bearer;
pub mod beforehand;
pub mod credentials;
pub mod emergency;
mod follow;
pub mod glance;
mod handles;
mod idle;
pub mod keys;
pub mod labels;
pub mod lifecycle;
mod live;
mod look;
pub mod mandates;
pub mod parted;
pub mod pins;
pub mod processes;
mod reload;
pub mod replay;
pub mod review;
mod revoke;
pub mod sessions;
mod shadow;
mod situation;
mod source;
mod standing;
mod tripped;
mod trusts;
pub mod understand;
mod uses;
pub mod voided;
mod webhooks;
pub mod whole;
mod wider;
pub mod wish;

pub use crate::call::Endpoint;
use crate::call::GivenTasks;
use crate::catalog::{Catalog, Target};
use crate::config::{Config, FileSet, ServerConfig};
use crate::delegate::{Delegate, Recheck};
use crate::egress::peer::PeerClient;
use crate::export::Exports;
use crate::guard::{Approvals, Guard, Quotas};
use crate::identity::revoked::{Barred, RevocationStore as _};
use crate::identity::{Caller, Identity, Resource, Revocations, Shown, Strangers, TokenFacts, still_stands};
use crate::ids::{Action, RevocationEpoch};
use crate::link::Linking;
use crate::list::{self, Pages};
use crate::outcome::reason::Channel;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::{Arguments, Denied, GrantId, Permit, Policy, Situation};
use crate::record::Journal;
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::upstream::Upstreams;
use crate::wire::handle::Sealer;
use crate::wire::{Askable, Json};
pub use follow::{follow_keys, follow_store, record_missed};
pub use lifecycle::Lifecycle;
use pins::Keeper;
pub use reload::{Along, Files, ReloadOrder, ReloadReport, Reloader, watch_files};
use shadow::Shadow;
pub use shadow::{Change, ShadowDifference, ShadowReport};
use source::UpstreamSource;
pub use standing::{Own, Standing};
pub use webhooks::send_messages;

/// One configuration with the policy that was built for it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What the files mean, without what was taken back.
    pub config: Arc<Config>,
    /// What the files mean: what the next ones are compared with.
    pub written: Arc<Config>,
    /// What was taken back of it.
    pub(crate) barred: Arc<Barred>,
    /// Who may do what, without grants that have ended.
    pub policy: Arc<Policy>,
    /// Who may do what as the files say it.
    pub(crate) written_policy: Arc<Policy>,
    /// The files that both were read from: what the next ones are compared with.
    pub(crate) files: Arc<FileSet>,
    /// Under which settings `identity` verifies callers for it.
    pub(crate) identity_revision: u64,
}

/// What can be looked at again after a decision: the snapshot and the revocations of this moment.
#[derive(Debug)]
struct Live {
    snapshot: ArcSwap<Snapshot>,
    revocations: Arc<Revocations>,
    standing: Arc<Standing>,
    /// Who has emergency access, for one epoch.
    emergencies: ArcSwap<emergency::Emergencies>,
}

/// The running gateway.
pub struct Gateway {
    live: Arc<Live>,
    identity: Arc<Identity>,
    strangers: Strangers,
    guard: Guard,
    catalog: Catalog<UpstreamSource>,
    keeper: Arc<Keeper>,
    delegate: Arc<Delegate>,
    upstreams: Arc<Upstreams>,
    journal: Journal,
    store: Store,
    standing: Arc<Standing>,
    /// How other replicas are asked.
    peers: OnceLock<Arc<PeerClient>>,
    pages: Pages,
    given_tasks: GivenTasks,
    uses: uses::Uses,
    linking: Linking,
    sealer: Arc<Sealer>,
    stopping: CancellationToken,
    /// Moves with every reload and revocation.
    decisions: watch::Sender<u64>,
    reloader: Reloader,
    /// Held while a snapshot is put in force: two at once could each undo half of the other.
    putting: std::sync::Mutex<()>,
    shadow: Arc<Shadow>,
    telemetry: Telemetry,
    exports: Exports,
    last_reload: ArcSwapOption<glance::LastReload>,
    /// What became of agents while the gateway runs.
    lifecycle: ArcSwap<Lifecycle>,
    /// The grants that have ended, as the policy in force knows them.
    ended: ArcSwap<BTreeSet<GrantId>>,
}

/// The rooms that a gateway is wired from.
pub struct Parts {
    /// Configuration and policy that are served first.
    pub snapshot: Snapshot,
    /// What was taken back.
    pub revocations: Arc<Revocations>,
    /// Who calls.
    pub identity: Arc<Identity>,
    /// Where credentials come from.
    pub delegate: Arc<Delegate>,
    /// How servers are reached.
    pub upstreams: Arc<Upstreams>,
    /// The record.
    pub journal: Journal,
    /// Rows.
    pub store: Store,
    /// How this replica stands to the store.
    pub standing: Arc<Standing>,
    /// What handles are sealed with.
    pub sealer: Arc<Sealer>,
    /// Fires when the gateway begins to stop.
    pub stopping: CancellationToken,
    /// Reads the files again.
    pub reloader: Reloader,
    /// Who is told how calls went.
    pub telemetry: Telemetry,
    /// Who is sent the record.
    pub exports: Exports,
    /// Which definitions were accepted.
    pub keeper: Arc<Keeper>,
    /// What became of agents before the start.
    pub lifecycle: Lifecycle,
    /// The grants that have ended, as the policy that is served first knows them.
    pub ended: BTreeSet<GrantId>,
}

impl Gateway {
    /// Wires the rooms; begins to list the servers. Needs a runtime.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let config = Arc::clone(&parts.snapshot.config);
        let live = Arc::new(Live {
            snapshot: ArcSwap::from_pointee(parts.snapshot),
            revocations: parts.revocations,
            standing: Arc::clone(&parts.standing),
            emergencies: ArcSwap::default(),
        });
        let source = UpstreamSource {
            live: Arc::clone(&live),
            delegate: Arc::clone(&parts.delegate),
            upstreams: Arc::clone(&parts.upstreams),
            keeper: Arc::clone(&parts.keeper),
        };
        let catalog = Catalog::with_pins(Arc::new(source), Arc::clone(parts.keeper.pins()));
        let shadow = Shadow::start(Arc::clone(parts.journal.metrics()), parts.stopping.clone());
        catalog.apply(&config);
        let approvals =
            Approvals::new(Arc::new(parts.store.clone()), parts.journal.clone(), Arc::clone(&live.revocations));
        Arc::new(Self {
            live,
            identity: parts.identity,
            strangers: Strangers::default(),
            guard: Guard::new(Quotas::new(&config.quota), Arc::new(parts.store.clone()), approvals),
            catalog,
            keeper: parts.keeper,
            delegate: parts.delegate,
            upstreams: parts.upstreams,
            journal: parts.journal,
            store: parts.store,
            standing: parts.standing,
            peers: OnceLock::new(),
            pages: list::pages(),
            uses: uses::Uses::default(),
            given_tasks: GivenTasks::default(),
            linking: Linking::default(),
            sealer: parts.sealer,
            stopping: parts.stopping,
            decisions: watch::Sender::new(0),
            reloader: parts.reloader,
            putting: std::sync::Mutex::new(()),
            shadow,
            telemetry: parts.telemetry,
            exports: parts.exports,
            last_reload: ArcSwapOption::empty(),
            lifecycle: ArcSwap::from_pointee(parts.lifecycle),
            ended: ArcSwap::from_pointee(parts.ended),
        })
    }

    /// Configuration and policy in force, for one decision.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.live.snapshot.load_full()
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.live.snapshot.load().config)
    }

    /// Who shows this at this endpoint; a refusal is counted and recorded here.
    ///
    /// # Errors
    /// A 401 refusal, or a failure where the issuer's keys cannot be had.
    pub async fn authenticate(&self, shown: Shown<'_>, endpoint: &Endpoint, peer: IpAddr) -> Result<Caller, Stop> {
        let resource = match endpoint {
            Endpoint::Merged => Resource::Gateway,
            Endpoint::Server(server) => Resource::Server(server.clone()),
        };
        // Whoever it is may have been revoked since.
        if let Err(failure) = self.standing.current() {
            self.refused_unauthenticated(failure.reason, peer);
            return Err(failure.into());
        }
        self.admits(&shown, peer)?;
        let caller = self
            .identity
            .authenticate(shown, &resource)
            .await
            .inspect_err(|stop| self.refused_unauthenticated(stop.reason(), peer))?;
        let usable = self.lifecycle.load().may_use(caller.persona());
        usable.inspect_err(|refusal| self.refused_unauthenticated(refusal.reason, peer))?;
        Ok(self.in_emergency(caller).await)
    }

    /// Whether what comes from there is looked at at all: whom we know always is.
    ///
    /// # Errors
    /// `strangers_limited`, counted and recorded here.
    pub fn admits(&self, shown: &Shown<'_>, peer: IpAddr) -> Result<(), Refusal> {
        let knocks = self.strangers.are_too_many(peer, &self.live.snapshot.load().config.quota);
        if knocks && !self.identity.has_seen(shown) {
            self.journal.knocked(Reason::StrangersLimited, peer);
            return Err(Refusal::new(Reason::StrangersLimited));
        }
        Ok(())
    }

    /// Counts and records a refusal of somebody who was not authenticated; never waits for the disk.
    pub fn refused_unauthenticated(&self, reason: Reason, peer: IpAddr) {
        // Trouble of ours is nobody's fault, and a nonce is asked for by being refused.
        let is_ours = matches!(reason.channel(), Channel::Unavailable) || reason == Reason::DpopNonceRequired;
        if !is_ours {
            self.strangers.refused(peer, &self.live.snapshot.load().config.quota);
        }
        self.journal.knocked(reason, peer);
    }

    /// Whether somebody who was authenticated earlier still may act: not revoked, known to the configuration in
    /// force, and by a key or root that has not been withdrawn.
    ///
    /// # Errors
    /// `revoked`, `issuer_unknown`, `agent_inactive`, `signature_invalid`, `certificate_refused`.
    pub fn still_trusted(&self, caller: &Caller) -> Result<(), Refusal> {
        self.live.still_trusted(caller)?;
        self.lifecycle.load().may_use(caller.persona())?;
        self.live.still_in_emergency(caller)?;
        caller.still_verified()?;
        still_stands(&self.live.snapshot.load().config, caller)
    }

    /// Whether what somebody came with is still good by the clock. A request is asked that where it comes in, and what goes
    /// on without its client here.
    ///
    /// # Errors
    /// `token_expired`.
    pub fn not_expired(&self, caller: &Caller) -> Result<(), Refusal> {
        let config = &self.live.snapshot.load().config;
        let now = i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX);
        let is_over = |token: &TokenFacts| {
            let issuer = config.issuers.iter().find(|issuer| issuer.alias == token.issuer);
            let leeway = issuer.map_or(0, |issuer| i64::try_from(issuer.leeway.as_secs()).unwrap_or(0));
            now >= token.expires_at.saturating_add(leeway)
        };
        if caller.credentials().any(is_over) { Err(Refusal::new(Reason::TokenExpired)) } else { Ok(()) }
    }

    /// The same for somebody who hears of things for as long as they listen, which nothing else ends: also whether
    /// that is still known.
    ///
    /// # Errors
    /// As [`Gateway::still_trusted`], and `store_unavailable`.
    pub fn still_heard(&self, caller: &Caller) -> Result<(), Stop> {
        self.standing.current()?;
        Ok(self.still_trusted(caller)?)
    }

    /// Decides a call under the snapshot in force.
    ///
    /// # Errors
    /// The refusal, and whether the caller may be told of it.
    pub fn authorize(&self, caller: &Caller, target: Target, arguments: Option<&Json>) -> Result<Permit, Box<Denied>> {
        self.authorize_within(caller, target, arguments, Situation::default())
    }

    /// The same with what else is known of the moment of the call.
    ///
    /// # Errors
    /// As [`Gateway::authorize`].
    pub fn authorize_within(
        &self,
        caller: &Caller,
        target: Target,
        arguments: Option<&Json>,
        situation: Situation,
    ) -> Result<Permit, Box<Denied>> {
        let now = self.live.snapshot.load();
        // Verified before or after a reload that falls in between: what is known of them must be what the rules
        // were written for.
        if caller.settings_revision() != now.identity_revision
            && let Err(refusal) = still_stands(&now.config, caller)
        {
            return Err(Denied::before_rules(refusal, caller.clone(), target, now.policy.revision()));
        }
        let (given, at) = (arguments_of(target.action(), arguments), jiff::Timestamp::now());
        let decided = now.policy.authorize(caller.clone(), target, given, at, situation);
        if self.shadow.is_on() {
            self.shadow.decided(&decided, arguments, false);
        }
        decided.inspect(|permit| self.used(&now, permit))
    }

    /// Decides under the snapshot in force whether a task of a tool may be followed.
    ///
    /// # Errors
    /// As [`Gateway::authorize`].
    pub fn authorize_following(&self, caller: &Caller, target: Target) -> Result<Permit, Box<Denied>> {
        let now = self.live.snapshot.load();
        if caller.settings_revision() != now.identity_revision
            && let Err(refusal) = still_stands(&now.config, caller)
        {
            return Err(Denied::before_rules(refusal, caller.clone(), target, now.policy.revision()));
        }
        let decided = now.policy.authorize_following(caller.clone(), target);
        if self.shadow.is_on() {
            self.shadow.decided(&decided, None, true);
        }
        decided.inspect(|permit| self.used(&now, permit))
    }

    /// What of `declared` a server may ask this caller under the snapshot in force.
    #[must_use]
    pub fn askable(&self, caller: &Caller, server: &ServerConfig, declared: Askable) -> Askable {
        // Most clients can be asked nothing.
        if !declared.is_any() {
            return declared;
        }
        self.live.snapshot.load().policy.askable(caller, server, declared, jiff::Timestamp::now())
    }

    /// Whether calls can be served: somebody can be authenticated, and intents can be written.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let stands = || self.standing.problems().iter().all(|(_, problem)| problem.is_none());
        !self.stopping.is_cancelled() && self.journal.is_well() && self.identity.is_ready() && stands()
    }

    /// Puts the store's revocations in force: the next call is decided by them, open streams are cut.
    ///
    /// # Errors
    /// `store_unavailable`; what was in force stays so.
    pub async fn take_revocations(&self) -> Result<(), Failure> {
        let taken = self.put_in_force().await;
        // Each epoch is on the record, whatever raised it: without that, a store that was restored would not be known
        // to be older.
        self.tell_in_force().await;
        taken
    }

    /// The same, and the record is left to somebody else. Where it is not known which agents are stopped, revocations
    /// are in force all the same.
    async fn put_in_force(&self) -> Result<(), Failure> {
        let (held, voided) = tokio::join!(self.store.revocations(), self.store.voided(self.sealer.voided_to()));
        let (epoch, held) = held?;
        // Before somebody is let in again.
        let voided = voided::void_handles(&self.store, &self.sealer, (epoch, &held), voided).await;
        // After the epoch, so that it is no older.
        let read = Lifecycle::read(&self.store, epoch).await;
        let stopped = read.map(|read| read.keep_newest(&self.lifecycle));
        let now = Duration::from_micros(u64::try_from(self.standing.now_us()).unwrap_or_default());
        let known = self.lifecycle.load().stopped(&self.snapshot().written, now);
        self.live.revocations.replace_with(epoch, held, known);
        self.put(None);
        self.follow_emergencies().await;
        self.decided_anew();
        // After what was taken back is in force, which waits for nothing.
        self.follow_pins().await;
        voided.and(stopped)
    }

    /// The epoch of the revocations in force.
    #[must_use]
    pub fn revocation_epoch(&self) -> RevocationEpoch {
        self.live.revocations.epoch()
    }

    /// Rows.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// How this replica stands to the store, and who else has it.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Begins to stop: streams end, sessions are closed, nothing new is taken.
    pub fn begin_to_stop(&self) {
        self.stopping.cancel();
    }

    /// Fires when the gateway begins to stop: streams end, sessions are closed.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Moves whenever a decision may have changed: a reload, a revocation.
    #[must_use]
    pub fn decisions(&self) -> watch::Receiver<u64> {
        self.decisions.subscribe()
    }

    /// What a grant is rechecked with before it is forwarded.
    #[must_use]
    pub fn recheck(&self) -> Arc<dyn Recheck> {
        Arc::clone(&self.live) as _
    }

    /// The record.
    #[must_use]
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }
}

fn arguments_of<'a>(action: &Action, arguments: Option<&'a Json>) -> Arguments<'a> {
    Arguments::of(action, arguments.map(Json::as_str))
}

/// Time since 1970, by the wall clock.
#[must_use]
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
