//! Decides how the operational log looks: what the process says about itself while it runs, on standard
//! error. It is not the record: it may be lost, sampled or turned off.
//!
//! Invariant: it never reaches standard output, where results and stdio messages are.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The variable that says what is logged, in the syntax of `tracing-subscriber`.
pub const VARIABLE: &str = "BAILIWICK_LOG";

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
#[error("cannot set up the log: {0}; see that {VARIABLE} is something like `info` or `bailiwick=debug`")]
pub struct OperationalError(String);

/// Sets up the log of this process, once.
///
/// # Errors
/// When the variable cannot be read as a filter, or a log is set up already.
pub fn start(form: Form) -> Result<(), OperationalError> {
    let filter = filter(std::env::var(VARIABLE).ok().as_deref())?;
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

/// Ours from `info` on, everyone else's from `warn` on, unless the variable says otherwise.
fn filter(text: Option<&str>) -> Result<EnvFilter, OperationalError> {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => EnvFilter::try_new(text).map_err(|error| OperationalError(error.to_string())),
        None => Ok(EnvFilter::new("warn,bailiwick=info")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_a_mistake_and_not_silence() {
        assert!(filter(Some("bailiwick=loud")).is_err());
        assert!(filter(Some("bailiwick=debug")).is_ok());
        assert_eq!(filter(None).unwrap().to_string(), filter(Some("")).unwrap().to_string());
    }
}
