//! Bounds of the sample servers that the demo serves.

/// Notes in the sample server: more than anyone reads, less than anyone notices in memory.
pub const NOTES_MAX: usize = 200;
/// A note's title; its schema says the same.
pub const NOTE_TITLE_BYTES_MAX: usize = 200;
/// A note's text and tags; its schema says the same of the text.
pub const NOTE_TEXT_BYTES_MAX: usize = 10_000;
/// Replicas of one sample service; the schema of `rollout` says the same.
pub const REPLICAS_MAX: u32 = 100;
/// An announcement on the sample status page; its schema says the same.
pub const ANNOUNCEMENT_CHARACTERS_MAX: usize = 280;
/// Clients that are told of a changed list of the sample server: more than one gateway has sessions in a demo.
pub const DEMO_TOLD_MAX: usize = 64;
/// How long one of them is waited for.
pub const DEMO_TELL_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(500);
