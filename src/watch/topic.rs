//! One resource that one stream hears of: decided at its start, at every change, and for every update.
//!
//! Decides when it is asked for again. Knows nothing of transports and eras. Invariant: what is subscribed to
//! was authorized and is on the record each time, and nobody hears of a resource that they may not subscribe to.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::call::declared::{askable_at, declared};
use crate::call::{ClientFacts, Endpoint, offered};
use crate::catalog::{Target, Wanted, is_confusing};
use crate::config::ServerConfig;
use crate::delegate::{Leg, Tie, attempt};
use crate::gateway::Gateway;
use crate::guard::Slot;
use crate::guard::approval::Place;
use crate::identity::Caller;
use crate::ids::Action;
use crate::limit;
use crate::outcome::{Outcome, Reason, Refusal, Stop};
use crate::policy::Ask;
use crate::upstream::{Subscription, Update, updated};
use crate::wire::mcp::meta;
use crate::wire::{Json, Message, Outgoing, Value};

/// One resource that one stream hears of.
pub(super) struct Topic {
    pub(super) gateway: Arc<Gateway>,
    pub(super) caller: Caller,
    pub(super) endpoint: Endpoint,
    pub(super) uri: String,
    pub(super) client: ClientFacts,
    pub(super) tell: mpsc::Sender<Message>,
    pub(super) opening: Arc<Semaphore>,
    /// The place among the principal's subscriptions.
    pub(super) _slot: Slot,
}

/// What is heard, and the credential that it hangs on.
struct Open {
    subscription: Subscription,
    tie: Option<Tie>,
}

/// Why there is no subscription: what the record says, and what the client is told, which may be less.
struct Halt {
    recorded: Outcome,
    told: Outcome,
}

impl<S: Into<Stop>> From<S> for Halt {
    fn from(stop: S) -> Self {
        let recorded = Outcome::from(stop.into());
        Self { told: recorded.clone(), recorded }
    }
}

impl Topic {
    /// Subscribes, answers how that went, and follows for as long as this is polled. A first attempt that comes to
    /// nothing is the end; one that was taken up is taken up again whenever it was lost.
    pub(super) async fn follow(self, first: oneshot::Sender<Outcome>) {
        let mut decisions = self.gateway.decisions();
        let mut open = match self.open().await {
            Ok(open) => open,
            Err(outcome) => {
                let _ = first.send(outcome);
                return;
            }
        };
        if first.send(nothing()).is_err() {
            // Nobody waited for it so long: what happened meanwhile is not known.
            self.tell_of_it().await;
        }
        let mut pause = limit::SUBSCRIPTION_RETRY_MIN;
        loop {
            if self.until_lost(&mut open, &mut decisions).await.is_err() {
                return;
            }
            drop(open);
            open = loop {
                // A rule that came back, or a server.
                let changed = decisions.changed();
                if let Ok(Err(_)) = tokio::time::timeout(pause, changed).await {
                    return;
                }
                match self.open().await {
                    Ok(open) => break open,
                    // Asking again changes no decision; what does is heard.
                    Err(Outcome::Refused(_)) => pause = limit::SUBSCRIPTION_RETRY_MAX,
                    Err(_) => pause = (pause * 2).min(limit::SUBSCRIPTION_RETRY_MAX),
                }
            };
            pause = limit::SUBSCRIPTION_RETRY_MIN;
            self.tell_of_it().await;
        }
    }

    /// Passes updates on until there is nothing more to hear; an error when the gateway is gone.
    async fn until_lost(&self, open: &mut Open, decisions: &mut watch::Receiver<u64>) -> Result<(), ()> {
        let mut doubted = false;
        loop {
            if std::mem::take(&mut doubted) && !Box::pin(self.may_go_on(open)).await {
                return Ok(());
            }
            let used_until = open.tie.as_ref().and_then(Tie::used_until);
            tokio::select! {
                biased;
                changed = decisions.changed() => {
                    changed.map_err(drop)?;
                    doubted = true;
                }
                // Asked for anew before anything more is presented; what was heard meanwhile is not lost.
                () = until(used_until), if used_until.is_some() => match Box::pin(self.open()).await {
                    Ok(fresh) => open.tie = fresh.tie,
                    Err(_) => return Ok(()),
                },
                update = open.subscription.updated() => match update {
                    Some(Update::Told(message)) => self.pass_on(message).await,
                    Some(Update::Missed) => self.tell_of_it().await,
                    None => return Ok(()),
                },
            }
        }
    }

    /// An update of a part is an update of another resource, which has rules of its own.
    async fn pass_on(&self, message: Message) {
        let of = message.params().and_then(|params| params.get("uri")).and_then(Value::as_str);
        let heard = of.is_some_and(|of| *of == *self.uri || self.may_hear_of(&of));
        if heard {
            // An error says that the stream is over.
            let _ = self.tell.send(message).await;
        }
    }

    /// Something about it may have changed that was not heard.
    async fn tell_of_it(&self) {
        let _ = self.tell.send(updated(&self.uri)).await;
    }

    /// Whether the rules in force still allow it, and nobody took back the credential that it is heard with.
    async fn may_go_on(&self, open: &Open) -> bool {
        if !self.may_hear_of(&self.uri) {
            return false;
        }
        match &open.tie {
            Some(tie) => self.gateway.delegate().still_stands(tie).await.is_ok(),
            None => true,
        }
    }

    /// Whether the rules in force still allow it.
    fn may_hear_of(&self, uri: &str) -> bool {
        if self.gateway.still_trusted(&self.caller).is_err() {
            return false;
        }
        let Ok(view) = self.gateway.view_now(&self.caller, &self.endpoint) else { return false };
        let Ok(target) = view.resolve(Wanted::Subscribe(uri)) else { return false };
        self.gateway.authorize(&self.caller, target, None).is_ok()
    }

    /// The pipeline, as for every call; the answer is what the client is told.
    async fn open(&self) -> Result<Open, Outcome> {
        // Never closed, so there is always a turn to come.
        let _turn = self.opening.acquire().await;
        let leg = Leg::new("resources/subscribe", self.client.version);
        let mut found = None;
        match self.passed(&leg, &mut found).await {
            Ok(open) => Ok(open),
            Err(Halt { recorded, told }) => {
                if let Some(stop) = stop_of(recorded) {
                    let attempt = attempt(&self.caller, &leg, found.as_ref(), Some(&self.uri));
                    self.gateway.journal().stopped(&attempt, &stop);
                }
                Err(told)
            }
        }
    }

    async fn passed(&self, leg: &Leg, found: &mut Option<Target>) -> Result<Open, Halt> {
        let gateway = &self.gateway;
        // Before anything is looked up, so that a hidden server refuses the same URIs as one that is not there.
        if is_confusing(&self.uri) {
            return Err(Refusal::new(Reason::UriRefused).into());
        }
        let view = gateway.view(&self.caller, &self.endpoint).await?;
        let target = view.resolve(Wanted::Subscribe(&self.uri))?;
        *found = Some(target.clone());
        let permit = gateway.authorize(&self.caller, target.clone(), None).map_err(|denied| {
            // Who can read it knows that it exists.
            let visible = denied.visible || self.may_read(&target);
            let recorded = Outcome::from(Stop::from(denied.refusal));
            let told = if visible { recorded.clone() } else { Refusal::new(Reason::TargetUnknown).into() };
            Halt { recorded, told }
        })?;
        let now = gateway.snapshot();
        // A stream is no task that ends: whoever needs a mandate for what it does hears of nothing without one.
        let wanted = crate::guard::Wanted {
            call: leg.call,
            arguments: None,
            answers: false,
            gated: None,
            mandate: None,
            config: &now.config,
            policy: &now.policy,
            charge: crate::guard::Charge::Before,
            now_us: gateway.standing().now_us(),
        };
        let cleared = gateway.guard().clear_following(permit, &wanted).await?;
        let grant = gateway.delegate().delegate(cleared, leg.clone(), None, gateway.recheck()).await?;
        let tie = grant.credential().tie();
        let mut entry = gateway.journal().open(grant, self.outgoing(target.server())).await?;
        if self.caller.elevation().is_some() {
            let (approvals, place) = (gateway.guard().approvals(), Place::of(entry.proof().target()));
            approvals.alarm(&self.caller, &place, &gateway.config(), entry.call_id()).await;
        }
        let mut subscription = gateway.upstreams().subscribe(&mut entry);
        let outcome = subscription.opened().await;
        entry.close(&outcome);
        match outcome {
            Outcome::Complete(_) => Ok(Open { subscription, tie }),
            // The entry has recorded it already.
            told => Err(Halt { recorded: nothing(), told }),
        }
    }

    fn may_read(&self, target: &Target) -> bool {
        let now = self.gateway.snapshot();
        let class = now.policy.class_of(&self.caller);
        let (environment, server, name) = (target.environment(), target.server_id(), target.name());
        now.policy.visible(&class, &Ask { environment, server, name, action: &Action::Read })
    }

    /// What the client declares says in which session its own calls are, and so where its updates are heard.
    fn params(&self, server: &ServerConfig) -> Json {
        let capabilities = &self.client.capabilities;
        let askable = self.gateway.askable(&self.caller, server, askable_at(&self.endpoint, capabilities));
        let shown = offered(&self.client, declared(capabilities, askable));
        let (uri, meta) = (Json::of(&self.uri), meta::CLIENT_CAPABILITIES);
        Json::joined(format!(r#"{{"uri":{},"_meta":{{"{meta}":{}}}}}"#, uri.as_str(), shown.as_str()))
    }

    fn outgoing(&self, server: &ServerConfig) -> Outgoing {
        Outgoing {
            method: "resources/subscribe".to_owned(),
            params: self.params(server),
            name: None,
            header_parameters: Vec::new(),
            headers: Vec::new(),
            progress_token: None,
            last_words: None,
            process: None,
        }
    }
}

/// Until that second since 1970 has come.
async fn until(at: Option<i64>) {
    let ends_ms = at.unwrap_or(i64::MAX).saturating_mul(1_000);
    let left_ms = ends_ms.saturating_sub(jiff::Timestamp::now().as_millisecond());
    tokio::time::sleep(std::time::Duration::from_millis(u64::try_from(left_ms).unwrap_or(0))).await;
    // Never at once again, should another credential end as it is given.
    if left_ms <= 0 {
        tokio::time::sleep(limit::SUBSCRIPTION_RETRY_MIN).await;
    }
}

fn nothing() -> Outcome {
    Outcome::Complete(Json::of(&serde_json::Map::new()))
}

fn stop_of(outcome: Outcome) -> Option<Stop> {
    match outcome {
        Outcome::Refused(refusal) => Some(refusal.into()),
        Outcome::Failed(failure) => Some(failure.into()),
        _ => None,
    }
}
