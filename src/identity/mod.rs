//! Decides who calls, on whose behalf, and how that was proven. Refuses to know what they may do.
//!
//! Invariant: a [`Caller`] exists only for a credential that was verified against this configuration.

pub mod caller;
pub mod persona;
pub mod revoked;

pub use caller::{Caller, TokenFacts};
pub use persona::{AgentFacts, ClientProof, Groups, Persona};
