//! Bounds of what the record is asked about the policy.

/// Different acts, and different rules, that are counted.
pub const EVIDENCE_ROWS_MAX: usize = 200_000;
/// Replicas look so often for grants that they have used and not told.
pub const GRANT_USES_LOOK_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);
/// That a grant is used is told again after so long.
pub const GRANT_USE_TOLD_EVERY: std::time::Duration = std::time::Duration::from_secs(3_600);
/// A replica that told so soon after it was made has told all that it ever used.
pub const GRANT_USES_TOLD_FROM_THE_START: std::time::Duration = std::time::Duration::from_secs(5 * 60);
/// When a grant was used last is kept for so long.
pub const GRANT_USE_KEPT: std::time::Duration = std::time::Duration::from_secs(400 * 24 * 3600);
/// Grants of which replicas tell each other when they were used last.
pub const GRANTS_USED_MAX: u32 = 200_000;
/// Replicas that tell, those that are gone included.
pub const REPLICAS_TELLING_MAX: u32 = 100_000;
/// Reviews that are kept.
pub const REVIEWS_MAX: u32 = 1_000;
/// Grants of all reviews that are kept.
pub const REVIEW_GRANTS_MAX: u32 = 200_000;
/// Grants that have ended.
pub const ENDED_GRANTS_MAX: u32 = 20_000;
/// A review is kept for so long after its deadline, with what was answered.
pub const REVIEW_KEPT: std::time::Duration = std::time::Duration::from_secs(400 * 24 * 3600);
/// The longest time until a review is over.
pub const REVIEW_OPEN_MAX: std::time::Duration = std::time::Duration::from_secs(90 * 24 * 3600);
