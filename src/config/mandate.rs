//! `policies/mandates.toml`: templates of the tasks that may be given to callers, and what a task may use up.
//!
//! Decides what a budget leaves of another one. Refuses to know who opens a mandate: rules decide that. Invariant: a
//! template says at least which tools it is about and how long it lasts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, Environment, TemplateName};

/// `[templates.NAME]`: a task that may be given to a caller.
#[derive(Debug, Clone)]
pub struct TemplateConfig {
    /// Its name: rules say who may open it, on `bailiwick/mandate:NAME`.
    pub name: TemplateName,
    /// What the task is, for people.
    pub title: String,
    /// The objects that it is about, as rules spell them.
    pub tools: Vec<Placed>,
    /// Conditions of `conditions.toml` that have to hold for every call.
    pub conditions: Vec<Placed>,
    /// Where it may act.
    pub environments: Vec<Environment>,
    /// The agents that it may be given to.
    pub agents: Vec<AgentId>,
    /// How long it lasts at the most.
    pub wall_time: Duration,
    /// It ends sooner where nobody uses it for so long.
    pub idle_for: Option<Duration>,
    /// What it may use up.
    pub budget: Budget,
    /// Whether its opener may begin without the labels of what went before.
    pub may_isolate: bool,
    /// Whether its opener has to say what it is for.
    pub purpose_required: bool,
}

/// A text of a file, and where it stands: what it names is looked up by another room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// What is written.
    pub text: String,
    /// The line, counted from one.
    pub line: usize,
    /// The column, counted from one.
    pub column: usize,
}

/// What may be used up; what is absent is not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u32>,
    /// Calls in one minute of the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_per_minute: Option<u32>,
    /// Bytes of arguments and results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// What an agent may use up over all its mandates, and without one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AgentBudget {
    /// Calls in one minute of the clock.
    pub calls_per_minute: Option<u32>,
    /// Calls in one day of the clock, in UTC.
    pub calls_per_day: Option<u32>,
}

/// `[breaker]`: when an agent, a task or a tool is stopped without anybody asking for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Refused calls within a minute.
    pub denials_per_minute: u32,
    /// Tools that it has never called before, after it was known for a while.
    pub new_tools: u32,
    /// Within so long.
    pub new_tools_within: Duration,
    /// It is known after so long.
    pub learning: Duration,
    /// Of its last calls, how many in a hundred were errors.
    pub errors_percent: u32,
    /// How many last calls that are.
    pub errors_of: u32,
    /// Refused calls within a minute under one mandate and those below it.
    pub mandate_denials_per_minute: u32,
    /// Of the last calls under one mandate and those below it, how many in a hundred were errors.
    pub mandate_errors_percent: u32,
    /// How many last calls that are.
    pub mandate_errors_of: u32,
    /// Of the last calls of one tool, whoever made them, how many in a hundred were errors.
    pub tool_errors_percent: u32,
    /// How many last calls that are.
    pub tool_errors_of: u32,
    /// For how long a tool is closed then.
    pub tool_pause: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            denials_per_minute: 20,
            new_tools: 5,
            new_tools_within: Duration::from_secs(600),
            learning: Duration::from_secs(86_400),
            errors_percent: 50,
            errors_of: 20,
            mandate_denials_per_minute: 20,
            mandate_errors_percent: 50,
            mandate_errors_of: 20,
            tool_errors_percent: 50,
            tool_errors_of: 20,
            tool_pause: Duration::from_secs(60),
        }
    }
}

/// Whether an agent needs a mandate for what it calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MandateNeed {
    /// Its calls are refused without one.
    Required,
    /// It may call as the rules let it.
    Optional,
}

impl Budget {
    /// The tighter of the two in everything.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        Self {
            calls: tighter(self.calls, other.calls),
            calls_per_minute: tighter(self.calls_per_minute, other.calls_per_minute),
            bytes: tighter(self.bytes, other.bytes),
        }
    }

    /// Whether nothing is counted.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }
}

fn tighter<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_budgets_the_tighter_holds_in_each_thing_and_what_one_leaves_open_the_other_closes() {
        let one = Budget { calls: Some(5), calls_per_minute: None, bytes: Some(100) };
        let other = Budget { calls: Some(9), calls_per_minute: Some(2), bytes: Some(10) };
        let both = Budget { calls: Some(5), calls_per_minute: Some(2), bytes: Some(10) };
        assert_eq!((one.within(other), other.within(one)), (both, both));
        assert!(Budget::default().is_open() && !both.is_open());
    }
}
