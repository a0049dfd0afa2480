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

/// That the call of a retry waits here, if it waits at a replica.
///
/// # Errors
/// As [`stands`].
pub async fn waits(gateway: &Gateway, retry: &Retry) -> Result<(), Failure> {
    match retry.waits_at() {
        Some(replica) => stands(gateway, replica).await,
        None => Ok(()),
    }
}

/// That the process that has a task is one of this replica's. A server that is reached over HTTP is asked from anywhere.
///
/// # Errors
/// As [`stands`].
pub async fn has_task(gateway: &Gateway, server: &ServerConfig, handle: &Handle) -> Result<(), Failure> {
    match handle.home().filter(|_| matches!(server.transport, TransportConfig::Stdio { .. })) {
        Some(replica) => stands(gateway, replica).await,
        None => Ok(()),
    }
}

/// That what is bound to a replica is here: whatever is asked of any other one would be asked of the wrong process.
///
/// # Errors
/// `replica_lost` where the replica is gone, and what was bound to it with it; `replica_unreachable` where it lives, so that
/// whoever asks again may come to it: nothing is handed on to a replica that was heard of only now, or that has no
/// `[cluster]`; `store_unavailable`.
async fn stands(gateway: &Gateway, replica: ReplicaId) -> Result<(), Failure> {
    if replica == gateway.standing().replica() {
        return Ok(());
    }
    if gateway.is_gone(replica).await? {
        return Err(Failure::after(Reason::ReplicaLost, "the replica that had it is gone"));
    }
    let known = gateway.standing().address_of(replica).is_some();
    let detail = if known { "was not known yet" } else { "cannot be reached from others, which takes [cluster]" };
    Err(Failure::before(Reason::ReplicaUnreachable, format!("the replica that has it {detail}")))
}
