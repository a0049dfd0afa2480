//! `completions`: what a shell needs to complete our commands.

use std::io::Write as _;

use clap::Args;
use clap_complete::{Shell, generate};

use super::Ending;

const EXAMPLES: &str = "\
Examples:
  bailiwick completions bash > ~/.local/share/bash-completion/completions/bailiwick
  bailiwick completions zsh  > ~/.zfunc/_bailiwick
  bailiwick completions fish > ~/.config/fish/completions/bailiwick.fish";

/// Print shell completions
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArguments {
    /// The shell that completes
    shell: Shell,
}

/// Prints them.
pub fn run(arguments: &CompletionsArguments, mut command: clap::Command) -> Ending {
    let mut script = Vec::new();
    generate(arguments.shell, &mut command, "bailiwick", &mut script);
    match std::io::stdout().lock().write_all(&script) {
        Ok(()) => Ending::Done,
        Err(_) => Ending::Trouble,
    }
}
