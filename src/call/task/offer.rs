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
static EMPTY: LazyLock<Json> = LazyLock::new(|| Json::of(&serde_json::Map::new()));

/// Whether a client said that it can follow tasks as the extension has them.
#[must_use]
pub fn is_declared(client: &ClientFacts) -> bool {
    client.version.era() == Era::Modern && extension(&client.capabilities).is_some()
}

fn extension(capabilities: &Json) -> Option<Value<'_>> {
    let extensions = capabilities.value().as_object()?.get("extensions")?.as_object()?;
    extensions.get(TASKS_EXTENSION).filter(|settings| settings.as_object().is_some())
}

/// What an upstream is shown: what the client declared, and the extension where we follow for a legacy client. With
/// every request and not only with calls, because a legacy server's sessions are kept apart by what was declared.
#[must_use]
pub fn offered(client: &ClientFacts, capabilities: Json) -> Json {
    if client.version.era() == Era::Modern { capabilities } else { with_tasks(&capabilities) }
}

/// The same capabilities and the extension.
fn with_tasks(capabilities: &Json) -> Json {
    let Some(all) = capabilities.value().as_object() else { return TASKS.clone() };
    let tasks = [Edit::Set(TASKS_EXTENSION, EMPTY.clone())];
    let extensions = all.get("extensions").and_then(Value::as_object).or_else(|| EMPTY.value().as_object());
    extensions
        .map_or_else(|| TASKS.clone(), |extensions| all.edited(&[Edit::Set("extensions", extensions.edited(&tasks))]))
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Augmented {
    /// Nobody: it is a plain call.
    #[default]
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
    fn a_legacy_client_is_followed_for_and_a_modern_one_declares_for_itself() {
        let shown = |version: Version, capabilities: &str| {
            let client = client(version, capabilities);
            offered(&client, client.capabilities.clone()).as_str().to_owned()
        };
        let (old, new) = (Version::V2025_11_25, Version::V2026_07_28);
        let tasks = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
        assert_eq!(shown(old, "{}"), tasks);
        assert_eq!(shown(old, r#"{"extensions":7}"#), tasks);
        assert_eq!(
            shown(old, r#"{"roots":{},"extensions":{"a/b":{"c": 1}}}"#),
            r#"{"roots":{},"extensions":{"a/b":{"c": 1},"io.modelcontextprotocol/tasks":{}}}"#
        );
        assert_eq!(shown(new, r#"{"roots":{}}"#), r#"{"roots":{}}"#);
    }

    #[test]
    fn a_client_has_declared_tasks_only_as_the_extension_says() {
        let declared = r#"{"sampling":{},"extensions":{"a/b":{},"io.modelcontextprotocol/tasks":{"x":1}}}"#;
        assert!(check(&client(Version::V2026_07_28, declared)).is_ok());
        for odd in ["{}", r#"{"extensions":{}}"#, r#"{"extensions":{"io.modelcontextprotocol/tasks":true}}"#] {
            assert_eq!(
                check(&client(Version::V2026_07_28, odd)).unwrap_err().reason,
                Reason::CapabilityMissing,
                "{odd}"
            );
        }
        assert!(!is_declared(&client(Version::V2025_11_25, declared)));
    }
}
