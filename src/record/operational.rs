//! Decides how the operational log looks: what the process says about itself while it runs, on standard
//! error. It is not the record: it may be lost, sampled or turned off.
//!
//! Invariant: it never reaches standard output, where results and stdio messages are.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people when standard error is a terminal, JSON otherwise.
    Automatic,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the log: {0}; write a filter such as `info` or `bailiwick=debug,warn`")]
pub struct OperationalError(String);

/// Sets up the log of this process, once. The filter is in the syntax of `tracing-subscriber`.
///
/// # Errors
/// When the filter cannot be read, or a log is set up already.
pub fn start(directives: &str, form: Form) -> Result<(), OperationalError> {
    let filter = filter(directives)?;
    let terminal = std::io::stderr().is_terminal();
    let registry = tracing_subscriber::registry().with(filter);
    let started = if form == Form::Text || (form == Form::Automatic && terminal) {
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour).with_target(false);
        registry.with(layer).try_init()
    } else {
        let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).json().flatten_event(true);
        registry.with(layer).try_init()
    };
    started.map_err(|error| OperationalError(error.to_string()))
}

/// An empty filter means ours from `info` on and everyone else's from `warn` on.
fn filter(directives: &str) -> Result<EnvFilter, OperationalError> {
    let directives = if directives.trim().is_empty() { "warn,bailiwick=info" } else { directives };
    EnvFilter::try_new(directives).map_err(|error| OperationalError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_a_mistake_and_not_silence() {
        assert!(filter("bailiwick=loud").is_err());
        assert!(filter("bailiwick=debug").is_ok());
        assert!(filter("").unwrap().to_string().contains("bailiwick=info"));
    }
}
