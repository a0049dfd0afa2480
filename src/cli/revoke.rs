//! `revoke`: takes access back, whether a gateway runs or not.
//!
//! A running gateway is asked over its control socket; where none runs, the store is changed under the
//! lock that a gateway would hold. Decides nothing about who may be revoked: braking is easy. Invariant:
//! what is printed as revoked is durable, what may be is never said not to be, and a token that was typed or
//! piped in is digested at once and never shown.

use std::io::{self, Read as _, Write};
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use http::Method;
use serde::Serialize;

use super::Ending;
use super::door::Door;
use super::offline;
use super::output::{BAD, Output, STRONG, complain, trouble};
use crate::cli::call::safe;
use crate::config::StoreConfig;
use crate::control::client::{self, ClientError};
use crate::control::operations::{bare, named as named_safely};
use crate::control::{RevocationOrder, Revoked};
use crate::delegate::vault::{Removed, take_offline};
use crate::delegate::{Taken, TakenBack, left_behind};
use crate::gateway::record_missed;
use crate::identity::revoked::{RevocationMode, RevocationStore as _};
use crate::ids::{Digest, RevocationEpoch, Subject};
use crate::limit;
use crate::store::state::StateError;
use crate::store::{StateDirectory, Store};

const EXAMPLES: &str = "\
Examples:
  bailiwick revoke subject user:corp/anna --note 'left the company'
  bailiwick revoke subject user:corp/anna --sign-out      she may sign in again
  bailiwick revoke client corp/build-bot                  one client of one issuer
  bailiwick revoke token -                                reads it from standard input, keeps its digest
  bailiwick revoke session 4f1c                           a login session, the sid of its tokens
  bailiwick revoke key nightly-20261127                   one API key, by the id of its row
  bailiwick revoke agent build-bot                        whichever client it calls with
  bailiwick revoke owner user:corp/anna                   every agent and server she answers for
  bailiwick revoke server git                             nobody reaches it, its processes end
  bailiwick revoke credential 01KD3Z6Q0V5W8Y1T4R7N2M9HXB  one that was issued to the gateway
  bailiwick revoke mandate 01KNXS5V5R8W0E9Q0V4VJ2T3AB     one task and those below it
  bailiwick revoke account user:corp/anna notes           what she linked at one server, and she links none again
  bailiwick revoke everything                             until an administrator lifts it
  bailiwick revoke agent build-bot --admin https://mcp.example.com/admin    at a gateway elsewhere

Works while no gateway runs: then it is in force from the start.";

/// Take access back: from a token, a person, a client, an agent, a server, or everyone
///
/// Returns when it is durable. The next call is refused; without --sign-out it stays refused until an
/// administrator lifts it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RevokeArguments {
    /// What is taken back
    #[arg(value_enum)]
    what: What,
    /// Which one: a jti, SHA-256 or - (standard input) for a token, user:ISSUER/SUB, ISSUER/CLIENT, or the name
    #[arg(required_if_eq_any = NAMED)]
    name: Option<String>,
    /// At which server, for an account
    #[arg(required_if_eq("what", "account"))]
    server: Option<String>,
    /// Refuse only what was issued before now; whoever signs in again may go on
    #[arg(long)]
    sign_out: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
    #[command(flatten)]
    door: Door,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// One token
    Token,
    /// A person or service account, as the log shows it
    Subject,
    /// One client of an issuer: software, for whomever it calls
    Client,
    /// One login session, by the sid of its tokens
    Session,
    /// One API key, by its id
    Key,
    /// A registered agent, whichever client it calls with
    Agent,
    /// Every agent and every server that a person or group answers for
    Owner,
    /// A server behind the gateway
    Server,
    /// One credential that was issued to the gateway, as `bailiwick credentials list` names it
    Credential,
    /// A mandate and those below it, by its id
    Mandate,
    /// The account that a person linked at one server, which they cannot link again either
    Account,
    /// Everyone and everything
    Everything,
}

/// Everything but everything has a name.
const NAMED: [(&str, &str); 11] = [
    ("what", "token"),
    ("what", "subject"),
    ("what", "client"),
    ("what", "session"),
    ("what", "key"),
    ("what", "agent"),
    ("what", "owner"),
    ("what", "server"),
    ("what", "credential"),
    ("what", "mandate"),
    ("what", "account"),
];

/// Something of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    issuer: String,
    value: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    epoch: RevocationEpoch,
    mode: &'static str,
    #[serde(flatten)]
    order: &'a RevocationOrder,
    gateway: &'static str,
    /// What is wrong although it holds.
    #[serde(skip_serializing_if = "str::is_empty")]
    warning: &'a str,
    /// What became of issued credentials, for each upstream.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    upstreams: &'a [TakenBack],
}

/// Why nothing is printed as revoked.
#[derive(Debug)]
enum Unrevoked {
    /// It was not: nothing was sent, or it was refused.
    Nothing(String),
    /// It was sent; nobody knows whether it holds.
    Unconfirmed(String),
}

impl From<String> for Unrevoked {
    fn from(problem: String) -> Self {
        Self::Nothing(problem)
    }
}

impl RevokeArguments {
    /// Takes one mandate back.
    pub(super) fn of_mandate(id: String, note: String, door: Door) -> Self {
        Self { what: What::Mandate, name: Some(id), server: None, sign_out: false, note, door }
    }
}

/// Revokes, and prints what is now in force.
pub async fn run(arguments: &RevokeArguments, output: Output, out: &mut impl Write) -> Ending {
    let revoked = async {
        let order = order(arguments, &mut io::stdin().lock())?;
        let (revoked, gateway) = match arguments.door.directory()? {
            Some(state) => revoke(&state, || arguments.door.store(), &order).await?,
            None => (answered(arguments.door.ask(Method::POST, "/revoke", Some(&order)).await)?, "running"),
        };
        Ok::<_, Unrevoked>((order, revoked, gateway))
    };
    match revoked.await {
        Ok((order, Revoked { epoch, warning, upstreams }, gateway)) => {
            let mode = if order.sign_out { "sign_out" } else { "block" };
            let answer = Answer { epoch, mode, order: &order, gateway, warning: &warning, upstreams: &upstreams };
            if !warning.is_empty() {
                complain(format_args!("{warning}\n"));
            }
            // Nobody may read, but it is revoked all the same.
            let _unread = write_answer(&answer, output, out);
            Ending::Done
        }
        Err(Unrevoked::Nothing(problem)) => {
            trouble(format_args!("{BAD}nothing was revoked:{BAD:#} {problem}"));
            Ending::Trouble
        }
        Err(Unrevoked::Unconfirmed(problem)) => {
            trouble(format_args!("{BAD}not confirmed, it may hold all the same:{BAD:#} {problem}"));
            Ending::Trouble
        }
    }
}

fn write_answer(answer: &Answer<'_>, output: Output, out: &mut impl Write) -> io::Result<()> {
    if output.json {
        return writeln!(out, "{}", serde_json::to_string(answer).map_err(io::Error::other)?);
    }
    let RevocationOrder { target, issuer, value, .. } = answer.order;
    let name = match (issuer.is_empty(), value.is_empty()) {
        (true, true) => String::new(),
        (true, false) => format!(" {value}"),
        _ => format!(" {issuer}/{value}"),
    };
    let until = if answer.order.sign_out { "what was issued before now" } else { "until an administrator lifts it" };
    let since = if answer.gateway == "running" { "in force" } else { "in force as soon as a gateway starts" };
    let recorded = if answer.warning.is_empty() { "on the record" } else { "not on the record" };
    writeln!(out, "{STRONG}revoked {target}{name}{STRONG:#}: {until}; {since}, {recorded} (epoch {})", answer.epoch.0)?;
    answer.upstreams.iter().try_for_each(|upstream| writeln!(out, "{}", told_of(upstream)))
}

/// What became of the credentials for one upstream.
fn told_of(upstream: &TakenBack) -> String {
    let count = match upstream.credentials {
        1 => "1 credential".to_owned(),
        more => format!("{more} credentials"),
    };
    let ends = upstream.expires_at.and_then(|at| jiff::Timestamp::from_second(at).ok());
    let ends = ends.map_or_else(String::new, |ends| format!(", ends by itself at {ends}"));
    let what = match upstream.state {
        Taken::Revoked => return safe(&format!("  {}: {count} revoked", upstream.server)),
        Taken::Pending => "not taken back yet, is tried again",
        Taken::ExpiresAt => "not held here",
        Taken::Unsupported => "cannot be taken back",
    };
    safe(&format!("  {}: {count} {what}{ends}: {}", upstream.server, upstream.detail))
}

/// What a gateway answered to the order. Only a refusal says that nothing was done.
fn answered(answer: Result<client::Answer, ClientError>) -> Result<Revoked, Unrevoked> {
    let answer = answer.map_err(|error| Unrevoked::Unconfirmed(error.to_string()))?;
    let refused = answer.status.is_client_error();
    answer.read().map_err(|error| {
        let problem = error.to_string();
        if refused { Unrevoked::Nothing(problem) } else { Unrevoked::Unconfirmed(problem) }
    })
}

/// Asks the gateway, or does it where none runs. A gateway that is just starting or stopping holds the lock
/// without a socket for a moment.
async fn revoke(
    state: &Path,
    store: impl Fn() -> Result<StoreConfig, String>,
    order: &RevocationOrder,
) -> Result<(Revoked, &'static str), Unrevoked> {
    let started = std::time::Instant::now();
    loop {
        match client::request(state, Method::POST, "/revoke", Some(order)).await {
            Err(ClientError::NotRunning(_)) => {}
            answer => return Ok((answered(answer)?, "running")),
        }
        if !state.is_dir() {
            let missing = format!("there is no state directory {}; has a gateway run there?", state.display());
            return Err(missing.into());
        }
        match StateDirectory::open(state) {
            Ok(held) => return Ok((revoke_offline(&held, &store()?, order).await?, "stopped")),
            Err(StateError::InUse { .. }) if started.elapsed() < limit::REVOKE_WAIT_MAX => {
                tokio::time::sleep(limit::LOGS_POLL_INTERVAL).await;
            }
            Err(error) => return Err(error.to_string().into()),
        }
    }
}

/// Does what a running gateway would do: the store first, then the record.
async fn revoke_offline(
    state: &StateDirectory,
    config: &StoreConfig,
    order: &RevocationOrder,
) -> Result<Revoked, Unrevoked> {
    let actor = offline::actor();
    let store = Store::open(state, config).await.map_err(|error| error.to_string())?;
    let replica = store.replica().await.map_err(|failure| failure.detail)?;
    let now = store.now_s().await.map_err(|failure| failure.detail)?;
    let revocation = order.at(&actor, now)?;
    let (journal, recovered) = offline::journal(state.path(), replica)?;
    store.check_not_older_than(recovered.epoch).await.map_err(|error| error.to_string())?;
    store.check_same_history(recovered.history).await.map_err(|error| error.to_string())?;
    let epoch = store.revoke(&revocation).await.map_err(|failure| Unrevoked::Unconfirmed(failure.detail))?;
    // With everything that is not told there, this one among it: the next start asks for what is newer alone.
    let told = recovered.epoch.unwrap_or_else(|| RevocationEpoch(epoch.0.saturating_sub(1)));
    let recorded = record_missed(&store, &journal, replica, Some(told)).await.map(drop);
    let mut warnings = Vec::new();
    let untold = recorded.err().map(|failure| format!("it holds, but the record does not say so: {}", failure.detail));
    warnings.extend(untold);
    let shelf = Arc::new(store.clone());
    let mut upstreams = left_behind(shelf, &revocation.target).await.unwrap_or_else(|failure| {
        warnings.push(format!("it holds, but which credentials it names is not known: {}", failure.detail));
        Vec::new()
    });
    if revocation.mode == RevocationMode::Block {
        match take_offline(Arc::new(store.clone()), &revocation.target).await {
            Ok(accounts) => upstreams.extend(accounts.iter().map(Removed::taken_back)),
            Err(failure) => {
                let detail = failure.detail;
                warnings.push(format!(
                    "it holds, but linked accounts may be left, which the next start takes back: {detail}"
                ));
            }
        }
    }
    store.close().await;
    Ok(Revoked { epoch, warning: warnings.join("; "), upstreams })
}

fn order(arguments: &RevokeArguments, stdin: &mut impl io::Read) -> Result<RevocationOrder, String> {
    let name = arguments.name.as_deref().unwrap_or_default();
    let alone = |value| Named { issuer: String::new(), value };
    if arguments.server.is_some() && arguments.what != What::Account {
        return Err("a server is named for an account only".to_owned());
    }
    let (target, Named { issuer, value }) = match arguments.what {
        What::Token => ("token", alone(token_named(name, stdin)?)),
        What::Subject => ("subject", subject(name)?),
        What::Client => ("client", client(name)?),
        What::Session => ("session", alone(name.to_owned())),
        What::Key => ("key", alone(name.to_owned())),
        What::Agent => ("agent", alone(name.to_owned())),
        What::Owner => ("owner", alone(name.to_owned())),
        What::Server => ("server", alone(name.to_owned())),
        What::Credential => ("credential", alone(name.to_owned())),
        What::Mandate => ("mandate", alone(name.to_owned())),
        What::Account => {
            let Named { issuer, value } = subject(name)?;
            let server = arguments.server.as_deref().unwrap_or_default();
            ("account", Named { issuer, value: format!("{server}/{value}") })
        }
        What::Everything if !name.is_empty() => return Err("everything has no name".to_owned()),
        What::Everything => ("everything", alone(String::new())),
    };
    let note = arguments.note.clone();
    Ok(RevocationOrder { target: target.to_owned(), issuer, value, sign_out: arguments.sign_out, note })
}

/// The `jti` or digest of what was typed; a whole token becomes its digest.
fn token_named(typed: &str, stdin: &mut impl io::Read) -> Result<String, String> {
    if typed != "-" {
        return Ok(named_safely(typed).into_owned());
    }
    let mut text = String::new();
    let bytes_max = limit::TOKEN_BYTES_MAX as u64;
    stdin.take(bytes_max + 1).read_to_string(&mut text).map_err(|error| format!("standard input: {error}"))?;
    if text.len() as u64 > bytes_max {
        return Err(format!("standard input: more than {bytes_max} bytes, which no token has"));
    }
    let token = bare(&text);
    if token.is_empty() || token.contains(char::is_whitespace) {
        return Err("standard input: that is not one token".to_owned());
    }
    Ok(Digest::sha256(token.as_bytes()).to_string())
}

/// `user:ISSUER/SUB` with the encoding of rules and logs, or `ISSUER/SUB` verbatim.
fn subject(text: &str) -> Result<Named, String> {
    let Some(encoded) = text.strip_prefix("user:") else {
        return named(text).ok_or_else(|| "write user:ISSUER/SUB, as the log shows it".to_owned());
    };
    Subject::canonical(text).map_err(|error| error.to_string())?;
    let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8().map_err(|error| error.to_string())?;
    named(&decoded).ok_or_else(|| "write user:ISSUER/SUB, as the log shows it".to_owned())
}

fn client(text: &str) -> Result<Named, String> {
    named(text).ok_or_else(|| "write ISSUER/CLIENT: the issuer's alias and the client id there".to_owned())
}

fn named(text: &str) -> Option<Named> {
    let (issuer, value) = text.split_once('/')?;
    let whole = !issuer.is_empty() && !value.is_empty() && !issuer.contains(':');
    whole.then(|| Named { issuer: issuer.to_owned(), value: value.to_owned() })
}

#[cfg(test)]
mod tests;
