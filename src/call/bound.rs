//! Which replica what a request names is bound to: a call that waits there, a process that has the task; and whether that
//! replica is still there.
//!
//! Decides nothing about whether it may. Invariant: only what was sealed for this caller says so, and what went with a
//! replica is looked for nowhere else: another process may have something else under the same id.

use crate::config::{ServerConfig, TransportConfig};
use crate::gateway::Gateway;
use crate::identity::Caller;
use crate::ids::ReplicaId;
use crate::outcome::{Failure, Reason};
use crate::wire::{Message, Value};

use super::retry::Retry;
use super::task::Handle;

/// The replica that a message is for, where it is bound to one.
#[must_use]
pub fn home(gateway: &Gateway, caller: &Caller, message: &Message) -> Option<ReplicaId> {
    let params = message.params()?;
    if let Some(state) = params.get("requestState").and_then(Value::as_str) {
        return Retry::home(&state, gateway.sealer(), caller.principal());
    }
    let id = params.get("taskId").and_then(Value::as_str)?;
    Handle::open(gateway.sealer(), caller.principal(), &id)?.home()
}

/// This replica, where what was begun at a server can go on nowhere else: it waits here, or it is in a process or a
/// session that this replica has.
pub fn here(gateway: &Gateway, server: &ServerConfig, waits: bool) -> Option<ReplicaId> {
    let held = waits || matches!(server.transport, TransportConfig::Stdio { .. });
    (held && gateway.standing().is_shared()).then(|| gateway.standing().replica())
}

/// That the replica still lives at which the call of a retry waits.
///
/// # Errors
/// As [`stands`].
pub async fn waits(gateway: &Gateway, retry: &Retry) -> Result<(), Failure> {
    match retry.waits_at() {
        Some(replica) => stands(gateway, replica).await,
        None => Ok(()),
    }
}

/// That the replica still lives whose process has a task. A server that is reached over HTTP is asked from anywhere.
///
/// # Errors
/// As [`stands`].
pub async fn has_task(gateway: &Gateway, server: &ServerConfig, handle: &Handle) -> Result<(), Failure> {
    match handle.home().filter(|_| matches!(server.transport, TransportConfig::Stdio { .. })) {
        Some(replica) => stands(gateway, replica).await,
        None => Ok(()),
    }
}

/// That a replica lives.
///
/// # Errors
/// `replica_lost` where it is gone, and what was bound to it with it; `replica_unreachable` where it was heard of only
/// now, so that nothing was handed on to it; `store_unavailable`.
async fn stands(gateway: &Gateway, replica: ReplicaId) -> Result<(), Failure> {
    if gateway.is_gone(replica).await? {
        return Err(Failure::after(Reason::ReplicaLost, "the replica that had it is gone"));
    }
    let standing = gateway.standing();
    if replica != standing.replica() && standing.address_of(replica).is_some() {
        return Err(Failure::before(Reason::ReplicaUnreachable, "the replica that has it was not known yet"));
    }
    Ok(())
}
