//! Upstreams that are child processes: started when needed, one for each principal, never a shell.
//!
//! Decides when a process is started and in which era it is spoken to. Knows nothing of who calls beyond
//! the key of a principal, nor of how a process is held (`launch.rs`). Invariant: whoever has a process has it alone,
//! unless an administrator wrote that it is shared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::{Waiting, outliving};
use super::attribution::Unanswered;
use super::drive::{self, Patience};
use super::duplex::{Duplex, Holder};
use super::errand::{self, Errand, ServerFacts};
use super::exchange::Opened;
use super::gate::Permit;
use super::handover::{self, Counts, End, Hand};
use super::hidden::Hidden;
use super::launch::{Launched as Begun, Launcher, PrivateDirectory};
use super::link::Link;
use super::logging::{self, SessionLevel};
use super::pool::{Key, Lease, Pool, PoolFull};
use super::rest::Rests;
use super::server::{Parcel, Trouble};
use super::shape::Believed;
use super::{Access, process, shape, told};
use crate::config::TransportConfig;
use crate::delegate::Handed;
use crate::ids::ProcessId;
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason, Refusal};
use crate::wire::mcp::Era;
use crate::wire::{Askable, Json, Message};

/// One upstream that is reached over standard streams.
#[derive(Debug)]
pub(super) struct Stdio {
    pub(super) link: Arc<Link>,
    pub(super) processes: Pool<Running>,
    launcher: Launcher,
    rests: Rests,
    pub(super) counts: Counts,
    pub(super) started: handover::Started,
}

/// A process that has answered.
#[derive(Debug)]
pub(super) struct Running {
    /// Which life of a process it is.
    id: ProcessId,
    pub(super) process: Arc<Duplex>,
    pub(super) facts: ServerFacts,
    /// From which level on it was asked for log messages.
    level: SessionLevel,
    private: PrivateDirectory,
    /// What it was started with.
    pub(super) hand: Option<Hand>,
}

impl Holder for Lease<Running> {
    fn duplex(&self) -> &Duplex {
        &self.process
    }
}

impl Stdio {
    pub(super) fn new(link: Arc<Link>, launcher: Launcher) -> Self {
        let max = match &link.config.transport {
            TransportConfig::Stdio { process, .. } => process.instances_max,
            TransportConfig::Http { .. } => limit::PROCESSES_PER_SERVER_MAX,
        };
        let (rests, counts, started) = (Rests::default(), Counts::default(), handover::Started::default());
        let processes = Pool::with(max, limit::PROCESSES_PER_HOLDER_MAX);
        Self { link, processes, launcher, rests, counts, started }
    }

    /// One request, in the process of whoever asks.
    pub(super) async fn open(
        self: &Arc<Self>,
        parcel: &Parcel,
        patience: Patience,
        permit: &mut Option<Permit>,
    ) -> Result<Opened, Failure> {
        let mut tries = 0;
        let (answers, asker, id) = loop {
            let (askable, running) = match parcel.outgoing.process {
                None => {
                    let askable = self.askable(parcel).await?;
                    (askable, self.process_for(&parcel.access, askable).await?)
                }
                Some(process) => match self.this(process, &parcel.access)? {
                    Some(found) => found,
                    // None is started for it: what it made is gone, whatever another one has under the same name.
                    None => return Ok(Opened::Done(Refusal::new(Reason::TargetUnknown).into())),
                },
            };
            let id = running.id;
            if let Some(ids) = told::wanted(parcel, askable) {
                return Ok(told::by_peer(running, ids, patience).await);
            }
            if running.facts.era() == Era::Legacy
                && let Some(level) = logging::wanted(&parcel.outgoing.params)
                && running.facts.announces("logging", None)
                && running.level.lower(level)
            {
                // That there will be no messages is no failure of the call.
                let _ = self.greet(&running.process, Errand::set_log_level(level), Era::Legacy, &parcel.access).await;
            }
            let (waiting, message) = self.prepare(parcel, running.facts.era());
            let key = self.key(&parcel.access, askable);
            let unanswered = Unanswered::default();
            let shared = Arc::clone(running.shared());
            // Whoever only listens for changes of lists keeps nobody from their place.
            let stands_by = parcel.is_for_lists() && running.hand.is_some();
            let running = if stands_by { running.standing_by() } else { running };
            let asker = parcel.asker(&self.link, askable, Arc::clone(&running.process), permit, unanswered.clone());
            let asks = parcel.is_asked_within().then_some((askable, unanswered));
            match Duplex::ask(running, waiting, &message, permit.take(), asks) {
                Ok(answers) => break (answers, asker, id),
                Err(failure) => {
                    if shared.process.closed().is_some() {
                        self.processes.remove(&key, &shared);
                    }
                    tries += 1;
                    // It ended between two calls: nothing was sent, so another one may take this one.
                    if tries > 1 || failure.reason == Reason::UpstreamBusy {
                        return Err(failure);
                    }
                }
            }
        };
        Ok(drive::drive(answers, patience, patience.first_byte, asker).await.at(id))
    }

    /// This very process, if it lives and is whoever asks's, and what was declared to it.
    fn this(&self, process: ProcessId, access: &Access) -> Result<Option<(Askable, Lease<Running>)>, Failure> {
        let key = self.key(access, Askable::NOTHING);
        let found = self.processes.lease_this(&key, |running| running.is(process));
        if let (Some((_, running)), Some(handed)) = (&found, self.handed(access)?)
            && let Some(hand) = &running.hand
        {
            hand.renew(handed)?;
        }
        Ok(found)
    }

    /// What is declared to the process at its start, and so keeps processes apart. A modern one is told with each
    /// request what it may ask, so one is enough for all.
    pub(super) async fn askable(self: &Arc<Self>, parcel: &Parcel) -> Result<Askable, Failure> {
        if self.link.era().is_none() && Askable::of_params(&parcel.outgoing.params) != Askable::NOTHING {
            // The first one finds out which era it is, and whether it has tasks.
            self.process(&parcel.access).await?;
        }
        Ok(match self.link.era() {
            Some(Era::Modern) => Askable::NOTHING,
            _ if parcel.is_for_the_catalog() => self.home(&parcel.access),
            _ => parcel.askable(&self.link),
        })
    }

    fn prepare(&self, parcel: &Parcel, era: Era) -> (Waiting, Message) {
        let waiting = Waiting {
            id: self.link.next_id(),
            era,
            believed: Believed::of(era, || parcel.askable(&self.link)),
            theirs: parcel.outgoing.progress_token.clone(),
            outliving: outliving(&parcel.outgoing, parcel.leg, era),
            listening: parcel.listening,
            hub: Arc::clone(&self.link.hub),
            updates: None,
            asked: parcel.outgoing.params.clone(),
            awaits_task: parcel.outgoing.method == "tasks/result",
            beside: None,
            last_words: parcel.outgoing.last_words.clone(),
        };
        let parameters = shape::parameters(&parcel.outgoing, era, waiting.token().as_ref());
        let message = Message::request(&Json::of(&waiting.id), &parcel.outgoing.method, &parameters);
        (waiting, message)
    }

    fn key(&self, access: &Access, askable: Askable) -> Key {
        Key::of(access, self.link.config.isolation, askable)
    }

    /// What was declared to the process in which the calls of whoever asks are.
    fn home(&self, access: &Access) -> Askable {
        self.processes.latest(&self.key(access, Askable::NOTHING)).unwrap_or(Askable::NOTHING)
    }

    /// The process of whoever asks.
    pub(super) async fn process(self: &Arc<Self>, access: &Access) -> Result<Lease<Running>, Failure> {
        self.process_for(access, self.home(access)).await
    }

    /// The process of whoever asks; started if there is none that lives.
    pub(super) async fn process_for(
        self: &Arc<Self>,
        access: &Access,
        askable: Askable,
    ) -> Result<Lease<Running>, Failure> {
        let key = self.key(access, askable);
        let handed = self.handed(access)?;
        loop {
            let evict = |running: Arc<Running>| {
                let stdio = Arc::clone(self);
                tokio::spawn(async move { running.end(&stdio, End::Evicted).await });
            };
            match self.processes.lease(&key, self.start(access, askable, &key), evict).await {
                Ok(Ok(lease)) => {
                    if self.link.closing.is_cancelled() {
                        // It was started while all others were taken out of their places.
                        let (stdio, running) = (Arc::clone(self), Arc::clone(lease.shared()));
                        tokio::spawn(async move { running.end(&stdio, End::Closed).await });
                        return Err(Failure::before(
                            Reason::UpstreamUnreachable,
                            "the server was taken out of the configuration",
                        ));
                    }
                    if lease.process.closed().is_none() {
                        if self.link.era().is_none() {
                            self.link.learn_era(lease.facts.era());
                        }
                        if let (Some(hand), Some(handed)) = (&lease.hand, handed) {
                            hand.renew(handed)?;
                        }
                        return Ok(lease);
                    }
                    self.processes.remove(&key, lease.shared());
                }
                Ok(Err(failure)) => return Err(failure),
                Err(PoolFull) => return Err(Failure::before(Reason::UpstreamBusy, "all of its processes are in use")),
            }
        }
    }

    /// What the process of whoever asks is started with; nothing, where none of the server's is.
    fn handed<'a>(&self, access: &'a Access) -> Result<Option<&'a Arc<Handed>>, Failure> {
        let refuse = |detail: &str| Err(Failure::before(Reason::CredentialUnavailable, detail));
        let handed = access.credential.as_ref().and_then(|header| header.handed.as_ref());
        match (handover::way(&self.link.config), handed) {
            (None, _) if access.credential.is_some() => refuse("its processes get no credential"),
            (Some(_), None) => refuse("there is nobody whose credential it could be started with"),
            (Some(_), Some(handed)) if handed.lasts_for().is_some_and(|time| time.is_zero()) => {
                refuse("the use of the credential that it would be started with has ended")
            }
            (_, handed) => Ok(handed),
        }
    }

    /// Whether there is a process of whoever asks that lives.
    pub(super) fn lives(&self, access: &Access) -> bool {
        let held = self.processes.held(&self.key(access, self.home(access)));
        held.is_some_and(|running| running.process.closed().is_none())
    }

    async fn start(self: &Arc<Self>, access: &Access, askable: Askable, key: &Key) -> Result<Arc<Running>, Failure> {
        let handed = self.handed(access)?;
        let answerable = key.answerable();
        self.rests.check(answerable)?;
        let era = self.link.era();
        let started = match self.launch_and_greet(access, era, askable).await {
            // Some servers die of a message that they do not expect before `initialize`.
            Err(trouble) if era.is_none() && is_end(&trouble) => {
                self.launch_and_greet(access, Some(Era::Legacy), askable).await
            }
            other => other,
        };
        match started {
            Ok(running) => {
                self.link.learn_era(running.facts.era());
                self.link.answered();
                let running = Arc::new(running);
                self.counts.started();
                tracing::info!(
                    server = %self.link.config.id, with_credential = handed.is_some(), "a process was started"
                );
                tokio::spawn(watch_end(Arc::clone(self), Arc::clone(&running), answerable));
                if handed.is_some() {
                    self.started.enter(&running);
                    tokio::spawn(handover::look_after(Arc::clone(self), key.clone(), Arc::clone(&running)));
                }
                Ok(running)
            }
            // It may be for somebody's credential that it does not start, and others have another one.
            Err(trouble) if handed.is_some() => {
                self.rests.ended(answerable, Duration::ZERO, false);
                Err(trouble.into())
            }
            // One process that did not start says nothing of the others: whether any can be started is found out in
            // the background, with the gateway's own.
            Err(trouble) if !key.is_nobodys() => {
                self.rests.ended(answerable, Duration::ZERO, false);
                self.link.forget_era();
                self.link.lost.notify_one();
                Err(Failure { may_have_acted: false, ..Failure::from(trouble) })
            }
            Err(trouble) => {
                let failure = Failure::from(trouble);
                let found = self.link.unreachable(failure.detail);
                Err(Failure { reason: failure.reason, ..found })
            }
        }
    }

    async fn launch_and_greet(&self, access: &Access, era: Option<Era>, askable: Askable) -> Result<Running, Trouble> {
        let (process, private, hand) = self.launch(self.handed(access)?).await?;
        // Whatever ends this attempt, also that nobody waits any more, ends the process too.
        let mut launched = Launched(Some((process, private)));
        let process = launched.process()?;
        let facts = match era {
            Some(Era::Legacy) => self.initialize(&process, access, askable).await,
            Some(Era::Modern) => {
                ServerFacts::of_discover(self.greet(&process, Errand::discover(), Era::Modern, access).await)
            }
            None => {
                let mut discovered = self.greet(&process, Errand::discover(), Era::Modern, access).await;
                if errand::is_modern(&discovered) {
                    if matches!(discovered, Outcome::Error(_)) {
                        // It said which version it wants, and that is the one that we speak: once more.
                        discovered = self.greet(&process, Errand::discover(), Era::Modern, access).await;
                    }
                    ServerFacts::of_discover(discovered)
                } else {
                    self.initialize(&process, access, askable).await
                }
            }
        }?;
        let Some((process, private)) = launched.0.take() else {
            return Err(Failure::before(Reason::Internal, "a process was lost at its start").into());
        };
        Ok(Running { id: ProcessId::new(), process, facts, level: SessionLevel::new(), private, hand })
    }

    async fn initialize(
        &self,
        process: &Arc<Duplex>,
        access: &Access,
        askable: Askable,
    ) -> Result<ServerFacts, Trouble> {
        let greeted = self.greet(process, Errand::initialize(askable), Era::Legacy, access).await;
        let facts = ServerFacts::of_initialize(greeted)?;
        self.link.learn_tasks(&facts);
        let said = process.say(&Errand::initialized().notification());
        said.map_err(|()| Failure::after(Reason::UpstreamClosed, "the process does not read its input"))?;
        Ok(facts)
    }

    async fn greet(&self, process: &Arc<Duplex>, errand: Errand, era: Era, access: &Access) -> Outcome {
        let (waiting, message) = self.prepare(&errand.parcel(access), era);
        let patience = Patience::connect(&self.link.config.health);
        match Duplex::ask(Arc::clone(process), waiting, &message, None, None) {
            Ok(mut answers) => drive::outcome(&mut answers, patience).await,
            Err(failure) => Outcome::Failed(failure),
        }
    }

    async fn launch(
        &self,
        handed: Option<&Arc<Handed>>,
    ) -> Result<(Arc<Duplex>, PrivateDirectory, Option<Hand>), Failure> {
        let Begun { child, private, file, secrets } =
            self.launcher.start(&self.link.config, handed.map(AsRef::as_ref)).await?;
        let hand = handed.map(|handed| Hand::new(Arc::clone(handed), file));
        let hidden = Hidden::new(&secrets, hand.as_ref().map(Hand::given));
        Ok((process::adopt(Arc::clone(&self.link), child, hidden)?, private, hand))
    }

    /// Whether its program is there and can be held as it is to be, where nobody's process can be tried.
    pub(super) async fn could_start(&self) -> Result<(), Failure> {
        self.launcher.could_start(&self.link.config).await
    }
}

impl Running {
    /// Whether it is this very process, and lives.
    pub(super) fn is(&self, process: ProcessId) -> bool {
        self.id == process && self.process.closed().is_none()
    }

    /// Ends the process, and waits for that.
    pub(super) async fn end(&self, stdio: &Stdio, why: End) {
        if !self.process.was_dismissed() && self.process.closed().is_none() {
            stdio.counts.ended(why);
            tracing::info!(server = %stdio.link.config.id, why = why.as_str(), "a process is ended");
        }
        self.process.end().await;
        self.private.remove();
    }
}

/// A process that has not answered yet; ended when it is dropped.
struct Launched(Option<(Arc<Duplex>, PrivateDirectory)>);

impl Launched {
    fn process(&mut self) -> Result<Arc<Duplex>, Failure> {
        let process = self.0.as_ref().map(|(process, _)| Arc::clone(process));
        process.ok_or_else(|| Failure::before(Reason::Internal, "a process was lost at its start"))
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        let Some((process, private)) = self.0.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                process.end().await;
                private.remove();
            });
        }
    }
}

/// Whether the process itself ended, rather than not being started.
const fn is_end(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Failed(failure) if matches!(failure.reason, Reason::UpstreamClosed))
}

/// Notes that a process has ended, and how soon.
async fn watch_end(stdio: Arc<Stdio>, running: Arc<Running>, answerable: Option<crate::ids::Digest>) {
    let began = Instant::now();
    running.process.over.cancelled().await;
    let dismissed = running.process.was_dismissed();
    if !dismissed {
        stdio.counts.ended(End::ByItself);
        let why = running.process.closed().map(|failure| failure.detail).unwrap_or_default();
        tracing::info!(server = %stdio.link.config.id, lived = ?began.elapsed(), why, "a process has ended by itself");
    }
    stdio.rests.ended(answerable, began.elapsed(), dismissed);
}
