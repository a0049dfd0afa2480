//! The way of every order, whichever door it came through: decided, read, weighed, carried out, recorded, answered.
//!
//! Decides in which order that happens. Refuses to know what the operations do. Invariants: nothing of an order is
//! read before the rules allow its operation; nothing is done that the store would not keep, and nothing given back by
//! what may be old; what gives something back is on the record before it is done; what was begun is finished even if
//! whoever ordered it hangs up; whatever happens leaves a record.

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

/// Nothing was changed, and the answer says why.
pub(super) const REFUSED: &str = "refused";

/// What came of it.
pub(super) struct Done {
    pub(super) response: Response,
    /// `done`, or [`REFUSED`].
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
struct Way {
    operations: Arc<dyn Operations>,
    actor: Actor,
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
    let mut way = Way { operations, actor, operation, rule, weight, about };
    match way.understood(understand, name, request).await {
        Ok(act) => {
            let ended = tokio::spawn(async move {
                let done = way.walk(act).await;
                way.answered(done).await
            });
            ended.await.unwrap_or_else(|error| problem::stopped(&broken(&error)))
        }
        Err(stop) => way.answered(Err(stop)).await,
    }
}

impl Way {
    /// What is ordered, once that may be known: nothing of it was done.
    async fn understood(
        &mut self,
        understand: Understand,
        name: Option<String>,
        request: Request<Body>,
    ) -> Result<BoxFuture<'static, Result<Done, Stop>>, Stop> {
        self.rule = self.actor.may(self.operations.as_ref(), self.operation)?;
        let (parts, body) = request.into_parts();
        let order = Order {
            operations: Arc::clone(&self.operations),
            actor: self.actor.clone(),
            name,
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body: read(body).await?,
        };
        let Understood { weight, about, act } = understand(order)?;
        (self.about, self.weight) = (about, weight);
        Ok(act)
    }

    /// From the first record to the last, whoever hangs up: half a reload serves two configurations, a revocation that
    /// is stored and not in force is none, and what nobody can read of was done by nobody.
    async fn walk(&self, act: BoxFuture<'static, Result<Done, Stop>>) -> Result<Response, Stop> {
        self.operations.may_change(self.weight)?;
        if self.weight == Weight::Loosen {
            let config = self.operations.config();
            let admin = config.as_ref().and_then(|config| config.admin.as_ref());
            self.actor.may_loosen(admin, self.operation, now_s())?;
            self.record("begun", None, "").await?;
        }
        // A task of its own, so that a defect in it is told as well.
        let done = tokio::spawn(act).await.unwrap_or_else(|error| Err(broken(&error)))?;
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

    /// The answer; what stopped on its way is on the record as well.
    async fn answered(&self, walked: Result<Response, Stop>) -> Response {
        let stop = match walked {
            Ok(response) => return response,
            Err(stop) => stop,
        };
        let outcome = if matches!(stop, Stop::Refused(_)) { REFUSED } else { "failed" };
        if let Err(failure) = self.record(outcome, Some(&stop), "").await {
            let operation = self.operation.name();
            tracing::error!(%failure, operation, "an operation that was not done is not on the record");
        }
        let config = self.operations.config().filter(|_| self.actor.of_token().is_some());
        listener::challenged(problem::stopped(&stop), &stop, config.as_ref())
    }

    /// Whether the answer is given although the record cannot be written: where it is needed to mend that, and where
    /// something was done that cannot be undone.
    fn goes_on_unrecorded(&self) -> bool {
        use AdminOperation::{
            Agent, Agents, Approvals, Approve, Attest, BreakGlass, BreakGlassApprove, BreakGlassEnd, BreakGlassReview,
            Credentials, Declassify, Deny, Explain, Labels, Lift, Logs, Mandate, Mandates, Metrics, Pins, PinsAccept,
            PinsReject, Policy, Reload, Review, Reviews, Revocations, Revoke, Secrets, Server, Servers, Shadow,
            Standing, StandingRevoke, Status, Unlink, Vault,
        };
        match self.operation {
            Status | Servers | Metrics | Revoke | Revocations | Credentials | Lift | Reload | PinsAccept
            | PinsReject | Unlink | Agent | Server | Mandate | Approve | Deny | Declassify | Standing
            | StandingRevoke | BreakGlass | BreakGlassApprove | BreakGlassEnd | BreakGlassReview => true,
            Shadow | Logs | Explain | Agents | Policy | Pins | Secrets | Vault | Mandates | Reviews | Review
            | Attest | Approvals | Labels => false,
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
            // What was refused takes nothing back, and whoever is refused fills no disk.
            brakes: self.weight == Weight::Brake && outcome != REFUSED,
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

/// A defect, which ended what was begun.
fn broken(error: &tokio::task::JoinError) -> Stop {
    Failure::after(Reason::Internal, error.to_string()).into()
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;
    use crate::control::tests::Recorder;

    #[tokio::test]
    async fn whoever_hangs_up_leaves_a_record_all_the_same() {
        fn slow(_: Order) -> Result<Understood, Refusal> {
            let act = async {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                Ok(Done::with(Response::default()))
            };
            Ok(Understood { weight: Weight::Brake, about: "all".to_owned(), act: Box::pin(act) })
        }
        let recorder = Arc::new(Recorder::default());
        let served = serve(
            Arc::<Recorder>::clone(&recorder),
            AdminOperation::Revoke,
            slow,
            Actor::host(0),
            None,
            Request::new(Body::empty()),
        );
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), served).await.is_err(), "hung up");
        assert!(recorder.administered.lock().unwrap().is_empty());
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        assert_eq!(*recorder.administered.lock().unwrap(), ["revoke done by host:0: all"]);
    }

    #[tokio::test]
    async fn only_what_takes_something_back_is_told_with_the_last_room() {
        fn order(_: Order) -> Result<Understood, Refusal> {
            let act = async { Ok(Done { outcome: REFUSED, ..Done::with(Response::default()) }) };
            Ok(Understood { weight: Weight::Brake, about: String::new(), act: Box::pin(act) })
        }
        fn mistake(_: Order) -> Result<Understood, Refusal> {
            Err(Refusal::new(Reason::ParametersInvalid))
        }
        fn done(_: Order) -> Result<Understood, Refusal> {
            let act = async { Ok(Done::with(Response::default())) };
            Ok(Understood { weight: Weight::Brake, about: String::new(), act: Box::pin(act) })
        }
        let recorder = Arc::new(Recorder::default());
        for understand in [order as Understand, mistake, done] {
            let request = Request::new(Body::empty());
            let operations = Arc::<Recorder>::clone(&recorder);
            serve(operations, AdminOperation::Revoke, understand, Actor::host(0), None, request).await;
        }
        assert_eq!(*recorder.brakes.lock().unwrap(), [false, false, true]);
    }

    #[tokio::test]
    async fn what_the_store_cannot_be_trusted_with_is_not_begun_and_on_the_record() {
        fn act() -> BoxFuture<'static, Result<Done, Stop>> {
            Box::pin(async { panic!("nobody does it") })
        }
        fn brake(_: Order) -> Result<Understood, Refusal> {
            Ok(Understood { weight: Weight::Brake, about: "all".to_owned(), act: act() })
        }
        fn loosen(_: Order) -> Result<Understood, Refusal> {
            Ok(Understood { weight: Weight::Loosen, about: "all".to_owned(), act: act() })
        }
        fn look(_: Order) -> Result<Understood, Refusal> {
            let act = Box::pin(async { Ok(Done::with(Response::default())) });
            Ok(Understood { weight: Weight::Look, about: "all".to_owned(), act })
        }
        let recorder = Arc::new(Recorder { went_back: true, ..Recorder::default() });
        for (understand, status) in [(brake as Understand, 503), (loosen, 503), (look, 200)] {
            let operations = Arc::<Recorder>::clone(&recorder);
            let request = Request::new(Body::empty());
            let answer = serve(operations, AdminOperation::Reload, understand, Actor::host(0), None, request).await;
            assert_eq!(answer.status(), status);
        }
        let refused = "reload failed by host:0 (store_unavailable): all";
        assert_eq!(*recorder.administered.lock().unwrap(), [refused, refused, "reload done by host:0: all"]);
    }

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
