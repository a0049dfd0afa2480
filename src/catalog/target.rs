//! The proof that a request means exactly one primitive of one upstream.

use std::sync::Arc;

use super::pins::Seal;
use crate::config::ServerConfig;
use crate::ids::{Action, DefinitionDigest, Environment, ServerId};
use crate::wire::Json;

/// The proof of the second stage: which upstream, which primitive, which definition.
#[derive(Debug, Clone)]
pub struct Target {
    pub(super) server: Arc<ServerConfig>,
    pub(super) action: Action,
    pub(super) name: Arc<str>,
    pub(super) definition: Option<Arc<Definition>>,
}

/// One primitive as its upstream defined it.
#[derive(Debug)]
pub struct Definition {
    /// Its name or URI in the upstream's own spelling.
    pub name: Arc<str>,
    /// The digest of all of it.
    pub digest: DefinitionDigest,
    /// The definition as the upstream sent it: one JSON object.
    pub raw: Json,
    /// Parameters that are mirrored into `Mcp-Param-*` headers: property path and header name.
    pub header_parameters: Vec<HeaderParameter>,
    /// Whether a tool of 2025-11-25 is called as a task.
    pub task_support: TaskSupport,
    /// What its upstream says that raises the risk of calling it.
    pub hints: Hints,
    /// Whether it may call something of its arguments a secret.
    pub secrecy: Secrecy,
    /// Who accepted it; nobody has to where nothing is pinned.
    pub(super) seal: Option<Seal>,
}

/// What an upstream says of its own tool (`annotations`): nothing that it says can make a tool more harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hints {
    /// `destructiveHint` is written, and true.
    pub destructive: bool,
    /// `openWorldHint` is written, and true.
    pub open_world: bool,
}

/// Whether a definition has to be looked through for what it calls a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrecy {
    /// It has none of the words for it.
    None,
    /// It may.
    Perhaps,
}

/// How a tool is called where its server has the tasks of 2025-11-25 (`execution.taskSupport`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TaskSupport {
    /// Never as a task.
    #[default]
    Forbidden,
    /// As the client likes.
    Optional,
    /// Only as a task.
    Required,
}

/// A parameter that is mirrored into a header (`x-mcp-header`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderParameter {
    /// Where the value stands in the arguments, as property names from the root.
    pub path: Vec<String>,
    /// The annotation's value: the header is `Mcp-Param-` and this.
    pub header: String,
}

impl Target {
    /// The upstream's configuration.
    #[must_use]
    pub fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    /// The upstream's id.
    #[must_use]
    pub fn server_id(&self) -> &ServerId {
        &self.server.id
    }

    /// Where its effects land.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.server.environment
    }

    /// What is done to it.
    #[must_use]
    pub const fn action(&self) -> &Action {
        &self.action
    }

    /// The primitive's name or URI in the upstream's own spelling; empty where the server itself is meant.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The definition, where something was listed.
    #[must_use]
    pub const fn definition(&self) -> Option<&Arc<Definition>> {
        self.definition.as_ref()
    }
}
