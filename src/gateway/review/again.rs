//! A review that a store has forgotten, and the record has not: it is there again, with its deadline.
//!
//! Decides what comes back of it. Refuses to know how the record is read. Invariant: a review that was open ends grants at
//! its deadline also where its store is an older one; what was attested in it meanwhile is asked for once more; none is closed
//! before its grants are there.

use std::sync::Arc;

use super::rows::all;
use super::{GRANTS, REVIEWS, Review, put};
use crate::gateway::Gateway;
use crate::gateway::replay::RowRead;
use crate::limit;
use crate::outcome::Stop;
use crate::shelf::{Change, Expect, Tell};

/// The change that puts a review back of which the record tells.
///
/// # Errors
/// Where it does not tell what the review says: one that is forgotten, or that is open again, would end the wrong grants.
pub fn told_again(row: &RowRead) -> Result<Option<Change>, String> {
    if row.is_gone() {
        return Ok(None);
    }
    let untold = || "tells of a review, and not what it says: open it again afterwards".to_owned();
    let review: Review = row.says().and_then(|says| serde_json::from_str(says).ok()).ok_or_else(untold)?;
    let change = put(REVIEWS, review.id.clone(), Expect::Anything, "", &review, review.gone_us());
    change.map(Some).map_err(|failure| failure.detail)
}

impl Gateway {
    /// Looks up what the grants of a review are that came back without them.
    pub(super) async fn complete_restored_reviews(&self, reviews: &[Review]) {
        for review in reviews.iter().filter(|review| review.closed.is_none()) {
            if let Err(stop) = self.complete_review(review).await {
                tracing::warn!(review = review.id, ?stop, "the grants of a review that came back are looked up later");
            }
        }
    }

    /// Sees to it that all grants of a review are there.
    ///
    /// # Errors
    /// `record_unavailable`, `store_unavailable`; `target_unknown` where another replica is about it. Then some are missing.
    pub(super) async fn complete_review(&self, review: &Review) -> Result<(), Stop> {
        if review.closed.is_some() {
            return Ok(());
        }
        let first = format!("{}/000000/", review.id);
        let known = all(self.store(), GRANTS, Some(&review.id)).await?;
        let policy = Arc::clone(&self.snapshot().policy);
        if known.iter().any(|row| row.key.starts_with(&first)) || policy.grants().is_empty() {
            return Ok(());
        }
        let (_, _, grants) = self.grants_since(&policy, review.since, review.opened_at).await?;
        let mut rows = self.grant_rows(review, grants)?;
        rows.retain(|change| known.iter().all(|row| row.key != change.key));
        // The first one comes last: where this is cut off, it is gone on with.
        for batch in rows.rchunks(limit::SHELF_CHANGES_MAX) {
            self.change_rows(batch.to_vec(), Tell::Nobody).await?;
        }
        tracing::warn!(review = review.id, "a review came back from the record: its grants have to be attested again");
        Ok(())
    }
}
