//! Whether what was decided still holds, in the moment before something is sent.
//!
//! Decides that by the snapshot and the revocations of this moment. Invariant: an edit that does not concern a call
//! changes nothing for it; one that does is obeyed.

use std::sync::Arc;

use super::{Live, arguments_of};
use crate::config::ServerConfig;
use crate::delegate::{Recheck, server_revision};
use crate::guard::Used;
use crate::identity::still_stands;
use crate::outcome::{Reason, Refusal};
use crate::policy::Permit;
use crate::wire::Json;

impl Recheck for Live {
    fn recheck(&self, permit: &Permit, arguments: Option<&Json>) -> Result<(), Refusal> {
        // Not even an intent is written for somebody who may have been revoked since.
        self.standing.current().map_err(|failure| Refusal::new(failure.reason).hint(failure.detail))?;
        self.still_trusted(permit.caller())?;
        let now = self.snapshot.load();
        self.still_there(permit, &now)?;
        if now.policy.revision() == permit.revision() {
            return Ok(());
        }
        still_stands(&now.config, permit.caller())?;
        // The credential was made for the server as it was: it never goes to another one of the same name.
        let decided = permit.target().server();
        let same = |server: &Arc<ServerConfig>| server_revision(server) == server_revision(decided);
        if !now.config.server(&decided.id).is_some_and(same) {
            return Err(Refusal::new(Reason::TargetUnknown));
        }
        // An edit that does not concern this call changes nothing for it; one that does is obeyed.
        let (caller, target) = (permit.caller().clone(), permit.target().clone());
        let again = if permit.is_following() {
            now.policy.authorize_following(caller, target)
        } else {
            now.policy.authorize(caller, target, arguments_of(arguments), jiff::Timestamp::now())
        };
        let again = again.map_err(|denied| denied.refusal)?;
        // What was approved was approved for other gates.
        if again.gates() == permit.gates() { Ok(()) } else { Err(Refusal::new(Reason::ApprovalVoid)) }
    }

    fn approved(&self, approval: &Used) -> Result<(), Refusal> {
        approval.stands(&self.snapshot.load().config, &self.revocations)
    }
}
