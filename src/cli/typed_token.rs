//! A token that somebody hands to a command: on standard input, and never as an argument.
//!
//! Decides how much is read. Refuses to verify it. Invariant: nothing of it is repeated, whatever is wrong with it.

use std::io::{BufRead as _, IsTerminal as _};

use secrecy::SecretString;

use super::output::{QUIET, complain};
use crate::limit;

/// Reads the token: the first line of standard input. `command` is what is typed for that.
///
/// # Errors
/// A lower-case sentence that does not repeat any of it.
pub fn read(given: &str, command: &str) -> Result<SecretString, String> {
    if given != "-" {
        return Err(
            "--token takes only `-`, and reads the token from standard input; one that is typed here stays in \
                    the shell's history: revoke it if it was a real one"
                .to_owned(),
        );
    }
    if std::io::stdin().is_terminal() {
        complain(format_args!("{QUIET}paste the token for {given} and press Enter{QUIET:#}\n"));
    }
    let mut line = String::new();
    let input = std::io::stdin().lock();
    let length_max = u64::try_from(limit::TOKEN_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(64);
    std::io::Read::take(input, length_max)
        .read_line(&mut line)
        .map_err(|error| format!("standard input cannot be read: {error}"))?;
    let token = line.trim();
    let token = token.strip_prefix("Bearer ").unwrap_or(token).trim();
    if token.is_empty() {
        return Err(format!("no token came on standard input: printf %s \"$TOKEN\" | bailiwick {command} --token -"));
    }
    Ok(SecretString::from(token))
}
