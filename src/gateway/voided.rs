//! Handles of whoever was taken back stay void, also when that is lifted again.
//!
//! Decides when what the store remembers is read: after what holds, before anybody is let in again. Invariant: whatever
//! was lifted since the last look is known to the sealer before its lifting is in force; where it could not be read,
//! what held at any look is known all the same, and it is read again.

use crate::identity::revoked::Held;
use crate::ids::RevocationEpoch;
use crate::outcome::Failure;
use crate::store::{Store, Voided};
use crate::wire::handle::Sealer;

/// Has the sealer know of what holds in that epoch, and of what held before it and does not any more, as it was read at
/// the same time; it is read again where that was too early.
///
/// # Errors
/// When the store cannot be read: what holds is known all the same.
pub async fn void_handles(
    store: &Store,
    sealer: &Sealer,
    (epoch, held): (RevocationEpoch, &[Held]),
    voided: Result<Voided, Failure>,
) -> Result<(), Failure> {
    let known = sealer.voided_to();
    let news = held.iter().filter(|held| held.since > known);
    let marks: Vec<_> =
        news.flat_map(|held| held.revocation.target.marks().into_iter().map(|mark| (mark, held.since))).collect();
    sealer.void(&marks, RevocationEpoch(0));
    let voided = match voided {
        Ok(voided) if voided.epoch >= epoch => voided,
        Ok(_) | Err(_) => store.voided(known).await?,
    };
    sealer.void(&voided.marks, voided.forgotten);
    sealer.voided_up_to(epoch);
    Ok(())
}
