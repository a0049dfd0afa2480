//! What was found, and how it is shown: groups of marked lines that fit 80 columns.
//!
//! Refuses to know what was looked at. Invariant: nothing is bad without a word on what to type.

use std::fmt::Write as _;

use anstyle::Style;
use serde::Serialize;

use crate::cli::call::safe;
use crate::cli::output::{BAD, GOOD, QUIET, STRONG, WARNING};

/// Lines are no longer, unless a word is.
const WIDTH: usize = 80;
/// Before the name of a finding: its mark.
const MARK_WIDTH: usize = 8;
/// Before its text, on every line.
const TEXT_INDENT: usize = 24;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// As it should be.
    Ok,
    /// It works, and somebody should look at it.
    Warn,
    /// It does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub mark: Mark,
    /// What it is about.
    pub name: String,
    /// What was found.
    pub found: String,
    /// What to type, or to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { mark: Mark::Ok, name: name.into(), found: found.into(), fix: None }
    }

    /// It works, and somebody should look at it.
    pub fn warn(name: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { mark: Mark::Warn, name: name.into(), found: found.into(), fix: Some(fix.into()) }
    }

    /// It does not work.
    pub fn bad(name: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { mark: Mark::Bad, name: name.into(), found: found.into(), fix: Some(fix.into()) }
    }
}

/// What belongs together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// What it is about.
    pub name: String,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether nothing is bad.
    pub ok: bool,
    /// Findings that are bad.
    pub bad: usize,
    /// Findings that somebody should look at.
    pub warnings: usize,
    /// What was found, in the order in which a call meets it.
    pub groups: Vec<Group>,
}

impl Report {
    /// Counts what is in the groups; groups without findings are left out.
    pub fn new(mut groups: Vec<Group>) -> Self {
        groups.retain(|group| !group.findings.is_empty());
        let count = |mark| groups.iter().flat_map(|group| &group.findings).filter(|found| found.mark == mark).count();
        let (bad, warnings) = (count(Mark::Bad), count(Mark::Warn));
        Self { ok: bad == 0, bad, warnings, groups }
    }

    /// The text for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for group in &self.groups {
            // Writing to a string cannot fail.
            let _infallible = writeln!(text, "{STRONG}{}{STRONG:#}", group.name);
            for finding in &group.findings {
                write_finding(&mut text, finding);
            }
        }
        let _infallible = match (self.bad, self.warnings) {
            (0, 0) => writeln!(text, "{GOOD}all is well{GOOD:#}"),
            (0, warnings) => writeln!(text, "{WARNING}{warnings} to look at{WARNING:#}, nothing is bad"),
            (bad, 0) => writeln!(text, "{BAD}{bad} bad{BAD:#}"),
            (bad, warnings) => writeln!(text, "{BAD}{bad} bad{BAD:#}, {WARNING}{warnings} to look at{WARNING:#}"),
        };
        text
    }
}

fn write_finding(text: &mut String, finding: &Finding) {
    let (mark, style) = match finding.mark {
        Mark::Ok => ("ok", GOOD),
        Mark::Warn => ("warn", WARNING),
        Mark::Bad => ("bad", BAD),
    };
    let name = safe(&finding.name).replace('\n', " ");
    let name_width = TEXT_INDENT - MARK_WIDTH;
    let _infallible = write!(text, "  {style}{mark:5}{style:#} ");
    // A name that takes the room of the text has a line of its own.
    if name.chars().count() < name_width {
        let _infallible = write!(text, "{name:name_width$}");
    } else {
        let _infallible = write!(text, "{name}\n{:TEXT_INDENT$}", "");
    }
    write_wrapped(text, &finding.found, Style::new());
    if let Some(fix) = &finding.fix {
        let _infallible = write!(text, "{:TEXT_INDENT$}", "");
        write_wrapped(text, &format!("-> {fix}"), QUIET);
    }
}

/// Writes words, the first where the line stands, and breaks the line before one that does not fit.
fn write_wrapped(text: &mut String, words: &str, style: Style) {
    let words = safe(words);
    let mut column = TEXT_INDENT;
    let _infallible = write!(text, "{style}");
    for word in words.split_whitespace() {
        let length = word.chars().count();
        if column > TEXT_INDENT && column + 1 + length > WIDTH {
            let _infallible = write!(text, "\n{:TEXT_INDENT$}", "");
            column = TEXT_INDENT;
        }
        if column > TEXT_INDENT {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    let _infallible = writeln!(text, "{style:#}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report::new(vec![
            Group { name: "nothing".to_owned(), findings: Vec::new() },
            Group {
                name: "issuers".to_owned(),
                findings: vec![
                    Finding::ok("corp", "it names itself as the configuration does"),
                    Finding::warn(
                        "corp: a name that is longer than the column",
                        "neither clients that register themselves nor clients that name themselves by a URL can log in \
                         by themselves\u{1b}[2J",
                        "register each client by hand",
                    ),
                    Finding::bad(
                        "corp",
                        "no answer",
                        "curl -sS https://idp.example.com/.well-known/openid-configuration",
                    ),
                ],
            },
        ])
    }

    #[test]
    fn findings_are_counted_and_lines_fit_the_screen() {
        let report = report();
        assert_eq!((report.ok, report.bad, report.warnings, report.groups.len()), (false, 1, 1, 1));
        let text = anstream::adapter::strip_str(&report.text()).to_string();
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        assert!(!text.contains('\u{1b}'), "{text:?}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_report_without_anything_bad_says_so() {
        let only = |finding| Report::new(vec![Group { name: "x".to_owned(), findings: vec![finding] }]);
        let well = only(Finding::ok("a", "b"));
        assert!(well.ok && well.text().contains("all is well"));
        let warned = only(Finding::warn("a", "b", "c"));
        assert!(warned.ok && warned.text().contains("nothing is bad"));
    }
}
