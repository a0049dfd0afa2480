//! `call` and `token`: a gateway as an assistant would use it.
//!
//! Invariant: `call` sends exactly what was typed and decides nothing; `token` asks a running demo and makes none.

use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};
use url::Url;

use super::Ending;
use super::output::{BAD, Output, complain, print, trouble};
use super::stdio::client::{Client, refusal, text};
use super::use_it::{CallArguments, TokenArguments};
use crate::config::GatewayConfig;
use crate::demo::{DOOR_FILE, MintRequest, mint_token};

/// Calls a tool and prints what it answers.
pub async fn call(arguments: &CallArguments, output: Output) -> Ending {
    let answer = match called(arguments).await {
        Ok(answer) => answer,
        Err(problem) => {
            trouble(problem);
            return Ending::Trouble;
        }
    };
    let refusal = refusal(&answer);
    if output.json {
        output.result(answer.get("result").or(answer.get("error")).unwrap_or(&answer), "");
    } else if let Some(refusal) = &refusal {
        complain(format_args!("{BAD}refused:{BAD:#} {}\n", safe(refusal)));
    } else {
        print(format_args!("{}\n", safe(&text(&answer))));
    }
    if refusal.is_none() { Ending::Done } else { Ending::Refused }
}

async fn called(arguments: &CallArguments) -> Result<Value, String> {
    let given: Map<String, Value> = serde_json::from_str(&arguments.arguments)
        .map_err(|error| format!("the arguments are no JSON object: {error}"))?;
    let url = match (&arguments.url, &arguments.server) {
        (Some(url), None) => url.clone(),
        (Some(url), Some(server)) => parsed(&format!("{}/{server}", url.as_str().trim_end_matches('/')))?,
        (None, server) => parsed(&gateway(&arguments.files)?.resource(server.as_ref()))?,
    };
    let variable = arguments.token_env.as_str();
    let given = Value::Object(given);
    if std::env::var_os(variable).is_some() {
        let token = super::stdio::token(Some(variable), None).await?;
        return Client::new(&url, token.as_ref())?.call(&arguments.tool, &given).await;
    }
    let answer = Client::logged_in(&url)?.call(&arguments.tool, &given).await;
    answer.map_err(|problem| format!("{problem}; a demo's token: {variable}=$(bailiwick token alice)"))
}

/// Prints a token of the running demo.
pub async fn token(arguments: &TokenArguments) -> Ending {
    match minted(arguments).await {
        Ok(token) => {
            print(format_args!("{token}\n"));
            Ending::Done
        }
        Err(problem) => {
            trouble(problem);
            Ending::Trouble
        }
    }
}

async fn minted(arguments: &TokenArguments) -> Result<String, String> {
    let state = match &arguments.state {
        Some(state) => state.clone(),
        None => gateway(&arguments.files)?.state,
    };
    let door = state.join(DOOR_FILE);
    // Only the demo knows on which address it was told to listen, so a server's resource is made by it.
    let request = MintRequest {
        user: arguments.user.clone(),
        resource: arguments.server.as_ref().map(|server| format!("/{server}")),
        ..MintRequest::default()
    };
    let token = mint_token(&door, &request).await?;
    Ok(token.expose_secret().to_owned())
}

fn gateway(files: &super::files::Files) -> Result<GatewayConfig, String> {
    let understood = files.as_either().map_err(|mistakes| {
        let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
        format!("{first}; run `bailiwick check`")
    })?;
    Ok(understood.loaded.config.gateway)
}

fn parsed(url: &str) -> Result<Url, String> {
    Url::parse(url).map_err(|error| format!("{url}: {error}"))
}

/// What a server says is shown as text: nothing in it moves the cursor or changes the terminal.
pub(super) fn safe(text: &str) -> String {
    let harmless = |character: char| match character {
        '\n' | '\t' => character,
        _ if character.is_control() => '\u{fffd}',
        _ => character,
    };
    text.chars().map(harmless).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_cannot_drive_the_terminal() {
        assert_eq!(safe("a\u{1b}[2Jb\nc\u{9b}d"), "a\u{fffd}[2Jb\nc\u{fffd}d");
    }
}
