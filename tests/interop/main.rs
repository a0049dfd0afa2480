//! Other people's servers, clients and OpenID provider against the real gateway.
//!
//! `tests/interop/parts/install` installs them. Where it has not run, these tests say so and pass; in CI they fail.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test says what must hold, and fails where it does not"
)]

#[path = "../it/support/mod.rs"]
#[expect(dead_code, clippy::expect_used, reason = "shared with the tests in tests/it, which use all of it")]
mod support;

mod assistants;
mod clients;
mod examples;
mod exchange;
mod kubernetes;
mod ocsf;
mod onboard;
mod parts;
mod provider;
mod second_issuer;
mod tokens;
mod upstreams;
