//! `call`, `token`, `demo`, `stdio`: what can be typed to use a gateway as an assistant would.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use url::Url;

use super::Ending;
use super::files::Files;
use super::login::LoginOptions;
use crate::ids::{AgentId, ServerId};

const CALL_EXAMPLES: &str = "\
Examples:
  BAILIWICK_TOKEN=$(bailiwick token alice) bailiwick call notes__list_notes
  bailiwick call deploy__status '{\"service\": \"search\"}'
  bailiwick call status '{\"service\": \"search\"}' --server deploy

Ends with 1 when the gateway refuses, and prints the reason.";

/// Call a tool through the gateway, as an assistant would
#[derive(Debug, Args)]
#[command(after_help = CALL_EXAMPLES)]
pub struct CallArguments {
    /// The tool, by the name that the gateway lists
    pub tool: String,
    /// Its arguments, as a JSON object
    #[arg(value_name = "JSON", default_value = "{}")]
    pub arguments: String,
    /// The gateway's MCP endpoint, instead of the one in servers.toml
    #[arg(long)]
    pub url: Option<Url>,
    /// Only this server, with its tools under their own names
    #[arg(long, value_name = "ID", value_parser = |text: &str| ServerId::new(text).map_err(|error| error.to_string()))]
    pub server: Option<ServerId>,
    /// The environment variable that holds the access token; where it is not set, the login of `bailiwick login` is
    /// used
    #[arg(long, value_name = "VARIABLE", default_value = "BAILIWICK_TOKEN")]
    pub token_env: String,
    /// The files of the gateway, for its URL
    #[command(flatten)]
    pub files: Files,
}

const TOKEN_EXAMPLES: &str = "\
Examples:
  bailiwick token alice
  BAILIWICK_TOKEN=$(bailiwick token bob) bailiwick call notes__list_notes

Works only beside a running `bailiwick demo`, on the same machine. Nothing like it exists for `serve`.";

/// Print an access token of the demo's issuer
#[derive(Debug, Args)]
#[command(after_help = TOKEN_EXAMPLES)]
pub struct TokenArguments {
    /// A person of the demo: alice, bob or carol
    pub user: String,
    /// The server that the token is for; without it, for the whole gateway
    #[arg(long, value_name = "ID", value_parser = |text: &str| ServerId::new(text).map_err(|error| error.to_string()))]
    pub server: Option<ServerId>,
    /// Where the demo keeps its state, if it was told another place than the files say
    #[arg(long, value_name = "DIRECTORY")]
    pub state: Option<PathBuf>,
    /// The files of the demo
    #[command(flatten)]
    pub files: Files,
}

const DEMO_EXAMPLES: &str = "\
Examples:
  bailiwick demo                   the repository's servers.toml and policies, three people and a bot
  bailiwick demo --once            shows everything and ends
  bailiwick demo --listen 127.0.0.1:8800
  bailiwick demo --quiet           only the gateway, for one's own assistant

Everything listens on this machine only, and the issuer's key is made at every start.";

/// Run a gateway with an issuer and two sample servers, and show what it does
#[derive(Debug, Args)]
#[command(after_help = DEMO_EXAMPLES)]
pub struct DemoArguments {
    /// The address of the gateway, instead of the one in servers.toml
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Where to keep journal and store; without it, where the files say, and removed at the end
    #[arg(long, value_name = "DIRECTORY")]
    pub state: Option<PathBuf>,
    /// Start everything, but make no calls
    #[arg(long, short)]
    pub quiet: bool,
    /// Stop after the calls, instead of going on until Ctrl-C
    #[arg(long, conflicts_with = "quiet")]
    pub once: bool,
    /// The files to run
    #[command(flatten)]
    pub files: Files,
}

const STDIO_EXAMPLES: &str = "\
Examples:
  bailiwick stdio --url https://mcp.example.com/mcp
  bailiwick stdio --url https://mcp.example.com/mcp --device
  bailiwick stdio --url http://127.0.0.1:7800/mcp --token-env MY_TOKEN
  bailiwick stdio --url https://mcp.example.com/mcp --token-file ~/.config/bailiwick/token
  bailiwick stdio --standalone --config ~/mcp/servers.toml

`bailiwick connect claude-desktop` prints the configuration that starts this.";

/// Speak MCP on standard input and output, for assistants that start a program
///
/// It is a bridge: it passes messages on to a running gateway and decides nothing. The access token is the one that
/// it was given, else the one of `bailiwick login`; where the gateway wants one and there is none, it opens the
/// issuer's page in the browser, and prints its address on standard error.
///
/// With --standalone the gateway runs in this process, for the user `user:local/NAME` of this machine alone: the same
/// rules, the same record. It advises and does not enforce, because the user owns the process and the files; servers
/// of the environment `production` are therefore never served this way.
#[derive(Debug, Args)]
#[command(after_help = STDIO_EXAMPLES)]
pub struct StdioArguments {
    /// The gateway's MCP endpoint
    #[arg(long, required_unless_present = "standalone")]
    pub url: Option<Url>,
    /// Run the gateway in this process, for the user of this machine; it advises and does not enforce
    #[arg(long, conflicts_with_all = ["url", "token_env", "token_file"])]
    pub standalone: bool,
    /// Which interactive agent of policies/agents.toml the assistant is; only needed where there are several
    #[arg(long, value_name = "ID", requires = "standalone",
          value_parser = |text: &str| AgentId::new(text).map_err(|error| error.to_string()))]
    pub agent: Option<AgentId>,
    /// How much a gateway in this process logs to standard error
    #[arg(long, value_name = "FILTER", default_value = "warn,rmcp=error", env = "BAILIWICK_LOG", hide = true)]
    pub log: String,
    /// The files of a gateway in this process
    #[command(flatten)]
    pub files: Files,
    /// Take the access token from this environment variable; from BAILIWICK_TOKEN if that is set
    #[arg(long, value_name = "VARIABLE")]
    pub token_env: Option<String>,
    /// Take the access token from this file, which nobody else may read
    #[arg(long, value_name = "FILE", conflicts_with = "token_env")]
    pub token_file: Option<PathBuf>,
    /// How to log in
    #[command(flatten)]
    pub login: LoginOptions,
}

/// Passes messages between this process's standard streams and a gateway.
pub fn stdio(arguments: &StdioArguments) -> Ending {
    super::in_runtime(super::stdio::run(arguments))
}
