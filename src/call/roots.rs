//! A legacy client says that its roots have changed: told to the servers that may ask for them.
//!
//! Decides which these are, as for a question. Refuses to know sessions. Invariant: a server hears of it only where its
//! caller still stands, is shown the server, and lets it ask for roots at this moment.

use std::sync::Arc;

use super::{ClientFacts, Endpoint, declared};
use crate::gateway::Gateway;
use crate::identity::Caller;
use crate::outcome::Stop;
use crate::wire::InputKind;

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
