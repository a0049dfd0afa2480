//! `audit`: what an auditor asks of the record.
//!
//! Works on files and asks no gateway. Decides what is printed and how it ends; the record room judges.

use clap::Args;

use super::Ending;
use super::output::{Output, trouble};
use super::state::State;
use crate::record::CheckpointKeys;

const EXAMPLES: &str = "\
Examples:
  bailiwick audit key > bailiwick.pub       the public key that checkpoints are verified with";

/// Verify the record, offline, and print the key that it is verified with
///
/// Nothing here needs a running gateway, and nothing is changed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AuditArguments {
    #[command(subcommand)]
    command: AuditCommand,
    #[command(flatten)]
    state: State,
}

#[derive(Debug, clap::Subcommand)]
enum AuditCommand {
    /// Print the public keys that checkpoints are verified with, the one that signs first
    Key,
}

/// Does what was asked.
pub fn run(arguments: &AuditArguments, output: Output) -> Ending {
    let AuditCommand::Key = &arguments.command;
    let keys = arguments.state.directory().and_then(|state| {
        let keys = CheckpointKeys::read(&state).map_err(|error| error.to_string())?;
        Ok(keys.verifiers().iter().map(ToString::to_string).collect::<Vec<_>>())
    });
    match keys {
        Ok(keys) => {
            output.result(&keys, keys.iter().map(|key| format!("{key}\n")).collect::<String>());
            Ending::Done
        }
        Err(problem) => {
            trouble(problem);
            Ending::Trouble
        }
    }
}
