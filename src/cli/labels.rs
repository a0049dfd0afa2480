//! `labels`: who carries which labels, and having one taken off.
//!
//! Asks a running gateway, which decides. Invariant: no token that this machine keeps takes a label off: that takes a second
//! person in front of the console, who has just logged in.

use std::fmt::Write as _;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;

use super::Ending;
use super::door::Door;
use super::lift::refused;
use super::login::open_page;
use super::output::{GOOD, Output, QUIET, STRONG, WARNING, trouble};
use crate::control::labels::{CarrierKind, CarrierView, DeclassificationView, DeclassifyOrder, LabelsReport};
use crate::guard::approval::escaped as safe;

const EXAMPLES: &str = "\
Examples:
  bailiwick labels list
  bailiwick labels list --of user:corp/alice
  bailiwick labels declassify caller 'user:corp/alice assistant' --label private --reason 'it was test data' --admin https://mcp.example.com/admin
  bailiwick labels declassify store team-memory --label untrusted --reason 'read by two of us' --admin https://mcp.example.com/admin
  bailiwick labels confirm 0123456789abcdef0123456789abcdef
  bailiwick labels withdraw 0123456789abcdef0123456789abcdef

One administrator asks, another one confirms within a quarter of an hour: neither may have a part in what was seen.
`confirm` opens the console's page. Ends with 1 where the gateway refuses.";

/// Look at who carries labels, and have one taken off
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LabelsArguments {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    door: Door,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List who carries which labels, since when and from which call, and what waits for a second person
    List {
        /// Only what this is part of: a user, an agent, a mandate or a store
        #[arg(long, value_name = "NAME")]
        of: Option<String>,
    },
    /// Ask for labels to be taken off; somebody else confirms it
    Declassify(DeclassifyArguments),
    /// Open the page of the console where somebody else's request is confirmed
    Confirm(NamedArguments),
    /// Withdraw a request
    Withdraw(NamedArguments),
}

#[derive(Debug, Args)]
struct DeclassifyArguments {
    /// Of what kind of carrier
    kind: Kind,
    /// Its name in `bailiwick labels list`
    name: String,
    /// Which label; can be given several times
    #[arg(long = "label", value_name = "LABEL", required = true)]
    labels: Vec<String>,
    /// Why: whoever confirms reads it, and it is on the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Debug, Args)]
struct NamedArguments {
    /// Which: its name in `bailiwick labels list`
    #[arg(value_name = "REQUEST")]
    id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A user with an agent
    Caller,
    /// A mandate
    Mandate,
    /// A store
    Store,
}

impl From<Kind> for CarrierKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Caller => Self::Caller,
            Kind::Mandate => Self::Mandate,
            Kind::Store => Self::Store,
        }
    }
}

/// Asks and prints.
pub async fn run(arguments: &LabelsArguments, output: Output) -> Ending {
    let door = &arguments.door;
    match &arguments.what {
        What::List { of } => list(door, of.as_deref(), output).await,
        What::Declassify(wanted) => declassify(door, wanted, output).await,
        What::Confirm(named) => confirm(door, &named.id, output).await,
        What::Withdraw(named) => withdraw(door, &named.id, output).await,
    }
}

async fn report(door: &Door, of: Option<&str>) -> Result<LabelsReport, Ending> {
    let mut path = "/labels".to_owned();
    if let Some(of) = of {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("of", of).finish();
        let _infallible = write!(path, "?{query}");
    }
    let answer = door.ask(Method::GET, &path, None::<&()>).await;
    answer.and_then(|answer| answer.read::<LabelsReport>()).map_err(|error| refused(&error))
}

async fn list(door: &Door, of: Option<&str>, output: Output) -> Ending {
    match report(door, of).await {
        Ok(report) => {
            output.result(&report, told(&report));
            Ending::Done
        }
        Err(ending) => ending,
    }
}

async fn declassify(door: &Door, wanted: &DeclassifyArguments, output: Output) -> Ending {
    let order = DeclassifyOrder {
        kind: wanted.kind.into(),
        name: wanted.name.clone(),
        labels: wanted.labels.clone(),
        reason: wanted.reason.clone(),
    };
    if let Err(mistake) = order.wish() {
        trouble(safe(&mistake));
        return Ending::Trouble;
    }
    let answer = door.ask(Method::POST, "/labels/declassify", Some(&order)).await;
    match answer.and_then(|answer| answer.read::<DeclassificationView>()) {
        Ok(view) => {
            let until = view.until.strftime("%F %T");
            let page = view.url.as_ref().map(|url| format!(" at {}", safe(url))).unwrap_or_default();
            let text = format!(
                "{WARNING}asked{WARNING:#}: somebody else has to confirm {STRONG}{}{STRONG:#}{page} until {until}\n",
                view.id
            );
            output.result(&view, text);
            Ending::Done
        }
        Err(error) => refused(&error),
    }
}

async fn confirm(door: &Door, id: &str, output: Output) -> Ending {
    let report = match report(door, None).await {
        Ok(report) => report,
        Err(ending) => return ending,
    };
    let Some(view) = report.waiting.iter().find(|view| view.id == id) else {
        trouble("nobody asks for that, or it has expired: `bailiwick labels list` has what waits");
        return Ending::Refused;
    };
    let Some(url) = view.url.as_ref().and_then(|url| url::Url::parse(url).ok()) else {
        trouble("there is no console where it could be confirmed: write [admin.console] in servers.toml");
        return Ending::Refused;
    };
    open_page(&url);
    output.result(view, format!("confirm it at {STRONG}{}{STRONG:#}\n", safe(url.as_str())));
    Ending::Done
}

async fn withdraw(door: &Door, id: &str, output: Output) -> Ending {
    // What is typed goes into a path.
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        trouble("a request is named by 32 digits of 0-9 and a-f: `bailiwick labels list` has them");
        return Ending::Trouble;
    }
    let answer = door.ask(Method::POST, &format!("/labels/declassify/{id}/withdraw"), None::<&()>).await;
    match answer.and_then(|answer| answer.read::<DeclassificationView>()) {
        Ok(view) => {
            output.result(&view, format!("{GOOD}withdrawn{GOOD:#}, on the record\n"));
            Ending::Done
        }
        Err(error) => refused(&error),
    }
}

fn told(report: &LabelsReport) -> String {
    let mut text = String::new();
    for carrier in &report.carriers {
        text.push_str(&carried(carrier));
    }
    if report.carriers.is_empty() {
        text.push_str("nobody carries a label\n");
    }
    if report.more {
        let _infallible = writeln!(text, "{WARNING}there are more: name one with --of{WARNING:#}");
    }
    for view in &report.waiting {
        let _infallible = writeln!(
            text,
            "\n{WARNING}waits{WARNING:#}  {STRONG}{}{STRONG:#}  {} off {} {}  {QUIET}asked by {} until {}{QUIET:#}\n  {}",
            view.id,
            view.labels.join(", "),
            view.kind.as_str(),
            safe(&view.name),
            safe(&view.asked_by),
            view.until.strftime("%F %T"),
            safe(&view.reason)
        );
    }
    text
}

fn carried(carrier: &CarrierView) -> String {
    let until = carrier.until.map(|until| format!("  {QUIET}until {}{QUIET:#}", until.strftime("%F %T")));
    let (kind, name) = (carrier.kind.as_str(), safe(&carrier.name));
    let mut text = format!("{kind:<8} {STRONG}{name}{STRONG:#}{}\n", until.unwrap_or_default());
    for label in &carrier.labels {
        let since = label.since.map(|since| format!("since {}", since.strftime("%F %T"))).unwrap_or_default();
        let call = match &label.call {
            Some(call) => format!("  call {}", safe(call)),
            None if label.since.is_some() => "  handed on when it was opened".to_owned(),
            None => String::new(),
        };
        let by = label.by.as_ref().map(|by| format!("  by {}", safe(by))).unwrap_or_default();
        let _infallible = writeln!(text, "  {:<10} {QUIET}{since}{call}{by}{QUIET:#}", label.label);
    }
    text
}
