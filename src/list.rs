//! What a caller sees: the same decisions as for calls, used as a filter.

use std::sync::Arc;

use crate::call::Request;
use crate::gateway::Gateway;
use crate::identity::Caller;
use crate::outcome::{Reason, Refusal, Stop};
use crate::wire::Json;
use crate::wire::mcp::{Kind, Version};

/// The result of one of the four list methods, in the shape of the client's era.
///
/// # Errors
/// A bad cursor, a limit, or no upstream that answers.
pub async fn list(gateway: &Arc<Gateway>, caller: &Caller, request: &Request, kind: Kind) -> Result<Json, Stop> {
    let _ = (gateway, caller, request, kind);
    Err(Refusal::new(Reason::NotAllowed).into())
}

/// The result of `server/discover`.
///
/// # Errors
/// A limit, or no upstream that answers.
pub async fn discover(gateway: &Arc<Gateway>, caller: &Caller, request: &Request) -> Result<Json, Stop> {
    let _ = (gateway, caller, request);
    Err(Refusal::new(Reason::NotAllowed).into())
}

/// The result of `initialize` for a negotiated legacy version.
///
/// # Errors
/// A limit, or no upstream that answers.
pub async fn initialize(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    request: &Request,
    version: Version,
) -> Result<Json, Stop> {
    let _ = (gateway, caller, request, version);
    Err(Refusal::new(Reason::NotAllowed).into())
}
