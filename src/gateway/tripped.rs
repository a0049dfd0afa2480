//! What becomes of tasks and tools that trip the breaker: they are ended or closed, and whoever answers for them is told.
//!
//! Decides whom that is. Refuses to know what trips. Invariants: no call waits for it; what was done is on the record,
//! whether or not anybody could be told.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Gateway;
use super::lifecycle::BREAKER;
use crate::catalog::Target;
use crate::guard::breaker::Closed;
use crate::ids::MandateId;
use crate::limit;
use crate::outbox;
use crate::outcome::{Failure, Reason};
use crate::record::mandated::LifecycleNote;
use crate::shelf::{Shelf as _, Tell};

impl Gateway {
    /// Ends a task because of what happened to its calls, in the background, and tells whoever answers for its agent.
    pub fn end_tripped(self: &Arc<Self>, id: MandateId, why: String) {
        let gateway = Arc::clone(self);
        tokio::spawn(async move {
            // What the breaker counted is forgotten: what cannot be kept now is tried again.
            for pause in limit::BREAKER_RETRY_PAUSES {
                match gateway.end_mandate(&id, BREAKER, &why).await {
                    Ok(status) => {
                        gateway.journal().metrics().breaker_tripped("mandate");
                        let (config, mandate) = (gateway.config(), status.mandate);
                        let agent = mandate.agent.as_ref().and_then(|agent| config.agents.get(agent));
                        let about = json!({
                            "kind": "mandate", "mandate": id.as_str(), "agent": mandate.agent,
                            "owner": agent.map(|agent| &agent.owner), "opener": mandate.opener, "why": why,
                        });
                        return gateway.told_tripped(&about).await;
                    }
                    // It may have been ended a moment before.
                    Err(stop) if matches!(stop.reason(), Reason::MandateEnded | Reason::MandateUnknown) => return,
                    Err(stop) => {
                        tracing::error!(mandate = %id, why, %stop, "the breaker tripped; the task is not ended yet");
                    }
                }
                tokio::time::sleep(pause).await;
            }
        });
    }

    /// Tells that a tool was closed because of what happened to its calls, in the background.
    pub fn tell_of_closed(self: &Arc<Self>, target: &Target, closed: Closed) {
        let (gateway, server) = (Arc::clone(self), Arc::clone(target.server()));
        let tool = format!("{}/{}", server.id, target.name());
        tokio::spawn(async move {
            gateway.journal().metrics().breaker_tripped("tool");
            let (owner, why) = (server.owner.as_str(), closed.why.as_str());
            tracing::warn!(tool, owner, why, "the tool was closed");
            let note = LifecycleNote {
                event: "suspended",
                kind: "tool",
                id: &tool,
                owner,
                actor: BREAKER,
                subject: None,
                note: why,
                epoch: None,
            };
            if let Err(failure) = gateway.journal().lived(&note).await {
                tracing::error!(tool, %failure, "that a tool was closed is not on the record");
            }
            if closed.is_news {
                gateway.told_tripped(&json!({ "kind": "tool", "tool": tool, "owner": owner, "why": why })).await;
            }
        });
    }

    async fn told_tripped(&self, about: &Value) {
        let config = self.config();
        let told = async {
            let changes =
                outbox::told(&config.webhooks, outbox::Event::BreakerTripped, about, self.store.clock_us().await?);
            if !changes.is_empty() {
                self.store.change(changes, Tell::Nobody).await?;
            }
            Ok::<_, Failure>(())
        };
        if let Err(failure) = told.await {
            tracing::warn!(%failure, %about, "nobody is told elsewhere what the breaker stopped");
        }
    }
}
