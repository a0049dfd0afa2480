//! Giving out how the call of a task ended: what comes of a call, through the rooms that every other one comes through.
//!
//! Decides only their order. Refuses to know how ends are kept. Invariant: what was kept goes to whoever may still call
//! that tool there, counts for what they have seen once more, and that they got it is on the record.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Own, end};
use crate::call::{Halt, Request, Trail, approval};
use crate::delegate::{Leg, Recheck, intended, server_revision};
use crate::gateway::Gateway;
use crate::guard::{Charge, Cleared, Wanted};
use crate::identity::Caller;
use crate::ids::ServerId;
use crate::outcome::{Outcome, Reason, Refusal, Stop};
use crate::record::event::ChargeNote;
use crate::record::{Evidence, Intent, Journal};
use crate::wire::mcp::Kind;
use crate::wire::{Json, Outgoing};

/// The task with its end, for whoever may still call its tool.
pub(super) async fn ended(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    request: &Request,
    task: (&str, &str),
    (own, pieces): (&Own, usize),
    trail: &mut Trail,
) -> Result<Outcome, Halt> {
    let place = &own.place;
    let view = gateway.view(caller, &request.endpoint).await?;
    let target = view.own_item(&place.server, Kind::Tool, &place.tool).map(|item| item.target());
    let target = target.filter(|target| server_revision(target.server()) == place.revision);
    let target = target.ok_or_else(|| Refusal::new(Reason::TargetUnknown))?;
    trail.target = Some(target.clone());
    let permit = gateway.authorize_following(caller, target.clone()).map_err(Halt::denied)?;
    trail.mandate = gateway.mandate(caller, request.mandate.as_deref(), place.mandate.as_ref()).await?;
    let now = gateway.snapshot();
    let wanted = Wanted {
        call: trail.leg.call,
        arguments: None,
        answers: false,
        gated: None,
        mandate: trail.mandate.as_ref(),
        config: &now.config,
        policy: &now.policy,
        charge: Charge::Before,
        now_us: gateway.standing().now_us(),
    };
    let cleared = gateway.guard().clear_following(permit, &wanted).await?;
    let outgoing = Outgoing {
        method: trail.leg.method.clone(),
        params: Json::of(&serde_json::Map::new()),
        name: None,
        header_parameters: Vec::new(),
        headers: Vec::new(),
        progress_token: None,
        last_words: None,
        process: None,
    };
    let recheck = gateway.recheck();
    let entry = gateway.journal().open(Given { cleared, leg: trail.leg.clone(), recheck }, outgoing).await?;
    approval::alarm(gateway, caller, target, entry.call_id()).await;
    let epoch = gateway.revocation_epoch();
    let settled = match entry.proof().cleared.labels().filter(|labels| labels.has_to_settle(epoch)) {
        Some(labels) => labels.settle(epoch).await.map_err(Stop::from),
        None => Ok(()),
    };
    let outcome = match settled {
        Ok(()) => end::read(gateway, caller.principal(), task, (own, pieces)).await,
        Err(stop) => Err(stop),
    };
    let outcome = outcome.unwrap_or_else(Outcome::from);
    entry.close(&outcome);
    Ok(outcome)
}

/// The proof that what was kept may be given out. It goes nowhere but to its caller, and needs no credential.
struct Given {
    cleared: Box<Cleared>,
    leg: Leg,
    recheck: Arc<dyn Recheck>,
}

impl Evidence for Given {
    fn recheck(&self) -> Result<(), Refusal> {
        self.recheck.recheck(&self.cleared, None)?;
        self.cleared.mandate().map_or(Ok(()), |held| self.recheck.mandated(held))
    }

    fn consume(&self) -> Option<BoxFuture<'_, Result<(), Stop>>> {
        self.cleared.consume(self.recheck.epoch())
    }

    fn consumed(&self, journal: &Journal) {
        self.cleared.tell(journal, (self.leg.call, self.leg.leg));
    }

    fn charged(&self) -> &[ChargeNote] {
        self.cleared.charged()
    }

    fn intent(&self) -> Intent<'_> {
        intended(&self.cleared, &self.leg)
    }

    fn server(&self) -> Option<&ServerId> {
        Some(self.cleared.permit().target().server_id())
    }
}
