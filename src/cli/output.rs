//! How commands print: for people with colour on a terminal, for programs as JSON.
//!
//! Invariant: a reader that goes away (`| head`) ends the printing, not the program with a panic.

use std::fmt::Display;
use std::io::Write;

use anstyle::{AnsiColor, Style};
use clap::Args;
use serde::Serialize;

use crate::config::{Mistake, known};

/// What went well, or is allowed.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What is wrong, or refused.
pub const BAD: Style = AnsiColor::Red.on_default();
/// What should be looked at.
pub const WARNING: Style = AnsiColor::Yellow.on_default();
/// What stands out.
pub const STRONG: Style = Style::new().bold();
/// What can be skipped.
pub const QUIET: Style = Style::new().dimmed();

/// For whom is printed.
#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub json: bool,
}

impl Output {
    /// Prints a result: the text for people, or the value for programs.
    pub fn result(self, value: &impl Serialize, text: impl Display) {
        if self.json {
            let json = serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
            print(format_args!("{json}\n"));
        } else {
            print(text);
        }
    }
}

/// Writes to standard output; colour reaches terminals only.
pub fn print(text: impl Display) {
    let mut stdout = anstream::stdout().lock();
    // Nobody reads any more: there is nobody to tell.
    let _unread = write!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Writes to standard error; colour reaches terminals only.
pub fn complain(text: impl Display) {
    let mut stderr = anstream::stderr().lock();
    let _unread = write!(stderr, "{text}").and_then(|()| stderr.flush());
}

/// Writes one trouble: what could not be done, and why.
pub fn trouble(text: impl Display) {
    let text = text.to_string();
    complain(format_args!("{BAD}bailiwick:{BAD:#} {}\n", known::without(&text)));
}

/// Mistakes or warnings, one a line, as editors read them.
pub fn list(mistakes: &[Mistake], label: &str, style: Style) -> String {
    let line = |mistake: &Mistake| {
        let text = mistake.to_string();
        let (place, message) = text.split_at_checked(text.len() - mistake.message.len()).unwrap_or((&text, ""));
        let place = place.trim_end_matches(' ').trim_end_matches(':');
        format!("{STRONG}{place}{STRONG:#}: {style}{label}{style:#}{message}\n")
    };
    mistakes.iter().map(line).collect()
}
