//! Bounds of what the gateway presents to others.

use std::time::Duration;

/// What the gateway says of itself to an authorization server is good for so long: it is said once, at once.
pub const ASSERTION_LIFE: Duration = Duration::from_secs(60);
/// A secret has its place, and another one while it is changed.
pub const SECRET_SLOTS_MAX: usize = 2;
