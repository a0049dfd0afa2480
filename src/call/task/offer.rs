//! Who is offered tasks: what a client declared, and what the gateway declares for those that cannot.
//!
//! Decides whether a call may become a task. Refuses to know which server it goes to, but for what that
//! announced. Invariant: a client gets a task only if it declared that it can follow one; a legacy client's
//! task is followed by the gateway.

use std::sync::LazyLock;

use super::super::{ClientFacts, Request};
use crate::catalog::{Target, TaskDialect, TaskSupport, View};
use crate::limit;
use crate::outcome::{Reason, Refusal};
use crate::wire::mcp::{Era, TASKS_EXTENSION};
use crate::wire::{Edit, Json, Value};

/// Capabilities that hold the tasks extension and nothing else.
static TASKS: LazyLock<Json> =
    LazyLock::new(|| Json::of(&serde_json::json!({ "extensions": { TASKS_EXTENSION: {} } })));
static NOTHING: LazyLock<Json> = LazyLock::new(|| Json::of(&serde_json::Map::new()));

/// Whether a client said that it can follow tasks as the extension has them.
#[must_use]
pub fn is_declared(client: &ClientFacts) -> bool {
    client.version.era() == Era::Modern && extension(&client.capabilities).is_some()
}

fn extension(capabilities: &Json) -> Option<Value<'_>> {
    let extensions = capabilities.value().as_object()?.get("extensions")?.as_object()?;
    extensions.get(TASKS_EXTENSION).filter(|settings| settings.as_object().is_some())
}

/// What an upstream is shown of it: the client's own declaration, or ours where we follow for a legacy client.
#[must_use]
pub fn offered(client: &ClientFacts, calls_a_tool: bool) -> Json {
    match client.version.era() {
        Era::Legacy if calls_a_tool => TASKS.clone(),
        Era::Legacy => NOTHING.clone(),
        Era::Modern => extension(&client.capabilities).map_or_else(
            || NOTHING.clone(),
            |settings| {
                let extensions = serde_json::value::RawValue::from_string(settings.raw().to_owned());
                extensions.map_or_else(
                    |_| TASKS.clone(),
                    |settings| Json::of(&serde_json::json!({ "extensions": { TASKS_EXTENSION: settings } })),
                )
            },
        ),
    }
}

/// The refusal of a request about a task by a client that did not declare the extension.
///
/// # Errors
/// `capability_missing`, with what is to be declared.
pub fn check(client: &ClientFacts) -> Result<(), Refusal> {
    if client.version.era() == Era::Legacy || is_declared(client) {
        return Ok(());
    }
    Err(Refusal::new(Reason::CapabilityMissing).needs(TASKS.clone()))
}

/// Who wants that a call of an upstream of 2025-11-25 becomes a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Augmented {
    /// Nobody: it is a plain call.
    No,
    /// The tool insists on it.
    ByTool,
    /// The client asked for it, and follows the task itself.
    ByClient,
}

impl Augmented {
    /// Whether a call of this target is made as a task of 2025-11-25.
    #[must_use]
    pub fn of(request: &Request, view: &View, target: &Target) -> Self {
        let support = target.definition().map_or(TaskSupport::Forbidden, |definition| definition.task_support);
        if support == TaskSupport::Forbidden || view.task_dialect(target.server_id()) != Some(TaskDialect::Experiment) {
            return Self::No;
        }
        let asked = request.message.params().and_then(|params| params.get("task"));
        let asked = asked.is_some_and(|task| task.as_object().is_some());
        match support {
            _ if asked && request.client.version.era() == Era::Legacy => Self::ByClient,
            TaskSupport::Required => Self::ByTool,
            TaskSupport::Optional | TaskSupport::Forbidden => Self::No,
        }
    }

    /// What becomes of `task` in the parameters: the client's own stays only where it is followed by the
    /// client.
    #[must_use]
    pub fn edit(self) -> Option<Edit<'static>> {
        match self {
            Self::No => Some(Edit::Remove("task")),
            Self::ByTool => {
                let life_ms = u64::try_from(limit::TASK_LIFE_ASKED.as_millis()).unwrap_or(u64::MAX);
                Some(Edit::Set("task", Json::of(&serde_json::json!({ "ttl": life_ms }))))
            }
            Self::ByClient => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;
    use crate::wire::mcp::Version;

    fn client(version: Version, capabilities: &str) -> ClientFacts {
        let capabilities = Json::parse(capabilities, Source::Client).unwrap();
        ClientFacts { version, capabilities, info: None, log_level: None }
    }

    #[test]
    fn an_upstream_learns_of_tasks_from_clients_that_declared_them_and_for_legacy_ones_that_call() {
        let declared = r#"{"sampling":{},"extensions":{"a/b":{},"io.modelcontextprotocol/tasks":{"x":1}}}"#;
        let modern = |capabilities: &str| client(Version::V2026_07_28, capabilities);
        assert_eq!(
            offered(&modern(declared), true).as_str(),
            r#"{"extensions":{"io.modelcontextprotocol/tasks":{"x":1}}}"#
        );
        for odd in ["{}", r#"{"extensions":{}}"#, r#"{"extensions":{"io.modelcontextprotocol/tasks":true}}"#] {
            assert_eq!(offered(&modern(odd), true).as_str(), "{}", "{odd}");
            assert_eq!(check(&modern(odd)).unwrap_err().reason, Reason::CapabilityMissing, "{odd}");
        }
        assert!(check(&modern(declared)).is_ok());
        let legacy = client(Version::V2025_11_25, declared);
        assert_eq!(offered(&legacy, true), *TASKS);
        assert_eq!(offered(&legacy, false).as_str(), "{}");
        assert!(!is_declared(&legacy));
    }
}
