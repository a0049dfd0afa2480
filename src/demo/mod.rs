//! What `bailiwick demo` brings with it, so that a first look needs nothing else.
//!
//! Decides nothing about calls. Invariant: everything here listens on loopback only and is never part of
//! what `serve` starts.

pub mod upstreams;
