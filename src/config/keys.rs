//! Every key of `servers.toml` and `policies/agents.toml`: its name, its type, its default.
//!
//! The one place where a default is written. The reader takes it from here, suggests spellings from here,
//! and `docs/configuration.md` is compared with it. Refuses to know what a value means.

mod agent;
mod feed;
pub mod gates;

pub use agent::{AGENT, AGENT_CLIENT, AGENT_KEY, AGENTS};
pub use feed::{FEED, FEED_EVENTS, FEED_LOGOUT, FEED_POLL, FEED_SCIM, REGISTRATION};

/// What a key has when nobody writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// It has to be written.
    Required,
    /// Nothing.
    Absent,
    /// This TOML value.
    Value(&'static str),
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in the file.
    pub name: &'static str,
    /// Its type, for people.
    pub kind: &'static str,
    /// What it has when nobody writes it.
    pub default: Default,
}

/// One table of a file.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// The file.
    pub file: &'static str,
    /// The table's name there, with capitals for what the administrator chooses.
    pub title: &'static str,
    /// Its keys, in the order of the documentation.
    pub keys: &'static [Key],
}

const fn required(name: &'static str, kind: &'static str) -> Key {
    Key { name, kind, default: Default::Required }
}

const fn optional(name: &'static str, kind: &'static str) -> Key {
    Key { name, kind, default: Default::Absent }
}

const fn defaulted(name: &'static str, kind: &'static str, value: &'static str) -> Key {
    Key { name, kind, default: Default::Value(value) }
}

const fn servers(title: &'static str, keys: &'static [Key]) -> Section {
    Section { file: "servers.toml", title, keys }
}

mod mandate;

pub use mandate::{AGENT_BUDGET, BREAKER, MANDATES, TEMPLATE, TEMPLATE_BUDGET, TOOL_BUDGET};

/// Every section of every file that this room reads.
pub const SECTIONS: &[&Section] = &[
    &TOP,
    &GATEWAY,
    &TLS,
    &ADMIN,
    &ADMIN_TLS,
    &ADMIN_CLIENT,
    &CLUSTER,
    &ADMIN_CONSOLE,
    &RECORD,
    &RECORD_OBJECT_STORE,
    &KEYS,
    &TELEMETRY,
    &EXPORT,
    &gates::WEBHOOK,
    &LIMITS,
    &ANONYMOUS,
    &ISSUER,
    &CLAIMS,
    &REGISTRATION,
    &SCOPE_RULE,
    &INTROSPECTION,
    &FEED,
    &FEED_LOGOUT,
    &FEED_EVENTS,
    &FEED_POLL,
    &FEED_SCIM,
    &SERVER,
    &TOOL_BUDGET,
    &PROCESS,
    &CREDENTIAL,
    &IDENTITY_PROVIDER,
    &HEALTH,
    &AGENTS,
    &BREAKER,
    &AGENT,
    &AGENT_CLIENT,
    &AGENT_KEY,
    &AGENT_BUDGET,
    &MANDATES,
    &TEMPLATE,
    &TEMPLATE_BUDGET,
    &gates::GATES,
    &gates::GATE,
    &gates::BREAK_GLASS,
];

/// The top of `servers.toml`.
pub const TOP: Section = servers(
    "top level",
    &[
        required("gateway", "table"),
        optional("admin", "table"),
        optional("cluster", "table"),
        optional("record", "table"),
        optional("keys", "table"),
        optional("telemetry", "table"),
        optional("export", "tables by name"),
        optional("webhooks", "tables by name"),
        optional("limits", "table"),
        optional("anonymous", "table"),
        optional("issuers", "tables by alias"),
        optional("feeds", "tables by name"),
        optional("servers", "tables by id"),
        defaulted("environments", "list of environments", "[]"),
    ],
);

/// `[gateway]`.
pub const GATEWAY: Section = servers(
    "[gateway]",
    &[
        defaulted("listen", "address and port", "\"127.0.0.1:7800\""),
        required("public_url", "URL"),
        defaulted("state", "path", "\"state\""),
        defaulted("store", "`\"sqlite\"`, URL or secret reference", "\"sqlite\""),
        optional("store_password", "secret reference"),
        defaulted("policies", "path", "\"policies\""),
        defaulted("allowed_origins", "list of origins", "[]"),
        defaulted("allowed_hosts", "list of host names", "[]"),
        defaulted("trusted_proxies", "list of networks", "[]"),
        optional("tls", "table"),
        optional("client_certificate_header", "`\"client-cert\"` or `\"x-forwarded-client-cert\"`"),
        defaulted("dpop", "`\"proof\"` or `\"nonce\"`", "\"proof\""),
        defaulted("allow_plain_http", "boolean", "false"),
        defaulted("allow_loopback_issuers", "boolean", "false"),
        defaulted("reload", "`\"signal\"` or `\"watch\"`", "\"signal\""),
        defaulted("durability", "`\"fsync\"` or `\"os\"`", "\"fsync\""),
        defaulted("shutdown_grace", "duration", "\"30s\""),
    ],
);

/// `[gateway.tls]`.
pub const TLS: Section = servers(
    "[gateway.tls]",
    &[required("certificate", "path"), required("key", "path"), optional("client_ca", "path")],
);

/// `[admin]`.
pub const ADMIN: Section = servers(
    "[admin]",
    &[
        required("listen", "address and port"),
        optional("public_url", "URL"),
        defaulted("allowed_hosts", "list of host names", "[]"),
        optional("tls", "table"),
        defaulted("allow_plain_http", "boolean", "false"),
        optional("clients", "list of tables"),
        defaulted("acr", "list of strings", "[]"),
        // Long enough to log in, look and act; too short for a laptop that was left open.
        defaulted("auth_age_max", "duration", "\"5m\""),
        optional("console", "table"),
    ],
);

/// `[admin.tls]`.
pub const ADMIN_TLS: Section = servers("[admin.tls]", &[required("certificate", "path"), required("key", "path")]);

/// `[[admin.clients]]`.
pub const ADMIN_CLIENT: Section = servers(
    "[[admin.clients]]",
    &[
        required("issuer", "issuer alias"),
        required("client_id", "string"),
        // What a program keeps on a disk, another program reads there.
        defaulted("approves", "boolean", "false"),
    ],
);

/// `[cluster]`.
pub const CLUSTER: Section = servers(
    "[cluster]",
    &[
        required("listen", "address and port"),
        optional("advertise", "host and port"),
        required("certificate", "path"),
        required("key", "path"),
        required("ca", "path"),
    ],
);

/// `[admin.console]`.
pub const ADMIN_CONSOLE: Section = servers(
    "[admin.console]",
    &[
        required("issuer", "issuer alias"),
        required("client_id", "string"),
        optional("client_secret", "secret reference"),
        defaulted("scopes", "list of strings", "[]"),
    ],
);

/// `[record]`.
pub const RECORD: Section = servers(
    "[record]",
    &[
        // What was written since the last checkpoint is chained, but its end could be cut off unseen.
        defaulted("checkpoint_interval", "duration", "\"60s\""),
        defaulted("segment_bytes", "size", "\"8MiB\""),
        defaulted("segment_age", "duration", "\"24h\""),
        defaulted("sinks", "list of sinks", "[]"),
        optional("object_store", "table"),
        defaulted("compress", "boolean", "true"),
        // How long a record has to be kept, and how long it may be, is the law's question and not ours.
        optional("keep_days", "integer"),
        optional("keep_bytes", "size"),
        defaulted("reserve_bytes", "size", "\"16MiB\""),
        defaulted("redact", "list of arguments", "[]"),
    ],
);

/// `[record.object_store]`.
pub const RECORD_OBJECT_STORE: Section = servers(
    "[record.object_store]",
    &[
        required("endpoint", "URL"),
        required("bucket", "string"),
        // What stores that have no regions expect.
        defaulted("region", "string", "\"us-east-1\""),
        defaulted("prefix", "string", "\"\""),
        required("access_key_id", "secret reference"),
        required("secret_access_key", "secret reference"),
    ],
);

/// `[keys]`.
pub const KEYS: Section = servers(
    "[keys]",
    &[
        defaulted("seal", "list of secret references", "[]"),
        defaulted("journal", "list of secret references", "[]"),
        defaulted("checkpoint", "list of secret references", "[]"),
        defaulted("vault", "list of secret references", "[]"),
        defaulted("webhook", "list of secret references", "[]"),
    ],
);

/// `[telemetry]`.
pub const TELEMETRY: Section = servers(
    "[telemetry]",
    &[
        required("otlp", "URL"),
        optional("headers", "table of secret references"),
        // Whoever pays for traces by the span turns it down; nobody who looks for one call wants it missing.
        defaulted("sample_percent", "integer", "100"),
        defaulted("metrics_interval", "duration", "\"60s\""),
    ],
);

/// `[export.NAME]`.
pub const EXPORT: Section = servers(
    "[export.NAME]",
    &[
        required("format", "`\"ocsf\"`"),
        required("to", "URL or sink"),
        defaulted("header", "header name", "\"authorization\""),
        optional("prefix", "string"),
        optional("secret", "secret reference"),
    ],
);

/// `[limits]`.
pub const LIMITS: Section = servers(
    "[limits]",
    &[
        // An assistant that reads a codebase makes some ten calls a second; a loop gone wrong, thousands.
        defaulted("requests_per_second", "integer", "50"),
        defaulted("requests_burst", "integer", "200"),
        defaulted("calls_in_flight_max", "integer", "32"),
        defaulted("streams_max", "integer", "16"),
        // A few hundred people behind one address who log in at once, and somebody who tries tokens.
        defaulted("refusals_per_second", "integer", "50"),
        defaulted("refusals_burst", "integer", "500"),
    ],
);

/// `[anonymous]`.
pub const ANONYMOUS: Section = servers("[anonymous]", &[required("enabled", "boolean")]);

/// `[issuers.ALIAS]`.
pub const ISSUER: Section = servers(
    "[issuers.ALIAS]",
    &[
        defaulted("kind", "`\"oidc\"` or `\"spiffe\"`", "\"oidc\""),
        optional("issuer", "string"),
        optional("trust_domain", "string"),
        optional("bundle", "`file:PATH`, URL or `unix:PATH`"),
        optional("endpoint_id", "string"),
        optional("endpoint_bundle", "`file:PATH`"),
        // SPIRE issues for an hour, Istio for a day and two minutes.
        defaulted("svid_life_max", "duration", "\"25h\""),
        defaulted("audiences", "list of strings", "[]"),
        defaulted("admin_audiences", "list of strings", "[]"),
        defaulted("algorithms", "list of algorithms", "[\"RS256\", \"PS256\", \"ES256\", \"ES384\", \"EdDSA\"]"),
        defaulted("token_types", "list of strings", "[\"at+jwt\", \"application/at+jwt\"]"),
        // Providers mint for five minutes to an hour and a half; a day-long token is a standing privilege.
        defaulted("token_life_max", "duration", "\"2h\""),
        defaulted("leeway", "duration", "\"30s\""),
        optional("claims", "table"),
        defaulted("optional_claims", "list of claims", "[]"),
        defaulted("own_tokens", "list of signs", "[\"sub\", \"entra\", \"kubernetes\"]"),
        defaulted("default_roles", "list of roles", "[]"),
        defaulted("scopes", "`\"ignored\"` or `\"required\"`", "\"ignored\""),
        optional("scope_rules", "list of tables"),
        optional("interactive_default", "agent id"),
        defaulted("jwks_stale_max", "duration", "\"24h\""),
        defaulted("sender_constraint", "`\"none\"`, `\"dpop\"`, `\"mtls\"` or `\"any\"`", "\"none\""),
        optional("introspection", "table"),
        optional("registration", "table"),
        optional("link_client_id", "string"),
        optional("link_client_secret", "secret reference"),
    ],
);

/// `[issuers.ALIAS.introspection]`.
pub const INTROSPECTION: Section = servers(
    "[issuers.ALIAS.introspection]",
    &[
        optional("endpoint", "URL"),
        required("client_id", "string"),
        optional("client_secret", "secret reference"),
        optional("private_key", "secret reference"),
        optional("key_id", "string"),
        optional("prefix", "string"),
        defaulted("without_sub", "`\"refused\"` or `\"client\"`", "\"refused\""),
    ],
);

/// `[issuers.ALIAS.claims]`.
pub const CLAIMS: Section = servers(
    "[issuers.ALIAS.claims]",
    &[
        defaulted("client", "list of claims", "[\"client_id\", \"azp\", \"appid\", \"cid\"]"),
        optional("groups", "claim"),
        optional("groups_age_max", "duration"),
        defaulted("scope", "list of claims", "[\"scope\", \"scp\"]"),
        optional("person", "claim"),
    ],
);

/// `[[issuers.ALIAS.scope_rules]]`.
pub const SCOPE_RULE: Section = servers(
    "[[issuers.ALIAS.scope_rules]]",
    &[required("scope", "string"), required("object", "object pattern"), required("actions", "list of actions")],
);

/// `[servers.ID]`.
pub const SERVER: Section = servers(
    "[servers.ID]",
    &[
        optional("title", "string"),
        required("owner", "subject"),
        optional("review", "date"),
        optional("expires", "date"),
        defaulted("discoverable", "boolean", "false"),
        required("environment", "environment"),
        optional("url", "URL"),
        defaulted("allow_private", "boolean", "false"),
        defaulted("allow_plain_http", "boolean", "false"),
        optional("command", "list of strings"),
        optional("variables", "table of strings"),
        optional("directory", "path"),
        defaulted("sandbox", "`\"required\"` or `\"none\"`", "\"required\""),
        defaulted("read", "list of paths", "[]"),
        defaulted("write", "list of paths", "[]"),
        defaulted("network", "boolean", "false"),
        optional("process", "table"),
        optional("credential", "table"),
        optional("tool_credentials", "tables by tool"),
        optional("tool_budgets", "tables by tool"),
        optional("credential_variable", "name of a variable"),
        optional("credential_file", "name of a variable"),
        defaulted("prefix", "`\"server\"` or `\"none\"`", "\"server\""),
        optional("list_as", "`\"gateway\"` or `\"caller\"`"),
        defaulted("isolation", "`\"principal\"` or `\"shared\"`", "\"principal\""),
        optional("pins", "`\"strict\"`, `\"first_use\"` or `\"off\"`"),
        defaulted("idempotent", "list of tools", "[]"),
        defaulted("on_down", "duration", "\"10m\""),
        defaulted("list_refresh_min", "duration", "\"10s\""),
        defaulted("uris", "list of URI prefixes", "[]"),
        optional("health", "table"),
        defaulted("forward_headers", "list of header names", "[]"),
        defaulted("elicit_url_hosts", "list of hosts", "[]"),
    ],
);

/// `[servers.ID.process]`.
pub const PROCESS: Section = servers(
    "[servers.ID.process]",
    &[
        // A server on Node.js holds some 100 MiB, one that parses large documents a few times that.
        defaulted("memory_mebibytes_max", "integer", "2048"),
        defaulted("file_mebibytes_max", "integer", "1024"),
        defaulted("open_files_max", "integer", "1024"),
        // Node.js has a dozen threads before it does anything, and package runners start it three times.
        defaulted("processes_max", "integer", "256"),
        defaulted("instances_max", "integer", "32"),
    ],
);

/// `[servers.ID.credential]` and `[servers.ID.tool_credentials.TOOL]`.
pub const CREDENTIAL: Section = servers(
    "[servers.ID.credential]",
    &[
        required(
            "kind",
            "`\"none\"`, `\"static\"`, `\"exchange\"`, `\"client_credentials\"`, `\"id_jag\"` or `\"oauth\"`",
        ),
        defaulted("header", "header name", "\"authorization\""),
        optional("prefix", "string"),
        optional("secret", "secret reference, or two"),
        optional("max_age", "duration"),
        optional("rotated_at", "date"),
        defaulted("on_stale", "`\"warn\"` or `\"refuse\"`", "\"warn\""),
        optional("issuer", "issuer URL"),
        optional("token_endpoint", "URL"),
        optional("revocation_endpoint", "URL"),
        optional("client_id", "string"),
        optional("client_secret", "secret reference"),
        optional("client_auth", CLIENT_AUTH),
        optional("private_key", "secret reference"),
        defaulted("private_key_algorithm", SIGNED_WITH, "\"ES256\""),
        optional("private_key_id", "string"),
        optional("audience", "string"),
        optional("resource", "URL"),
        optional("scope", "string"),
        optional("extra", "table of strings"),
        defaulted("use_max", "duration", "\"5m\""),
        optional("token_life_max", "duration"),
        optional("assertion", "secret reference"),
        optional("actor_token", "`\"agent\"`, `\"gateway\"`, `\"none\"` or secret reference"),
        defaulted("actor_token_type", "string", "\"urn:ietf:params:oauth:token-type:jwt\""),
        optional("identity_provider", "table"),
    ],
);

const CLIENT_AUTH: &str = "`\"none\"`, `\"client_secret_basic\"`, `\"client_secret_post\"` or `\"private_key_jwt\"`";
const SIGNED_WITH: &str = "`\"ES256\"`, `\"ES384\"`, `\"RS256\"`, `\"PS256\"` or `\"EdDSA\"`";

/// `[servers.ID.credential.identity_provider]`.
pub const IDENTITY_PROVIDER: Section = servers(
    "[servers.ID.credential.identity_provider]",
    &[
        optional("issuer", "issuer URL"),
        optional("token_endpoint", "URL"),
        optional("client_id", "string"),
        optional("client_secret", "secret reference"),
        optional("client_auth", CLIENT_AUTH),
        optional("private_key", "secret reference"),
        defaulted("private_key_algorithm", SIGNED_WITH, "\"ES256\""),
        optional("private_key_id", "string"),
        defaulted("subject_token_type", "string", "\"urn:ietf:params:oauth:token-type:access_token\""),
        optional("extra", "table of strings"),
    ],
);

/// `[servers.ID.health]`.
pub const HEALTH: Section = servers(
    "[servers.ID.health]",
    &[
        // `npx` on a cold cache takes ten seconds before the server says a word.
        defaulted("connect_timeout", "duration", "\"15s\""),
        defaulted("first_byte_timeout", "duration", "\"60s\""),
        defaulted("idle_timeout", "duration", "\"5m\""),
        defaulted("call_timeout", "duration", "\"10m\""),
        // A person reads, thinks and types, and may have to sign in somewhere first.
        defaulted("input_timeout", "duration", "\"10m\""),
        defaulted("calls_in_flight_max", "integer", "64"),
    ],
);

#[cfg(test)]
mod tests;
