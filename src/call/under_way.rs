//! What is looked at while a call is under way, and when it has come back.
//!
//! Decides whether rules that came since would not let it be made, and what its end says of its server's list. Refuses to know
//! how it is ended.

use crate::delegate::Grant;
use crate::gateway::Gateway;
use crate::outcome::{Outcome, Reason};
use crate::wire::Value;
use crate::wire::mcp::code;

/// Why rules that came since would not let it be made.
pub(super) fn denied_since(gateway: &Gateway, grant: &Grant) -> Option<Reason> {
    if gateway.snapshot().policy.base() == grant.permit().base() {
        return None;
    }
    let (caller, target) = (grant.caller(), grant.target().clone());
    let again = if grant.is_following() {
        gateway.authorize_following(caller, target)
    } else {
        gateway.authorize_within(caller, target, grant.arguments(), grant.situation().clone())
    };
    again.err().map(|denied| denied.refusal.reason)
}

/// Whether the upstream says that it does not know what it listed: its list is stale then.
pub(super) fn is_unknown_target(outcome: &Outcome) -> bool {
    let Outcome::Error(error) = outcome else { return false };
    let number = error.value().as_object().and_then(|error| error.get("code")).and_then(Value::as_i64);
    number == Some(i64::from(code::INVALID_PARAMS)) || number == Some(i64::from(code::METHOD_NOT_FOUND))
}
