//! `serve` and `reload`: what can be typed to start the gateway and to make it read its files again.

use clap::Args;

use super::output::Files;

const SERVE_EXAMPLES: &str = "\
Examples:
  bailiwick serve                       with ./servers.toml and ./policies
  bailiwick serve -c /etc/bailiwick/servers.toml --log-format json
  bailiwick check && bailiwick serve    which serve does anyway: a file with a mistake never starts

SIGTERM and Ctrl-C let calls in flight finish, SIGHUP reads the files again.";

/// Run the gateway
///
/// Reads servers.toml and the policies, refuses to start with a mistake in them, and then serves MCP at
/// `public_url` until it is stopped.
#[derive(Debug, Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct ServeArguments {
    /// The files to serve
    #[command(flatten)]
    pub files: Files,
    /// How much to log: a filter such as info, debug, or bailiwick=debug,warn
    #[arg(long, value_name = "FILTER", default_value = "info", env = "BAILIWICK_LOG")]
    pub log: String,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

const RELOAD_EXAMPLES: &str = "\
Examples:
  bailiwick reload                    check the files, show what changes, swap them in
  bailiwick reload --allow-widening   also when more becomes allowed than before

A set of files with a mistake never replaces the one that is served.";

/// Make the running gateway read its files again
#[derive(Debug, Args)]
#[command(after_help = RELOAD_EXAMPLES)]
pub struct ReloadArguments {
    /// The files of the running gateway; its state directory has the socket
    #[command(flatten)]
    pub files: Files,
    /// Accept files that remove a deny or add an allow
    #[arg(long)]
    pub allow_widening: bool,
}
