//! What is looked at again after a decision: the snapshot and the revocations of this moment.
//!
//! Decides whether a permit still stands. Invariant: what has changed since is obeyed before anything is forwarded.

use std::sync::Arc;

use super::{Gateway, Live, Snapshot, arguments_of};
use crate::config::{PinMode, ServerConfig};
use crate::delegate::{Recheck, server_revision};
use crate::guard::mandate::{Held, Mandate};
use crate::guard::{Cleared, Used};
use crate::identity::{Caller, still_stands};
use crate::ids::RevocationEpoch;
use crate::inversion::{self, Control};
use crate::outcome::{Reason, Refusal};
use crate::policy::Permit;
use crate::wire::Json;

impl Live {
    pub(super) fn still_trusted(&self, caller: &Caller) -> Result<(), Refusal> {
        if self.revocations.epoch() == caller.epoch() {
            return Ok(());
        }
        caller.credentials().try_for_each(|token| self.revocations.check(token).map(|_| ()))
    }

    /// Whether a mandate was taken back, or the access of its holder since: by a name that its token has, or by one of the
    /// files.
    pub(super) fn is_taken_back(&self, mandate: &Mandate) -> bool {
        mandate.is_taken_back(&self.revocations, &self.snapshot.load().written)
    }

    /// Whether nobody took back a mandate or one above it, or the access of whoever holds one of them.
    pub(super) fn not_revoked(&self, held: &Held) -> Result<(), Refusal> {
        let revoked = held.all().find(|mandate| self.is_taken_back(mandate));
        revoked.map_or(Ok(()), |mandate| {
            let hint = format!("the mandate {} was taken back, or its holder's access since; open another", mandate.id);
            Err(Refusal::new(Reason::MandateEnded).hint(hint))
        })
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

impl Gateway {
    /// Whether what somebody listens to has to end: their access was taken back.
    #[must_use]
    pub fn is_cut_off(&self, caller: &Caller) -> bool {
        self.still_trusted(caller).is_err() && !inversion::is_off(Control::Continuous)
    }
}

impl Recheck for Live {
    fn recheck(&self, cleared: &Cleared, arguments: Option<&Json>) -> Result<(), Refusal> {
        let permit = cleared.permit();
        // Not even an intent is written for somebody who may have been revoked since.
        self.standing.current().map_err(|failure| Refusal::new(failure.reason).hint(failure.detail))?;
        self.still_trusted(permit.caller())?;
        self.still_in_emergency(permit.caller())?;
        // What is called is what was accepted and offered, or it is not called.
        let definition = permit.target().definition();
        if !inversion::is_off(Control::Pins) && !definition.is_none_or(|definition| definition.stands()) {
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
        // Nobody had to accept it when it was offered, and somebody has to now: it is offered again once it is accepted.
        let is_pinned = |server: &Arc<ServerConfig>| server.pins != PinMode::Off;
        if definition.is_some() && !is_pinned(decided) && now.config.server(&decided.id).is_some_and(is_pinned) {
            return Err(Refusal::new(Reason::DefinitionQuarantined));
        }
        // An edit that does not concern this call changes nothing for it; one that does is obeyed.
        let (caller, target) = (permit.caller().clone(), permit.target().clone());
        let again = if permit.is_following() {
            now.policy.authorize_following(caller, target)
        } else {
            let (given, at) = (arguments_of(target.action(), arguments), jiff::Timestamp::now());
            now.policy.authorize(caller, target, given, at, permit.situation().clone())
        };
        let again = again.map_err(|denied| denied.refusal)?;
        // What was approved was approved for other gates.
        let asked = permit.flow_gates().iter().all(|gate| now.config.gates.contains(gate));
        if !asked || again.own_gates() != permit.own_gates() {
            return Err(Refusal::new(Reason::ApprovalVoid));
        }
        // So is what its mandate's template and the labels say now.
        cleared.stands(arguments, (&now.config, &now.policy), self.standing.now_us())
    }

    fn mandated(&self, held: &Held) -> Result<(), Refusal> {
        self.not_revoked(held)?;
        let now_us = self.standing.now_us();
        if held.ends_us() > now_us { Ok(()) } else { Err(Refusal::new(Reason::MandateEnded)) }
    }

    fn epoch(&self) -> RevocationEpoch {
        self.revocations.epoch()
    }

    fn approved(&self, approval: &Used) -> Result<(), Refusal> {
        let now = self.snapshot.load();
        approval.stands(&now.config, &now.policy, &self.revocations)
    }
}
