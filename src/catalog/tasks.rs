//! Which servers answer with tasks, and in which of the two ways.
//!
//! Decides it from what a server says of itself. Knows nothing of tasks that are under way. Invariant: a
//! server that announces neither way has no tasks, whatever its tools say.

use serde::{Deserialize, Serialize};

use super::view::View;
use crate::config::ServerConfig;
use crate::ids::ServerId;
use crate::wire::mcp::TASKS_EXTENSION;
use crate::wire::{Json, Object, Value};

/// In which of the two ways a server has tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskDialect {
    /// The extension of 2026-07-28: the server decides, the result stands in the task.
    #[serde(rename = "x")]
    Extension,
    /// The experiment of 2025-11-25: the client decides, the result is asked for by itself.
    #[serde(rename = "e")]
    Experiment,
}

impl TaskDialect {
    /// What a server's capabilities object announces.
    #[must_use]
    pub fn announced(capabilities: &Json) -> Option<Self> {
        let all = capabilities.value().as_object()?;
        if member(all, "extensions").is_some_and(|extensions| member(extensions, TASKS_EXTENSION).is_some()) {
            return Some(Self::Extension);
        }
        let tools = member(all, "tasks").and_then(|tasks| member(tasks, "requests"));
        let call = tools.and_then(|requests| member(requests, "tools")).and_then(|tools| member(tools, "call"));
        call.map(|_| Self::Experiment)
    }
}

impl View {
    /// In which way a server of this view has tasks.
    #[must_use]
    pub fn task_dialect(&self, server: &ServerId) -> Option<TaskDialect> {
        let slice = self.members.iter().find(|member| member.server.id == *server)?.slice.as_ref()?;
        TaskDialect::announced(&slice.facts().capabilities)
    }

    /// Whether a server that the predicate lets show has tasks in this way.
    #[must_use]
    pub fn has_tasks(&self, dialect: TaskDialect, visible: impl Fn(&ServerConfig) -> bool) -> bool {
        self.listed().any(|(member, slice)| {
            visible(&member.server) && TaskDialect::announced(&slice.facts().capabilities) == Some(dialect)
        })
    }
}

fn member<'a>(object: Object<'a>, key: &str) -> Option<Object<'a>> {
    object.get(key).and_then(Value::as_object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    #[test]
    fn each_way_has_its_own_place_among_the_capabilities() {
        for (text, dialect) in [
            ("{}", None),
            (r#"{"tasks":{}}"#, None),
            (r#"{"tasks":{"list":{},"requests":{"sampling":{}}}}"#, None),
            (r#"{"tasks":{"requests":{"tools":{"call":{}}}}}"#, Some(TaskDialect::Experiment)),
            (r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#, Some(TaskDialect::Extension)),
            (r#"{"extensions":{"io.modelcontextprotocol/tasks":true}}"#, None),
            (r#"{"extensions":{"x/y":{}},"io.modelcontextprotocol/tasks":{}}"#, None),
        ] {
            let capabilities = Json::parse(text, Source::Upstream).unwrap();
            assert_eq!(TaskDialect::announced(&capabilities), dialect, "{text}");
        }
    }
}
