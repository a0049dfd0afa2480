//! The official conformance suite against the gateway: in front of our fixture in every pairing of eras and
//! transports, and with the gateway as the client of the suite's own servers.
//!
//! `tests/interop/parts/install` installs the suite. Where it has not run, these tests say so and pass; in CI
//! they fail. `docs/conformance.md` has the figures.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what must hold, and fails where it does not"
)]

#[path = "../interop/parts.rs"]
#[expect(dead_code, reason = "shared with the tests in tests/interop, which use all of it")]
mod parts;
#[path = "../it/support/mod.rs"]
#[expect(dead_code, clippy::expect_used, clippy::print_stderr, reason = "shared with the tests in tests/it")]
mod support;

mod auth;
mod client;
mod expected;
mod server;
mod suite;
mod upstream;
