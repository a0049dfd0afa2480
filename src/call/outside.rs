//! What a legacy client says outside of its calls: that its roots have changed, and how far it is with an answer.
//!
//! Decides which servers hear of it. Refuses to know sessions. Invariant: a server hears of roots only where its caller
//! still stands, is shown the server, and lets it ask for roots at this moment; and of an answer only while it waits for
//! that answer of that caller, in a call that is watched over.

use std::sync::Arc;

use super::{ClientFacts, Endpoint, declared};
use crate::gateway::Gateway;
use crate::identity::Caller;
use crate::ids::ParkId;
use crate::outcome::Stop;
use crate::wire::{InputKind, Json};

/// Tells whoever may ask for the roots of this client that they have changed.
///
/// # Errors
/// A limit, or a caller who does not stand any more.
pub async fn roots_changed(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    endpoint: &Endpoint,
    client: &ClientFacts,
) -> Result<(), Stop> {
    let declared = declared::askable_at(endpoint, &client.capabilities);
    if !declared.roots_change() {
        return Ok(());
    }
    gateway.quotas().request(caller.principal())?;
    gateway.not_expired(caller)?;
    gateway.still_trusted(caller)?;
    let view = gateway.view_now(caller, endpoint)?;
    let asking = view.members().iter().map(|member| &member.server);
    let asking = asking.filter(|server| gateway.askable(caller, server, declared).has(InputKind::Roots));
    let told = asking.map(|server| gateway.upstreams().roots_changed(server, caller.principal()));
    futures_util::future::join_all(told).await;
    Ok(())
}

/// Tells the server of a call that waits how far its client is with the answer to the question of that name.
///
/// # Errors
/// A limit, or a caller who does not stand any more.
pub async fn report(
    gateway: &Gateway,
    caller: &Caller,
    (parked, key): (ParkId, &str),
    said: &Json,
) -> Result<(), Stop> {
    gateway.quotas().request(caller.principal())?;
    gateway.not_expired(caller)?;
    gateway.still_trusted(caller)?;
    gateway.upstreams().report(caller.principal(), (parked, key), said).await;
    Ok(())
}
