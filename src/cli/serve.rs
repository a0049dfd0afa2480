//! `serve` and `reload`: what can be typed to start the gateway and to make it read its files again.

use clap::Args;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Ending;
use super::door::Door;
use super::files::Files;
use super::lift::refused;
use super::output::{BAD, GOOD, Output, WARNING, complain, list, trouble};
use crate::config::Overrides;
use crate::config::cluster::host_and_port;
use crate::gateway::{Gateway, ReloadOrder, ReloadReport};
use crate::record::operational;
use crate::serve::{self, Options, StartError};

const SERVE_EXAMPLES: &str = "\
Examples:
  bailiwick serve                       with ./servers.toml and ./policies
  bailiwick serve -c /etc/bailiwick/servers.toml --log-format json
  bailiwick serve --listen 0.0.0.0:7800 --state /var/lib/bailiwick --advertise 10.0.0.7:7801
                                        one of several replicas, with the same files at each
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
    /// What differs between replicas
    #[command(flatten)]
    pub replica: Replica,
    /// How much to log: a filter such as info, debug, or bailiwick=debug,warn
    #[arg(long, value_name = "FILTER", default_value = "info", env = "BAILIWICK_LOG")]
    pub log: String,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// What differs between replicas that have the same files.
#[derive(Debug, Args)]
pub struct Replica {
    /// Listen here, whatever the file says
    #[arg(long, value_name = "ADDRESS:PORT", env = "BAILIWICK_LISTEN")]
    listen: Option<SocketAddr>,
    /// Keep the state here, whatever the file says; no two gateways have the same
    #[arg(long, value_name = "DIRECTORY", env = "BAILIWICK_STATE")]
    state: Option<PathBuf>,
    /// Listen for other replicas here, whatever [cluster] says
    #[arg(long, value_name = "ADDRESS:PORT", env = "BAILIWICK_CLUSTER_LISTEN")]
    cluster_listen: Option<SocketAddr>,
    /// Where other replicas reach this one, whatever [cluster] says
    #[arg(long, value_name = "HOST:PORT", env = "BAILIWICK_ADVERTISE", value_parser = advertised)]
    advertise: Option<String>,
}

fn advertised(text: &str) -> Result<String, String> {
    host_and_port(text).map(|()| text.to_owned())
}

impl Replica {
    fn overrides(&self) -> Overrides {
        Overrides {
            listen: self.listen,
            state: self.state.clone(),
            cluster_listen: self.cluster_listen,
            advertise: self.advertise.clone(),
            ..Overrides::default()
        }
    }
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
  bailiwick check --seal              or: seal the reviewed files, then reload
  bailiwick reload --admin https://mcp.example.com/admin --allow-widening

Where servers.toml has [admin], widening is for its administrators: the socket refuses it.

A set of files with a mistake never replaces the one that is served.";

/// Make the running gateway read its files again
#[derive(Debug, Args)]
#[command(after_help = RELOAD_EXAMPLES)]
pub struct ReloadArguments {
    /// Which gateway
    #[command(flatten)]
    pub door: Door,
    /// Accept files that remove a deny or add an allow
    #[arg(long)]
    pub allow_widening: bool,
}

/// Serves until it is told to stop.
pub fn run(arguments: &ServeArguments) -> Ending {
    let form = match arguments.log_format {
        LogFormat::Text => operational::Form::Text,
        LogFormat::Json => operational::Form::Json,
    };
    if let Err(error) = operational::start(&arguments.log, form) {
        trouble(error);
        return Ending::Trouble;
    }
    let options = Options { file: arguments.files.config.clone(), overrides: arguments.replica.overrides() };
    super::in_runtime(async {
        survive_file_limits();
        let Some(mut signals) = signals() else { return Ending::Trouble };
        let started = tokio::select! {
            started = serve::start(options) => started,
            // Nothing was served yet: there is nothing to finish.
            cause = signals.stop() => {
                tracing::info!(cause, "stopped before anything was served");
                return Ending::Done;
            }
        };
        let served = match started {
            Ok(served) => served,
            Err(error) => return not_started(&error),
        };
        let cause = signals.stop_or_reload(&served.gateway).await;
        served.stop(cause).await;
        Ending::Done
    })
}

/// Tells why nothing was started.
pub(super) fn not_started(error: &StartError) -> Ending {
    match error {
        StartError::Mistakes(mistakes) => {
            complain(list(mistakes, "", BAD));
            trouble(error);
            Ending::Refused
        }
        StartError::Trouble(_) => {
            trouble(error);
            Ending::Trouble
        }
    }
}

/// Makes a file that may not grow any more an error of its write, which refuses calls, instead of a signal that
/// ends the process.
fn survive_file_limits() {
    let kind = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    // The handler stays in place for as long as the process lives.
    if let Err(error) = signal(kind) {
        tracing::warn!(%error, "a file size limit would end the process");
    }
}

/// The signals that a gateway answers to. Made before it serves: one that comes before anybody waits for it is kept.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Nothing ends the process by itself any more. Needs a runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the signal to stop.
    async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Waits for the signal to stop, and reloads on SIGHUP meanwhile.
    pub(super) async fn stop_or_reload(&mut self, gateway: &Arc<Gateway>) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => match gateway.reload("signal", ReloadOrder::default()).await {
                    Ok(report) => report.problems.iter().for_each(|problem| tracing::error!("not reloaded: {problem}")),
                    Err(failure) => tracing::error!(%failure, "not reloaded"),
                },
            }
        }
    }
}

/// Those signals, or a word that there are none.
pub(super) fn signals() -> Option<Signals> {
    let signals = Signals::listen();
    if let Err(error) = &signals {
        trouble(format_args!("signals cannot be received: {error}"));
    }
    signals.ok()
}

/// Asks the running gateway to read its files again.
pub fn reload(arguments: &ReloadArguments, output: Output) -> Ending {
    let order = ReloadOrder { allow_widening: arguments.allow_widening };
    super::in_runtime(async {
        // The files may have mistakes, or be a demo's: the gateway says so, and where it is can be read all the same.
        let answer = arguments.door.ask(http::Method::POST, "/reload", Some(&order)).await;
        let report: ReloadReport = match answer.and_then(|answer| answer.report()) {
            Ok(report) => report,
            Err(error) => return refused(&error),
        };
        output.result(&report, told(&report));
        if report.problems.is_empty() { Ending::Done } else { Ending::Refused }
    })
}

fn told(report: &ReloadReport) -> String {
    let mut text = String::new();
    let mut lines = |sign: &str, style: anstyle::Style, rows: &[String]| {
        for row in rows {
            text.push_str(&format!("{style}{sign} {row}{style:#}\n"));
        }
    };
    lines("+", GOOD, &report.added);
    lines("-", BAD, &report.removed);
    lines("!", BAD, &report.problems);
    lines("!", WARNING, &report.warnings);
    let before = report.from.map(|revision| revision.0.short()).unwrap_or_default();
    match report.to {
        Some(after) if report.from == Some(after) => text.push_str(&format!("reloaded: still revision {before}\n")),
        Some(after) => text.push_str(&format!("reloaded: revision {before} -> {}\n", after.0.short())),
        None => text.push_str(&format!("nothing was changed: still revision {before}\n")),
    }
    if let Some((first, others)) = report.seal_keys.split_first() {
        text.push_str(&format!("handles are sealed with key {first}, {} more read\n", others.len()));
    }
    text
}
