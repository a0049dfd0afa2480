//! Decides who may operate the gateway: whoever runs it and root over a Unix socket in the state directory, and over
//! the administrators' listener whoever the rules let, with a token for that listener and no other.
//!
//! Refuses to know how an operation is carried out ([`Operations`]). Braking is easy, loosening is not: the socket
//! brakes and looks; giving something back needs a person who has just logged in. Invariants: an operation has an
//! actor that nobody at the other end can choose, it is decided before its order is read, and it leaves a record,
//! refusals included. Both doors lead to the same handlers ([`routes`]).

use std::path::{Path, PathBuf};

mod actor;
mod approvals;
pub mod break_glass;
pub mod client;
pub mod console;
mod descent;
mod desk;
pub mod governs;
mod handlers;
pub mod labels;
pub mod listener;
pub mod operations;
mod pins;
mod problem;
mod readiness;
pub mod records;
pub mod reviews;
pub mod routes;
mod socket;
pub mod standing;
mod stewards;
pub mod tail;
mod vault;

pub use listener::Administrators;
pub use operations::{HeldRevocations, Lifting, Operations, Readiness, ReadinessCheck, RevocationOrder, Revoked};
pub use socket::{Control, ControlError};
pub use vault::{LinkedAccounts, UnlinkOrder};

/// Where the socket is.
#[must_use]
pub fn socket(state: &Path) -> PathBuf {
    state.join("control.sock")
}

#[cfg(test)]
mod tests;
