//! What `bailiwick demo` brings with it, so that a first look needs nothing else: two upstreams, and an
//! issuer whose people sign in with one click.
//!
//! Decides nothing about calls. Invariant: everything here listens on loopback only and is never part of
//! what `serve` starts; no file can name the issuer, and no gateway trusts it into which `demo` did not
//! inject it.

pub mod issuer;
pub mod upstreams;

pub use issuer::{DemoClient, DemoIssuer, DemoOptions, DemoPages, DemoUser, MintRequest, mint_token};

/// Under this name in the demo's state directory `bailiwick token` finds the issuer.
pub const DOOR_FILE: &str = "demo-issuer.json";
