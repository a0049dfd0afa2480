//! What a call does with data, as the files say it when it is cleared, and once more when other files came since.
//!
//! Decides whether it may still go where it goes. Refuses to read rows again: what they said when it was cleared is what it
//! is judged by. Invariant: what was cleared as something else than what the files make of it now does not go out.

use jiff::Timestamp;

use super::{LabelUse, refused};
use crate::guard::Wanted;
use crate::inversion::{self, Control};
use crate::outcome::{Reason, Refusal};
use crate::policy::label::{Judged, Labelled};
use crate::policy::{Arguments, Ask, Permit};
use crate::wire::Json;

/// The arguments that conditions read.
pub(super) fn arguments<'a>(permit: &Permit, wanted: &Wanted<'a>) -> Arguments<'a> {
    match wanted.arguments {
        _ if wanted.answers => Arguments::Unknown,
        None if permit.is_following() => Arguments::Unknown,
        given => Arguments::of(permit.target().action(), given.map(Json::as_str)),
    }
}

/// What a call does with data; nothing where labels are not kept.
pub(super) fn labelled(permit: &Permit, wanted: &Wanted<'_>, now: Timestamp) -> Option<Labelled> {
    let target = permit.target();
    let ask = Ask {
        environment: target.environment(),
        server: target.server_id(),
        name: target.name(),
        action: target.action(),
    };
    let hints = target.definition().map(|definition| definition.hints).unwrap_or_default();
    wanted.policy.labelled(permit.caller().persona(), &ask, hints, arguments(permit, wanted), now)
}

/// Whether a call that was cleared may go out under these files, as it was cleared.
///
/// # Errors
/// `flow_refused`.
pub fn stands(cleared: Option<&LabelUse>, permit: &Permit, wanted: &Wanted<'_>) -> Result<(), Refusal> {
    let now = Timestamp::now();
    let Some(labelled) = labelled(permit, wanted, now) else { return Ok(()) };
    let changed = || {
        let hint = "what the files say of it was changed at this moment: make the call again";
        Err(Refusal::new(Reason::FlowRefused).hint(hint))
    };
    let is_same = cleared.map_or_else(|| labelled == Labelled::default(), |cleared| cleared.labelled == labelled);
    if !is_same {
        return changed();
    }
    let sends = wanted.answers || !permit.is_following();
    if !sends || !wanted.policy.is_judged(&labelled) || inversion::is_off(Control::Flow) {
        return Ok(());
    }
    // What was remembered when no flow looked at it may be less than the rows say.
    let Some((cleared, seen)) = cleared.and_then(|cleared| Some((cleared, cleared.judged?))) else { return changed() };
    let (persona, arguments) = (permit.caller().persona(), arguments(permit, wanted));
    match wanted.policy.judge_flow(&labelled, seen, persona, arguments, now) {
        Judged::Free | Judged::Against { observed: true, .. } => Ok(()),
        Judged::Against { rule, from, .. } => Err(refused(&rule, from, "")),
        Judged::Asks(asked) if cleared.asked.as_ref().is_some_and(|before| before.gates == asked.gates) => Ok(()),
        Judged::Asks(_) => Err(Refusal::new(Reason::ApprovalVoid)),
    }
}
