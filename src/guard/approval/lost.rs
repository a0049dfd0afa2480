//! Approvals that a store has forgotten to be used.
//!
//! Decides which ones could be used again. Refuses to know the record, which says whether they were. Invariant: what is
//! used up here is used up as if a call had done it.

use super::kept::{Consumption, Kept};
use super::pages::Pages;
use super::{LIVE, changes, micros};
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::shelf::{Change, Expect, Shelf};

/// Requests that somebody has approved or confirmed, and that no call has used.
///
/// # Errors
/// `store_unavailable`.
pub async fn unused(shelf: &dyn Shelf) -> Result<Vec<Kept>, Failure> {
    let (mut found, mut pages) = (Vec::new(), Pages::of(shelf, LIVE));
    while let Some(page) = pages.next().await? {
        let all = page.into_iter().map(|(kept, _)| kept);
        found.extend(all.filter(|kept| {
            let is_agreed = kept.confirmed || !kept.decisions.is_empty();
            kept.consumed.is_none() && kept.denied.is_none() && is_agreed
        }));
    }
    Ok(found)
}

/// The changes that use one up.
///
/// # Errors
/// What cannot be written down.
pub fn used_up(mut kept: Kept) -> Result<Vec<Change>, Failure> {
    let until_us = kept.until_us().saturating_add(micros(limit::APPROVAL_KEPT_FOR));
    // No call has this name: none goes on with it.
    kept.consumed = Some(Consumption { call: "lost".to_owned(), round: 0 });
    changes(&kept, Expect::Anything, until_us, until_us)
        .map_err(|refusal| Failure::before(Reason::StoreUnavailable, refusal.hint))
}
