//! The console's cookies; how they are set and read is [`crate::oauth::browser`]'s.

pub(super) use crate::oauth::browser::{clear, read, set};

/// The session.
pub(super) const SESSION: &str = "bailiwick_session";
/// A login that was begun.
pub(super) const LOGIN: &str = "bailiwick_login";
