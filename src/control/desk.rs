//! The way of every order, whichever door it came through: decided, read, weighed, carried out, recorded, answered.
//!
//! Decides in which order that happens. Refuses to know what the operations do. Invariants: nothing of an order is
//! read before the rules allow its operation; what gives something back is on the record before it is done; what was
//! begun is finished even if whoever ordered it hangs up; whatever happens leaves a record.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Request;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::actor::Actor;
use super::operations::Operations;
use super::{listener, problem};
use crate::identity::now_s;
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::{AdminOperation, Weight};
use crate::record::event::AdminNote;

/// An order whose operation is allowed, as it came.
pub(super) struct Order {
    pub(super) operations: Arc<dyn Operations>,
    pub(super) actor: Actor,
    /// What the path names.
    pub(super) name: Option<String>,
    /// The query, still encoded.
    pub(super) query: String,
    pub(super) body: Bytes,
}

/// An order that was understood and not yet carried out.
pub(super) struct Understood {
    /// How much it weighs, now that it is known what is ordered.
    pub(super) weight: Weight,
    /// What it is about, for the record.
    pub(super) about: String,
    pub(super) act: BoxFuture<'static, Result<Done, Stop>>,
}

/// What came of it.
pub(super) struct Done {
    pub(super) response: Response,
    /// `done`, or `refused` where nothing was changed and the answer says why.
    pub(super) outcome: &'static str,
    /// What came of it, for the record.
    pub(super) detail: String,
}

impl Done {
    /// It is done.
    pub(super) fn with(response: Response) -> Self {
        Self { response, outcome: "done", detail: String::new() }
    }
}

/// How an order is understood.
pub(super) type Understand = fn(Order) -> Result<Understood, Refusal>;

/// What is known of an order while it goes its way.
struct Way<'a> {
    operations: &'a Arc<dyn Operations>,
    actor: &'a Actor,
    operation: AdminOperation,
    rule: Option<String>,
    weight: Weight,
    about: String,
}

/// Sends an order on its way.
pub(super) async fn serve(
    operations: Arc<dyn Operations>,
    operation: AdminOperation,
    understand: Understand,
    actor: Actor,
    name: Option<String>,
    request: Request<Body>,
) -> Response {
    let (rule, weight, about) = (None, operation.weight(), String::new());
    let mut way = Way { operations: &operations, actor: &actor, operation, rule, weight, about };
    match way.walk(understand, name, request).await {
        Ok(response) => response,
        Err(stop) => {
            let outcome = if matches!(stop, Stop::Refused(_)) { "refused" } else { "failed" };
            if let Err(failure) = way.record(outcome, Some(&stop), "").await {
                tracing::error!(%failure, operation = operation.name(), "an operation that was not done is not on the record");
            }
            let config = operations.config().filter(|_| actor.of_token().is_some());
            listener::challenged(problem::stopped(&stop), &stop, config.as_ref())
        }
    }
}

impl Way<'_> {
    async fn walk(
        &mut self,
        understand: Understand,
        name: Option<String>,
        request: Request<Body>,
    ) -> Result<Response, Stop> {
        self.rule = self.actor.may(self.operations.as_ref(), self.operation)?;
        let (parts, body) = request.into_parts();
        let order = Order {
            operations: Arc::clone(self.operations),
            actor: self.actor.clone(),
            name,
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body: read(body).await?,
        };
        let Understood { weight, about, act } = understand(order)?;
        (self.about, self.weight) = (about, weight);
        if weight == Weight::Loosen {
            let config = self.operations.config();
            let admin = config.as_ref().and_then(|config| config.admin.as_ref());
            self.actor.may_loosen(admin, self.operation, now_s())?;
            self.record("begun", None, "").await?;
        }
        let done = to_the_end(act).await?;
        let recorded = self.record(done.outcome, None, &done.detail).await;
        match recorded {
            Ok(()) => Ok(done.response),
            // At three in the morning, with a full disk, one must still see what is wrong; what is done is done.
            Err(failure) if self.goes_on_unrecorded() => {
                tracing::error!(%failure, operation = self.operation.name(), "an operation is not on the record");
                Ok(done.response)
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Whether the answer is given although the record cannot be written: where it is needed to mend that, and where
    /// something was done that cannot be undone.
    fn goes_on_unrecorded(&self) -> bool {
        use AdminOperation::{
            Agents, Explain, Lift, Logs, Metrics, Policy, Reload, Revocations, Revoke, Servers, Shadow, Status,
        };
        match self.operation {
            Status | Servers | Metrics | Revoke | Revocations | Lift | Reload => true,
            Shadow | Logs | Explain | Agents | Policy => false,
        }
    }

    async fn record(&self, outcome: &'static str, stop: Option<&Stop>, detail: &str) -> Result<(), Failure> {
        let told = match stop {
            Some(Stop::Refused(refusal)) => &refusal.hint,
            Some(Stop::Failed(failure)) => failure.detail.as_str(),
            None => detail,
        };
        let refusing = stop.and_then(|stop| match stop {
            Stop::Refused(refusal) => refusal.rule.as_deref(),
            Stop::Failed(_) => None,
        });
        let note = AdminNote {
            operation: self.operation.name(),
            object: self.operation.object(),
            actor: &self.actor.name(),
            actor_kind: self.actor.kind(),
            brakes: self.weight == Weight::Brake,
            client: self.actor.client(),
            outcome,
            reason: stop.map(Stop::reason),
            rule: refusing.or(self.rule.as_deref()),
            about: &self.about,
            detail: told,
        };
        self.operations.administered(&note, self.actor.who()).await
    }
}

/// The whole body, bounded in bytes and time.
async fn read(body: Body) -> Result<Bytes, Refusal> {
    let collected = Limited::new(body, limit::CONTROL_BODY_BYTES_MAX).collect();
    match tokio::time::timeout(limit::BODY_READ_TIMEOUT, collected).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::new(Reason::BodyTooLarge)),
        Ok(Err(_)) => Err(Refusal::new(Reason::RequestInvalid).hint("the body ended too early")),
        Err(_) => Err(Refusal::new(Reason::RequestInvalid).hint("the body did not arrive in time")),
    }
}

/// Finishes what was begun even if whoever ordered it hangs up: half a reload serves two configurations, and a
/// revocation that is stored and not in force is none.
async fn to_the_end(act: BoxFuture<'static, Result<Done, Stop>>) -> Result<Done, Stop> {
    let ended = tokio::spawn(act).await;
    ended.unwrap_or_else(|error| Err(Failure::after(Reason::Internal, error.to_string()).into()))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_waited_for_so_long() {
        let first = futures_util::stream::once(async { Ok::<_, std::convert::Infallible>(Bytes::from_static(b"{")) });
        let body = Body::from_stream(first.chain(futures_util::stream::pending()));
        let began = tokio::time::Instant::now();
        assert_eq!(read(body).await.unwrap_err().reason, Reason::RequestInvalid);
        assert!(began.elapsed() >= limit::BODY_READ_TIMEOUT && began.elapsed() < 2 * limit::BODY_READ_TIMEOUT);
    }

    #[tokio::test]
    async fn a_body_is_as_large_as_it_may_be_and_not_larger() {
        let body = |bytes: usize| Body::from(vec![b' '; bytes]);
        assert_eq!(read(body(limit::CONTROL_BODY_BYTES_MAX)).await.unwrap().len(), limit::CONTROL_BODY_BYTES_MAX);
        let refusal = read(body(limit::CONTROL_BODY_BYTES_MAX + 1)).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::BodyTooLarge);
    }
}
