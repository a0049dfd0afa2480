//! `[break_glass.NAME]` in `policies/gates.toml`: a role that somebody gets for a moment in an emergency.
//!
//! Decides nothing. Invariant: who may ask for it, and who has to agree, is written down before it is needed.

use std::time::Duration;

use super::gate::Approvers;

/// One emergency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakGlassConfig {
    /// Its name.
    pub name: String,
    /// The role that it gives, as rules spell it.
    pub role: String,
    /// Who may ask for it.
    pub who: Vec<Approvers>,
    /// Who may agree.
    pub approvers: Vec<Approvers>,
    /// How many persons have to agree, beside whoever asks.
    pub approvals: u32,
    /// How long it lasts.
    pub lasts: Duration,
}
