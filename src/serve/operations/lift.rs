//! Giving back what was taken back: first everything that was handed out before ends for good, then it is lifted.
//!
//! Decides in which order that is done. Refuses to know who may order it. Invariants: while nobody who is meant is heard, what
//! they had is ended, and stays so; nothing is given back that nobody can read of; several are lifted with one look at what
//! they had.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::control::Lifting;
use crate::gateway::Gateway;
use crate::identity::Revocations;
use crate::identity::revoked::{Held, RevocationMode, RevocationStore as _};
use crate::ids::RevocationEpoch;
use crate::outcome::Failure;
use crate::wire::voids::Mark;

/// Lifts these; answers the epoch without the last of them, or nothing where that was lifted already.
///
/// # Errors
/// `store_unavailable`, `record_unavailable`. Those before the one that could not be lifted are.
pub async fn all(gateway: &Gateway, liftings: &[Lifting]) -> Result<Option<RevocationEpoch>, Failure> {
    gateway.standing().believed()?;
    let (_, held) = gateway.store().revocations().await?;
    let written = Arc::clone(&gateway.snapshot().written);
    let mut named: BTreeMap<&str, Vec<Held>> = BTreeMap::new();
    for lifting in liftings {
        let meant = held.iter().find(|held| held.since == lifting.since);
        named.entry(&lifting.actor).or_default().extend(meant.cloned());
    }
    // While nobody whom they name is heard: what they had asked for is void, and stays so.
    end_what_they_had(gateway, named).await?;
    let mut lifted = Ok(None);
    for lifting in liftings {
        let meant = held.iter().find(|held| held.since == lifting.since);
        let also = meant.map(|held| held.revocation.target.marks_of_owned(&written)).unwrap_or_default();
        lifted = one(gateway, lifting, &also).await;
        if lifted.is_err() {
            break;
        }
    }
    // Also where nothing was lifted: somebody may have done it whose answer did not come to the end.
    let taken = gateway.take_revocations().await;
    let lifted = lifted?;
    taken.map(|()| lifted)
}

/// Ends for good what was opened and approved with the access that was taken, by whoever lifts it.
async fn end_what_they_had(gateway: &Gateway, named: BTreeMap<&str, Vec<Held>>) -> Result<(), Failure> {
    let (mut all, mut blocks) = (Vec::new(), Vec::new());
    for (actor, held) in named {
        if held.is_empty() {
            continue;
        }
        blocks.extend(held.iter().filter(|held| held.revocation.mode == RevocationMode::Block).cloned());
        all.extend_from_slice(&held);
        gateway.end_mandates_of(&Revocations::of(held), actor).await?;
    }
    if all.is_empty() {
        return Ok(());
    }
    // As the files say it: what was taken back is not in what is in force.
    let (now, approvals) = (gateway.snapshot(), gateway.guard().approvals());
    approvals.withdraw_of(&Revocations::of(all), &now.written).await?;
    let blocks = (!blocks.is_empty()).then(|| Revocations::of(blocks));
    approvals.take_back_of(blocks.as_ref(), &now.written).await?;
    approvals.end_fallen((&now.config, &now.policy)).await
}

/// Lifts one; what its owners answer for is void with it, as far as it was handed out before.
async fn one(gateway: &Gateway, lifting: &Lifting, also: &[Mark]) -> Result<Option<RevocationEpoch>, Failure> {
    // That it is going to be lifted, and by whom, is on the record already: nothing is loosened that nobody can read of.
    let lifted = gateway.store().lift(lifting.since, also, &lifting.actor, &lifting.note).await?;
    let Some((epoch, lifted)) = lifted else { return Ok(None) };
    let Err(failure) = gateway.tell(epoch).await else { return Ok(Some(epoch)) };
    match gateway.store().revoke(&lifted).await {
        Ok(_) => Err(failure),
        // It is lifted, and an error would say that it is not.
        Err(again) => {
            tracing::error!(
                %failure, %again,
                "a revocation was lifted, and the record tells no more of it than that it was going to be"
            );
            Ok(Some(epoch))
        }
    }
}
