//! Bounds of the sample servers that the demo serves.

/// Notes in the sample server: more than anyone reads, less than anyone notices in memory.
pub const NOTES_MAX: usize = 200;
/// A note's title; its schema says the same.
pub const NOTE_TITLE_BYTES_MAX: usize = 200;
/// A note's text and tags; its schema says the same of the text.
pub const NOTE_TEXT_BYTES_MAX: usize = 10_000;
/// Replicas of one sample service; the schema of `rollout` says the same.
pub const REPLICAS_MAX: u32 = 100;
