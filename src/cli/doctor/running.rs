//! What a gateway that runs says of itself over its control socket.
//!
//! Decides nothing and changes nothing. Invariant: that none runs is told apart from one that cannot be asked.

use std::path::Path;

use http::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::finding::Finding;
use crate::config::AgentState;
use crate::control::client::{ClientError, request};
use crate::control::operations::ServerStatus;
use crate::control::{HeldRevocations, Readiness};
use crate::gateway::glance::AgentStatus;
use crate::gateway::lifecycle;
use crate::identity::Persona;
use crate::identity::revoked::Stopped;
use crate::ids::{AgentId, ServerId};
use crate::outcome::Refusal;

/// A gateway that runs, and what it says.
pub struct Running {
    status: Value,
    readiness: Result<Readiness, String>,
    /// What was taken back.
    pub revocations: Result<HeldRevocations, String>,
    agents: Result<Vec<AgentStatus>, String>,
    servers: Result<Vec<ServerStatus>, String>,
    /// Whether there are reviews, which may have ended grants.
    pub reviews: bool,
}

/// Whether a gateway runs on this state directory.
pub enum Standing {
    /// It does.
    Runs(Box<Running>),
    /// None does.
    Not,
    /// Something is there, and it cannot be asked.
    Unasked(String),
}

/// Asks.
pub async fn ask(state: &Path) -> Standing {
    let status = match get::<Value>(state, "/status").await {
        Ok(status) => status,
        Err(ClientError::NotRunning(_)) => return Standing::Not,
        Err(error) => return Standing::Unasked(error.to_string()),
    };
    let readiness = ready(state).await.map_err(|error| error.to_string());
    let revocations = get(state, "/revocations").await.map_err(|error| error.to_string());
    let agents = get(state, "/agents").await.map_err(|error| error.to_string());
    let servers = get(state, "/servers").await.map_err(|error| error.to_string());
    let reviews = get::<Vec<Value>>(state, "/reviews").await.is_ok_and(|reviews| !reviews.is_empty());
    Standing::Runs(Box::new(Running { status, readiness, revocations, agents, servers, reviews }))
}

async fn get<T: DeserializeOwned>(state: &Path, path: &str) -> Result<T, ClientError> {
    request::<()>(state, Method::GET, path, None).await?.read()
}

/// It answers 503 where something is in the way, with the same words.
async fn ready(state: &Path) -> Result<Readiness, ClientError> {
    let mut answer = request::<()>(state, Method::GET, "/readyz", None).await?;
    answer.status = http::StatusCode::OK;
    answer.read()
}

impl Standing {
    /// The gateway, where one runs.
    pub fn running(&self) -> Option<&Running> {
        match self {
            Self::Runs(running) => Some(running),
            _ => None,
        }
    }

    /// What it says; `revision` is that of the files beside us.
    pub fn findings(&self, state: &Path, revision: Option<&str>) -> Vec<Finding> {
        match self {
            Self::Not => vec![Finding::ok(
                "process",
                format!("none runs on {}: everything below was asked by this command itself", state.display()),
            )],
            Self::Unasked(problem) => vec![Finding::bad(
                "process",
                format!("one seems to run and cannot be asked: {problem}"),
                "run this as the gateway's user, such as: sudo -u bailiwick bailiwick doctor",
            )],
            Self::Runs(running) => running.findings(revision),
        }
    }
}

impl Running {
    /// What keeps it from saying what was taken back or stopped.
    pub fn untold(&self) -> Option<String> {
        let problems = [self.revocations.as_ref().err(), self.agents.as_ref().err(), self.servers.as_ref().err()];
        problems.into_iter().flatten().next().cloned()
    }

    /// What is stopped there, beside what was taken back.
    pub fn stopped(&self) -> Stopped {
        let mut stopped = Stopped::default();
        // What the files say there is not decided there.
        for agent in self.agents.iter().flatten().filter(|agent| !agent.because.is_empty()) {
            let state = if agent.state == "retired" { AgentState::Retired } else { AgentState::Suspended };
            stopped.agents.extend(AgentId::new(&agent.agent).map(|id| (id, state)));
        }
        let gone = self.servers.iter().flatten().filter(|server| server.health == "revoked");
        stopped.servers.extend(gone.filter_map(|server| ServerId::new(&server.server).ok()));
        stopped
    }

    /// Whether somebody may use the agents that they come with.
    ///
    /// # Errors
    /// `agent_inactive`.
    pub fn lets(&self, persona: &Persona) -> Result<(), Refusal> {
        lifecycle::uses_none(persona, |agent, user| {
            let known = self.agents.iter().flatten().find(|known| known.agent == agent.as_str());
            known.is_some_and(|known| known.stopped_for.iter().any(|stopped| stopped == user.as_str()))
        })
    }

    fn findings(&self, revision: Option<&str>) -> Vec<Finding> {
        let text = |name: &str| self.status.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, own) = (text("version"), env!("CARGO_PKG_VERSION"));
        let mut findings = vec![Finding::ok("process", format!("version {version} runs as {}", text("public_url")))];
        if version != own {
            findings.push(Finding::warn(
                "version",
                format!("version {version} runs, this command is {own}"),
                "restart the gateway with the version that is installed",
            ));
        }
        let in_force = text("revision");
        if let Some(revision) = revision.filter(|revision| *revision != in_force) {
            findings.push(Finding::warn(
                "revision",
                format!("it serves {in_force:.12}, the files are {revision:.12}"),
                "bailiwick reload",
            ));
        }
        match &self.readiness {
            Err(problem) => findings.push(Finding::bad("readiness", problem, "look at the gateway's log")),
            Ok(readiness) => {
                findings.extend(readiness.checks.iter().filter(|check| !check.well).map(|check| {
                    let detail = if check.detail.is_empty() { "it is not well" } else { &check.detail };
                    let fix = if check.name.starts_with("sandbox:") {
                        "remove sandbox = \"none\" from this server, unless it is meant"
                    } else {
                        "look below for the same name, or at the gateway's log"
                    };
                    let found = format!("the gateway says: {detail}");
                    if check.optional {
                        Finding::warn(&check.name, found, fix)
                    } else {
                        Finding::bad(&check.name, found, fix)
                    }
                }));
                if readiness.is_ready() {
                    findings.push(Finding::ok("readiness", "it takes calls"));
                }
            }
        }
        findings
    }

    /// Whether it says that its record can be written; `None` where it did not say.
    pub fn journal_is_well(&self) -> Option<bool> {
        let checks = &self.readiness.as_ref().ok()?.checks;
        checks.iter().find(|check| check.name == "journal").map(|check| check.well)
    }
}
