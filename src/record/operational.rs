//! Decides how the operational log looks: what the process says about itself while it runs, on standard
//! error. It is not the record: it may be lost, sampled or turned off.
//!
//! Invariants: it never reaches standard output, where results and stdio messages are; no secret that this process has
//! read is in it, whoever repeated it.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::known;

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
        let layer = tracing_subscriber::fmt::layer().with_writer(said).with_ansi(colour).with_target(false);
        registry.with(layer).try_init()
    } else {
        let layer = tracing_subscriber::fmt::layer().with_writer(said).json().flatten_event(true);
        registry.with(layer).try_init()
    };
    started.map_err(|error| OperationalError(error.to_string()))
}

/// Standard error, for one line after the other.
fn said() -> Said<io::Stderr> {
    Said(io::stderr())
}

/// What is written through it is looked through for known secrets; each write is a whole line.
struct Said<W>(W);

impl<W: io::Write> io::Write for Said<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match known::without(&String::from_utf8_lossy(line)) {
            std::borrow::Cow::Borrowed(_) => self.0.write_all(line)?,
            std::borrow::Cow::Owned(clean) => self.0.write_all(clean.as_bytes())?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
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
    fn a_line_is_written_without_the_secrets_that_were_read() {
        known::remember(&secrecy::SecretString::from("kept-from-the-log-5"));
        let layer = tracing_subscriber::fmt::layer().json().flatten_event(true);
        let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let writer = {
            let lines = std::sync::Arc::clone(&lines);
            move || Said(Lines(std::sync::Arc::clone(&lines)))
        };
        let subscriber = tracing_subscriber::registry().with(layer.with_writer(writer));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(problem = "it said kept-from-the-log-5", "no good: kept-from-the-log-5");
            tracing::warn!("another line");
        });
        let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        assert!(text.contains("it said [redacted]") && text.contains("no good: [redacted]"), "{text}");
        assert!(!text.contains("kept-from") && text.lines().count() == 2, "{text}");
    }

    struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_a_mistake_and_not_silence() {
        assert!(filter("bailiwick=loud").is_err());
        assert!(filter("bailiwick=debug").is_ok());
        assert!(filter("").unwrap().to_string().contains("bailiwick=info"));
    }
}
