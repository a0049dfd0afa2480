//! `doctor`: everything that can be in the way between a client and a tool, looked at from here.
//!
//! Asks each room and shows the answers; decides only what is shown, in which order, and how long is waited. Changes
//! nothing. Invariant: independent looks run at once, each ends in bounded time, and no secret is shown.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Ending;
use super::files::{Files, Understood};
use super::output::{Output, QUIET, complain, trouble};
use super::typed_token;
use crate::config::Config;
use crate::gateway::barred;
use crate::identity::Identity;
use crate::limit;

mod certificate;
mod files;
mod finding;
mod issuer;
mod resource;
pub(super) mod running;
mod state;
mod store;
pub(super) mod token;
mod upstream;

use finding::{Finding, Group, Report};
use running::Standing;
use token::Examined;
use upstream::Bench;

const EXAMPLES: &str = "\
Examples:
  bailiwick doctor                     everything that can be in the way, for the files here
  bailiwick doctor -c /etc/bailiwick/servers.toml
  printf %s \"$TOKEN\" | bailiwick doctor --token -
                                       also: why this token is refused, and what to change
  bailiwick doctor --json              for programs
  bailiwick doctor --demo              for a demo's files

It works while the gateway runs, which it then asks as well, and while none does. It changes nothing. It opens
connections to issuers and servers, and starts servers that have a command as the gateway would.
It ends with 0 if all is well, with 1 if something is bad, with 2 if it was asked wrongly.";

/// Find out what is wrong, and what to type
///
/// Looks at the files, the issuers and their clocks, the metadata that clients find, a token if you have one, the
/// servers, the store of several replicas, the state directory, secrets and certificates, and what this host can hold
/// processes with.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArguments {
    #[command(flatten)]
    files: Files,
    /// Look at a token too; only `-`, which reads it from standard input. It is never shown
    #[arg(long, value_name = "-")]
    token: Option<String>,
    /// Look at the files as `demo` loads them
    #[arg(long)]
    demo: bool,
}

/// Looks, prints, and says how it ended.
pub async fn run(arguments: &DoctorArguments, output: Output) -> Ending {
    let path = &arguments.files.config;
    if !path.exists() {
        trouble(format_args!("there is no {}: name it with --config, or make one: bailiwick init", path.display()));
        return Ending::Trouble;
    }
    let token = match arguments.token.as_deref().map(|given| typed_token::read(given, "doctor")).transpose() {
        Ok(token) => token,
        Err(problem) => {
            trouble(problem);
            return Ending::Trouble;
        }
    };
    let report = Report::new(look(arguments, token).await);
    output.result(&report, report.text());
    if report.ok { Ending::Done } else { Ending::Refused }
}

async fn look(arguments: &DoctorArguments, token: Option<SecretString>) -> Vec<Group> {
    let (understood, configuration) = files::understood(&arguments.files, arguments.demo);
    let state = understood
        .as_ref()
        .map_or_else(|| written_state(&arguments.files.config), |understood| understood.config().gateway.state.clone());
    let standing = running::ask(&state).await;
    let revision = understood.as_ref().map(|understood| understood.loaded.files.revision().to_string());
    let mut groups =
        vec![group("configuration", configuration), group("gateway", standing.findings(&state, revision.as_deref()))];
    let Some(understood) = understood else {
        // What can be said without a configuration.
        groups.push(group("state", state::findings(&state, 0, &standing)));
        return groups;
    };
    groups.extend(look_around(&Arc::new(understood), &state, Arc::new(standing), token).await);
    groups
}

/// The looks that take time, all at once.
async fn look_around(
    understood: &Arc<Understood>,
    state: &Path,
    standing: Arc<Standing>,
    token: Option<SecretString>,
) -> Vec<Group> {
    let config = understood.config();
    let stop = CancellationToken::new();
    let revocations = token::revocations(standing.running());
    let left = barred::without(&Arc::new(config.clone()), &revocations.barred());
    let identity = Arc::new(Identity::new(&left, revocations, TaskTracker::new(), stop.clone()));
    let waiting = Waiting::default();

    let examined = {
        let (understood, identity, standing) = (Arc::clone(understood), Arc::clone(&identity), Arc::clone(&standing));
        let examined = async move {
            match &token {
                Some(token) => token::examine(&understood, &identity, token).await.held_against(standing.running()),
                None => Examined { findings: Vec::new(), caller: None },
            }
        };
        waiting.named("the token", examined.boxed()).boxed().shared()
    };
    let opening = waiting.named("secrets", Bench::open(config, Arc::clone(&identity)).boxed());
    let bench = waiting.told(opening).await;
    let issuers = config.issuers.iter().map(|issuer| {
        let name = issuer.alias.as_str();
        let late = || (vec![too_late(name)], Vec::new());
        waiting.bounded(format!("issuer {name}"), issuer::findings(config, issuer).boxed(), late)
    });
    let upstreams = config.servers.iter().map(|server| {
        let (examined, bench, name) = (examined.clone(), &bench, server.id.as_str());
        let looked = async move {
            let caller = examined.await.caller;
            bench.look(server, caller.as_ref()).await
        };
        waiting.bounded(format!("server {name}"), looked.boxed(), || vec![too_late(name)])
    });
    let runs = standing.running().is_some();
    let resource = waiting
        .bounded("public_url".to_owned(), resource::findings(config, runs).boxed(), || vec![too_late("public_url")]);
    let sandbox = waiting.bounded("sandbox".to_owned(), upstream::sandbox(config).boxed(), || vec![too_late("host")]);
    let store =
        waiting.bounded("the store".to_owned(), store::findings(config, state).boxed(), || vec![too_late("store")]);
    let on_disk = {
        let (config, state, standing) = (config.clone(), state.to_owned(), Arc::clone(&standing));
        let looked = tokio::task::spawn_blocking(move || on_disk(&config, &state, &standing));
        waiting.bounded("the state directory".to_owned(), looked.map(Result::ok).boxed(), || None)
    };

    let all = async {
        tokio::join!(join_all(issuers), resource, examined.clone(), join_all(upstreams), sandbox, store, on_disk)
    };
    let (issuers, resource, examined, upstreams, sandbox, store, on_disk) = waiting.told(all).await;
    bench.close().await;
    stop.cancel();

    let (issuers, clocks): (Vec<_>, Vec<_>) = issuers.into_iter().unzip();
    let mut groups = vec![
        group("issuers", issuers.concat()),
        group("clock", clocks.concat()),
        group("metadata", resource),
        group("token", examined.findings),
        group("servers", upstreams.concat()),
        group("sandbox", sandbox),
        group("store", store),
    ];
    groups.extend(on_disk.unwrap_or_else(|| vec![group("state", vec![too_late("state")])]));
    groups
}

fn on_disk(config: &Config, state: &Path, standing: &Standing) -> Vec<Group> {
    vec![
        group("state", state::findings(state, config.record.reserve_bytes, standing)),
        files::permissions(config),
        group("certificate", certificate::findings(config)),
    ]
}

fn group(name: &str, findings: Vec<Finding>) -> Group {
    Group { name: name.to_owned(), findings }
}

fn too_late(name: &str) -> Finding {
    let found = format!("no answer within {} s", limit::DOCTOR_CHECK_TIMEOUT.as_secs());
    Finding::bad(name, found, "look at the network between here and there, then run this again")
}

/// The state directory that a file with mistakes names.
fn written_state(file: &Path) -> PathBuf {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let table = toml::de::DeTable::parse_recoverable(&text).0;
    let written = table.get_ref().get("gateway").and_then(|gateway| gateway.get_ref().get("state"));
    let state = written.and_then(|state| state.get_ref().as_str()).unwrap_or("state");
    file.parent().map_or_else(|| PathBuf::from(state), |base| base.join(state))
}

/// What is still waited for, so that whoever waits is told.
#[derive(Default)]
struct Waiting {
    names: Mutex<BTreeSet<String>>,
}

impl Waiting {
    /// The look under its name.
    async fn named<T>(&self, name: &str, look: BoxFuture<'_, T>) -> T {
        self.change(|names| names.insert(name.to_owned()));
        let found = look.await;
        self.change(|names| names.remove(name));
        found
    }

    /// The same, ended when it takes too long.
    async fn bounded<T>(&self, name: String, look: BoxFuture<'_, T>, late: impl FnOnce() -> T) -> T {
        let bounded = tokio::time::timeout(limit::DOCTOR_CHECK_TIMEOUT, look).boxed();
        self.named(&name, bounded).await.unwrap_or_else(|_| late())
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<String>) -> bool) {
        let _was_there = change(&mut self.names.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits for all looks and says every second for what.
    async fn told<T>(&self, all: impl Future<Output = T>) -> T {
        let mut all = std::pin::pin!(all);
        let mut said = String::new();
        loop {
            tokio::select! {
                found = &mut all => return found,
                () = tokio::time::sleep(limit::DOCTOR_PROGRESS_AFTER) => {
                    let names = self.names.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let now = names.into_iter().collect::<Vec<_>>().join(", ");
                    if now != said {
                        complain(format_args!("{QUIET}waiting for {now}{QUIET:#}\n"));
                        said = now;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_that_never_ends_is_ended() {
        let waiting = Waiting::default();
        let began = tokio::time::Instant::now();
        let look = waiting.bounded("x".to_owned(), std::future::pending::<&str>().boxed(), || "late");
        assert_eq!(waiting.told(look).await, "late");
        assert_eq!(began.elapsed(), limit::DOCTOR_CHECK_TIMEOUT);
        assert!(waiting.names.lock().unwrap().is_empty());
    }
}
