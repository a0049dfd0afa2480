//! What `bailiwick demo` brings along: a development issuer, so that everything can be tried in one command.
//!
//! Refuses to be configured from a file. Invariant: nothing here is reachable from `serve`, and nothing
//! here is trusted by a gateway into which `demo` did not inject it.

pub mod issuer;

pub use issuer::{DemoClient, DemoIssuer, DemoOptions, DemoUser, MintRequest, mint_token};
