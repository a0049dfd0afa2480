//! A call that is made once more: its server went away in the middle, and an administrator has written that to do it
//! twice is to do it once.
//!
//! Decides which calls these are. Refuses to know why a server went away, and to believe it about its own tools.
//! Invariant: a call is made again once, through the whole pipeline, as another leg on the record; what a person
//! approved or answered is never used a second time.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Augmented, Mandated, Request, Running, Then, Tied, Trail, breaker, mandate, open};
use crate::delegate::{Grant, Leg, attempt};
use crate::gateway::Gateway;
use crate::guard::mandate::Held;
use crate::identity::Caller;
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason};
use crate::record::Entry;
use crate::telemetry::Trace;
use crate::upstream::Exchange;
use crate::wire::mcp::Method;

/// What a leg is once it was opened.
type Leading = (Entry<Grant>, Then, Exchange);

/// Whether a call is being made again.
#[derive(Default)]
pub(super) enum Again {
    /// It was made once.
    #[default]
    Once,
    /// It is opened anew; nothing where that was decided against.
    Opening(BoxFuture<'static, Option<Leading>>, Failure),
    /// It was, after it had failed like this.
    Twice(Failure),
}

impl Again {
    /// The end as the client is told: what happened to the call, and not only to its second leg. A leg that was never
    /// sent takes nothing back of what the first may have done.
    pub(super) fn told(&self, outcome: Outcome) -> Outcome {
        match (self, &outcome) {
            (Self::Twice(first), Outcome::Failed(failure)) if !failure.may_have_acted => Outcome::Failed(first.clone()),
            _ => outcome,
        }
    }
}

impl Running {
    /// Begins to make the call again where that may be done; else gives back what it got.
    pub(super) fn begun_again(&mut self, entry: Entry<Grant>, outcome: Outcome) -> Option<(Entry<Grant>, Outcome)> {
        let Outcome::Failed(failure) = &outcome else { return Some((entry, outcome)) };
        if !matches!(self.again, Again::Once) || !self.may_be_made_again(entry.proof(), failure) {
            return Some((entry, outcome));
        }
        let grant = entry.proof();
        let leg = Leg::new(&self.request.message.method(), self.request.client.version);
        let leg = leg.through(self.request.via).of_call(grant.leg().call);
        let opening = opening(Arc::clone(&self.gateway), grant.caller().clone(), self.request.clone(), leg);
        self.again = Again::Opening(opening, failure.clone());
        mandate::count(&self.gateway, grant, &outcome, self.then.is_first);
        breaker::ended(&self.gateway, grant, &outcome);
        entry.close(&outcome);
        None
    }

    /// Waits until a call that is made again was opened; its end, where it was not. Cancel-safe.
    pub(super) async fn made_again(&mut self) -> Option<Outcome> {
        let Again::Opening(opening, failure) = &mut self.again else { return None };
        let opened = opening.await;
        let failure = failure.clone();
        self.again = Again::Twice(failure.clone());
        match opened {
            Some((entry, then, exchange)) => {
                let grant = entry.proof();
                breaker::sent(&self.gateway, grant);
                self.mandate = grant.mandate().map(|held| Mandated::new(held, self.gateway.standing().now_us()));
                self.tied = Tied::of(grant);
                (self.entry, self.then, self.exchange) = (Some(entry), then, exchange);
                None
            }
            None => Some(Outcome::Failed(failure)),
        }
    }

    fn may_be_made_again(&self, grant: &Grant, failure: &Failure) -> bool {
        let went_away = matches!(failure.reason, Reason::UpstreamClosed | Reason::UpstreamSessionLost);
        let target = grant.target();
        let marked = target.server().idempotent.iter().any(|name| name == target.name());
        let params = self.request.message.params();
        let answers = |name| params.is_some_and(|params| params.get(name).is_some());
        failure.may_have_acted
            && went_away
            && marked
            && self.request.method == Method::CallTool
            && self.then.augmented == Augmented::No
            && grant.approval().is_none()
            && !answers("requestState")
            && !answers("inputResponses")
    }
}

/// The pipeline once more, for the same call.
fn opening(
    gateway: Arc<Gateway>,
    caller: Caller,
    request: Box<Request>,
    leg: Leg,
) -> BoxFuture<'static, Option<Leading>> {
    Box::pin(async move {
        tokio::time::sleep(limit::CALL_AGAIN_PAUSE).await;
        let mut trail = Trail { leg, target: None, name: None, mandate: None, trace: Trace::off(), again: true };
        match open(&gateway, &caller, &request, &mut trail).await {
            Ok(opened) => Some(opened),
            Err(halt) => {
                let mut attempt = attempt(&caller, &trail.leg, trail.target.as_ref(), trail.name.as_deref());
                attempt.mandate = trail.mandate.as_ref().map(Held::facts);
                gateway.journal().stopped(&attempt, &halt.recorded);
                None
            }
        }
    })
}
