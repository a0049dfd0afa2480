//! The keys of `policies/gates.toml`.

use super::{Key, Section, defaulted, optional, required};

const fn gates(title: &'static str, keys: &'static [Key]) -> Section {
    Section { file: "policies/gates.toml", title, keys }
}

/// The top of `policies/gates.toml`.
pub const GATES: Section =
    gates("top level", &[optional("gates", "tables by name"), optional("break_glass", "tables by name")]);

/// `[break_glass.NAME]`.
pub const BREAK_GLASS: Section = gates(
    "[break_glass.NAME]",
    &[
        required("role", "role"),
        required("who", "list of subjects"),
        required("approvers", "list of subjects"),
        defaulted("approvals", "number", "1"),
        // Long enough to find out what is wrong, and short enough that nobody works with it.
        defaulted("lasts", "duration", "\"1h\""),
    ],
);

/// `[gates.NAME]`.
pub const GATE: Section = gates(
    "[gates.NAME]",
    &[
        optional("objects", "list of object patterns"),
        optional("labels", "list of labels"),
        optional("environments", "list of environments"),
        defaulted("actions", "list of `\"call\"`, `\"get\"`, `\"read\"`", "[\"call\"]"),
        defaulted("flows", "boolean", "false"),
        optional("when", "condition name"),
        defaulted("kind", "`\"approve\"` or `\"confirm\"`", "\"approve\""),
        optional("approvers", "list of `\"owner\"` or subjects"),
        defaulted("approvals", "number", "1"),
        // Somebody has to see the request, and to understand it.
        defaulted("pending_for", "duration", "\"15m\""),
        // Long enough for the retry of an assistant that waits; what lies longer was approved in another world.
        defaulted("approved_for", "duration", "\"5m\""),
        defaulted("irreversible", "boolean", "false"),
        defaulted("acr", "list of strings", "[]"),
        optional("auth_age_max", "duration"),
    ],
);

/// `[webhooks.NAME]`.
pub const WEBHOOK: Section = Section {
    file: "servers.toml",
    title: "[webhooks.NAME]",
    keys: &[
        required("url", "URL"),
        required(
            "events",
            "list of `\"approval.requested\"`, `\"agent.suspended\"`, `\"server.suspended\"`, `\"pin.changed\"`, `\"break_glass.opened\"`, `\"break_glass.used\"`, `\"access.requested\"`",
        ),
        defaulted("allow_private", "boolean", "false"),
    ],
};
