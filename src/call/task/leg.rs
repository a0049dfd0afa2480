//! One request about a task: the pipeline again, door to door, for the tool whose call became it.
//!
//! Decides nothing but the order of the rooms, as a call does. Invariant: a task is asked about only where
//! its caller still stands, is still shown the tool, and the intent is on the record, however often.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;

use super::super::bound;
use super::super::declared::{askable_at, declared};
use super::super::input::Asking;
use super::super::retry::Retry;
use super::super::{ClientFacts, Endpoint, Halt, Request, Trail, mandate};
use super::handle::Handle;
use super::listen::LISTEN;
use super::offer;
use crate::config::ServerConfig;
use crate::delegate::{Grant, Leg, attempt};
use crate::gateway::Gateway;
use crate::guard::{Charge, Wanted};
use crate::identity::Caller;
use crate::ids::{ParkId, ProcessId, RevocationEpoch};
use crate::outcome::{Failure, Outcome, Reason, Refusal};
use crate::record::Entry;
use crate::telemetry::Trace;
use crate::upstream::{Event, Exchange};
use crate::wire::mcp::{Kind, meta};
use crate::wire::{Askable, Edit, InputKind, Json, Object, Outgoing, Value};

/// Whose task it is, and what was said of the client that asked first.
#[derive(Clone)]
pub struct Bearer {
    pub gateway: Arc<Gateway>,
    pub caller: Caller,
    pub endpoint: Endpoint,
    pub client: ClientFacts,
    pub headers: Vec<(String, String)>,
    pub handle: Handle,
    /// Those of the call, while it is still known.
    pub arguments: Option<Json>,
    /// The request for approval that the call has used: its user's answers go on with that.
    pub used: Option<String>,
}

/// What is asked about a task.
pub struct Question<'a> {
    pub method: &'a str,
    /// The client's own parameters, where it asks itself.
    pub own: Option<Object<'a>>,
    /// What the user answered, where the task had asked.
    pub answered: Option<Answered<'a>>,
    /// What the user answered to a task that is followed by its client, and what waits for that.
    pub told: Option<Told>,
}

/// Answers that go to whatever waits for them.
#[derive(Clone)]
pub struct Told {
    pub parked: ParkId,
    /// What was asked.
    pub asked: Json,
    pub answers: Json,
}

/// Answers to what a task asked.
pub struct Answered<'a> {
    /// The method whose question it was.
    pub begun_with: &'static str,
    pub retry: &'a Retry,
    pub answers: Json,
}

impl<'a> Question<'a> {
    /// Without anything of the client's.
    pub const fn plain(method: &'a str) -> Self {
        Self { method, own: None, answered: None, told: None }
    }

    /// Whether anything of the client's goes to the server beside the name of the task: that may be what it has seen.
    fn answers(&self) -> bool {
        let is_more = |(name, _): (Cow<'_, str>, Value<'_>)| !matches!(&*name, "taskId" | "_meta");
        let brings = self.method != LISTEN && self.own.is_some_and(|own| own.members().any(is_more));
        brings || self.answered.is_some() || self.told.is_some()
    }
}

impl Bearer {
    /// Of the request that a caller just made.
    pub fn new(gateway: &Arc<Gateway>, caller: &Caller, request: &Request, handle: Handle) -> Self {
        Self {
            gateway: Arc::clone(gateway),
            caller: caller.clone(),
            endpoint: request.endpoint.clone(),
            client: request.client.clone(),
            headers: request.headers.clone(),
            handle,
            arguments: None,
            used: None,
        }
    }

    /// Opens a request about the task.
    pub async fn open(&self, question: &Question<'_>, trail: &mut Trail) -> Result<(Entry<Grant>, Exchange), Halt> {
        let (gateway, caller) = (&self.gateway, &self.caller);
        gateway.still_trusted(caller)?;
        let view = gateway.view(caller, &self.endpoint).await?;
        let item = view.own_item(self.handle.server(), Kind::Tool, self.handle.tool());
        // A tool that is gone, and a server that is another one now, have no tasks here.
        let target = item.map(|item| item.target()).filter(|target| self.handle.is_of(target));
        let target = target.ok_or_else(|| Refusal::new(Reason::TargetUnknown))?;
        trail.target = Some(target.clone());
        let permit = gateway.authorize_following(caller, target.clone()).map_err(Halt::denied)?;
        bound::has_task(gateway, permit.target().server(), &self.handle).await?;
        if let Some(answered) = &question.answered {
            answered.retry.check(answered.begun_with, target, self.arguments.as_ref())?;
        }
        if question.told.as_ref().is_some_and(|told| !self.may_be_asked(permit.target().server(), &told.asked)) {
            return Err(Refusal::new(Reason::InputRefused).into());
        }
        // A brake works whatever became of the mandate and whatever was seen; so it takes nothing of the client's along.
        let stops = question.method == "tasks/cancel";
        let bare = Question::plain(question.method);
        let outgoing = self.outgoing(if stops { &bare } else { question }, permit.target().server());
        let held = if stops { None } else { gateway.mandate(caller, None, self.handle.mandate()).await? };
        let now = gateway.snapshot();
        let wanted = Wanted {
            call: trail.leg.call,
            arguments: self.arguments.as_ref(),
            answers: question.answers(),
            gated: None,
            mandate: held.as_ref(),
            config: &now.config,
            policy: &now.policy,
            charge: Charge::Before,
            now_us: gateway.standing().now_us(),
        };
        let guard = gateway.guard();
        let cleared =
            if stops { guard.clear_stopping(permit, &wanted) } else { guard.clear_following(permit, &wanted).await }?;
        trail.mandate = held;
        let (leg, arguments) = (trail.leg.clone(), self.arguments.clone());
        let grant = gateway.delegate().delegate(cleared, leg, arguments, gateway.recheck()).await?;
        let mut entry = gateway.journal().open(grant, outgoing).await?;
        let parked = question.answered.as_ref().and_then(|answered| Some((answered.retry.parked()?, answered)));
        let exchange = match (parked, question.told.clone()) {
            (_, Some(told)) => gateway.upstreams().answer(&mut entry, told.parked, told.answers),
            (Some((parked, answered)), _) => gateway.upstreams().resume(&mut entry, parked, answered.answers.clone()),
            (None, None) => gateway.upstreams().forward(&mut entry),
        };
        Ok((entry, exchange))
    }

    /// Asks on the gateway's own account, and waits for the end; both are on the record.
    pub async fn ask(&self, method: &'static str) -> Outcome {
        self.ask_and(method, |_, outcome| outcome).await
    }

    /// The same, and makes something of the end while its grant is at hand.
    pub async fn ask_and(&self, method: &'static str, make: impl FnOnce(&Grant, Outcome) -> Outcome + Send) -> Outcome {
        match self.ask_until(method, std::future::pending::<Infallible>(), make).await {
            Ok(outcome) => outcome,
            Err(never) => match never {},
        }
    }

    /// Asks how the task is, for ourselves: what comes back is nobody's, and used up by no mandate.
    pub async fn look(&self) -> Outcome {
        match self.asked_until("tasks/get", false, std::future::pending::<Infallible>(), |_, outcome| outcome).await {
            Ok(outcome) => outcome,
            Err(never) => match never {},
        }
    }

    /// The same as asking, unless something else comes first; the request is cancelled then.
    pub async fn ask_until<T: Send>(
        &self,
        method: &'static str,
        until: impl Future<Output = T> + Send,
        make: impl FnOnce(&Grant, Outcome) -> Outcome + Send,
    ) -> Result<Outcome, T> {
        self.asked_until(method, true, until, make).await
    }

    async fn asked_until<T: Send>(
        &self,
        method: &'static str,
        is_counted: bool,
        until: impl Future<Output = T> + Send,
        make: impl FnOnce(&Grant, Outcome) -> Outcome + Send,
    ) -> Result<Outcome, T> {
        let leg = Leg::new(method, self.client.version).of_call(self.handle.call());
        let mut trail = Trail {
            leg,
            target: None,
            name: Some(self.handle.tool().to_owned()),
            mandate: None,
            trace: Trace::off(),
            again: false,
        };
        tokio::pin!(until);
        match self.open(&Question::plain(method), &mut trail).await {
            Ok((entry, mut exchange)) => loop {
                let event = tokio::select! {
                    biased;
                    event = exchange.next() => event,
                    first = &mut until => {
                        let given_up = Failure::after(Reason::Cancelled, "nobody waits for it any more");
                        entry.close(&Outcome::Failed(given_up));
                        return Err(first);
                    }
                };
                if let Event::Done(outcome) = event {
                    let outcome = settled(entry.proof(), outcome, self.gateway.revocation_epoch()).await;
                    if is_counted {
                        mandate::count(&self.gateway, entry.proof(), &outcome, false);
                    }
                    let outcome = make(entry.proof(), outcome);
                    entry.close(&outcome);
                    return Ok(outcome);
                }
            },
            Err(halt) => {
                let attempt = attempt(&self.caller, &trail.leg, trail.target.as_ref(), trail.name.as_deref());
                self.gateway.journal().stopped(&attempt, &halt.recorded);
                Ok(halt.told.into())
            }
        }
    }

    /// What the task asks its client, while something waits for the answer.
    pub fn asked(&self) -> Option<(ParkId, Json)> {
        let upstreams = self.gateway.upstreams();
        upstreams.asked_by_task(self.handle.server(), self.caller.principal(), self.own())
    }

    /// The server's own id of it, and the process that has it.
    fn own(&self) -> (&str, Option<ProcessId>) {
        (self.handle.task(), self.handle.process())
    }

    /// Whether the process that had it is gone, and the task with it.
    pub fn is_lost(&self) -> bool {
        let lives = |process| self.gateway.upstreams().lives(self.handle.server(), process);
        self.handle.process().is_some_and(|process| !lives(process))
    }

    /// Waits until the task asks something.
    pub async fn until_asked(&self) {
        let upstreams = self.gateway.upstreams();
        upstreams.until_task_asks(self.handle.server(), self.caller.principal(), self.own()).await;
    }

    /// Whether the client may be asked this now.
    fn may_be_asked(&self, server: &ServerConfig, asked: &Json) -> bool {
        let may = self.gateway.askable(&self.caller, server, self.declared());
        let requests = asked.value().as_object().and_then(|asked| asked.get("inputRequests"));
        let mut requests = requests.and_then(Value::as_object).into_iter().flat_map(|requests| requests.members());
        requests.all(|(_, request)| {
            let request = request.as_object();
            let method = request.and_then(|request| request.get("method")).and_then(Value::as_str);
            let params = request.and_then(|request| request.get("params")).and_then(Value::as_object);
            InputKind::of(&method.unwrap_or_default(), params).is_some_and(|kind| may.has(kind))
        })
    }

    /// Nobody answers any more what the task asked.
    pub fn give_up_asked(&self) {
        if let Some((parked, _)) = self.asked() {
            self.gateway.upstreams().abandon(parked);
        }
    }

    /// What the client said it can be asked.
    pub fn declared(&self) -> Askable {
        askable_at(&self.endpoint, &self.client.capabilities)
    }

    /// What a question of the task has to be looked at with.
    pub fn asking(&self) -> Asking<'_> {
        Asking::of(&self.client, &self.endpoint, self.declared())
    }

    /// What the server is shown: what it was shown when the task began.
    fn capabilities(&self, askable: Askable) -> Json {
        offer::offered(&self.client, declared(&self.client.capabilities, askable))
    }

    fn outgoing(&self, question: &Question<'_>, server: &ServerConfig) -> Outgoing {
        let askable = self.gateway.askable(&self.caller, server, self.declared());
        let empty = Json::of(&serde_json::Map::new());
        let params = question.own.or_else(|| empty.value().as_object());
        let own_meta = params.and_then(|params| params.get("_meta")).and_then(Value::as_object);
        let mut edits = vec![
            Edit::Set(meta::CLIENT_CAPABILITIES, self.capabilities(askable)),
            Edit::Remove(meta::PROGRESS_TOKEN),
            Edit::Remove(meta::PROTOCOL_VERSION),
            Edit::RemovePrefix(meta::OWN_PREFIX),
        ];
        if let Some(info) = &self.client.info {
            edits.push(Edit::Set(meta::CLIENT_INFO, info.clone()));
        }
        let own_meta = own_meta.or_else(|| empty.value().as_object()).map(|own| own.edited(&edits));
        let listens = question.method == "subscriptions/listen";
        let mut edits = Vec::new();
        // A listen names its tasks elsewhere, and in no header.
        if !listens {
            edits.push(Edit::Set("taskId", Json::of(self.handle.task())));
        }
        edits.extend(own_meta.map(|own| Edit::Set("_meta", own)));
        if let Some(answered) = &question.answered {
            edits.extend([Edit::Remove("requestState"), Edit::Set("inputResponses", answered.answers.clone())]);
        }
        Outgoing {
            method: question.method.to_owned(),
            params: params.map_or_else(|| empty.clone(), |params| params.edited(&edits)),
            name: (!listens).then(|| self.handle.task().to_owned()),
            header_parameters: Vec::new(),
            headers: self.headers.iter().filter(|(name, _)| server.forward_headers.contains(name)).cloned().collect(),
            progress_token: None,
            last_words: None,
            process: self.handle.process(),
        }
    }
}

/// What a task brings, once what others have put meanwhile into a store that it reads counts for its caller.
async fn settled(grant: &Grant, outcome: Outcome, epoch: RevocationEpoch) -> Outcome {
    match grant.labels().filter(|labels| labels.has_to_settle(epoch)) {
        Some(labels) => labels.settle(epoch).await.map_or_else(Outcome::Failed, |()| outcome),
        None => outcome,
    }
}
