//! Flows that ask: what was seen may go there, if persons say so.
//!
//! Decides which calls can be asked about, and what is said of one that waits. Refuses to know what was seen and who
//! approves. Invariant: where nobody can be asked, or would not be shown all that goes out, the flow refuses.

use super::label::{LabelUse, refused};
use super::{Gated, Wanted};
use crate::ids::Action;
use crate::outcome::{Refusal, Stop};
use crate::policy::Permit;
use crate::policy::label::Asked;

/// The permit with what flows ask, and what the approvals' stage needs of it.
///
/// # Errors
/// `flow_refused` where nobody can be asked.
pub(super) fn asking<'a>(
    permit: Permit,
    labels: Option<&LabelUse>,
    wanted: &Wanted<'a>,
) -> Result<(Permit, Option<Gated<'a>>), Refusal> {
    let Some(asked) = labels.and_then(LabelUse::asked) else { return Ok((permit, wanted.gated)) };
    let can_be_shown = matches!(permit.target().action(), Action::Call | Action::Get | Action::Read);
    let Some(gated) = wanted.gated.filter(|_| can_be_shown) else { return Err(nobody(asked)) };
    // Answers to a server's questions go where the call goes: whoever approved the call has let its questions be asked,
    // and nobody is asked about answers alone.
    let gated = Gated { unseen: wanted.answers, ..gated };
    Ok((permit.asking(asked.clone()), Some(gated)))
}

/// The same for what follows a call and asks nobody.
///
/// # Errors
/// `flow_refused`.
pub(super) fn unasked(labels: Option<&LabelUse>) -> Result<(), Refusal> {
    labels.and_then(LabelUse::asked).map_or(Ok(()), |asked| Err(nobody(asked)))
}

/// A call that waits because of a flow names it.
pub(super) fn told(stop: Stop, labels: Option<&LabelUse>) -> Stop {
    match (stop, labels.and_then(LabelUse::asked).and_then(|asked| asked.rules.first())) {
        (Stop::Refused(refusal), Some(rule)) if refusal.rule.is_none() => refusal.rule(&**rule).into(),
        (stop, _) => stop,
    }
}

fn nobody(asked: &Asked) -> Refusal {
    let rule = asked.rules.first().map_or("labels.toml", |rule| &**rule);
    refused(rule, asked.from, ", and nobody can be asked about this kind of request")
}
