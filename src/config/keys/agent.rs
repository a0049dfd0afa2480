//! The keys of `policies/agents.toml`.

use super::{Key, Section, defaulted, optional, required};

const fn agents(title: &'static str, keys: &'static [Key]) -> Section {
    Section { file: "policies/agents.toml", title, keys }
}

/// The top of `policies/agents.toml`.
pub const AGENTS: Section = agents(
    "top level",
    &[
        optional("agents", "tables by id"),
        // A quarter: whoever answers for something looks at it four times a year.
        defaulted("attest_every", "duration", "\"90d\""),
        optional("breaker", "table"),
    ],
);

/// `[agents.ID]`.
pub const AGENT: Section = agents(
    "[agents.ID]",
    &[
        required("owner", "subject"),
        optional("owner_person", "string"),
        optional("sponsor_group", "subject"),
        required("purpose", "string"),
        required("kind", "`\"interactive\"` or `\"autonomous\"`"),
        required("environments", "list of environments"),
        optional("clients", "list of tables"),
        optional("keys", "list of tables"),
        defaulted("state", "`\"proposed\"`, `\"active\"`, `\"suspended\"` or `\"retired\"`", "\"active\""),
        optional("expires", "date"),
        optional("review", "date"),
        optional("mandates", "`\"required\"` or `\"optional\"`"),
        optional("budget", "table"),
    ],
);

/// `[[agents.ID.clients]]`.
pub const AGENT_CLIENT: Section = agents(
    "[[agents.ID.clients]]",
    &[
        required("issuer", "issuer alias"),
        optional("client_id", "string"),
        optional("subject", "string"),
        defaulted("proof", "`\"public\"`, `\"secret\"`, `\"private_key\"` or `\"mtls\"`", "\"public\""),
    ],
);

/// `[[agents.ID.keys]]`.
pub const AGENT_KEY: Section = agents(
    "[[agents.ID.keys]]",
    &[
        required("id", "string"),
        required("sha256", "digest"),
        required("owner", "subject"),
        optional("owner_person", "string"),
        required("created", "timestamp"),
        required("expires", "date"),
    ],
);
