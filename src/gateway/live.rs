//! What is looked at again after a decision: the snapshot and the revocations of this moment.
//!
//! Decides whether a permit still stands. Invariant: what has changed since is obeyed before anything is forwarded.

use std::sync::Arc;

use super::{Live, Snapshot, arguments_of};
use crate::config::ServerConfig;
use crate::delegate::{Recheck, server_revision};
use crate::guard::Used;
use crate::identity::{Caller, still_stands};
use crate::outcome::{Reason, Refusal};
use crate::policy::Permit;
use crate::wire::Json;

impl Live {
    pub(super) fn still_trusted(&self, caller: &Caller) -> Result<(), Refusal> {
        if self.revocations.epoch() == caller.epoch() {
            return Ok(());
        }
        self.revocations.check(caller.token()).map(|_| ())
    }

    /// Whether a permit's agents and server are left by what was taken back since.
    fn still_there(&self, permit: &Permit, now: &Snapshot) -> Result<(), Refusal> {
        // Equal epochs alone do not say it: a caller may carry the new one and have been decided before what it took
        // away was gone from the configuration.
        let caller = permit.caller();
        if self.revocations.epoch() == caller.epoch() && caller.settings_revision() == now.identity_revision {
            return Ok(());
        }
        still_stands(&now.config, permit.caller())?;
        let server = now.config.server(permit.target().server_id());
        server.map(|_| ()).ok_or_else(|| Refusal::new(Reason::TargetUnknown))
    }
}

impl Recheck for Live {
    fn recheck(&self, permit: &Permit, arguments: Option<&Json>) -> Result<(), Refusal> {
        // Not even an intent is written for somebody who may have been revoked since.
        self.standing.current().map_err(|failure| Refusal::new(failure.reason).hint(failure.detail))?;
        self.still_trusted(permit.caller())?;
        // What is called is what was accepted and offered, or it is not called.
        if !permit.target().definition().is_none_or(|definition| definition.stands()) {
            return Err(Refusal::new(Reason::DefinitionQuarantined));
        }
        let now = self.snapshot.load();
        self.still_there(permit, &now)?;
        if now.policy.base() == permit.base() {
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
