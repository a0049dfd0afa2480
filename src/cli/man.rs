//! `man`: the manual pages, made from the same words as `--help`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;

use super::Ending;
use super::output::{Output, trouble};

const EXAMPLES: &str = "\
Examples:
  bailiwick man > bailiwick.1          the page of the command as a whole
  bailiwick man ~/.local/share/man/man1
                                       a page for each command: man bailiwick-serve";

/// Print the manual page, or write one for each command
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ManArguments {
    /// Write bailiwick.1 and a page for each command into this directory, which is made if it is not there
    #[arg(value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

/// Prints or writes.
pub fn run(arguments: &ManArguments, output: Output, command: Command) -> Ending {
    let written = match &arguments.directory {
        None => page(command).and_then(|(_, page)| std::io::stdout().lock().write_all(&page)).map(|()| Vec::new()),
        Some(directory) => write(directory, command),
    };
    match written {
        Ok(written) => {
            if arguments.directory.is_some() {
                output.result(&written, written.iter().map(|path| format!("{path}\n")).collect::<String>());
            }
            Ending::Done
        }
        // Nobody reads any more: there is nobody to tell.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ending::Done,
        Err(error) => {
            trouble(format_args!("the manual pages cannot be written: {error}"));
            Ending::Trouble
        }
    }
}

fn write(directory: &Path, command: Command) -> std::io::Result<Vec<String>> {
    std::fs::create_dir_all(directory)?;
    let mut written = Vec::new();
    for (name, page) in pages(command)? {
        let path = directory.join(name);
        std::fs::write(&path, page)?;
        written.push(path.display().to_string());
    }
    Ok(written)
}

/// Every page: its file's name, and its text.
fn pages(mut command: Command) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    // What all commands have in common is in every page then.
    command = command.disable_help_subcommand(true);
    command.build();
    let mut waiting = vec![command];
    let mut pages = Vec::new();
    while let Some(command) = waiting.pop() {
        waiting.extend(command.get_subcommands().filter(|inner| !inner.is_hide_set()).cloned());
        pages.push(page(command)?);
    }
    pages.sort();
    Ok(pages)
}

fn page(command: Command) -> std::io::Result<(String, Vec<u8>)> {
    let man = Man::new(command).manual("Bailiwick").source(concat!("bailiwick ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    man.render(&mut text)?;
    Ok((man.get_filename(), text))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Arguments;

    #[test]
    fn every_command_has_a_page_that_renders_with_its_examples() {
        let pages = pages(Arguments::command()).unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["bailiwick.1", "bailiwick-serve.1", "bailiwick-doctor.1", "bailiwick-audit-verify.1"] {
            assert!(names.contains(&name), "{names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("supervise")), "{names:?}");
        assert_eq!(names.len(), names.iter().collect::<std::collections::BTreeSet<_>>().len(), "{names:?}");
        for (name, text) in &pages {
            let text = String::from_utf8(text.clone()).unwrap();
            assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{name}");
            let command = name.trim_end_matches(".1").matches('-').count();
            assert!(command != 1 || text.contains("Examples:") || name.ends_with("can.1"), "{name} has no example");
        }
    }
}
