//! The life of a call, door to door: each line consumes the proof that the line above made.
//!
//! Everything with an effect or with data passes here: `tools/call`, `prompts/get`, `resources/read`,
//! `completion/complete`, and tasks that calls became. Decides only the order of the rooms. Invariant: what is
//! forwarded was authorized under the snapshot in force, and its intent is on the record.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;

mod again;
mod approval;
mod asked;
mod bound;
mod breaker;
pub mod declared;
mod extension;
mod halt;
mod input;
mod link;
mod mandate;
mod outside;
mod own;
mod retry;
mod task;
mod tied;
mod traced;
mod trail;
mod under_way;
mod waiting;

use again::Again;
use asked::Asked;
pub use bound::home;
pub use extension::is_routed;
use halt::{Halt, told};
use input::Asking;
use mandate::Mandated;
pub use mandate::named;
pub use outside::{report, roots_changed};
pub use own::shown as own_tools;
use retry::Retry;
use task::{After, Augmented};
pub use task::{Given as GivenTasks, TaskTopic, check as check_tasks, give_up, offered};
use tied::Tied;
use trail::Trail;
use under_way::{denied_since, is_unknown_target};

use crate::delegate::{Grant, Leg, attempt};
use crate::gateway::Gateway;
use crate::guard::mandate::Held;
use crate::guard::{Charge, Wanted};
use crate::identity::Caller;
pub use crate::ids::Endpoint;
use crate::inversion::{self, Control};
use crate::link::tool;
use crate::outcome::{Failure, Outcome, Reason, Refusal, Resume};
use crate::record::Entry;
use crate::telemetry::{Stage, Trace};
use crate::upstream::{Event, Exchange};
use crate::wire::mcp::{Method, Version};
use crate::wire::{Json, LastWords, Message};

/// What a client says of itself: with each request (modern) or once (legacy).
#[derive(Debug, Clone)]
pub struct ClientFacts {
    /// The version it speaks.
    pub version: Version,
    /// Its capabilities object.
    pub capabilities: Json,
    /// Its name and version; display only.
    pub info: Option<Json>,
    /// Log messages are wanted from this level on.
    pub log_level: Option<Json>,
}

/// One request as a front hands it in; headers and body were found to agree.
#[derive(Debug, Clone)]
pub struct Request {
    /// The message as it came.
    pub message: Message,
    /// Its method.
    pub method: Method,
    /// Where it came in.
    pub endpoint: Endpoint,
    /// What the client says of itself.
    pub client: ClientFacts,
    /// `mcp-param-*` headers of a modern request, lower-case names, decoded values; checked after authorization.
    pub header_parameters: Vec<(String, String)>,
    /// All other headers that some server's `forward_headers` names, lower-case names.
    pub headers: Vec<(String, String)>,
    /// The address it came from, behind trusted proxies.
    pub peer: IpAddr,
    /// The handle of the mandate that it is part of, where a header or `_meta` has one.
    pub mandate: Option<String>,
    /// The replica that handed it on.
    pub via: Option<crate::ids::ReplicaId>,
    /// Where a legacy client leaves its words should it cancel.
    pub last_words: Option<LastWords>,
}

/// One call of an authenticated caller.
pub async fn call(gateway: &Arc<Gateway>, caller: &Caller, request: Box<Request>) -> Box<Running> {
    // Subscribed before anything is decided, so that no revocation falls between the decision and the call.
    let decisions = gateway.decisions();
    let telemetry = gateway.telemetry();
    let trace = if telemetry.is_on() { telemetry.begin(traced::context(&request)) } else { Trace::off() };
    let leg = Leg::new(&request.message.method(), request.client.version).through(request.via);
    let mut trail = Trail { leg, target: None, name: None, mandate: None, trace, again: false };
    let gateway = Arc::clone(gateway);
    if let Some(tool) = own::named(&request) {
        let outcome = Box::pin(own::call(&gateway, caller, &request, tool, trail)).await;
        return Running::over(gateway, decisions, request, outcome);
    }
    if let Some(outcome) = task::at_once(&gateway, caller, &request, &trail.leg).await {
        return Running::over(gateway, decisions, request, outcome);
    }
    match open(&gateway, caller, &request, &mut trail).await {
        Ok((entry, then, exchange)) => {
            trail.about(caller);
            trail.trace.forwarding();
            let mandate = entry.proof().mandate().map(|held| Mandated::used(&gateway, held));
            let tied = Tied::of(entry.proof());
            breaker::sent(&gateway, entry.proof());
            Box::new(Running {
                gateway,
                entry: Some(entry),
                exchange,
                decisions,
                request,
                then,
                followed_for: None,
                mandate,
                tied,
                settling: None,
                again: Again::Once,
                trace: trail.trace,
            })
        }
        Err(halt) => {
            trail.about(caller);
            trail.trace.end(|| traced::stopped(&halt.recorded));
            let mut attempt = attempt(caller, &trail.leg, trail.target.as_ref(), trail.name.as_deref());
            attempt.mandate = trail.mandate.as_ref().map(Held::facts);
            gateway.journal().stopped(&attempt, &halt.recorded);
            breaker::stopped(&gateway, caller, trail.mandate.as_ref(), &halt.recorded);
            let asked = match halt.asks {
                Some(asks) => Some(*asks),
                None => approval::asked(&gateway, caller, &request, &trail, &halt.told).await,
            };
            let outcome = asked.unwrap_or_else(|| told(halt.told, &request, trail.name.as_deref()));
            Running::over(gateway, decisions, request, outcome)
        }
    }
}

/// The pipeline. The caller was authenticated by the front, which needs it for sessions and challenges.
async fn open(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    request: &Request,
    trail: &mut Trail,
) -> Result<(Entry<Grant>, Then, Exchange), Halt> {
    gateway.quotas().request(caller.principal())?;
    gateway.not_expired(caller)?;
    if request.method.is_about_task() {
        return Box::pin(task::open(gateway, caller, request, trail)).await;
    }
    let asked = Asked::read(request)?;
    trail.name = Some(asked.name.to_string());
    trail.leg.declared = asked.declared(request, gateway)?;
    let retry = Retry::read(asked.params(), gateway.sealer(), caller.principal())?;
    if let Some(retry) = &retry {
        trail.leg = trail.leg.clone().of_call(retry.call());
        Box::pin(bound::waits(gateway, retry)).await?;
    }
    let bound = retry.as_ref().and_then(Retry::mandate);
    trail.mandate = gateway.mandate(caller, request.mandate.as_deref(), bound).await?;

    let view = gateway.view(caller, &request.endpoint).await?;
    let target = match request.method {
        Method::Extension => extension::target(&gateway.snapshot(), caller, request, &view)?,
        _ => match view.resolve(asked.wanted()) {
            Ok(target) => target,
            Err(refusal) => {
                trail.target = view.withheld(asked.wanted());
                let withheld = trail.target.is_some().then(|| Refusal::new(Reason::DefinitionQuarantined));
                return Err(withheld.unwrap_or(refusal).into());
            }
        },
    };
    trail.leg.declared = asked.declared_to(request, &target, trail.leg.declared.as_ref())?;
    trail.target = Some(target.clone());
    let arguments = asked.arguments.map(|arguments| request.message.cut(arguments));
    if tool::is(&target) {
        return Err(Box::pin(link::tool(gateway, caller, request, trail, (&asked, retry.as_ref()))).await);
    }
    let situation = gateway.situation(caller, &target, trail.mandate.as_ref()).await?;
    let permit = gateway.authorize_within(caller, target, arguments.as_ref(), situation).map_err(Halt::denied)?;
    asked.check(permit.target(), request, (&trail.leg, retry.is_some()))?;

    let answers = match &retry {
        Some(retry) => {
            retry.check(&trail.leg.method, permit.target(), arguments.as_ref())?;
            Some(retry.answers(asked.params())?)
        }
        None => None,
    };
    let declared = declared::askable_at(&request.endpoint, &request.client.capabilities);
    let (sent, retried, answered) = (arguments.as_ref(), retry.as_ref(), answers.as_ref());
    let target = permit.target();
    let seeking =
        link::Seeking { target, arguments: sent, retry: retried, answers: answered, declared, for_more: false };
    link::sought(gateway, caller, trail, &seeking).await?;
    // What the gateway itself asked is answered here, and is no server's business.
    let answers = answers.filter(|_| !retry.as_ref().is_some_and(Retry::is_own));
    let askable = gateway.askable(caller, permit.target().server(), declared);
    let capabilities = task::offered(&request.client, declared::declared(&request.client.capabilities, askable));
    let augmented = Augmented::of(request, &view, permit.target());
    let round = retry.as_ref().map_or(0, Retry::round);
    let asking = Asking { round, ..Asking::of(&request.client, &request.endpoint, declared) };
    let config = approval::config(gateway, &permit);
    let gated = approval::gated(config.as_ref(), &trail.leg, arguments.as_ref(), retry.as_ref(), answers.as_ref());
    // What the gateway has asked itself is nothing that the server asked.
    let own = retry.as_ref().is_some_and(|retry| retry.approval().is_some());
    let (upstreams, answers) = if own { (None, None) } else { (retry.as_ref(), answers) };
    let retried = upstreams.zip(answers.as_ref());
    if retried.is_some()
        && let Some((entry, exchange)) = Box::pin(task::resume(gateway, caller, request, retried, trail)).await?
    {
        return Ok((entry, Then { asking, augmented, resumed: true, ..Then::default() }, exchange));
    }
    let answers = match answers {
        // A client may know beforehand what a server asks; where nothing may be asked there is nothing to answer. What
        // we asked ourselves is answered already, and whoever approves a call sees its arguments and no such answers.
        None if retry.is_none() && askable.is_any() && config.is_none() => retry::unasked(asked.params())?,
        answers => answers,
    };
    let outgoing = asked.outgoing(request, permit.target(), capabilities, augmented, upstreams, answers.as_ref());
    let charge = retry.as_ref().map_or(if trail.again { Charge::Before } else { Charge::Now }, Retry::charge);
    let now = gateway.snapshot();
    let wanted = Wanted {
        call: trail.leg.call,
        arguments: arguments.as_ref(),
        answers: answers.is_some(),
        mandate: trail.mandate.as_ref(),
        gated,
        config: &now.config,
        policy: &now.policy,
        charge,
        now_us: gateway.standing().now_us(),
    };
    let cleared = gateway.guard().clear(permit, wanted).await?;
    let outgoing = asked::as_cleared(outgoing, &cleared);
    let outgoing = traced::carried(outgoing, trail.trace.traceparent().as_deref());
    trail.trace.stage(Stage::Delegate);
    let grant = gateway.delegate().delegate(cleared, trail.leg.clone(), arguments, gateway.recheck()).await?;
    trail.trace.stage(Stage::Record);
    let mut entry = gateway.journal().open(grant, outgoing).await?;
    approval::alarm(gateway, caller, entry.proof().target(), entry.call_id()).await;
    trail.trace.stage(Stage::Forward);
    let exchange = match upstreams.and_then(Retry::parked).zip(answers) {
        Some((parked, answers)) => gateway.upstreams().resume(&mut entry, parked, answers),
        None => gateway.upstreams().forward(&mut entry),
    };
    Ok((entry, Then { asking, augmented, is_first: charge == Charge::Now, ..Then::default() }, exchange))
}

/// A call under way. Dropping it cancels the call, and records that nobody knows its end.
pub struct Running {
    gateway: Arc<Gateway>,
    /// `None` once the end is recorded.
    entry: Option<Entry<Grant>>,
    exchange: Exchange,
    decisions: watch::Receiver<u64>,
    request: Box<Request>,
    then: Then,
    /// Whose call it is and of what, once it goes on as a task that is followed for them.
    followed_for: Option<breaker::Followed>,
    /// The mandate that it is part of.
    mandate: Option<Mandated>,
    /// The credential that it hangs on.
    tied: Option<Tied>,
    /// How it ended, where something has to be looked at before anybody is told.
    settling: Option<Box<(Entry<Grant>, Outcome)>>,
    again: Again,
    /// What is told of it; a call that is dropped is told of as cancelled.
    trace: Trace,
}

/// What the end of a leg depends on besides its request.
#[derive(Debug, Clone, Copy, Default)]
struct Then {
    asking: Asking<'static>,
    augmented: Augmented,
    /// It answers what a task had asked that the gateway follows.
    resumed: bool,
    /// Nothing of its call was sent before.
    is_first: bool,
    /// The process that answered it.
    process: Option<crate::ids::ProcessId>,
}

impl Running {
    /// The next event; the last is [`Event::Done`]. Ends at once for a caller whose access is taken back.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Event {
        loop {
            if self.settling.is_some() {
                return Event::Done(self.settled().await);
            }
            if let Some(end) = self.made_again().await {
                self.trace.end(|| traced::ended(&end));
                return Event::Done(end);
            }
            // What streams without a pause must not keep this from being noticed.
            if self.answers_to().is_some() && self.decisions.has_changed().unwrap_or(false) {
                self.decisions.mark_unchanged();
                self.stop_if_revoked();
            }
            self.stop_if_over().await;
            let watched = self.answers_to().is_some();
            let ends = self.mandate.as_ref().map(Mandated::ends);
            let event = tokio::select! {
                biased;
                event = self.exchange.next() => event,
                Ok(()) = self.decisions.changed(), if watched => {
                    self.stop_if_revoked();
                    continue;
                }
                () = mandate::at(ends), if watched && ends.is_some() => {
                    self.stop(Reason::MandateEnded);
                    continue;
                }
            };
            match event {
                Event::Notification(message) => {
                    if let Some(told) = task::told(&self.gateway, self.answers_to(), &self.request, message) {
                        return Event::Notification(told);
                    }
                }
                Event::StreamClosed => return Event::StreamClosed,
                Event::Done(outcome) => {
                    let Some(entry) = self.entry.take() else {
                        breaker::followed(&self.gateway, &self.request, self.followed_for.as_ref(), &outcome);
                        return Event::Done(input::undecided(outcome));
                    };
                    let Some((entry, outcome)) = self.begun_again(entry, outcome) else { continue };
                    let then = Then { process: self.exchange.process(), ..self.then };
                    match task::after(&self.gateway, entry.proof(), &self.request, then, outcome) {
                        After::Deliver(outcome) => {
                            let epoch = self.gateway.revocation_epoch();
                            if entry.proof().labels().is_some_and(|labels| labels.has_to_settle(epoch)) {
                                self.settling = Some(Box::new((entry, outcome)));
                                continue;
                            }
                            let outcome = self.ended(entry, outcome);
                            self.trace.end(|| traced::ended(&outcome));
                            return Event::Done(outcome);
                        }
                        After::GoOn(recorded, exchange) => {
                            self.followed_for = Some(breaker::Followed::of(entry.proof()));
                            self.trace.end(|| traced::ended(&recorded));
                            mandate::count(&self.gateway, entry.proof(), &recorded, self.then.is_first);
                            entry.close(&recorded);
                            self.exchange = *exchange;
                        }
                    }
                }
            }
        }
    }

    /// The end of a call that read from a store, once what others have put there meanwhile counts for its caller.
    /// Begun anew where nobody waited for it.
    async fn settled(&mut self) -> Outcome {
        let labels = self.settling.as_ref().and_then(|settling| settling.0.proof().labels());
        let settled = match labels {
            Some(labels) => labels.settle(self.gateway.revocation_epoch()).await,
            None => Ok(()),
        };
        let settling = self.settling.take().map(|settling| *settling);
        let Some((entry, outcome)) = settling else { return Refusal::new(Reason::Internal).into() };
        let outcome = self.ended(entry, settled.map_or_else(Outcome::Failed, |()| outcome));
        self.trace.end(|| traced::ended(&outcome));
        outcome
    }

    fn ended(&self, entry: Entry<Grant>, outcome: Outcome) -> Outcome {
        let outcome = self.relayed(entry.proof(), outcome);
        mandate::count(&self.gateway, entry.proof(), &outcome, self.then.is_first);
        breaker::ended(&self.gateway, entry.proof(), &outcome);
        let is_listed = !self.request.method.is_about_task() && self.request.method != Method::Extension;
        if is_listed && is_unknown_target(&outcome) {
            self.gateway.catalog().doubted(entry.proof().target().server_id());
        }
        let instead = link::instead(&self.gateway, entry.proof(), &outcome);
        entry.close(&outcome);
        instead.unwrap_or_else(|| self.again.told(outcome))
    }
}

impl Running {
    /// An upstream's outcome as the client may see it: without questions that it may not be asked. Forged keys of
    /// ours went where the result came in.
    fn relayed(&self, grant: &Grant, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::InputRequired { result, resume, .. } => {
                input::relayed(&self.gateway, grant, self.then.asking, &result, resume)
            }
            Outcome::Error(error) => match input::required(&error) {
                Some(asked) => input::relayed(&self.gateway, grant, self.then.asking, &asked, Resume::default()),
                None => Outcome::Error(error),
            },
            other => other,
        }
    }

    /// Whose call is under way, if it is.
    fn answers_to(&self) -> Option<&Caller> {
        let followed = || self.followed_for.as_ref().map(|of| &of.caller);
        self.entry.as_ref().map(|entry| entry.proof().caller()).or_else(followed)
    }

    /// What has its end already.
    fn over(
        gateway: Arc<Gateway>,
        decisions: watch::Receiver<u64>,
        request: Box<Request>,
        outcome: Outcome,
    ) -> Box<Self> {
        Box::new(Self {
            gateway,
            entry: None,
            exchange: Exchange::finished(outcome),
            decisions,
            request,
            then: Then::default(),
            followed_for: None,
            mandate: None,
            tied: None,
            settling: None,
            again: Again::Once,
            trace: Trace::off(),
        })
    }

    /// The same once its mandate is over, or its credential was taken back, wherever that was done. Cancel-safe: what was
    /// not found out is looked for again.
    async fn stop_if_over(&mut self) {
        if let Some(tied) = &mut self.tied
            && let Some(reason) = tied.over(&self.gateway).await
        {
            return self.stop(reason);
        }
        if inversion::is_off(Control::TaskEnd) {
            return;
        }
        let Some(mandate) = self.mandate.as_ref().filter(|mandate| mandate.is_doubted()) else { return };
        let stands = self.gateway.still_mandated(mandate.held()).await;
        if let Some(mandate) = &mut self.mandate {
            mandate.looked();
        }
        if let Err(stop) = stands {
            self.stop(stop.reason());
        }
    }

    fn stop(&mut self, reason: Reason) {
        (self.mandate, self.tied) = (None, None);
        let failure = Failure::after(reason, "access was taken back while the call was under way");
        self.exchange = Exchange::finished(Outcome::Failed(failure));
    }

    /// Drops the exchange, which cancels it upstream, once its caller may not act any more, or nobody may there.
    fn stop_if_revoked(&mut self) {
        if let Some(mandate) = &mut self.mandate {
            mandate.doubt();
        }
        if let Some(tied) = &mut self.tied {
            tied.doubt();
        }
        let Some(caller) = self.answers_to() else { return };
        let barred =
            || self.entry.as_ref().is_some_and(|entry| self.gateway.is_barred(entry.proof().target().server_id()));
        if inversion::is_off(Control::Continuous) {
            return;
        }
        let revoked = match self.gateway.still_trusted(caller) {
            Err(refusal) => refusal.reason,
            Ok(()) if barred() => Reason::ServerRevoked,
            Ok(()) => match self.entry.as_ref().and_then(|entry| denied_since(&self.gateway, entry.proof())) {
                Some(reason) => reason,
                None => return,
            },
        };
        self.stop(revoked);
    }
}
