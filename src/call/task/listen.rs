//! One task that a stream hears of: its server is listened to in the caller's name, and what it tells goes on
//! under our id.
//!
//! Decides when the listening is taken up again. Refuses to know streams toward clients. Invariant: every
//! listen was authorized and is on the record, each notification is looked at as an answer to `tasks/get` is,
//! and nobody hears of the task of a tool that was taken away.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::super::{ClientFacts, Endpoint, Trail};
use super::handle::Handle;
use super::leg::{Bearer, Question};
use super::shape::{self, Status};
use crate::catalog::{Target, TaskDialect};
use crate::delegate::{Grant, Leg, Tie, attempt};
use crate::gateway::Gateway;
use crate::guard::label::LabelUse;
use crate::identity::Caller;
use crate::limit;
use crate::outcome::{Outcome, Reason};
use crate::telemetry::Trace;
use crate::upstream::{Event, Exchange, PROGRESS_OF_2025, TASKS_OF_2025};
use crate::wire::mcp::{Era, meta};
use crate::wire::{Edit, Json, Message, Value, notification_without_own_keys};

/// One task that a stream hears of.
pub struct TaskTopic {
    bearer: Bearer,
    /// As the client spells it.
    id: String,
}

/// A listen that its server agreed to.
struct Open {
    exchange: Exchange,
    target: Target,
    /// What it brings has to count for its caller when it comes.
    is_labelled: bool,
    /// The credential that it hangs on.
    tie: Option<Tie>,
}

impl TaskTopic {
    /// The task of that id, if it is this caller's. One of 2025-11-25 is looked at where it is answered, or not at all.
    #[must_use]
    pub fn of(
        gateway: &Arc<Gateway>,
        caller: &Caller,
        endpoint: &Endpoint,
        client: &ClientFacts,
        id: &str,
    ) -> Option<Self> {
        let handle = Handle::open(gateway.sealer(), caller.principal(), id)?;
        let bearer = Bearer {
            gateway: Arc::clone(gateway),
            caller: caller.clone(),
            endpoint: endpoint.clone(),
            client: client.clone(),
            headers: Vec::new(),
            handle,
            arguments: None,
            used: None,
        };
        let elsewhere = bearer.handle.home().is_some_and(|home| home != gateway.standing().replica());
        let is_lost = elsewhere && bearer.handle.dialect() == TaskDialect::Experiment;
        (!is_lost).then(|| Self { bearer, id: id.to_owned() })
    }

    /// Listens, answers whether the server agreed, and tells for as long as this is polled and the task goes on.
    pub async fn follow(self, tell: mpsc::Sender<Message>, agreed: oneshot::Sender<bool>) {
        self.follow_from(tell, agreed, false).await;
    }

    /// The same for a task that was listened to a moment ago: what happened meanwhile is told as well.
    pub async fn follow_again(self, tell: mpsc::Sender<Message>, agreed: oneshot::Sender<bool>) {
        self.follow_from(tell, agreed, true).await;
    }

    async fn follow_from(self, tell: mpsc::Sender<Message>, agreed: oneshot::Sender<bool>, missed_some: bool) {
        // A legacy client looks itself, and hears what its server says meanwhile.
        if self.is_of_2025() && self.bearer.client.version.era() == Era::Modern {
            return super::observe::observe(self.bearer, self.id, tell, agreed).await;
        }
        let mut decisions = self.bearer.gateway.decisions();
        let Ok(mut open) = self.open().await else {
            let _ = agreed.send(false);
            return;
        };
        let _ = agreed.send(true);
        if missed_some && self.tell_as_asked(&tell).await {
            return;
        }
        let mut pause = limit::TASK_POLL_MIN;
        loop {
            if self.until_lost(&mut open, &tell, &mut decisions).await {
                return;
            }
            open = loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(limit::TASK_POLL_MAX);
                match self.open().await {
                    Ok(open) => break open,
                    Err(Outcome::Failed(failure)) if failure.reason != Reason::UpstreamGarbage => {}
                    // It was decided against, or the server does not tell of it any more.
                    Err(_) => return,
                }
            };
            pause = limit::TASK_POLL_MIN;
            // What happened meanwhile was told to nobody.
            if self.tell_as_asked(&tell).await {
                return;
            }
        }
    }

    /// Tells what the server tells; answers whether there is nothing more to hear of.
    async fn until_lost(
        &self,
        open: &mut Open,
        tell: &mpsc::Sender<Message>,
        decisions: &mut watch::Receiver<u64>,
    ) -> bool {
        // Decisions of others do not put it off.
        let silent = tokio::time::sleep(limit::SESSION_IDLE);
        tokio::pin!(silent);
        loop {
            tokio::select! {
                biased;
                changed = decisions.changed() => {
                    let gateway = &self.bearer.gateway;
                    let stands = gateway.still_trusted(&self.bearer.caller).is_ok()
                        && gateway.authorize_following(&self.bearer.caller, open.target.clone()).is_ok();
                    if changed.is_err() || !stands {
                        return true;
                    }
                    // What it is listened to with was taken back: whoever still may has another one, or none.
                    if let Some(tie) = &open.tie
                        && gateway.delegate().still_stands(tie).await.is_err()
                    {
                        return false;
                    }
                }
                // Whoever follows a task of 2025-11-25 asks for its end; the server need not tell of it.
                () = &mut silent, if self.is_of_2025() => return true,
                event = open.exchange.next() => match event {
                    Event::Notification(message) if self.is_told_by(&message) => {
                        silent.as_mut().reset(tokio::time::Instant::now() + limit::SESSION_IDLE);
                        if self.tell(&message, open.is_labelled, tell).await {
                            return true;
                        }
                    }
                    // As text of its server it is looked at where the task is asked for.
                    Event::Notification(message) if !open.is_labelled => {
                        if let Some(report) = self.report(&message) {
                            silent.as_mut().reset(tokio::time::Instant::now() + limit::SESSION_IDLE);
                            // That nobody reads it in time is no loss; what would wait for that here is.
                            if matches!(tell.try_send(report), Err(mpsc::error::TrySendError::Closed(_))) {
                                return true;
                            }
                        }
                    }
                    Event::Notification(_) | Event::StreamClosed => {}
                    Event::Done(_) => return false,
                },
            }
        }
    }

    /// Whether a server tells of this very task.
    fn is_told_by(&self, message: &Message) -> bool {
        message.method() == self.method()
            && message.params().and_then(shape::id).as_deref() == Some(self.bearer.handle.task())
    }

    /// How far the task is, under the token that its client gave for that.
    fn report(&self, message: &Message) -> Option<Message> {
        let params = message.params().filter(|_| message.method() == PROGRESS)?;
        let token = params.get(meta::PROGRESS_TOKEN).and_then(Value::as_str)?;
        let theirs = self.bearer.handle.clients_token()?;
        if self.bearer.handle.progress_token() != Some(&*token) {
            return None;
        }
        let told = Message::notification(PROGRESS, Some(&params.edited(&[Edit::Set(meta::PROGRESS_TOKEN, theirs)])));
        Some(super::without_id(notification_without_own_keys(told)))
    }

    /// Tells what the server told; answers whether that was the end, or nobody hears.
    async fn tell(&self, message: &Message, is_labelled: bool, tell: &mpsc::Sender<Message>) -> bool {
        let Some(task) = message.params() else { return false };
        // What it asks is decided where it is asked for, and so is what it brings counted.
        if is_labelled || task.get("inputRequests").is_some() {
            return self.tell_as_asked(tell).await;
        }
        if self.is_of_2025() {
            return self.pass_on(Outcome::Complete(shape::unasked(task, &self.id)), tell).await;
        }
        self.pass_on(super::shown(task, &self.id, None), tell).await
    }

    /// Asks how the task is and tells that.
    async fn tell_as_asked(&self, tell: &mpsc::Sender<Message>) -> bool {
        let (bearer, id) = (&self.bearer, &self.id);
        let shown = |grant: &Grant, outcome: Outcome| match &outcome {
            Outcome::Complete(result) => match result.value().as_object() {
                Some(task) if self.is_of_2025() => Outcome::Complete(shape::unasked(task, id)),
                Some(task) => super::detailed(bearer, grant, task, id),
                None => outcome,
            },
            _ => outcome,
        };
        self.pass_on(bearer.ask_and("tasks/get", shown).await, tell).await
    }

    async fn pass_on(&self, shown: Outcome, tell: &mpsc::Sender<Message>) -> bool {
        // What cannot be shown is not told: whoever asks for it hears why.
        let Outcome::Complete(task) = shown else { return false };
        let Some(task) = task.value().as_object() else { return false };
        let over = matches!(Status::of(task), Some(Status::Completed | Status::Failed | Status::Cancelled));
        let task = crate::wire::without_own_keys(task.edited(&[Edit::Remove("resultType")]));
        let sent = tell.send(super::without_id(Message::notification(self.method(), Some(&task)))).await;
        over || sent.is_err()
    }

    fn is_of_2025(&self) -> bool {
        self.bearer.handle.dialect() == TaskDialect::Experiment
    }

    /// What tells of it.
    fn method(&self) -> &'static str {
        if self.is_of_2025() { meta::TASK_STATUS } else { "notifications/tasks" }
    }

    /// Listens to the task; its server must say that it tells of it.
    async fn open(&self) -> Result<Open, Outcome> {
        let leg = Leg::new(LISTEN, self.bearer.client.version).of_call(self.bearer.handle.call());
        let mut trail = Trail {
            leg,
            target: None,
            name: Some(self.bearer.handle.tool().to_owned()),
            mandate: None,
            trace: Trace::off(),
            again: false,
        };
        let named = if self.is_of_2025() { TASKS_OF_2025 } else { "taskIds" };
        let token = self.bearer.handle.progress_token().filter(|_| self.is_of_2025());
        let token = token.map(|token| (PROGRESS_OF_2025, [token]));
        let wanted: BTreeMap<_, _> = token.into_iter().chain([(named, [self.bearer.handle.task()])]).collect();
        let wanted = Json::of(&serde_json::json!({ "notifications": wanted }));
        let question = Question { method: LISTEN, own: wanted.value().as_object(), ..Question::plain(LISTEN) };
        let (entry, mut exchange) = match self.bearer.open(&question, &mut trail).await {
            Ok(opened) => opened,
            Err(halt) => {
                let attempt = attempt(&self.bearer.caller, &trail.leg, trail.target.as_ref(), trail.name.as_deref());
                self.bearer.gateway.journal().stopped(&attempt, &halt.recorded);
                return Err(halt.told.into());
            }
        };
        let (target, tie) = (entry.proof().target().clone(), entry.proof().credential().tie());
        let is_labelled = entry.proof().labels().is_some_and(LabelUse::brings_something);
        let acknowledged = match exchange.next().await {
            Event::Notification(message) if message.method() == ACKNOWLEDGED => self.is_agreed(&message),
            Event::Notification(_) | Event::StreamClosed => false,
            Event::Done(outcome) => {
                entry.close(&outcome);
                return Err(outcome);
            }
        };
        // What was asked is answered; what is told from now on needs no place among the calls.
        entry.close(&Outcome::Complete(Json::of(&serde_json::Map::new())));
        if acknowledged { Ok(Open { exchange, target, is_labelled, tie }) } else { Err(super::unoffered()) }
    }

    fn is_agreed(&self, acknowledged: &Message) -> bool {
        let wanted = acknowledged.params().and_then(|params| params.get("notifications")).and_then(Value::as_object);
        let ids = wanted.and_then(|wanted| wanted.get("taskIds")).and_then(Value::as_array);
        ids.into_iter().flatten().any(|id| id.as_str().as_deref() == Some(self.bearer.handle.task()))
    }
}

pub(super) const LISTEN: &str = "subscriptions/listen";
const PROGRESS: &str = "notifications/progress";
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
