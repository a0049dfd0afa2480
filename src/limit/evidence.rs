//! Bounds of what the record is asked about the policy.

/// Different acts, and different rules, that are counted.
pub const EVIDENCE_ROWS_MAX: usize = 200_000;
