//! Every key of `policies/mandates.toml`, and of what `policies/agents.toml` says of budgets.

use super::{Section, defaulted, optional, required};

const fn mandates(title: &'static str, keys: &'static [super::Key]) -> Section {
    Section { file: "policies/mandates.toml", title, keys }
}

/// The top of `policies/mandates.toml`.
pub const MANDATES: Section = mandates("top level", &[optional("templates", "tables by name")]);

/// `[templates.NAME]`.
pub const TEMPLATE: Section = mandates(
    "[templates.NAME]",
    &[
        required("title", "string"),
        required("tools", "list of object patterns"),
        defaulted("conditions", "list of conditions", "[]"),
        required("environments", "list of environments"),
        required("agents", "list of agent ids"),
        // Long enough for a nightly job; what takes longer says so.
        defaulted("wall_time", "duration", "\"1h\""),
        optional("idle_for", "duration"),
        optional("budget", "table"),
        defaulted("may_isolate", "boolean", "false"),
        defaulted("purpose_required", "boolean", "false"),
    ],
);

/// `[templates.NAME.budget]`.
pub const TEMPLATE_BUDGET: Section = mandates(
    "[templates.NAME.budget]",
    &[optional("calls", "integer"), optional("calls_per_minute", "integer"), optional("bytes", "size")],
);

/// `[breaker]`.
pub const BREAKER: Section = Section {
    file: "policies/agents.toml",
    title: "[breaker]",
    keys: &[
        // A model that was told no a few times does something else; one that was turned tries on and on.
        defaulted("denials_per_minute", "integer", "20"),
        defaulted("new_tools", "integer", "5"),
        defaulted("new_tools_within", "duration", "\"10m\""),
        // Whoever begins to work calls everything for the first time.
        defaulted("learning", "duration", "\"24h\""),
        defaulted("errors_percent", "integer", "50"),
        defaulted("errors_of", "integer", "20"),
        defaulted("mandate_denials_per_minute", "integer", "20"),
        defaulted("mandate_errors_percent", "integer", "50"),
        defaulted("mandate_errors_of", "integer", "20"),
        defaulted("tool_errors_percent", "integer", "50"),
        defaulted("tool_errors_of", "integer", "20"),
        // What fails all the time is tried again now and then.
        defaulted("tool_pause", "duration", "\"1m\""),
    ],
};

/// `[agents.ID.budget]`.
pub const AGENT_BUDGET: Section = Section {
    file: "policies/agents.toml",
    title: "[agents.ID.budget]",
    keys: &[optional("calls_per_minute", "integer"), optional("calls_per_day", "integer")],
};

/// `[servers.ID.tool_budgets.TOOL]`.
pub const TOOL_BUDGET: Section = Section {
    file: "servers.toml",
    title: "[servers.ID.tool_budgets.TOOL]",
    keys: &[optional("calls_per_minute", "integer"), optional("calls_per_day", "integer")],
};
