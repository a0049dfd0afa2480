//! Which replica what a request names is bound to: a call that waits there, a process that has the task.
//!
//! Decides nothing about whether it may. Invariant: only what was sealed for this caller says so.

use crate::config::{ServerConfig, TransportConfig};
use crate::gateway::Gateway;
use crate::identity::Caller;
use crate::ids::ReplicaId;
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
