//! The command line: what can be typed, what is printed, with which code it ends.
//!
//! Decides no question about policy: every command asks a room and shows the answer. Invariant: results go
//! to standard output, mistakes to standard error, and no command ever prints a token that it did not make.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub mod agents;
pub mod api_key;
pub mod approvals;
pub mod ask;
pub mod audit;
pub mod backup;
pub mod break_glass;
pub mod call;
pub mod check;
pub mod completions;
pub mod connect;
pub mod credentials;
pub mod demo;
pub mod doctor;
pub mod door;
mod everywhere;
pub mod files;
pub mod init;
pub mod keys;
pub mod labels;
pub mod lift;
pub mod login;
pub mod logs;
pub mod man;
pub mod mandates;
mod offline;
pub mod output;
pub mod pins;
pub mod policy;
pub mod review;
pub mod revoke;
pub mod serve;
pub mod shadow;
pub mod standing;
pub mod state;
pub mod status;
pub mod stdio;
pub mod store;
pub mod tools;
mod typed_token;
pub mod use_it;
pub mod vault;
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
    Serve(serve::ServeArguments),
    Reload(serve::ReloadArguments),
    Demo(use_it::DemoArguments),
    Stdio(use_it::StdioArguments),
    Login(login::LoginArguments),
    Logout(login::LogoutArguments),
    Call(use_it::CallArguments),
    Token(use_it::TokenArguments),
    Logs(logs::LogsArguments),
    Audit(audit::AuditArguments),
    Status(status::StatusArguments),
    Revoke(revoke::RevokeArguments),
    Revocations(lift::RevocationsArguments),
    Lift(lift::LiftArguments),
    Vault(vault::VaultArguments),
    Approvals(approvals::ApprovalsArguments),
    Standing(standing::StandingArguments),
    BreakGlass(break_glass::BreakGlassArguments),
    Labels(labels::LabelsArguments),
    Credentials(credentials::CredentialsArguments),
    Secrets(credentials::SecretsArguments),
    Pins(pins::PinsArguments),
    Mandates(mandates::MandatesArguments),
    Agents(agents::AgentsArguments),
    Keys(keys::KeysArguments),
    State(backup::StateArguments),
    Store(store::StoreArguments),
    Init(init::InitArguments),
    Check(check::CheckArguments),
    Doctor(doctor::DoctorArguments),
    Shadow(shadow::ShadowArguments),
    Policy(policy::PolicyArguments),
    Review(review::ReviewArguments),
    Explain(ask::ExplainArguments),
    WhoCan(ask::WhoCanArguments),
    WhatCan(ask::WhatCanArguments),
    Tools(ask::ToolsArguments),
    Connect(connect::ConnectArguments),
    Completions(completions::CompletionsArguments),
    Man(man::ManArguments),
    #[command(hide = true)]
    Supervise(SuperviseArguments),
}

/// Start one command and end everything that it leaves behind
///
/// The gateway starts its stdio servers this way; nobody else needs to.
#[derive(Debug, clap::Args)]
struct SuperviseArguments {
    /// The command and its arguments
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

/// Reads a command line and does what it says.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    crate::serve::hold_little();
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
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Reload(arguments) => serve::reload(&arguments, output),
        Command::Demo(arguments) => in_runtime(demo::run(&arguments)),
        Command::Stdio(arguments) => use_it::stdio(&arguments),
        Command::Login(arguments) => in_runtime(login::login(&arguments, output)),
        Command::Logout(arguments) => in_runtime(login::logout(&arguments, output)),
        Command::Call(arguments) => in_runtime(call::call(&arguments, output)),
        Command::Token(arguments) => in_runtime(call::token(&arguments)),
        Command::Logs(arguments) => in_runtime(async { logs::run(&arguments, output, &mut anstream::stdout()).await }),
        Command::Audit(arguments) => in_runtime(audit::run(&arguments, output)),
        Command::Revoke(arguments) => {
            in_runtime(async { revoke::run(&arguments, output, &mut anstream::stdout()).await })
        }
        Command::Status(arguments) => in_runtime(status::run(&arguments, output)),
        Command::Revocations(arguments) => in_runtime(lift::revocations(&arguments, output)),
        Command::Approvals(arguments) => in_runtime(approvals::run(&arguments, output)),
        Command::Standing(arguments) => in_runtime(standing::run(&arguments, output)),
        Command::BreakGlass(arguments) => in_runtime(break_glass::run(&arguments, output)),
        Command::Labels(arguments) => in_runtime(labels::run(&arguments, output)),
        Command::Lift(arguments) => in_runtime(lift::lift(&arguments, output)),
        Command::Vault(arguments) => in_runtime(vault::run(&arguments, output)),
        Command::Credentials(arguments) => in_runtime(credentials::credentials(&arguments, output)),
        Command::Secrets(arguments) => in_runtime(credentials::secrets(&arguments, output)),
        Command::Pins(arguments) => in_runtime(pins::run(&arguments, output)),
        Command::Mandates(arguments) => in_runtime(async { mandates::run(arguments, output).await }),
        Command::Agents(arguments) => in_runtime(agents::run(&arguments, output)),
        Command::Keys(arguments) => in_runtime(keys::run(&arguments, output)),
        Command::State(arguments) => in_runtime(backup::run(&arguments, output)),
        Command::Store(arguments) => in_runtime(store::run(&arguments, output)),
        Command::Init(arguments) => in_runtime(init::run(&arguments, output)),
        Command::Check(arguments) => check::run(&arguments, output),
        Command::Doctor(arguments) => in_runtime(doctor::run(&arguments, output)),
        Command::Review(arguments) => in_runtime(review::run(&arguments, output)),
        Command::Policy(arguments) => in_runtime(policy::run(&arguments, output)),
        Command::Shadow(arguments) => in_runtime(shadow::run(&arguments, output)),
        Command::Explain(arguments) => in_runtime(ask::explain(&arguments, output)),
        Command::WhoCan(arguments) => in_runtime(ask::who_can(&arguments, output)),
        Command::WhatCan(arguments) => in_runtime(ask::what_can(&arguments, output)),
        Command::Tools(arguments) => in_runtime(tools::run(&arguments, output)),
        Command::Connect(arguments) => connect::run(&arguments, output),
        Command::Completions(arguments) => completions::run(&arguments, Arguments::command()),
        Command::Man(arguments) => man::run(&arguments, output, Arguments::command()),
        // Its standard streams belong to the command, and its exit code is the command's.
        Command::Supervise(arguments) => return crate::upstream::supervise(&arguments.command),
    };
    ending.into()
}

/// Runs a command that waits for something.
pub(crate) fn in_runtime(command: impl Future<Output = Ending>) -> Ending {
    // Connections are served on lanes; what is left for these threads is little, on however many cores.
    match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => {
            let ending = runtime.block_on(command);
            // A thread that waits for standard input would keep the process alive until the next line comes.
            runtime.shutdown_background();
            ending
        }
        Err(error) => {
            output::trouble(format_args!("cannot start: {error}"));
            Ending::Trouble
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    /// Every command that people type.
    fn commands() -> Vec<clap::Command> {
        Arguments::command().get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect()
    }

    #[test]
    fn every_command_explains_itself() {
        for command in commands() {
            command.clone().debug_assert();
            assert!(command.get_about().is_some(), "{} says nothing about itself", command.get_name());
            assert!(command.get_after_help().is_some(), "{} has no example", command.get_name());
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(argument.get_help().is_some(), "{} {} has no help", command.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn the_examples_of_every_command_can_be_typed() {
        let mut typed_count = 0;
        for command in commands() {
            let command = <Output as clap::Args>::augment_args(command);
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples = help.lines().filter_map(|line| line.trim_start().split_once("bailiwick "));
            for (_, example) in examples.filter(|(before, _)| before.is_empty()) {
                // What follows two spaces explains, what follows `>`, `<` or `&&` is the shell's.
                let typed = example.split("  ").next().unwrap_or("").split(['>', '<', '&']).next().unwrap_or("");
                let words = shell_words(typed);
                if words.first().map(String::as_str) == Some(command.get_name()) {
                    typed_count += 1;
                    let parsed = command.clone().try_get_matches_from(words.clone());
                    assert!(parsed.is_ok(), "{words:?}: {}", parsed.unwrap_err());
                }
            }
        }
        assert!(typed_count > 30, "only {typed_count} examples were found");
    }

    /// Words as a shell splits them, as far as the examples go: blanks, and single quotation marks.
    fn shell_words(text: &str) -> Vec<String> {
        let parts = text.split('\'').enumerate();
        parts
            .flat_map(|(index, part)| {
                if index % 2 == 1 {
                    vec![part.to_owned()]
                } else {
                    part.split_whitespace().map(str::to_owned).collect()
                }
            })
            .collect()
    }
}
