//! `stdio --standalone`: the gateway in the assistant's own process, for one user of this machine.
//!
//! Decides who the user is, and nothing else: everything that is allowed is decided as in `serve`. Refuses to listen
//! on anything. Invariant: what the user owns only advises the user, so production is never served this way.

use std::path::Path;

use url::Url;

use super::Bridge;
use super::way::Way;
use crate::cli::Ending;
use crate::cli::output::trouble;
use crate::cli::serve::{not_started, signals};
use crate::config::Overrides;
use crate::ids::AgentId;
use crate::limit;
use crate::record::operational;
use crate::serve::{Options, start_standalone};

/// Runs until the input ends or a signal says so.
pub(super) async fn run(file: &Path, agent: Option<AgentId>, log: &str) -> Ending {
    if let Err(error) = operational::start(log, operational::Form::Text) {
        trouble(error);
        return Ending::Trouble;
    }
    let overrides = match user().await {
        Ok(user) => Overrides::for_standalone(user, agent),
        Err(problem) => {
            trouble(problem);
            return Ending::Trouble;
        }
    };
    let overrides = match overrides {
        Ok(overrides) => overrides,
        Err(mistakes) => return not_started(&crate::serve::StartError::Mistakes(mistakes)),
    };
    let standalone = match start_standalone(Options { file: file.to_owned(), overrides }).await {
        Ok(standalone) => standalone,
        Err(error) => return not_started(&error),
    };
    let place = standalone.gateway.config().gateway.resource(None);
    let bridge = Url::parse(&place)
        .map_err(|error| error.to_string())
        .and_then(|url| Bridge::new(&url, Way::Here(std::sync::Arc::clone(&standalone.front))));
    let gateway = std::sync::Arc::clone(&standalone.gateway);
    let signalled = async {
        match signals() {
            Some(mut signals) => signals.stop_or_reload(&gateway).await,
            None => "no signals",
        }
    };
    let (cause, ending) = match bridge {
        Ok(bridge) => tokio::select! {
            cause = signalled => (cause, Ending::Done),
            ended = bridge.run(tokio::io::stdin(), tokio::io::stdout()) => match ended {
                Ok(()) => ("the input has ended", Ending::Done),
                Err(error) => {
                    trouble(format_args!("standard input or output broke off: {error}"));
                    ("the output broke off", Ending::Trouble)
                }
            },
        },
        Err(problem) => {
            trouble(problem);
            ("no bridge", Ending::Trouble)
        }
    };
    standalone.stop(cause).await;
    ending
}

/// The operating system's name of the user that this process runs as. Not from the environment, which is whatever
/// the one who starts us says.
pub(in crate::cli) async fn user() -> Result<String, String> {
    let id = rustix::process::geteuid().as_raw();
    // Names in a directory service or on macOS are not in the file; the system's own command knows them.
    let listed = tokio::fs::read_to_string("/etc/passwd").await.ok().and_then(|text| named(&text, id));
    if let Some(name) = listed {
        return Ok(name);
    }
    let asked = tokio::process::Command::new("/usr/bin/id")
        .args(["-un"])
        .env_clear()
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let unknown = || format!("the user {id} has no name on this machine, so no rule could speak about it");
    let output = tokio::time::timeout(limit::USER_NAME_TIMEOUT, asked).await.map_err(|_| unknown())?;
    let output = output.map_err(|_| unknown())?;
    let name = String::from_utf8(output.stdout).ok().map(|name| name.trim_end().to_owned());
    name.filter(|name| output.status.success() && is_name(name)).ok_or_else(unknown)
}

/// The name of a user in a file of the form of `/etc/passwd`.
fn named(text: &str, id: u32) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(id) && is_name(name)).then(|| name.to_owned())
    })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= limit::USER_NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_whom_the_system_knows_by_that_number() {
        let text = "root:x:0:0:root:/root:/bin/sh\n# comment\nann:x:1000:1000::/home/ann:/bin/sh\n:x:7:7::/:\n";
        assert_eq!(named(text, 0).as_deref(), Some("root"));
        assert_eq!(named(text, 1000).as_deref(), Some("ann"));
        assert_eq!(named(text, 7), None, "a name is not empty");
        assert_eq!(named(text, 1001), None);
        assert_eq!(named(&format!("{}:x:5:5\n", "n".repeat(limit::USER_NAME_BYTES_MAX + 1)), 5), None);
    }
}
