//! What `bailiwick demo` brings along: a development issuer, so that everything can be tried in one command.
//!
//! Refuses to be configured from a file. Invariant: nothing here is reachable from `serve`, and nothing
//! here is trusted by a gateway into which `demo` did not inject it.

pub mod issuer;

pub use issuer::{DemoClient, DemoIssuer, DemoOptions, DemoUser, MintRequest, mint_token};
//! What `bailiwick demo` brings with it, so that a first look needs nothing else.
//!
//! Decides nothing about calls. Invariant: everything here listens on loopback only and is never part of
//! what `serve` starts.

pub mod upstreams;
