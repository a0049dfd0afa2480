//! `review`: asking whether what the policy grants is still needed, and ending what nobody answers for.
//!
//! Asks a running gateway, which decides. Invariant: what is needed is said by a person at the administrators' listener;
//! ending is a brake and works over the socket.

use std::fmt::Write as _;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;

use super::Ending;
use super::door::Door;
use super::lift::refused;
use super::output::{BAD, GOOD, Output, QUIET, STRONG, WARNING, print};
use crate::cli::call::safe;
use crate::control::reviews::{AnswerOrder, Answered, ReviewOrder};
use crate::evidence::Confidence;
use crate::gateway::review::{Answer, Review, ReviewReport, ReviewedGrant};
use crate::policy::GrantId;

const EXAMPLES: &str = "\
Examples:
  bailiwick review open --deadline 14              every allow, and whether it was used for 90 days
  bailiwick review show ID                         what is asked, and what was answered
  bailiwick review show ID --format html > review.html   a page that prints well
  bailiwick review attest ID 6b1f0c2d9ae47583 --admin https://mcp.example.com/admin
  bailiwick review end ID 6b1f0c2d9ae47583         it allows nothing any more
  bailiwick review close ID                        what nobody attested ends; so it does at the deadline
  bailiwick review restore 6b1f0c2d9ae47583 --admin https://mcp.example.com/admin

To say that something is still needed is to give it anew: it needs a person who has just logged in.";

/// Review what the policy grants: open, answer, close
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReviewArguments {
    #[command(subcommand)]
    command: ReviewCommand,
    #[command(flatten)]
    door: Door,
}

#[derive(Debug, Subcommand)]
enum ReviewCommand {
    /// Open a review of every allow
    Open {
        /// So many days back use is counted
        #[arg(long, value_name = "DAYS", default_value_t = 90)]
        since: u16,
        /// So many days from now it can be answered; what nobody attested ends then
        #[arg(long, value_name = "DAYS", default_value_t = 14)]
        deadline: u16,
    },
    /// List every review
    List,
    /// Show one review with its grants
    Show {
        /// Which
        id: String,
        /// As what
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Say that grants are still needed
    Attest(WhichArguments),
    /// End grants: they allow nothing any more
    End(WhichArguments),
    /// Close a review: grants that nobody attested end
    Close {
        /// Which
        id: String,
    },
    /// Let a grant that has ended allow again
    Restore {
        /// Which: the 16 characters before it in the review
        grant: GrantId,
    },
}

#[derive(Debug, Args)]
struct WhichArguments {
    /// The review
    id: String,
    /// Which grants: the 16 characters before each in the review
    #[arg(required_unless_present = "all")]
    grants: Vec<GrantId>,
    /// All that nobody has answered for yet
    #[arg(long, conflicts_with = "grants")]
    all: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For a spreadsheet
    Csv,
    /// A page that prints well
    Html,
}

/// Asks and prints.
pub async fn run(arguments: &ReviewArguments, output: Output) -> Ending {
    let door = &arguments.door;
    let answered = match &arguments.command {
        ReviewCommand::Open { since, deadline } => {
            let order = ReviewOrder { since_days: *since, deadline_days: *deadline };
            let answer = door.ask(Method::POST, "/reviews", Some(&order)).await;
            answer.and_then(|answer| answer.read::<Review>()).map(|review| output.result(&review, listed(&review)))
        }
        ReviewCommand::List => {
            let answer = door.ask(Method::GET, "/reviews", None::<&()>).await;
            answer.and_then(|answer| answer.read::<Vec<Review>>()).map(|reviews| {
                let text: String = reviews.iter().map(listed).collect();
                output.result(&reviews, if text.is_empty() { "no reviews\n".to_owned() } else { text });
            })
        }
        ReviewCommand::Show { id, format: Format::Csv } => {
            let answer = door.ask(Method::GET, &format!("/reviews/{id}?format=csv"), None::<&()>).await;
            answer.and_then(|answer| answer.text()).map(print)
        }
        ReviewCommand::Show { id, format } => {
            let answer = door.ask(Method::GET, &format!("/reviews/{id}"), None::<&()>).await;
            answer.and_then(|answer| answer.read::<ReviewReport>()).map(|report| match format {
                Format::Html => print(page(&report)),
                Format::Text | Format::Csv => output.result(&report, told(&report)),
            })
        }
        ReviewCommand::Attest(which) => answer(door, which, "attest", "attested", output).await,
        ReviewCommand::End(which) => answer(door, which, "end", "ended, and that is in force", output).await,
        ReviewCommand::Close { id } => {
            let answer = door.ask(Method::POST, &format!("/reviews/{id}/close"), None::<&()>).await;
            answer.and_then(|answer| answer.read::<Answered>()).map(|done| {
                output.result(&done, format!("{GOOD}closed{GOOD:#}: {} grants have ended\n", done.grants));
            })
        }
        ReviewCommand::Restore { grant } => {
            let answer = door.ask(Method::POST, &format!("/grants/{grant}/restore"), None::<&()>).await;
            answer.and_then(|answer| answer.read::<Answered>()).map(|done| {
                output.result(&done, format!("{GOOD}restored{GOOD:#}: {grant} allows again\n"));
            })
        }
    };
    match answered {
        Ok(()) => Ending::Done,
        Err(error) => refused(&error),
    }
}

async fn answer(
    door: &Door,
    which: &WhichArguments,
    verb: &str,
    done: &str,
    output: Output,
) -> Result<(), crate::control::client::ClientError> {
    let order = AnswerOrder { grants: which.grants.clone(), all: which.all };
    let answer = door.ask(Method::POST, &format!("/reviews/{}/{verb}", which.id), Some(&order)).await;
    let answered = answer.and_then(|answer| answer.read::<Answered>())?;
    output.result(&answered, format!("{} grants {GOOD}{done}{GOOD:#}\n", answered.grants));
    Ok(())
}

fn listed(review: &Review) -> String {
    let state = match &review.closed {
        Some(said) => format!("{QUIET}closed by {} on {}{QUIET:#}", safe(&said.by), said.at.strftime("%F")),
        None => format!("{WARNING}open until {}{WARNING:#}", review.deadline.strftime("%F %T")),
    };
    let unknown = review.unknown().map(|text| format!("{WARNING}{}{WARNING:#}\n", safe(&text))).unwrap_or_default();
    format!(
        "{STRONG}{}{STRONG:#}  opened by {} on {}, use since {}  {state}\n{unknown}",
        review.id,
        safe(&review.opened_by),
        review.opened_at.strftime("%F"),
        review.since.strftime("%F")
    )
}

fn told(report: &ReviewReport) -> String {
    let mut text = listed(&report.review);
    let _infallible = writeln!(text, "{QUIET}{}{QUIET:#}", reach(&report.review));
    for reviewed in &report.grants {
        let (style, word) = match reviewed.answer {
            Answer::Open => (WARNING, "open"),
            Answer::Attested => (GOOD, "attested"),
            Answer::Ended => (BAD, "ended"),
        };
        let by = reviewed.said.as_ref().map(|said| format!(" by {}", safe(&said.by))).unwrap_or_default();
        let _infallible = writeln!(
            text,
            "{STRONG}{}{STRONG:#}  {style}{word}{style:#}{by}  {}  {}  {QUIET}{}{QUIET:#}",
            reviewed.usage.grant.id,
            safe(&sentence(reviewed)),
            used(reviewed),
            safe(&reviewed.owner)
        );
    }
    text
}

/// How much of the window the record tells of.
fn reach(review: &Review) -> String {
    let mut text = match review.oldest_record {
        None => "There was no record of it.".to_owned(),
        Some(oldest) => format!("The record goes back to {}.", oldest.strftime("%F %T")),
    };
    if review.not_kept > 0 {
        let _infallible = write!(text, " {} acts more did not fit and are counted nowhere.", review.not_kept);
    }
    text
}

fn sentence(reviewed: &ReviewedGrant) -> String {
    let grant = &reviewed.usage.grant;
    let condition = grant.condition.as_deref().map(|name| format!(" when {name}")).unwrap_or_default();
    format!("{} may {} {} in {}{condition}", grant.subject, grant.action, grant.object, grant.environment)
}

fn used(reviewed: &ReviewedGrant) -> String {
    match reviewed.usage.used {
        None if reviewed.usage.confidence == Confidence::Untold => "the record does not tell".to_owned(),
        None => "never used".to_owned(),
        Some(used) if reviewed.usage.is_elsewhere() => {
            format!("used at another replica, last {}", used.last.strftime("%F"))
        }
        Some(used) => format!("used {} times, last {}", used.count, used.last.strftime("%F")),
    }
}

/// One page, without scripts, that prints in black on white; every text from outside is escaped by the template.
fn page(report: &ReviewReport) -> String {
    let review = &report.review;
    let style = "body{font:12pt/1.4 serif;margin:2em}table{border-collapse:collapse;width:100%}\
                 td,th{border:1px solid #888;padding:.3em;text-align:left;vertical-align:top}\
                 thead{display:table-header-group}tr{break-inside:avoid}";
    maud::html! {
        (maud::DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { "Review " (review.id) } style { (style) } }
            body {
                h1 { "Review of what the policy grants" }
                p {
                    "Opened by " (review.opened_by) " on " (review.opened_at.strftime("%F")) ". Use was counted since "
                    (review.since.strftime("%F")) ". " (reach(review)) " " (review.unknown().unwrap_or_default()) " Answers until "
                    (review.deadline.strftime("%F")) "."
                }
                table {
                    thead { tr { th { "Grant" } th { "What it allows" } th { "Owner" } th { "Used" } th { "Answer" } th { "Signature" } } }
                    tbody {
                        @for reviewed in &report.grants {
                            tr {
                                td { code { (reviewed.usage.grant.id) } }
                                td { (sentence(reviewed)) }
                                td { (reviewed.owner) }
                                td { (used(reviewed)) }
                                td {
                                    @match reviewed.answer {
                                        Answer::Open => "open",
                                        Answer::Attested => "attested",
                                        Answer::Ended => "ended",
                                    }
                                    @if let Some(said) = &reviewed.said { " by " (said.by) }
                                }
                                td {}
                            }
                        }
                    }
                }
            }
        }
    }
    .into_string()
}
