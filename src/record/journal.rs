//! The handle through which everything comes onto the record.
//!
//! Decides which line each event becomes and who waits for it: intents and administrators' acts are
//! durable before anything goes on; refusals, results and lists never wait for the disk. Refuses to
//! know how lines reach the disk ([`super::writer`]). Invariant: nothing is recorded twice, and what
//! cannot be recorded is counted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

use super::appender::{Appender, Mark};
use super::batch::{Settled, lock};
use super::changed::{ChangeFields, ChangeNote};
use super::checkpoint::CheckpointKeys;
use super::direct::Direct;
use super::entry::unavailable;
use super::event::{
    AdminNote, Attempt, ExecutableNote, Intent, Listing, PinNote, RelayNote, ReloadNote, RevocationNote, StartNote,
};
use super::fields::{
    AdminFields, CallFields, ExecutableFields, OpenLeg, PinFields, RelayFields, RepairFields, ResultFacts,
    ResultFields, RevocationFields, StartFields, StopFacts, StopFields,
};
use super::keep::{Holds, Keeper};
use super::keys::{Current, JournalKey};
use super::ledger::{Follows, Ledger, Signal};
use super::line::{self, Header, scratch};
use super::metrics::Metrics;
use super::noise::Noise;
use super::position::{Position, Written};
use super::reloaded::ReloadFields;
use super::room::Room;
use super::sink::{CheckpointNote, Sinks};
use super::who::Who;
use super::writer::{Shared, Writer};
use crate::config::{Durability, RecordConfig};
use crate::ids::{CallId, LegId, ReplicaId, RevocationEpoch};
use crate::inversion::{self, Control};
use crate::limit;
use crate::outcome::{Failure, Reason, Stop};

/// The record of one gateway process. Cheap to clone; the last clone that goes closes the journal.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    replica: ReplicaId,
    key: Current,
    noise: Noise,
    thread: std::sync::Mutex<Option<std::thread::JoinHandle<()>>>,
    ledger: Arc<Signal>,
    ledger_thread: std::sync::Mutex<Option<std::thread::JoinHandle<()>>>,
    checkpoints: Option<watch::Receiver<Option<CheckpointNote>>>,
    position: Arc<Position>,
}

/// How the record is kept over time.
#[derive(Debug)]
pub struct Keeping {
    /// What the configuration says.
    pub config: RecordConfig,
    /// Who signs.
    pub keys: CheckpointKeys,
    /// Who reads it for somebody else, and how far they are.
    pub holds: Arc<Holds>,
}

/// What a journal needs to start.
#[derive(Debug)]
pub struct JournalSettings<'a> {
    /// The state directory; the segments are in `journal/` there.
    pub state: &'a Path,
    /// This process.
    pub replica: ReplicaId,
    /// What an intent waits for.
    pub durability: Durability,
    /// The key for digests of arguments and results.
    pub key: JournalKey,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Checkpoints and files over time; without it lines are only written, and the next gateway sees to the rest.
    pub keeping: Option<Keeping>,
}

/// What was found when the journal was taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// The last store epoch that the journal tells; a store with a lower one is older than the record.
    pub epoch: Option<RevocationEpoch>,
    /// The last epoch whose own number it tells, and that number: a store of another history has another one.
    pub history: Option<(RevocationEpoch, u32)>,
    /// Calls of the last run whose end nobody knows, now recorded as `unknown`.
    pub unknown: usize,
    /// Torn ends and broken chains, now noted as `repair`.
    pub repairs: usize,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the journal in {place}: {problem}; see that the directory is ours and the disk has room")]
pub struct JournalError {
    place: String,
    problem: std::io::Error,
}

/// The directory of the segments.
#[must_use]
pub fn directory(state: &Path) -> PathBuf {
    state.join("journal")
}

impl Journal {
    /// Takes over the journal: repairs a torn end, continues the chain, closes what was left open. Must be
    /// called within the runtime whose tasks will wait for it; blocks for some milliseconds.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub fn start(settings: JournalSettings<'_>) -> Result<(Self, Recovered), JournalError> {
        let directory = directory(settings.state);
        let error = |problem| JournalError { place: directory.display().to_string(), problem };
        let (mut appender, found) = Appender::open(&directory, settings.replica).map_err(error)?;
        if let Some(keeping) = &settings.keeping {
            appender.limit_segments(keeping.config.segment_bytes);
        }
        let position = appender.position();
        let appender = Arc::new(std::sync::Mutex::new(appender));
        let direct = match settings.durability {
            Durability::Os => Some(Direct::new(Arc::clone(&appender))),
            Durability::Fsync => None,
        };
        let shared = Arc::new(Shared::new(settings.metrics, direct));
        let writer = Writer {
            shared: Arc::clone(&shared),
            appender,
            durability: settings.durability,
            replica: settings.replica,
        };
        let thread =
            std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run()).map_err(error)?;
        let ledger = Arc::<Signal>::default();
        let written = Arc::clone(&position);
        let mut checkpoints = None;
        let ledger_thread = match settings.keeping {
            None => None,
            Some(Keeping { config, keys, holds }) => {
                let sinks = Sinks::new(&config.sinks, &shared.metrics);
                // Before any call is taken: a disk may have been full at the last stop.
                let mut room = Room::new(&directory, &config);
                room.look(&shared);
                checkpoints = Some(sinks.latest());
                let follower = Ledger {
                    directory: directory.clone(),
                    replica: settings.replica,
                    keys,
                    interval: config.checkpoint_interval,
                    shared: Arc::clone(&shared),
                    found: position.records(),
                    position,
                    follows: Follows::Nothing,
                    sinks,
                    keeper: Keeper::new(&directory, &config, holds),
                    room,
                };
                let signal = Arc::clone(&ledger);
                let thread = std::thread::Builder::new().name("ledger".to_owned());
                Some(thread.spawn(move || follower.run(&signal)).map_err(error)?)
            }
        };
        let handle = Handle {
            shared,
            replica: settings.replica,
            key: Current::new(settings.key),
            noise: Noise::default(),
            thread: std::sync::Mutex::new(Some(thread)),
            ledger,
            ledger_thread: std::sync::Mutex::new(ledger_thread),
            checkpoints,
            position: written,
        };
        let journal = Self(Arc::new(handle));
        let recovered = Recovered {
            epoch: found.epoch,
            history: found.history,
            unknown: found.open.len(),
            repairs: found.repairs.len(),
        };
        for repair in found.repairs {
            tracing::warn!(
                problem = repair.problem,
                detail = repair.detail,
                segment = repair.segment,
                "journal repaired"
            );
            journal.note("repair", None, &RepairFields { repair }, Mark::Plain);
        }
        let open = if inversion::is_off(Control::UnknownOutcome) { Vec::new() } else { found.open };
        for OpenLeg { call, leg } in open {
            journal.ended(call, leg, ResultFacts::unknown("the gateway stopped before the end was known", None));
        }
        journal.count_noise();
        Ok((journal, recovered))
    }

    /// Records that the gateway serves from now on; durable when it returns.
    ///
    /// # Errors
    /// [`Reason::RecordUnavailable`].
    pub async fn started(&self, note: &StartNote<'_>) -> Result<(), Failure> {
        self.note_durably("start", &StartFields { start: note }, Mark::Epoch(note.epoch, None)).await
    }

    /// Records what a server runs; durable when it returns.
    ///
    /// # Errors
    /// [`Reason::RecordUnavailable`].
    pub async fn executable(&self, note: &ExecutableNote<'_>) -> Result<(), Failure> {
        self.note_durably("executable", &ExecutableFields { executable: note }, Mark::Plain).await
    }

    /// Records and counts that a definition is accepted, rejected or kept back; durable when it returns.
    ///
    /// # Errors
    /// [`Reason::RecordUnavailable`].
    pub async fn pinned(&self, note: &PinNote<'_>) -> Result<(), Failure> {
        self.metrics().pinned(note);
        let mark = note.epoch.map_or(Mark::Plain, |epoch| Mark::Epoch(epoch, None));
        self.note_durably("pin", &PinFields { pin: note }, mark).await
    }

    /// Records a revocation; durable when it returns.
    ///
    /// # Errors
    /// [`Reason::RecordUnavailable`]; the store holds it all the same.
    pub async fn revoked(&self, note: &RevocationNote<'_>) -> Result<(), Failure> {
        self.note_durably("revocation", &RevocationFields { revocation: note }, Mark::Epoch(note.epoch, note.nonce))
            .await
    }

    /// Records that rows raised the epoch; durable when it returns.
    ///
    /// # Errors
    /// [`Reason::RecordUnavailable`]; the store holds it all the same.
    pub async fn changed(&self, note: &ChangeNote<'_>) -> Result<(), Failure> {
        self.note_durably("change", &ChangeFields { change: note }, Mark::Epoch(note.epoch, note.nonce)).await
    }

    /// Records a reload, whether it was loaded or not; durable when it returns.
    ///
    /// # Errors
    /// [`Reason::RecordUnavailable`].
    pub async fn reloaded(&self, note: &ReloadNote<'_>) -> Result<(), Failure> {
        let mut parts = ReloadFields::parts(note);
        loop {
            let some: Vec<_> = parts.by_ref().take(limit::RECORD_RELOAD_LINES_AT_ONCE).collect();
            if some.is_empty() {
                return Ok(());
            }
            // In their order, and made durable together.
            let told = some.iter().map(|part| self.note_durably("reload", part, Mark::Plain));
            futures_util::future::try_join_all(told).await?;
            tokio::task::yield_now().await;
        }
    }

    /// Records and counts an administrator's operation; durable when it returns.
    ///
    /// # Errors
    /// [`Reason::RecordUnavailable`].
    pub async fn administered(&self, note: &AdminNote<'_>, who: Option<&Who>) -> Result<(), Failure> {
        if note.outcome != "begun" {
            self.metrics().administered(note);
        }
        if let Some(reason) = note.reason {
            self.metrics().refused(reason);
        }
        if !note.brakes && self.0.shared.spares() {
            let left = "what room is left is for taking something back and for the ends of calls";
            return Err(Failure::before(Reason::RecordUnavailable, left));
        }
        let header = Header { who, ..self.header("admin", None) };
        self.write_durably(header, &AdminFields { admin: note }, Mark::Plain).await
    }

    /// Records that a request was handed to another replica, and counts why it could not be. Never waits.
    pub fn handed_on(&self, who: &Who, note: &RelayNote<'_>) {
        if let Some(reason) = note.reason {
            self.metrics().refused(reason);
        }
        let header = Header { who: Some(who), ..self.header("relay", None) };
        self.write(header, &RelayFields { relay: note }, Mark::Plain);
    }

    /// Records a call that stops before it is forwarded, as `refusal` or `failure`. Never waits.
    pub fn stopped(&self, attempt: &Attempt<'_>, stop: &Stop) {
        self.metrics().refused(stop.reason());
        if stop.reason() == Reason::RecordUnavailable && self.0.shared.spares() {
            return;
        }
        let kind = match stop {
            Stop::Refused(_) => "refusal",
            Stop::Failed(_) => "failure",
        };
        let fields = CallFields::stopped(attempt, stop);
        self.write(self.header_of(kind, attempt), &fields, Mark::Closes(attempt.leg));
    }

    /// Records what a filtered list showed. Never waits.
    pub fn listed(&self, attempt: &Attempt<'_>, listing: &Listing) {
        let fields = CallFields::list(attempt, listing);
        self.write(self.header_of("list", attempt), &fields, Mark::Plain);
    }

    /// Whether intents are taken: part of readiness.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.0.shared.is_well()
    }

    /// Writes everything that is queued and a last line; nothing is taken afterwards.
    ///
    /// # Errors
    /// [`Reason::RecordUnavailable`] when the last line could not be made durable.
    pub async fn stop(&self, cause: &str) -> Result<(), Failure> {
        self.write_noise();
        let stop = StopFacts { cause };
        let stopped = self.note_durably("stop", &StopFields { stop }, Mark::Plain).await;
        self.0.shared.close();
        let thread = lock(&self.0.thread).take();
        if let Some(thread) = thread {
            // The thread ends after one last sync.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        // Everything is written; what is signed last covers it.
        self.0.ledger.stop();
        let thread = lock(&self.0.ledger_thread).take();
        if let Some(thread) = thread {
            let ended = tokio::task::spawn_blocking(move || thread.join());
            if tokio::time::timeout(limit::LEDGER_STOP_MAX, ended).await.is_err() {
                tracing::error!("the last checkpoint was not made in time; it is made at the next start");
            }
        }
        stopped
    }

    /// The latest checkpoint from now on, where this process signs any; ends with the last one, at the end of
    /// [`Journal::stop`].
    #[must_use]
    pub fn checkpoints(&self) -> Option<watch::Receiver<Option<CheckpointNote>>> {
        self.0.checkpoints.clone()
    }

    /// How far the record has come, for those who hand it on.
    #[must_use]
    pub fn written(&self) -> Written {
        Written::of(Arc::clone(&self.0.position))
    }

    pub(super) fn noise(&self) -> &Noise {
        &self.0.noise
    }

    /// Digests with that key from now on, and signs with these from the next checkpoint on.
    pub fn exchange_keys(&self, key: JournalKey, signs: CheckpointKeys) {
        self.0.key.exchange(key);
        self.0.ledger.exchange(signs);
    }

    /// The key for digests.
    pub(super) fn key(&self) -> &Current {
        &self.0.key
    }

    /// Whose record it is.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.0.replica
    }

    /// Where it is counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.shared.metrics
    }

    /// Sees to it that what was intended is written.
    pub(super) async fn write_here(&self) {
        self.0.shared.write_here().await;
    }

    pub(super) fn intend(&self, intent: &Intent<'_>) -> Result<Settled, Stop> {
        let open = OpenLeg { call: intent.attempt.call, leg: intent.attempt.leg };
        let header = self.header_of("intent", &intent.attempt);
        let key = self.0.key.now();
        let fields = CallFields::intent(intent, &key);
        scratch(|body| match line::body(body, header, &fields) {
            Ok(()) => self
                .0
                .shared
                .push_urgent(body, Mark::Opens(open))
                .ok_or_else(|| unavailable("the journal cannot be written, or its queue is full")),
            Err(error) => {
                tracing::error!(%error, "defect: an intent is refused");
                Err(unavailable("the intent does not fit into a line"))
            }
        })
    }

    pub(super) fn ended(&self, call: CallId, leg: LegId, result: ResultFacts<'_>) {
        self.note("result", Some((call, leg)), &ResultFields { result }, Mark::Closes(leg));
    }

    /// Writes a line about whoever did something. Never waits.
    pub(super) fn tell(
        &self,
        kind: &'static str,
        of: Option<(CallId, LegId)>,
        who: Option<&Who>,
        fields: &impl Serialize,
        mark: Mark,
    ) {
        self.write(Header { who, ..self.header(kind, of) }, fields, mark);
    }

    fn note(&self, kind: &'static str, of: Option<(CallId, LegId)>, fields: &impl Serialize, mark: Mark) {
        self.write(self.header(kind, of), fields, mark);
    }

    fn write(&self, header: Header<'_>, fields: &impl Serialize, mark: Mark) {
        scratch(|body| match line::body(body, header, fields) {
            Ok(()) => self.0.shared.push(body, mark),
            Err(error) => {
                self.metrics().journal_dropped.inc();
                tracing::error!(%error, "defect: a record is lost");
            }
        });
    }

    pub(super) async fn note_durably(
        &self,
        kind: &'static str,
        fields: &impl Serialize,
        mark: Mark,
    ) -> Result<(), Failure> {
        self.write_durably(self.header(kind, None), fields, mark).await
    }

    async fn write_durably(&self, header: Header<'_>, fields: &impl Serialize, mark: Mark) -> Result<(), Failure> {
        let kind = header.kind;
        let waiting = scratch(|body| match line::body(body, header, fields) {
            Ok(()) => self.0.shared.push_urgent(body, mark),
            Err(error) => {
                tracing::error!(%error, "defect: a record is lost");
                None
            }
        });
        let failed = || Failure::before(Reason::RecordUnavailable, format!("the record of type {kind} is not durable"));
        let waiting = waiting.ok_or_else(failed)?;
        self.write_here().await;
        if waiting.await { Ok(()) } else { Err(failed()) }
    }

    fn header(&self, kind: &'static str, of: Option<(CallId, LegId)>) -> Header<'_> {
        Header { replica: &self.0.replica, kind, of, who: None }
    }

    fn header_of<'a>(&'a self, kind: &'static str, attempt: &Attempt<'a>) -> Header<'a> {
        Header { who: Some(attempt.who), ..self.header(kind, Some((attempt.call, attempt.leg))) }
    }

    /// Writes the counts once an interval, for as long as the journal is in use.
    fn count_noise(&self) {
        let handle = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(limit::NOISE_INTERVAL);
            loop {
                interval.tick().await;
                let Some(handle) = handle.upgrade() else { break };
                Self(handle).write_noise();
            }
        });
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
        self.ledger.stop();
    }
}
