//! The real gateway over real sockets: one binary, this is its table of contents.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test says what must hold, and fails where it does not"
)]

mod support;

/// Ends a test here that has servers which are scripts, where nothing can run them.
macro_rules! needs_python {
    () => {
        if !$crate::support::has_python() {
            return;
        }
    };
}
pub(crate) use needs_python;

mod accounts;
mod admin;
mod agents;
mod apart;
mod approvals;
mod audit;
mod authenticate;
mod authorize;
mod backup;
mod bad_input;
mod batch;
mod bound;
mod breaker;
mod bridge;
mod broken;
mod bucket;
mod bundle_endpoint;
mod callers;
mod changes;
#[cfg(target_os = "linux")]
mod children;
mod clock;
mod console;
mod credentials;
mod crossed;
mod demo;
mod doctor;
mod exchanges;
mod explained;
mod extension;
mod feeds;
mod inbound;
mod init;
mod input;
mod input_legacy;
mod input_stdio;
mod issuers;
mod keep;
mod keys;
mod labels;
mod legacy;
mod list;
mod mandates;
mod merged;
mod messages;
mod modern;
mod oldest;
mod operate;
mod orphans;
mod pages;
mod patience;
mod pins;
mod processes;
mod record;
mod refused;
mod registration;
mod relay;
mod reload;
mod replicas;
mod restart;
mod reviews;
mod revoke;
mod roots;
mod roundtrip;
mod shadow;
mod simulate;
mod sockets;
mod standalone;
mod stdio;
mod strangers;
mod streams;
mod tasks;
mod tasks_asking;
mod tasks_followed;
mod tasks_legacy;
mod tasks_restarted;
mod telemetry;
mod tls;
mod updates;
mod voided;
mod watch;
mod whole;
mod workload;
mod workload_api;
