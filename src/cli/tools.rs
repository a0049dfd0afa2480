//! `tools`: what somebody would be shown, asked of the servers themselves and filtered by the policy of the files.
//!
//! Connects and lists, and never calls a tool. Invariant: it uses no directory of a gateway that runs.

use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Ending;
use super::ask::ToolsArguments;
use super::call::safe;
use super::files::Understood;
use super::output::{BAD, Output, QUIET, STRONG, complain, trouble};
use crate::config::{Config, ListAs, ServerConfig};
use crate::delegate::Delegate;
use crate::identity::{Identity, Persona, Revocations};
use crate::ids::{Action, AuthorizationContext};
use crate::limit;
use crate::outcome::Stop;
use crate::policy::Ask;
use crate::upstream::{Access, Upstreams};
use crate::wire::mcp::Kind;

/// One tool that would be shown.
#[derive(Debug, Serialize)]
struct Shown {
    server: String,
    tool: String,
}

/// What can be said about one server.
enum Listed {
    Tools(Vec<String>),
    Not(String),
}

/// Lists and filters, and says how it ended.
pub async fn run(arguments: &ToolsArguments, output: Output) -> Ending {
    let Some(mut understood) = arguments.files.or_complain() else { return Ending::Trouble };
    let persona = match arguments.who.persona(understood.config()) {
        Ok(persona) => persona,
        Err(message) => {
            trouble(message);
            return Ending::Trouble;
        }
    };
    let servers = match wanted(understood.config(), arguments.server.as_deref()) {
        Ok(servers) => servers,
        Err(message) => {
            trouble(message);
            return Ending::Trouble;
        }
    };
    complain(format_args!(
        "{QUIET}connecting to {} with the gateway's own credentials{QUIET:#}\n",
        servers.iter().map(|server| server.id.as_str()).collect::<Vec<_>>().join(", ")
    ));
    // Children of a gateway that runs have their directories in its state directory.
    let place = std::env::temp_dir().join(format!("bailiwick-tools-{}", ulid::Ulid::generate()));
    understood.loaded.config.gateway.state.clone_from(&place);
    understood.loaded.config.servers.clone_from(&servers);
    let (shown, is_whole) = list(&understood, &persona, &servers).await;
    let _was_it_made = std::fs::remove_dir_all(&place);
    let line = |shown: &Shown| format!("{STRONG}{}{STRONG:#}/{}\n", shown.server, safe(&shown.tool));
    output.result(&shown, shown.iter().map(line).collect::<String>());
    if is_whole { Ending::Done } else { Ending::Trouble }
}

fn wanted(config: &Config, only: Option<&str>) -> Result<Vec<Arc<ServerConfig>>, String> {
    let servers: Vec<_> =
        config.servers.iter().filter(|server| only.is_none_or(|id| server.id.as_str() == id)).cloned().collect();
    match only {
        Some(id) if servers.is_empty() => {
            let known: Vec<&str> = config.servers.iter().map(|server| server.id.as_str()).collect();
            Err(format!("there is no server `{id}`: {}", known.join(", ")))
        }
        _ => Ok(servers),
    }
}

/// What is shown, and whether every server could be asked.
async fn list(understood: &Understood, persona: &Persona, servers: &[Arc<ServerConfig>]) -> (Vec<Shown>, bool) {
    let config = understood.config();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    // No token is verified here; the delegate needs an identity to exchange the tokens of callers.
    let mut nobody = config.clone();
    nobody.issuers.clear();
    let identity = Arc::new(Identity::new(&nobody, Arc::new(Revocations::default()), tasks.clone(), stop.clone()));
    let delegate = Delegate::new(config, identity, &tasks, stop.clone()).await;
    let upstreams = Upstreams::new(config);
    let class = understood.policy.class(persona);
    let mut shown = Vec::new();
    let mut is_whole = true;
    let asked = servers.iter().map(|server| ask(&delegate, &upstreams, server));
    for (server, listed) in servers.iter().zip(futures_util::future::join_all(asked).await) {
        match listed {
            Listed::Not(problem) => {
                is_whole = false;
                complain(format_args!("{BAD}{}{BAD:#}: {}\n", server.id, safe(&problem)));
            }
            Listed::Tools(names) => {
                let action = Action::Call;
                let asks: Vec<Ask<'_>> = names
                    .iter()
                    .map(|name| Ask { environment: &server.environment, server: &server.id, name, action: &action })
                    .collect();
                let visible = understood.policy.list(&class, &asks);
                let names = names.iter().zip(visible).filter(|(_, visible)| *visible);
                shown.extend(names.map(|(tool, _)| Shown { server: server.id.to_string(), tool: tool.clone() }));
            }
        }
    }
    upstreams.shutdown().await;
    stop.cancel();
    (shown, is_whole)
}

async fn ask(delegate: &Delegate, upstreams: &Upstreams, server: &Arc<ServerConfig>) -> Listed {
    if server.list_as == ListAs::Caller {
        return Listed::Not("it is listed with each caller's own credential, so nobody else can say".to_owned());
    }
    let credential = match delegate.gateway_credential(server, None).await {
        Ok(credential) => credential.header,
        Err(Stop::Failed(failure)) => return Listed::Not(failure.detail),
        Err(Stop::Refused(refusal)) => return Listed::Not(refusal.hint.to_string()),
    };
    let access = Access { context: AuthorizationContext::Gateway, principal: None, credential };
    let listing = upstreams.list(&server.id, &access, Kind::Tool);
    match tokio::time::timeout(limit::TOOLS_LIST_TIMEOUT, listing).await {
        Ok(Ok(listing)) => Listed::Tools(
            listing
                .items
                .iter()
                .filter_map(|item| Some(item.value().as_object()?.get("name")?.as_str()?.into_owned()))
                .take(limit::CLIENT_TOOLS_SHOWN_MAX)
                .collect(),
        ),
        Ok(Err(failure)) => Listed::Not(failure.detail),
        Err(_) => Listed::Not(format!("it did not answer within {} s", limit::TOOLS_LIST_TIMEOUT.as_secs())),
    }
}
