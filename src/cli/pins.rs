//! `pins`: which definitions were accepted, what changes with those that wait, and accepting or rejecting them.
//!
//! Asks a running gateway, which decides. Invariants: what is accepted is named by its digest, and everything at once only
//! after it was shown; what a server wrote is printed with nothing in it that a terminal obeys or a reader does not see.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;

use super::Ending;
use super::door::Door;
use super::lift::refused;
use super::output::{BAD, GOOD, Output, QUIET, STRONG, WARNING, complain, print, trouble};
use crate::catalog::pins::visible;
use crate::control::client::ClientError;
use crate::control::operations::{PinDiffs, PinLockText, PinOrder, PinStatus, PinsChanged, PinsReport};
use crate::ids::PinKind;
use crate::limit;

const EXAMPLES: &str = "\
Examples:
  bailiwick pins list                              every definition, and who accepted it
  bailiwick pins list --only waiting               those that nobody has accepted
  bailiwick pins diff git/log                      what changes with it
  bailiwick pins accept git/log \
    3f9a1c77d2e04b5a8c6f1e0d9b7a3c5e2f4d6b8a0c1e3f5a7b9d0c2e4f6a8b1d --admin https://mcp.example.com/admin --note 'read it'
  bailiwick pins accept --all git --admin https://mcp.example.com/admin
  bailiwick pins reject git/log 3f9a1c77           it is not shown, whatever else is accepted
  bailiwick pins export --file policies/pins.lock  what is accepted, to be reviewed like code

Accepting needs [admin] in servers.toml, a person with an administrators' client, and a login of a moment ago. Without an
administrators' listener, digests are accepted by writing them into policies/pins.lock. What is accepted is named by its whole
digest, which `pins diff` prints; to reject, its beginning is enough, as long as it names one definition.";

/// Hexadecimal digits of a whole digest.
const DIGEST_DIGITS: usize = 64;

/// See, accept and reject the definitions that servers list
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PinsArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List definitions and who accepted them
    List {
        /// Of this server only
        #[arg(long, value_name = "SERVER")]
        server: Option<String>,
        /// In this state only
        #[arg(long, value_enum, value_name = "STATE")]
        only: Option<Standing>,
        #[command(flatten)]
        door: Door,
    },
    /// Show what changes with a definition
    Diff {
        /// SERVER/NAME; SERVER/instructions for what the server says of itself
        object: String,
        /// Of what kind, where several have the name
        #[arg(long, value_parser = kind)]
        kind: Option<PinKind>,
        #[command(flatten)]
        door: Door,
    },
    /// Accept a definition as it is listed now
    Accept {
        /// SERVER/NAME; SERVER/instructions for what the server says of itself
        #[arg(required_unless_present = "all")]
        object: Option<String>,
        /// Its whole digest, as `pins diff` prints it
        #[arg(required_unless_present = "all")]
        digest: Option<String>,
        /// Everything of this server that waits and has no flag, after it was shown
        #[arg(long, value_name = "SERVER", conflicts_with_all = ["object", "digest"])]
        all: Option<String>,
        /// Do not ask
        #[arg(long, requires = "all")]
        yes: bool,
        /// Why, for the record
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        note: String,
        #[command(flatten)]
        door: Door,
    },
    /// Reject a definition, accepted or not
    Reject {
        /// SERVER/NAME; SERVER/instructions for what the server says of itself
        object: String,
        /// Its digest, or how it begins
        digest: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        note: String,
        #[command(flatten)]
        door: Door,
    },
    /// Write what is accepted as a pins.lock
    Export {
        /// Into this file instead of standard output
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        door: Door,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Standing {
    /// New or changed
    Waiting,
    /// Nobody has accepted anything of that name
    New,
    /// Something else was accepted under that name
    Changed,
    /// Somebody has accepted it
    Accepted,
    /// Accepted, and its server lists nothing of that name any more
    Removed,
    /// Somebody has rejected it
    Rejected,
}

impl Standing {
    fn is(self, pin: &PinStatus) -> bool {
        match self {
            Self::Waiting => waits(pin),
            Self::New => pin.state == "new",
            Self::Changed => pin.state == "changed",
            Self::Accepted => pin.state == "accepted",
            Self::Removed => pin.state == "removed",
            Self::Rejected => pin.state == "rejected",
        }
    }
}

fn kind(text: &str) -> Result<PinKind, String> {
    PinKind::parse(text).ok_or_else(|| "write tool, prompt, template or instructions".to_owned())
}

fn waits(pin: &PinStatus) -> bool {
    matches!(pin.state.as_str(), "new" | "changed")
}

/// Asks and prints.
pub async fn run(arguments: &PinsArguments, output: Output) -> Ending {
    match &arguments.what {
        What::List { server, only, door } => list(door, server.as_deref(), *only, output).await,
        What::Diff { object, kind, door } => diff(door, object, *kind, output).await,
        What::Accept { object: Some(object), digest: Some(digest), note, door, .. } => {
            order(door, "accept", object, digest, note, output).await
        }
        What::Accept { all: Some(server), yes, note, door, .. } => all(door, server, *yes, note, output).await,
        What::Accept { .. } => {
            trouble("name a definition and its digest, or --all SERVER");
            Ending::Trouble
        }
        What::Reject { object, digest, note, door } => order(door, "reject", object, digest, note, output).await,
        What::Export { file, door } => export(door, file.as_ref(), output).await,
    }
}

async fn ask(door: &Door) -> Result<PinsReport, ClientError> {
    door.ask(Method::GET, "/pins", None::<&()>).await?.read()
}

async fn list(door: &Door, server: Option<&str>, only: Option<Standing>, output: Output) -> Ending {
    let mut report = match ask(door).await {
        Ok(report) => report,
        Err(error) => return refused(&error),
    };
    report.servers.retain(|of| server.is_none_or(|server| of.server == server));
    report.pins.retain(|pin| server.is_none_or(|server| pin.server == server) && only.is_none_or(|only| only.is(pin)));
    let mut text = String::new();
    for of in &report.servers {
        let first = match (of.pins.as_str(), of.first_use_taken) {
            ("first_use", false) => ", no complete list yet",
            ("first_use", true) => ", first list taken",
            _ => "",
        };
        let pins = report.pins.iter().filter(|pin| pin.server == of.server);
        // Writing to a string cannot fail.
        let _infallible =
            writeln!(text, "{STRONG}{}{STRONG:#}  {QUIET}pins = {:?}{first}{QUIET:#}", of.server, of.pins);
        pins.for_each(|pin| text.push_str(&line(pin)));
    }
    let undeclared = |pin: &&PinStatus| !report.servers.iter().any(|of| of.server == pin.server);
    report.pins.iter().filter(undeclared).for_each(|pin| text.push_str(&line(pin)));
    output.result(&report, text);
    Ending::Done
}

/// One definition on one line.
pub(super) fn line(pin: &PinStatus) -> String {
    let style = match pin.state.as_str() {
        "accepted" => GOOD,
        "new" => WARNING,
        "removed" => QUIET,
        _ => BAD,
    };
    let mut more = String::new();
    if let Some(renamed) = &pin.renamed_from {
        let _infallible = write!(more, "  was called {}", one_line(renamed));
    }
    if !pin.flags.is_empty() {
        let flags: Vec<&str> = pin.flags.iter().map(|flag| flag.as_str()).collect();
        let _infallible = write!(more, "  {BAD}flags: {}{BAD:#}", flags.join(" "));
    }
    if !pin.by.is_empty() {
        let _infallible = write!(more, "  {QUIET}by {}{QUIET:#}", one_line(&pin.by));
    }
    let name = if pin.name.is_empty() { pin.kind.as_str() } else { &pin.name };
    let name = format!("{}/{}", pin.server, one_line(name));
    format!("  {style}{:<8}{style:#}  {:<12}  {name}  {}{more}\n", pin.state, pin.kind, pin.digest.0.short())
}

/// What a server wrote, on one line.
fn one_line(text: &str) -> String {
    visible(text).replace('\n', "\\n").replace('\t', "\\t")
}

/// Whether somebody names that definition: as its server does, or as it was printed.
fn is_named(pin: &PinStatus, object: &str) -> bool {
    let name = if pin.name.is_empty() { pin.kind.as_str() } else { &pin.name };
    object.split_once('/').is_some_and(|(server, own)| server == pin.server && (own == name || own == one_line(name)))
}

async fn diff(door: &Door, object: &str, kind: Option<PinKind>, output: Output) -> Ending {
    let Some((server, name)) = object.split_once('/') else {
        trouble(format_args!("`{}` is no definition: write SERVER/NAME", one_line(object)));
        return Ending::Trouble;
    };
    let report = match ask(door).await {
        Ok(report) => report,
        Err(error) => return refused(&error),
    };
    // As the server writes it, whoever copied it from what was printed.
    let is_meant = |pin: &&PinStatus| is_named(pin, object) && !pin.name.is_empty() && pin.name != name;
    let exact = report.pins.iter().any(|pin| pin.server == server && pin.name == name);
    let printed = report.pins.iter().find(is_meant).filter(|_| !exact);
    let name = printed.map_or(name, |pin| &pin.name);
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("server", server).append_pair("name", name);
    if let Some(kind) = kind {
        query.append_pair("kind", kind.as_str());
    }
    let path = format!("/pins/diff?{}", query.finish());
    let answer = door.ask(Method::GET, &path, None::<&()>).await;
    let diffs = match answer.and_then(|answer| answer.read::<PinDiffs>()) {
        Ok(diffs) => diffs,
        Err(error) => return refused(&error),
    };
    let mut text = String::new();
    for diff in &diffs.diffs {
        text.push_str(&line(&diff.pin));
        let _infallible = writeln!(text, "  {QUIET}whole digest{QUIET:#} {}", diff.pin.digest);
        for line in diff.text.lines() {
            let style = match line.chars().next() {
                Some('+') => GOOD,
                Some('-') => BAD,
                _ => QUIET,
            };
            let _infallible = writeln!(text, "{style}{line}{style:#}");
        }
    }
    if diffs.diffs.is_empty() {
        trouble(format_args!("nothing is known of {}: `bailiwick pins list` has all", one_line(object)));
        return Ending::Refused;
    }
    output.result(&diffs, text);
    Ending::Done
}

async fn order(door: &Door, what: &str, object: &str, digest: &str, note: &str, output: Output) -> Ending {
    let report = match ask(door).await {
        Ok(report) => report,
        Err(error) => return refused(&error),
    };
    // Whoever lists definitions can choose how their digests begin: what is accepted is what was shown, to the last digit.
    let digits_min = if what == "accept" { DIGEST_DIGITS } else { 6 };
    let meant = |pin: &&PinStatus| {
        is_named(pin, object) && digest.len() >= digits_min && pin.digest.to_string().starts_with(digest)
    };
    if what == "accept" && digest.len() < DIGEST_DIGITS {
        let object = one_line(object);
        trouble(format_args!("accepting wants the whole digest: `bailiwick pins diff {object}` prints it"));
        return Ending::Refused;
    }
    let found: Vec<&PinStatus> = report.pins.iter().filter(meant).collect();
    let [pin] = found[..] else {
        let problem = if found.is_empty() { "no definition" } else { "more than one definition" };
        let object = one_line(object);
        trouble(format_args!("{problem} of {object} has a digest that begins so: `bailiwick pins list` has all"));
        return Ending::Refused;
    };
    let order = PinOrder { server: pin.server.clone(), pins: vec![pin.digest], note: note.to_owned() };
    send(door, what, &[order], output).await
}

async fn all(door: &Door, server: &str, yes: bool, note: &str, output: Output) -> Ending {
    let report = match ask(door).await {
        Ok(report) => report,
        Err(error) => return refused(&error),
    };
    let waiting = report.pins.iter().filter(|pin| pin.server == server && waits(pin));
    let (plain, odd): (Vec<_>, Vec<_>) = waiting.partition(|pin| pin.flags.is_empty());
    // What is accepted is what was shown: where nobody sees it, it is said that nobody has to.
    let shown: String = plain.iter().chain(&odd).map(|pin| line(pin)).collect();
    complain(&shown);
    if !odd.is_empty() {
        complain(format_args!("{} with flags are left out: accept them one by one\n", odd.len()));
    }
    if plain.is_empty() {
        trouble(format_args!("nothing of {} waits that has no flag", one_line(server)));
        return Ending::Refused;
    }
    if !yes && !is_confirmed(plain.len(), server) {
        trouble("nothing was accepted");
        return Ending::Refused;
    }
    let digests: Vec<_> = plain.iter().map(|pin| pin.digest).collect();
    let orders: Vec<_> = digests
        .chunks(limit::PINS_ORDERED_MAX)
        .map(|pins| PinOrder { server: server.to_owned(), pins: pins.to_vec(), note: note.to_owned() })
        .collect();
    send(door, "accept", &orders, output).await
}

/// Asks whoever types; a program says it beforehand.
fn is_confirmed(count: usize, server: &str) -> bool {
    if !std::io::stdin().is_terminal() {
        complain("nobody can be asked: add --yes\n");
        return false;
    }
    complain(format_args!("accept these {count} definitions of {}? [y/N] ", one_line(server)));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

async fn send(door: &Door, what: &str, orders: &[PinOrder], output: Output) -> Ending {
    let mut changed = 0_usize;
    for order in orders {
        let answer = door.ask(Method::POST, &format!("/pins/{what}"), Some(order)).await;
        match answer.and_then(|answer| answer.read::<PinsChanged>()) {
            Ok(done) => changed += done.changed,
            Err(error) => return refused(&error),
        }
    }
    let (style, word) = if what == "accept" { (GOOD, "accepted") } else { (BAD, "rejected") };
    let text = format!("{style}{word}{style:#}, in force, on the record: {changed}\n");
    output.result(&PinsChanged { changed }, text);
    Ending::Done
}

async fn export(door: &Door, file: Option<&PathBuf>, output: Output) -> Ending {
    let answer = door.ask(Method::GET, "/pins/export", None::<&()>).await;
    let lock = match answer.and_then(|answer| answer.read::<PinLockText>()) {
        Ok(lock) => lock,
        Err(error) => return refused(&error),
    };
    let Some(file) = file else {
        if output.json {
            output.result(&lock, "");
        } else {
            print(&lock.lock);
        }
        return Ending::Done;
    };
    // Whole or not at all: half a lock is a lock that accepts less.
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.map_or_else(|| PathBuf::from("."), PathBuf::from);
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let next = directory.join(format!(".{name}.next"));
    let written = std::fs::File::create(&next)
        .and_then(|mut open| open.write_all(lock.lock.as_bytes()).and_then(|()| open.sync_all()))
        .and_then(|()| std::fs::rename(&next, file));
    match written {
        Ok(()) => {
            output.result(&lock, format!("{GOOD}written{GOOD:#} {}\n", file.display()));
            Ending::Done
        }
        Err(error) => {
            trouble(format_args!("{}: {error}", file.display()));
            Ending::Trouble
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DefinitionDigest, Digest};

    #[test]
    fn what_a_server_wrote_stays_on_its_line() {
        let pin = PinStatus {
            server: "git".to_owned(),
            kind: PinKind::Tool,
            name: "log\n\u{1b}[2J\u{202e}".to_owned(),
            digest: DefinitionDigest(Digest::sha256(b"x")),
            state: "changed".to_owned(),
            flags: std::collections::BTreeSet::new(),
            renamed_from: Some("a\nb".to_owned()),
            listed: true,
            by: String::new(),
            note: String::new(),
            at: 0,
        };
        let shown = anstream::adapter::strip_str(&line(&pin)).to_string();
        assert_eq!(shown.lines().count(), 1);
        assert!(shown.contains(r"log\n\u{001b}[2J\u{202e}") && shown.contains(r"was called a\nb"), "{shown}");
        assert!(Standing::Waiting.is(&pin) && Standing::Changed.is(&pin) && !Standing::New.is(&pin));
    }
}
