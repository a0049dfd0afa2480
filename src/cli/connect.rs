//! `connect`: the exact configuration that an assistant needs to use the gateway.
//!
//! Decides how each client spells a remote MCP server. Invariant: nothing printed here is a secret: clients
//! log in by OAuth, or read a token from a variable that is named and never shown.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;
use url::Url;

use super::Ending;
use super::files::Files;
use super::output::{GOOD, Output, QUIET, STRONG, trouble};
use crate::config::GatewayConfig;
use crate::ids::ServerId;

mod clients;

const EXAMPLES: &str = "\
Examples:
  bailiwick connect claude-code            the command to paste, for the gateway in servers.toml
  bailiwick connect cursor --server notes  one server only, with its own tool names
  bailiwick connect codex --token-env BAILIWICK_TOKEN
                                           a token from a variable instead of a login
  bailiwick connect vscode --url https://mcp.example.com/mcp
  bailiwick connect --list                 the clients that are known

Clients log in by OAuth at the gateway's issuer. No token is ever printed.";

/// Names of servers reach models as `mcp__NAME__TOOL`, at most 64 characters; ours take up to 48 of them.
const NAME_BYTES_MAX: usize = 64 - "mcp__".len() - "__".len() - 48;

/// Show what your assistant needs to use the gateway
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConnectArguments {
    /// The assistant
    #[arg(value_enum, required_unless_present = "list")]
    client: Option<Client>,
    /// List the assistants that are known
    #[arg(long)]
    list: bool,
    /// What the assistant shall call the gateway, at most 9 characters
    #[arg(long, default_value = "bailiwick", value_parser = client_name)]
    name: String,
    /// The gateway's MCP endpoint, instead of the one in servers.toml
    #[arg(long, value_parser = endpoint)]
    url: Option<Url>,
    /// Only this server, with its tools under their own names
    #[arg(long, value_name = "ID", value_parser = server_id, conflicts_with = "url")]
    server: Option<ServerId>,
    /// Read a token from this environment variable instead of logging in
    #[arg(long, value_name = "VARIABLE", value_parser = variable)]
    token_env: Option<String>,
    #[command(flatten)]
    files: Files,
}

/// An assistant that speaks MCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Client {
    /// Claude Code, in a terminal
    ClaudeCode,
    /// Claude Desktop; starts `bailiwick stdio` as a bridge
    ClaudeDesktop,
    /// Cursor
    Cursor,
    /// Visual Studio Code
    #[value(name = "vscode")]
    #[serde(rename = "vscode")]
    VsCode,
    /// Codex, in a terminal or an editor
    Codex,
    /// Gemini CLI
    Gemini,
}

/// What a client is to be connected to.
#[derive(Debug, Clone)]
pub struct Connection {
    /// What the client calls the gateway.
    pub name: String,
    /// The MCP endpoint.
    pub url: String,
    /// The variable that holds a token, where no login is wanted.
    pub token_env: Option<String>,
    /// Our own executable, for clients that start a bridge.
    pub program: PathBuf,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Step {
    /// Type this.
    Command {
        /// What it is for.
        why: &'static str,
        /// The command line.
        command: String,
    },
    /// Put this into a file.
    File {
        /// What it is for.
        why: &'static str,
        /// The file.
        path: &'static str,
        /// Its content, or what to merge into it.
        content: String,
    },
    /// Do this.
    Note {
        /// What.
        why: String,
    },
}

#[derive(Serialize)]
struct Answer<'a> {
    client: Client,
    name: &'a str,
    url: &'a str,
    steps: Vec<Step>,
}

/// Prints what the client needs.
pub fn run(arguments: &ConnectArguments, output: Output) -> Ending {
    let Some(client) = arguments.client.filter(|_| !arguments.list) else {
        let clients: Vec<_> = Client::value_variants().iter().filter_map(ValueEnum::to_possible_value).collect();
        let names: Vec<&str> = clients.iter().map(clap::builder::PossibleValue::get_name).collect();
        let line = |value: &clap::builder::PossibleValue| {
            let help = value.get_help().map(ToString::to_string).unwrap_or_default();
            format!("{STRONG}{:15}{STRONG:#}{help}\n", value.get_name())
        };
        output.result(&names, clients.iter().map(line).collect::<String>());
        return Ending::Done;
    };
    let url = match url(arguments) {
        Ok(url) => url,
        Err(message) => {
            trouble(message);
            return Ending::Trouble;
        }
    };
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("bailiwick"));
    let token_env = arguments.token_env.clone();
    let connection = Connection { name: arguments.name.clone(), url, token_env, program };
    let steps = clients::steps(client, &connection);
    let text = text(&steps, &connection);
    output.result(&Answer { client, name: &connection.name, url: &connection.url, steps }, text);
    Ending::Done
}

/// What a client needs to use the endpoint at `url` after a login.
#[must_use]
pub fn steps_for(client: Client, url: &str) -> Vec<Step> {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("bailiwick"));
    let connection = Connection { name: "bailiwick".to_owned(), url: url.to_owned(), token_env: None, program };
    clients::steps(client, &connection)
}

/// The endpoint: what was written, or what the configuration says.
fn url(arguments: &ConnectArguments) -> Result<String, String> {
    if let Some(url) = &arguments.url {
        return Ok(url.to_string());
    }
    let gateway = gateway(arguments)?;
    Ok(gateway.resource(arguments.server.as_ref()))
}

/// The gateway of the files, whether they are a demo's or not.
fn gateway(arguments: &ConnectArguments) -> Result<GatewayConfig, String> {
    let understood = arguments.files.as_either().map_err(|mistakes| {
        let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
        format!("{first}; run `bailiwick check`, or write --url")
    })?;
    let config = understood.loaded.config;
    if let Some(server) = arguments.server.as_ref().filter(|server| config.server(server).is_none()) {
        let known: Vec<&str> = config.servers.iter().map(|server| server.id.as_str()).collect();
        return Err(format!("there is no server `{server}`: {}", known.join(", ")));
    }
    Ok(config.gateway)
}

fn text(steps: &[Step], connection: &Connection) -> String {
    let mut text = format!("{QUIET}# {} as `{}`{QUIET:#}\n", connection.url, connection.name);
    for step in steps {
        // Writing to a string cannot fail.
        let _infallible = match step {
            Step::Command { why, command } => writeln!(text, "\n{QUIET}# {why}{QUIET:#}\n{GOOD}{command}{GOOD:#}"),
            Step::File { why, path, content } => {
                writeln!(text, "\n{QUIET}# {why}{QUIET:#} {STRONG}{path}{STRONG:#}\n{GOOD}{content}{GOOD:#}")
            }
            Step::Note { why } => writeln!(text, "\n{QUIET}# {why}{QUIET:#}"),
        };
    }
    text
}

fn client_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if text.is_empty() || !text.bytes().all(plain) {
        return Err("use letters, digits, _ and -".to_owned());
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(format!(
            "use at most {NAME_BYTES_MAX} characters: models see mcp__{text}__TOOL and may see 64 characters in all"
        ));
    }
    Ok(text.to_owned())
}

fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}: write https://host/mcp"))?;
    let plain = matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
    // It is printed into a command line: what a shell or a string in a file would read differently stays out.
    let quiet = url.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/?=&%[]@+,".contains(&byte));
    if plain && quiet {
        Ok(url)
    } else {
        Err("write a plain https://host/mcp, without a password or quotation marks".to_owned())
    }
}

fn server_id(text: &str) -> Result<ServerId, String> {
    ServerId::new(text).map_err(|error| error.to_string())
}

fn variable(text: &str) -> Result<String, String> {
    let spelled = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let first = text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    // A token typed here by mistake would end up in the shell's history, and on the screen.
    if spelled && first && text.len() <= 64 {
        Ok(text.to_owned())
    } else {
        Err("write the name of a variable, never a token".to_owned())
    }
}
