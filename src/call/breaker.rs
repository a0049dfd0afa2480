//! Tells the breaker how calls go, and stops whoever trips it.
//!
//! Decides nothing. Invariant: no call waits for it.

use std::sync::Arc;

use super::Request;
use crate::delegate::Grant;
use crate::gateway::Gateway;
use crate::gateway::lifecycle::{BREAKER, Step};
use crate::guard::breaker::Watched;
use crate::identity::Caller;
use crate::ids::{Action, ServerId};
use crate::limit;
use crate::outcome::{Outcome, Stop};

/// A call was stopped before it was sent.
pub fn stopped(gateway: &Arc<Gateway>, caller: &Caller, stop: &Stop) {
    let Stop::Refused(refusal) = stop else { return };
    let config = gateway.config();
    let Some(who) = Watched::of(caller.persona(), &config) else { return };
    if let Some(why) = gateway.guard().breaker().refused(&who, refusal.reason, &config.breaker) {
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
        came(gateway, grant.caller(), grant.target().server_id(), outcome);
    }
}

/// What went on as a task is over. Of a call it is that call's end.
pub fn followed(gateway: &Arc<Gateway>, request: &Request, of: Option<&(Caller, ServerId)>, outcome: &Outcome) {
    if let Some((caller, server)) = of.filter(|_| !request.method.is_about_task()) {
        came(gateway, caller, server, outcome);
    }
}

fn came(gateway: &Arc<Gateway>, caller: &Caller, server: &ServerId, outcome: &Outcome) {
    let config = gateway.config();
    let Some(who) = Watched::of(caller.persona(), &config) else { return };
    if let Some(why) = gateway.guard().breaker().ended(&who, server, outcome, &config.breaker) {
        trip(gateway, who, why);
    }
}

fn trip(gateway: &Arc<Gateway>, who: Watched, why: String) {
    let gateway = Arc::clone(gateway);
    tokio::spawn(async move {
        gateway.journal().metrics().breaker_trips.inc();
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
