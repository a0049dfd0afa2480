//! Tells the breaker how calls go, and stops what trips it.
//!
//! Decides nothing. Invariant: no call waits for it.

use std::sync::Arc;

use super::Request;
use crate::catalog::Target;
use crate::delegate::Grant;
use crate::gateway::Gateway;
use crate::gateway::lifecycle::{BREAKER, Step};
use crate::guard::breaker::{End, Watched};
use crate::guard::mandate::Held;
use crate::identity::Caller;
use crate::ids::Action;
use crate::limit;
use crate::outcome::{Outcome, Stop};

/// What goes on as a task: whose call it was, of what, and under which mandate.
pub struct Followed {
    pub caller: Caller,
    target: Target,
    mandate: Option<Held>,
}

impl Followed {
    /// The same as the call from which it comes.
    pub fn of(grant: &Grant) -> Self {
        Self { caller: grant.caller().clone(), target: grant.target().clone(), mandate: grant.mandate().cloned() }
    }
}

/// A call was stopped before it was sent.
pub fn stopped(gateway: &Arc<Gateway>, caller: &Caller, mandate: Option<&Held>, stop: &Stop) {
    let Stop::Refused(refusal) = stop else { return };
    let (config, breaker) = (gateway.config(), gateway.guard().breaker());
    if let Some((id, why)) = mandate.and_then(|held| breaker.refused_under(held, refusal.reason, &config.breaker)) {
        gateway.end_tripped(id.clone(), why);
    }
    let Some(who) = Watched::of(caller.persona(), &config) else { return };
    if let Some(why) = breaker.refused(&who, refusal.reason, &config.breaker) {
        trip(gateway, who, why);
    }
}

/// A call was sent.
pub fn sent(gateway: &Arc<Gateway>, grant: &Grant) {
    let target = grant.target();
    // Servers list their tools and prompts. Resources they need not list: to read another one is nothing new.
    if !matches!(target.action(), Action::Call | Action::Get) {
        return;
    }
    let config = gateway.config();
    let who = Watched::of(grant.caller().persona(), &config).filter(|who| who.tries_nothing(&config));
    let Some(who) = who else { return };
    let tool = format!("{}/{}", target.server_id(), target.name());
    if gateway.guard().breaker().has_called(&who, &tool) {
        return;
    }
    let gateway = Arc::clone(gateway);
    tokio::spawn(async move {
        match gateway.guard().breaker().called(&who, &tool, &config.breaker).await {
            Ok(Some(why)) => trip(&gateway, who, why),
            Ok(None) => {}
            Err(failure) => tracing::warn!(%failure, "whether a tool is new to an agent is not known"),
        }
    });
}

/// A call is over.
pub fn ended(gateway: &Arc<Gateway>, grant: &Grant, outcome: &Outcome) {
    if !grant.is_following() {
        came(gateway, grant.caller(), grant.target(), grant.mandate(), outcome);
    }
}

/// What went on as a task is over. Of a call it is that call's end.
pub fn followed(gateway: &Arc<Gateway>, request: &Request, of: Option<&Followed>, outcome: &Outcome) {
    if let Some(Followed { caller, target, mandate }) = of.filter(|_| !request.method.is_about_task()) {
        came(gateway, caller, target, mandate.as_ref(), outcome);
    }
}

fn came(gateway: &Arc<Gateway>, caller: &Caller, target: &Target, mandate: Option<&Held>, outcome: &Outcome) {
    let Some(end) = End::of(outcome) else { return };
    let (config, breaker, server) = (gateway.config(), gateway.guard().breaker(), target.server_id());
    if let Some(closed) = breaker.tool_ended(target, caller, end, &config) {
        gateway.tell_of_closed(target, closed);
    }
    if let Some((id, why)) = mandate.and_then(|held| breaker.ended_under(held, server, end, &config.breaker)) {
        gateway.end_tripped(id.clone(), why);
    }
    let Some(who) = Watched::of(caller.persona(), &config) else { return };
    if let Some(why) = breaker.ended(&who, server, end, &config.breaker) {
        trip(gateway, who, why);
    }
}

fn trip(gateway: &Arc<Gateway>, who: Watched, why: String) {
    let gateway = Arc::clone(gateway);
    tokio::spawn(async move {
        gateway.journal().metrics().breaker_tripped("agent");
        // What the breaker counted is forgotten: what cannot be kept now is tried again.
        for pause in limit::BREAKER_RETRY_PAUSES {
            match gateway.step(&who.agent, who.subject.as_ref(), Step::Suspend, BREAKER, &why).await {
                Ok(()) => return,
                // Somebody may have stopped it a moment before.
                Err(stop @ Stop::Refused(_)) => {
                    tracing::warn!(agent = %who.agent, why, %stop, "the breaker tripped, and suspended nobody");
                    return;
                }
                Err(stop @ Stop::Failed(_)) => {
                    tracing::error!(agent = %who.agent, why, %stop, "the breaker tripped; the agent is not suspended yet");
                }
            }
            tokio::time::sleep(pause).await;
        }
    });
}
