//! What the files must say for a gateway in the assistant's own process.
//!
//! Decides which agent the assistant is, and which servers such a gateway never serves. Refuses to know who the user
//! is. Invariant: the agent is one that people use, and exactly one is meant.

use crate::config::load::LocalOverride;
use crate::config::{AgentConfig, AgentKind};
use crate::ids::{AgentId, Environment};

/// The environment that needs a gateway which its callers do not own.
pub const PRODUCTION: &str = "production";
/// Which agent is meant where several could be.
const USUAL: &str = "assistant";

/// The agent that the user's assistant is.
///
/// # Errors
/// A fragment that says what to write.
pub fn agent(local: &LocalOverride, agents: &[(AgentId, Option<AgentConfig>)]) -> Result<AgentId, String> {
    let interactive: Vec<&AgentId> = agents
        .iter()
        .filter(|(_, agent)| agent.as_ref().is_some_and(|agent| agent.kind == AgentKind::Interactive))
        .map(|(id, _)| id)
        .collect();
    if let Some(wanted) = &local.agent {
        let found = interactive.iter().find(|id| **id == wanted);
        return found.map(|id| (*id).clone()).ok_or_else(|| {
            format!("`{wanted}` is no interactive agent of policies/agents.toml, and --agent must name one")
        });
    }
    match interactive.as_slice() {
        [] => {
            Err("no agent is the assistant: declare one with kind = \"interactive\" in policies/agents.toml".to_owned())
        }
        [one] => Ok((*one).clone()),
        several => several.iter().find(|id| id.as_str() == USUAL).map(|id| (*id).clone()).ok_or_else(|| {
            let names: Vec<&str> = several.iter().map(|id| id.as_str()).collect();
            format!("several agents could be the assistant ({}): name one with --agent", names.join(", "))
        }),
    }
}

/// What is wrong with serving this environment in the process of its caller, if anything is.
pub fn refused(environment: &Environment) -> Option<&'static str> {
    (environment.as_str() == PRODUCTION).then_some(
        "`stdio --standalone` never serves production, because the user could change what it decides: run \
         `bailiwick serve` elsewhere and connect with `stdio --url`, or take this server out of the file",
    )
}
