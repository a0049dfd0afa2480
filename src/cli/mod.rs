//! The command line: what can be typed, what is printed, with which code it ends.
//!
//! Decides no question about policy: every command asks a room and shows the answer. Invariant: results go
//! to standard output, mistakes to standard error, and no command ever prints a token that it did not make.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub mod check;
pub mod completions;
pub mod connect;
pub mod output;
pub mod who;

use output::Output;

/// How a command ended; the same for every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It did what was asked.
    Done,
    /// It was refused, or mistakes were found.
    Refused,
    /// It was asked wrongly, or something went wrong on the way.
    Trouble,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Done => Self::SUCCESS,
            Ending::Refused => Self::from(1),
            Ending::Trouble => Self::from(2),
        }
    }
}

const EXIT_CODES: &str = "\
Exit codes:
  0  it did what was asked
  1  refused, or mistakes were found
  2  asked wrongly, or something went wrong on the way";

/// The MCP gateway that governs what agents may do.
///
/// An assistant sees one MCP server; behind it stand many. For every call, Bailiwick knows who asks and on
/// whose behalf, decides whether this call with these arguments is allowed, uses a credential of the
/// upstream's own, and leaves a record.
#[derive(Debug, Parser)]
#[command(name = "bailiwick", version, propagate_version = true, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
enum Command {
    Check(check::CheckArguments),
    Connect(connect::ConnectArguments),
    Completions(completions::CompletionsArguments),
}

/// Reads a command line and does what it says.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers and end with 0, everything else is a question asked wrongly. Where
            // nobody reads the answer, there is nobody to tell.
            let _unread = error.print();
            return if error.use_stderr() { Ending::Trouble.into() } else { Ending::Done.into() };
        }
    };
    let output = arguments.output;
    let ending = match arguments.command {
        Command::Check(arguments) => check::run(&arguments, output),
        Command::Connect(arguments) => connect::run(&arguments, output),
        Command::Completions(arguments) => completions::run(&arguments, Arguments::command()),
    };
    ending.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself() {
        for command in Arguments::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{} says nothing about itself", command.get_name());
            assert!(command.get_after_help().is_some(), "{} has no example", command.get_name());
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(argument.get_help().is_some(), "{} {} has no help", command.get_name(), argument.get_id());
            }
        }
    }
}
