//! What the loader answers to files with and without mistakes.

use std::path::Path;
use std::time::Duration;

use super::{Text, parse};
use crate::config::keys;
use crate::config::{
    Config, CredentialConfig, Durability, ListAs, Mistake, Overrides, ReloadMode, ScopeMode, TransportConfig,
    issuer_with_defaults,
};
use crate::ids::{AgentId, IssuerAlias, ServerId};

mod admin;
mod caller;
mod feed;
mod gate;
mod process;
mod spiffe;
mod store;

const AGENTS: &str = r#"
[agents.assistant]
owner = "user:corp/anna"
purpose = "answers questions"
kind = "interactive"
environments = ["production"]
clients = [{ issuer = "corp", client_id = "desk" }]
"#;

const SMALLEST: &str = r#"
[gateway]
public_url = "https://mcp.example.com"
[issuers.corp]
issuer = "https://login.example.com"
[servers.notes]
owner = "group:corp/knowledge"
environment = "production"
url = "https://notes.example.com/mcp"
"#;

fn today() -> Overrides {
    Overrides { today: Some(jiff::civil::date(2026, 11, 23)), ..Overrides::default() }
}

fn read_with(servers: &str, agents: &str, overrides: &Overrides) -> Result<(Config, Vec<Mistake>), Vec<Mistake>> {
    let agents = Text { file: "policies/agents.toml", text: agents };
    parse(Text { file: "servers.toml", text: servers }, Some(agents), Path::new("/etc/bailiwick"), overrides)
}

fn config(servers: &str) -> Config {
    match read_with(servers, AGENTS, &today()) {
        Ok((config, _)) => config,
        Err(mistakes) => panic!("{}", lines(&mistakes)),
    }
}

fn mistakes(servers: &str) -> String {
    lines(&read_with(servers, AGENTS, &today()).expect_err("this file has a mistake"))
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The smallest file with something added to the section of its server.
fn server_with(addition: &str) -> String {
    format!("{SMALLEST}{addition}\n")
}

/// The smallest file with something instead of the server's URL.
fn server_instead(replacement: &str) -> String {
    SMALLEST.replace("url = \"https://notes.example.com/mcp\"", replacement)
}

#[test]
fn the_smallest_file_gets_every_default() {
    let config = config(SMALLEST);
    assert_eq!(config.gateway.listen.to_string(), "127.0.0.1:7800");
    assert_eq!(config.gateway.state, Path::new("/etc/bailiwick/state"));
    assert_eq!(config.policies, Path::new("/etc/bailiwick/policies"));
    assert_eq!((config.gateway.reload, config.gateway.durability), (ReloadMode::Signal, Durability::Fsync));
    let issuer = config.issuers.first().unwrap();
    assert_eq!(issuer.algorithms.len(), 5);
    assert_eq!(issuer.claims.client, ["client_id", "azp", "appid", "cid"]);
    assert_eq!((issuer.scopes.clone(), issuer.leeway), (ScopeMode::Ignored, Duration::from_secs(30)));
    let server = config.servers.first().unwrap();
    assert_eq!((server.list_as, server.on_down), (ListAs::Gateway, Duration::from_secs(600)));
    assert!(matches!(server.transport, TransportConfig::Http { allow_private: false, .. }));
    assert_eq!(config.environments.len(), 1);
    assert!(!config.anonymous);
}

#[test]
fn all_mistakes_of_all_files_are_told_at_once() {
    let servers = r#"
enviroments = ["staging"]

[gateway]
listen = "0.0.0.0:7800"
public_url = "http://gateway.example.com/"
durability = "fsnyc"
trusted_proxies = ["10.0.0.0/33"]
shutdown_grace = "soon"

[limits]
streams_max = 0

[anonymous]
enabled = true

[issuers.corp]
issuer = "http://login.example.com"
algorithms = ["HS256", "RS265"]
optional_claims = ["aud", "nonce"]
interactive_default = "asistant"

[issuers.Corp]
issuer = "https://login.example.com"

[servers.notes]
environment = "production"
url = "https://notes.example.com/mcp"
command = ["notes"]
colour = "blue"

[servers.files]
owner = "anna"
command = ["npx", "-y", "@modelcontextprotocol/server-filesystem", "--key=ghp_0123456789abcdefghij"]
environment = "production"
variables = { API_TOKEN = "hunter2" }

[servers.crm]
owner = "group:crop/sales"
environment = "production"
url = "https://crm.example.com/mcp?api_key=x"
credential = { kind = "exchange", client_id = "bailiwick", secret = "env:X" }

[servers.wiki]
owner = "user:corp/anna"
environment = "production"
url = "http://10.0.0.7/mcp"
credential = { kind = "static", secret = "hunter2", header = "Mcp-Session-Id" }
forward_headers = ["Authorization", "x-request-id"]
"#;
    let agents = r#"
[agents.assistant]
owner = "group:corp/everyone"
purpose = " "
kind = "human"
environments = []
clients = [{ issuer = "corp", client_id = "desk" }, { issuer = "corp", client_id = "desk" }]

[agents.robot]
owner = "user:corp/anna"
purpose = "cleans up"
kind = "autonomous"
environments = ["prodution"]
expires = "2027-01-01"
"#;
    let found = read_with(servers, agents, &today()).expect_err("full of mistakes");
    insta::assert_snapshot!(lines(&found));
}

#[test]
fn a_file_that_is_not_toml_says_where() {
    assert!(mistakes("[gateway\n").starts_with("servers.toml:1:"));
    assert!(mistakes("[gateway]\nlisten = \"a\"\nlisten = \"b\"\n").contains("servers.toml:3:1: this is not TOML"));
}

#[test]
fn an_empty_file_is_told_what_it_needs() {
    let found = mistakes("");
    assert!(found.contains("write one with public_url"), "{found}");
    assert!(found.contains("nobody could be authenticated"), "{found}");
}

#[test]
fn plain_http_off_this_machine_needs_the_named_switch() {
    let open = SMALLEST.replace("[issuers.corp]", "listen = \"0.0.0.0:7800\"\n[issuers.corp]");
    assert!(mistakes(&open).contains("plain HTTP that other machines can reach"));
    for way in [
        "allow_plain_http = true",
        "trusted_proxies = [\"10.0.0.0/8\"]",
        "tls = { certificate = \"tls/chain.pem\", key = \"tls/key.pem\" }",
    ] {
        config(&open.replace("[issuers.corp]", &format!("{way}\n[issuers.corp]")));
    }
    let public = SMALLEST.replace("https://mcp", "http://mcp");
    assert!(mistakes(&public).contains("public_url is plain HTTP"));
}

#[test]
fn a_loopback_issuer_needs_the_switch_and_a_loopback_listener() {
    for issuer in ["http://127.0.0.1:9000", "https://localhost:9000", "http://[::1]:9000"] {
        let without = SMALLEST.replace("https://login.example.com", issuer);
        assert!(mistakes(&without).contains("can be impersonated"), "{issuer}");
        let public = without.replace("[issuers.corp]", "allow_loopback_issuers = true\n[issuers.corp]");
        let found = mistakes(&public);
        assert!(found.contains("allow_loopback_issuers needs a public_url on this machine"), "{issuer}: {found}");
        let with = public.replace("https://mcp.example.com", "http://127.0.0.1:7800");
        config(&with);
        let open = with.replace("[issuers.corp]", "listen = \"0.0.0.0:1\"\nallow_plain_http = true\n[issuers.corp]");
        assert!(mistakes(&open).contains("allow_loopback_issuers needs a loopback listener"), "{issuer}");
    }
    let remote = SMALLEST.replace("https://login", "http://login");
    let remote = remote.replace("[issuers.corp]", "allow_loopback_issuers = true\n[issuers.corp]");
    let remote = remote.replace("https://mcp.example.com", "http://127.0.0.1:7800");
    assert!(mistakes(&remote).contains("over plain HTTP can be impersonated"), "the switch is for this machine only");
}

#[test]
fn anonymous_callers_are_for_loopback_listeners() {
    let here = SMALLEST.replace("https://mcp.example.com", "http://127.0.0.1:7800");
    assert!(config(&format!("{here}[anonymous]\nenabled = true\n")).anonymous);
    let proxied = here.replace("[issuers.corp]", "trusted_proxies = [\"127.0.0.1\"]\n[issuers.corp]");
    for reached_from_elsewhere in [SMALLEST, &proxied] {
        let found = mistakes(&format!("{reached_from_elsewhere}[anonymous]\nenabled = true\n"));
        assert!(found.contains("behind no proxy") && found.starts_with("servers.toml:"), "{found}");
    }
    let open = SMALLEST.replace("[issuers.corp]", "listen = \"0.0.0.0:1\"\nallow_plain_http = true\n[issuers.corp]");
    assert!(mistakes(&format!("{open}[anonymous]\nenabled = true\n")).contains("on a loopback listener only"));
    config(&format!("{open}[anonymous]\nenabled = false\n"));
}

#[test]
fn a_server_without_owner_or_environment_is_not_served() {
    assert!(
        mistakes(&SMALLEST.replace("owner = \"group:corp/knowledge\"\n", "")).contains("servers.notes has no `owner`")
    );
    assert!(mistakes(&SMALLEST.replace("environment = \"production\"\n", "")).contains("has no `environment`"));
}

#[test]
fn an_upstream_on_a_private_address_is_named_as_such() {
    let private = server_instead("url = \"http://127.0.0.1:7801/mcp\"");
    assert!(mistakes(&private).contains("write allow_private = true"));
    config(&server_instead("url = \"http://127.0.0.1:7801/mcp\"\nallow_private = true"));
    let clear = server_instead("url = \"http://notes.example.com/mcp\"");
    assert!(mistakes(&clear).contains("in the clear"));
}

#[test]
fn an_exchange_fetches_lists_for_each_caller() {
    let text = server_with("credential = { kind = \"exchange\", client_id = \"bailiwick\", audience = \"notes\" }");
    let config = config(&text);
    let server = config.servers.first().unwrap();
    assert_eq!(server.list_as, ListAs::Caller);
    let CredentialConfig::Exchange(exchange) = &server.credential else { panic!("not an exchange") };
    assert_eq!((exchange.asks.audience.as_deref(), exchange.asks.use_max), (Some("notes"), Duration::from_secs(300)));
}

#[test]
fn a_static_credential_is_a_bearer_token_unless_it_has_a_header_of_its_own() {
    for (text, expected) in [
        ("credential = { kind = \"static\", secret = \"env:T\" }", ("authorization", "Bearer ")),
        ("credential = { kind = \"static\", secret = \"env:T\", header = \"X-API-Key\" }", ("x-api-key", "")),
        ("credential = { kind = \"static\", secret = \"env:T\", prefix = \"Token \" }", ("authorization", "Token ")),
    ] {
        let config = config(&server_with(text));
        let CredentialConfig::Static(fixed) = &config.servers.first().unwrap().credential else { panic!("not static") };
        assert_eq!((fixed.header.as_str(), fixed.prefix.as_str()), expected);
    }
}

#[test]
fn a_secret_has_as_many_places_as_its_change_needs() {
    let with = |slots: &[&str]| {
        let slots = slots.iter().map(|slot| format!("\"{slot}\"")).collect::<Vec<_>>().join(", ");
        server_with(&format!("credential = {{ kind = \"static\", secret = [{slots}] }}"))
    };
    let config = config(&with(&["env:NEW", "env:OLD"]));
    let CredentialConfig::Static(fixed) = &config.servers.first().unwrap().credential else { panic!("not static") };
    assert_eq!(fixed.slots.len(), crate::limit::SECRET_SLOTS_MAX);
    for slots in [&["env:A", "env:B", "env:C"][..], &[]] {
        assert!(mistakes(&with(slots)).contains("one place, or two"), "{slots:?}");
    }
    assert!(mistakes(&with(&["env:A", "env:A"])).contains("are the same"));
    assert!(mistakes(&with(&["env:A", "hunter2"])).contains("never written here"));
    let aged = "credential = { kind = \"static\", secret = \"env:A\", max_age = \"30d\" }";
    assert!(mistakes(&server_with(aged)).contains("nobody knows how old"));
    let unaged = "credential = { kind = \"static\", secret = \"env:A\", on_stale = \"refuse\" }";
    assert!(mistakes(&server_with(unaged)).contains("without a `max_age`"));
}

#[test]
fn what_is_asked_of_an_authorization_server_is_checked_before_it_is() {
    let with = |text: &str| server_with(&format!("credential = {{ client_id = \"c\", {text} }}"));
    let own = "kind = \"client_credentials\", issuer = \"https://as.example\", audience = \"a\"";
    assert!(!config(&with(&format!("{own}, client_secret = \"env:S\""))).servers.is_empty());
    for (text, said) in [
        (own.to_owned(), "prove nothing"),
        (own.replace("issuer = \"https://as.example\"", "client_secret = \"env:S\""), "which authorization server"),
        (format!("{own}, client_secret = \"env:S\", private_key = \"env:K\""), "one way"),
        (format!("{own}, client_secret = \"env:S\", client_auth = \"private_key_jwt\""), "do not fit"),
        (format!("{own}, client_secret = \"env:S\", actor_token = \"agent\""), "means nothing"),
        (format!("{own}, client_secret = \"env:S\", extra = {{ scope = \"x\" }}"), "has its own place"),
        (format!("{own}, client_secret = \"env:S\", extra = {{ api_key = \"x\" }}"), "looks like a secret"),
        (own.replace("https", "http") + ", client_secret = \"env:S\"", "in the clear"),
        (
            "kind = \"exchange\", audience = \"a\", token_endpoint = \"https://as.example/t\", private_key = \"env:K\""
                .to_owned(),
            "write the `issuer` of token_endpoint",
        ),
        ("kind = \"exchange\", audience = \"a\", actor_token = \"agent\"".to_owned(), "client's private_key"),
        ("kind = \"exchange\", audience = \"a\", actor_token = \"eyJ\"".to_owned(), "is kept somewhere"),
        ("kind = \"id_jag\", issuer = \"https://as.example\"".to_owned(), "no `resource`"),
        ("kind = \"id_jag\", resource = \"https://up.example/mcp\"".to_owned(), "no `issuer`"),
        ("kind = \"id_jag\", issuer = \"https://as.example\"".to_owned(), "no `identity_provider`"),
    ] {
        let found = mistakes(&with(&text));
        assert!(found.contains(said), "{text}: {found}");
    }
}

#[test]
fn whoever_can_sign_says_who_acts_unless_it_is_written_otherwise() {
    use crate::config::ActorToken::{Agent, Gateway};
    let read = |more: &str| {
        let text = "kind = \"exchange\", client_id = \"c\", audience = \"a\"";
        let config = config(&server_with(&format!("credential = {{ {text}{more} }}")));
        match &config.servers[0].credential {
            CredentialConfig::Exchange(exchange) => exchange.actor.clone(),
            other => panic!("{other:?}"),
        }
    };
    let key = ", issuer = \"https://as.example\", private_key = \"env:K\"";
    assert_eq!(read(key), Some(Agent));
    assert_eq!(read(&format!("{key}, actor_token = \"gateway\"")), Some(Gateway));
    assert_eq!(read(&format!("{key}, actor_token = \"none\"")), None);
    assert_eq!(read(", client_secret = \"env:S\""), None, "there is nothing to say it with");
}

#[test]
fn two_aliases_cannot_have_one_issuer_and_two_agents_not_one_client() {
    let twice = format!("{SMALLEST}[issuers.other]\nissuer = \"https://login.example.com\"\n");
    assert!(mistakes(&twice).contains("another alias has the same issuer"));
    let agents = format!("{AGENTS}{}", AGENTS.replace("assistant", "second"));
    let found = lines(&read_with(SMALLEST, &agents, &today()).unwrap_err());
    assert!(found.contains("client `desk` of `corp` is agent `assistant` already"), "{found}");
}

#[test]
fn scopes_need_rules_and_rules_need_scopes() {
    let rules = "scope_rules = [{ scope = \"notes:read\", object = \"notes/@read\", actions = [\"call\"] }]";
    let issuer = |keys: &str| SMALLEST.replace("[servers.notes]", &format!("{keys}\n[servers.notes]"));
    assert!(mistakes(&issuer("scopes = \"required\"")).contains("needs scope_rules"));
    assert!(mistakes(&issuer(rules)).contains("have no effect"));
    let config = config(&issuer(&format!("scopes = \"required\"\n{rules}")));
    let ScopeMode::Required(rules) = &config.issuers.first().unwrap().scopes else { panic!("not required") };
    assert_eq!(rules.first().unwrap().scope, "notes:read");
    let wrong =
        issuer("scopes = \"required\"\nscope_rules = [{ scope = \"a b\", object = \"notes\", actions = [\"cal\"] }]");
    let found = mistakes(&wrong);
    assert!(
        found.contains("is not a scope")
            && found.contains("is not an object")
            && found.contains("did you mean `call`?")
    );
}

#[test]
fn days_gone_by_are_warnings() {
    let agents = AGENTS.replace("[agents.assistant]", "[agents.assistant]\nreview = 2026-01-01\nexpires = 2026-01-01");
    let (config, warnings) =
        read_with(&server_with("review = 2026-11-22\nexpires = 2026-11-22"), &agents, &today()).unwrap();
    let warnings = lines(&warnings);
    assert!(warnings.contains("review of server `notes` is overdue"), "{warnings}");
    assert!(warnings.contains("server `notes` has expired"), "{warnings}");
    assert!(warnings.contains("agent `assistant` has expired"), "{warnings}");
    assert_eq!(config.servers.first().unwrap().review, Some(jiff::civil::date(2026, 11, 22)));
}

#[test]
fn what_a_program_adds_in_memory_is_held_to_the_same_rules() {
    let alias = IssuerAlias::new("demo").unwrap();
    let demo = issuer_with_defaults(&alias, "http://127.0.0.1:7810").unwrap();
    let overrides = Overrides {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        public_url: Some("http://127.0.0.1:9".parse().unwrap()),
        state: Some("/tmp/state".into()),
        reload: Some(ReloadMode::Watch),
        issuers: vec![demo],
        server_urls: [(ServerId::new("notes").unwrap(), "http://127.0.0.1:8/mcp".parse().unwrap())].into(),
        undeclared_issuers_are_inert: true,
        ..today()
    };
    let text = SMALLEST.replace("[issuers.corp]\nissuer = \"https://login.example.com\"\n", "");
    let (config, warnings) = read_with(&text, AGENTS, &overrides).unwrap();
    assert!(lines(&warnings).contains("issuer `corp` is not declared: this has no effect here"));
    assert_eq!(config.gateway.listen.port(), 0);
    assert_eq!((config.gateway.reload, config.gateway.state.as_path()), (ReloadMode::Watch, Path::new("/tmp/state")));
    assert!(config.gateway.allow_loopback_issuers);
    assert!(config.agents.values().all(|agent| agent.clients.is_empty()), "an undeclared issuer names nobody");
    let TransportConfig::Http { url, .. } = &config.servers.first().unwrap().transport else { panic!("not HTTP") };
    assert_eq!(url.as_str(), "http://127.0.0.1:8/mcp");

    let open = Overrides { listen: Some("0.0.0.0:1".parse().unwrap()), ..overrides.clone() };
    let found = lines(&read_with(&text, AGENTS, &open).unwrap_err());
    assert!(found.contains("a development issuer needs a loopback listener"), "{found}");
    let found = lines(&read_with(&SMALLEST.replace("corp]", "demo]"), AGENTS, &overrides).unwrap_err());
    assert!(found.contains("taken by the development issuer"), "{found}");
    assert!(issuer_with_defaults(&alias, "http://example.com").is_err());
}

#[test]
fn the_same_names_in_serve_are_mistakes() {
    let text = SMALLEST.replace("group:corp/", "group:crop/");
    assert!(mistakes(&text).contains("servers.toml:7:9: issuer `crop` is not declared, did you mean `corp`?"));
}

/// A file in which every key of every section is written, so that one that is never read shows.
#[test]
fn every_documented_key_is_read() {
    let section = |section: &keys::Section, header: &str, without: &[&str]| {
        let keys = section.keys.iter().filter(|key| !key.kind.contains("table") || key.name == "variables");
        let keys = keys.filter(|key| !without.contains(&key.name));
        let lines: String = keys.map(|key| format!("{} = {}\n", key.name, value(key.name, key.kind))).collect();
        format!("{header}\n{lines}")
    };
    let http = ["command", "variables", "directory", "sandbox", "read", "write", "network"];
    let http = [&http[..], &["credential_variable", "credential_file"]].concat();
    let fixed = ["kind", "header", "prefix", "secret", "max_age", "rotated_at", "on_stale"];
    let signed = ["private_key", "private_key_algorithm", "private_key_id"];
    let actor = ["actor_token", "actor_token_type"];
    let exchange = [&fixed[..], &signed, &["assertion"]].concat();
    let own = [&fixed[..], &actor, &["client_secret", "client_auth"]].concat();
    let vouched = [&fixed[..], &actor, &signed, &["audience", "assertion"]].concat();
    let servers = [
        section(&keys::TOP, "", &[]),
        section(&keys::GATEWAY, "[gateway]", &[]),
        section(&keys::TLS, "[gateway.tls]", &[]),
        section(&keys::TELEMETRY, "[telemetry]", &[]),
        section(&keys::EXPORT, "[export.siem]", &[]),
        section(&keys::KEYS, "[keys]", &[]),
        section(&keys::CLUSTER, "[cluster]", &[]),
        section(&keys::LIMITS, "[limits]", &[]),
        // Not behind the proxies above.
        "[anonymous]\nenabled = false\n".to_owned(),
        section(
            &keys::ISSUER,
            "[issuers.corp]",
            &["trust_domain", "bundle", "endpoint_id", "endpoint_bundle", "svid_life_max"],
        ),
        spiffe::every_key(&section),
        section(&keys::CLAIMS, "[issuers.corp.claims]", &[]),
        section(&keys::SCOPE_RULE, "[[issuers.corp.scope_rules]]", &[]),
        section(&keys::INTROSPECTION, "[issuers.corp.introspection]", &["client_secret"]),
        "[issuers.other]\nissuer = \"https://other.example.com\"\n".to_owned(),
        section(&keys::INTROSPECTION, "[issuers.other.introspection]", &["private_key", "key_id", "prefix"]),
        section(&keys::SERVER, "[servers.notes]", &http),
        section(&keys::TOOL_BUDGET, "[servers.notes.tool_budgets.t]", &[]),
        section(&keys::CREDENTIAL, "[servers.notes.credential]\nkind = \"exchange\"", &exchange),
        section(
            &keys::CREDENTIAL,
            "[servers.notes.tool_credentials.t]\nkind = \"static\"",
            &[&["kind"][..], ASKED].concat(),
        ),
        section(&keys::CREDENTIAL, "[servers.notes.tool_credentials.own]\nkind = \"client_credentials\"", &own),
        section(&keys::CREDENTIAL, "[servers.notes.tool_credentials.vouched]\nkind = \"id_jag\"", &vouched),
        section(
            &keys::IDENTITY_PROVIDER,
            "[servers.notes.tool_credentials.vouched.identity_provider]",
            &["client_secret", "client_auth"],
        ),
        section(&keys::HEALTH, "[servers.notes.health]", &[]),
        section(&keys::SERVER, "[servers.local]", &["url", "allow_private", "allow_plain_http", "credential_file"]),
        section(&keys::PROCESS, "[servers.local.process]", &[]),
        section(&keys::CREDENTIAL, "[servers.local.credential]\nkind = \"exchange\"", &exchange),
    ];
    let agents = [
        section(&keys::AGENTS, "", &[]),
        section(&keys::AGENT, "[agents.assistant]", &[]),
        section(&keys::AGENT_CLIENT, "[[agents.assistant.clients]]", &["subject"]),
        section(&keys::AGENT, "[agents.robot]", &["kind"]) + "kind = \"autonomous\"\n",
        section(&keys::AGENT_CLIENT, "[[agents.robot.clients]]", &["client_id"]),
        section(&keys::AGENT_KEY, "[[agents.robot.keys]]", &[]),
    ];
    match read_with(&servers.concat(), &agents.concat(), &today()) {
        Ok((config, _)) => assert_eq!(config.servers.len(), 2),
        Err(mistakes) => panic!("{}\n{}", lines(&mistakes), servers.concat()),
    }
}

/// What means nothing for a static secret.
const ASKED: &[&str] = &[
    "issuer",
    "token_endpoint",
    "revocation_endpoint",
    "client_id",
    "client_secret",
    "client_auth",
    "private_key",
    "private_key_algorithm",
    "private_key_id",
    "audience",
    "resource",
    "scope",
    "use_max",
    "token_life_max",
    "actor_token",
    "actor_token_type",
    "assertion",
];

/// A value that the key accepts.
fn value<'a>(name: &str, kind: &'a str) -> &'a str {
    match (name, kind) {
        ("listen", _) => "\"127.0.0.1:7800\"",
        ("advertise", _) => "\"10.0.0.7:7801\"",
        ("store", _) => "\"postgres://bailiwick@localhost/bailiwick\"",
        ("seal" | "journal" | "checkpoint", _) => "[\"env:NAME\"]",
        // Loopback issuers are for this machine.
        ("public_url", _) => "\"http://127.0.0.1:7800\"",
        ("issuer", "string" | "issuer URL") => "\"https://login.example.com\"",
        ("issuer" | "client_id", _) => "\"corp\"",
        ("url" | "resource" | "token_endpoint" | "revocation_endpoint" | "otlp" | "to", _) => {
            "\"https://notes.example.com/mcp\""
        }
        ("owner", _) => "\"user:corp/anna\"",
        ("sponsor_group", _) => "\"group:corp/platform\"",
        ("environments", _) => "[\"production\"]",
        ("algorithms", _) => "[\"ES256\"]",
        ("optional_claims", _) => "[\"jti\"]",
        ("default_roles", _) => "[\"role:employee\"]",
        ("token_types", _) => "[\"JWT\"]",
        ("actions", _) => "[\"call\"]",
        ("trusted_proxies", _) => "[\"10.0.0.0/8\"]",
        ("object", _) => "\"notes/@read\"",
        ("scopes", _) => "\"required\"",
        ("interactive_default", _) => "\"assistant\"",
        ("command", _) => "[\"notes\"]",
        // Not where the policies are.
        ("directory", _) => "\"work\"",
        ("uris", _) => "[\"note://\"]",
        ("variables", _) => "{ LANG = \"C\" }",
        ("endpoint", _) => "\"https://login.example.com/introspect\"",
        ("created", _) => "\"2026-11-20T10:00:00Z\"",
        (_, "digest") => "\"a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1\"",
        (_, "boolean") => "true",
        (_, "integer") => "7",
        ("leeway", _) => "\"45s\"",
        (_, "duration") => "\"4m\"",
        (_, "date") => "2027-01-01",
        // Two keys of one table that fit each other.
        ("client_auth", _) => "\"client_secret_post\"",
        ("actor_token", _) => "\"env:ACTOR\"",
        (_, "secret reference" | "secret reference, or two") => "\"env:NAME\"",
        (_, kind) if kind.starts_with("list of") => "[]",
        (_, kind) if kind.starts_with('`') => kind.split('`').nth(1).unwrap_or_default(),
        (_, "environment") => "\"production\"",
        _ => "\"text\"",
    }
}

#[test]
fn a_leeway_is_bounded() {
    let with =
        |seconds: u64| SMALLEST.replace("issuer = \"https", &format!("leeway = \"{seconds}s\"\nissuer = \"https"));
    let longest = crate::limit::LEEWAY_MAX.as_secs();
    assert_eq!(config(&with(longest)).issuers[0].leeway, crate::limit::LEEWAY_MAX);
    assert!(mistakes(&with(longest + 1)).contains("keeps expired tokens alive"));
}

#[test]
fn the_name_of_a_tool_with_a_budget_is_bounded() {
    let with =
        |length: usize| server_with(&format!("tool_budgets = {{ {} = {{ calls_per_day = 3 }} }}", "t".repeat(length)));
    let longest = crate::limit::TOOL_BUDGET_NAME_BYTES_MAX;
    let server = config(&with(longest)).servers.first().cloned().unwrap();
    assert_eq!(server.tool_budgets.values().next().unwrap().calls_per_day, Some(3));
    assert!(mistakes(&with(longest + 1)).contains("no longer one than can be counted"));
}

#[test]
fn agents_are_bounded() {
    let agents = |count: usize| {
        let one = |number: usize| {
            format!(
                "[agents.a{number}]\nowner = \"user:corp/anna\"\npurpose = \"p\"\nkind = \"interactive\"\n\
                 environments = [\"production\"]\n"
            )
        };
        read_with(SMALLEST, &(0..count).map(one).collect::<String>(), &today())
    };
    assert_eq!(agents(crate::limit::AGENTS_MAX).unwrap().0.agents.len(), crate::limit::AGENTS_MAX);
    assert!(lines(&agents(crate::limit::AGENTS_MAX + 1).unwrap_err()).contains("are too many"));
}

#[test]
fn servers_and_issuers_are_bounded() {
    let servers = |count: usize| {
        let one = |number: usize| {
            format!(
                "[servers.s{number}]\nowner = \"user:corp/anna\"\nenvironment = \"production\"\n\
                 url = \"https://s{number}.example.com/mcp\"\n"
            )
        };
        let more: String = (1..count).map(one).collect();
        read_with(&format!("{SMALLEST}{more}"), AGENTS, &today()).map(|(config, _)| config.servers.len())
    };
    assert_eq!(servers(crate::limit::SERVERS_MAX).unwrap(), crate::limit::SERVERS_MAX);
    assert!(lines(&servers(crate::limit::SERVERS_MAX + 1).unwrap_err()).contains("servers are too many"));
    let issuers = |count: usize| {
        let one = |number: usize| format!("[issuers.i{number}]\nissuer = \"https://i{number}.example.com\"\n");
        let more: String = (1..count).map(one).collect();
        read_with(&format!("{SMALLEST}{more}"), AGENTS, &today()).map(|(config, _)| config.issuers.len())
    };
    assert_eq!(issuers(crate::limit::ISSUERS_MAX).unwrap(), crate::limit::ISSUERS_MAX);
    assert!(lines(&issuers(crate::limit::ISSUERS_MAX + 1).unwrap_err()).contains("issuers are too many"));
}

fn for_standalone(agent: Option<&str>) -> Overrides {
    Overrides::for_standalone("ann".to_owned(), agent.map(|agent| AgentId::new(agent).unwrap())).unwrap()
}

#[test]
fn the_gateways_own_aliases_are_declared_in_no_file() {
    for alias in ["local", "anonymous"] {
        let found = mistakes(&SMALLEST.replace("corp]", &format!("{alias}]")));
        assert!(found.contains(&format!("`{alias}` is the gateway's own")), "{found}");
    }
}

#[test]
fn a_standalone_gateway_needs_no_issuer_and_has_one_interactive_agent() {
    let servers = "[gateway]\n[servers.notes]\nowner = \"user:local/ann\"\nenvironment = \"development\"\nurl = \"https://notes.example/mcp\"\n";
    let agent = |id: &str, kind: &str| {
        format!(
            "[agents.{id}]\nowner = \"user:local/ann\"\npurpose = \"x\"\nkind = \"{kind}\"\nenvironments = [\"development\"]\n"
        )
    };
    let read = |agents: &str, wanted: Option<&str>| match read_with(servers, agents, &for_standalone(wanted)) {
        Ok((config, _)) => Ok(config.local.unwrap().agent.to_string()),
        Err(mistakes) => Err(lines(&mistakes)),
    };
    let (one, bot, two) = (agent("desk", "interactive"), agent("bot", "autonomous"), agent("pad", "interactive"));
    assert_eq!(read(&format!("{one}{bot}"), None).as_deref(), Ok("desk"));
    assert_eq!(read(&format!("{one}{two}"), Some("pad")).as_deref(), Ok("pad"));
    assert_eq!(read(&format!("{one}{}", agent("assistant", "interactive")), None).as_deref(), Ok("assistant"));
    assert!(read(&bot, None).unwrap_err().contains("kind = \"interactive\""));
    assert!(read(&format!("{one}{two}"), None).unwrap_err().contains("desk, pad"));
    assert!(read(&format!("{one}{bot}"), Some("bot")).unwrap_err().contains("`bot` is no interactive agent"));
    let production = servers.replace("development", "production");
    let agents = one.replace("development", "production");
    let found = lines(&read_with(&production, &agents, &for_standalone(None)).unwrap_err());
    assert!(found.contains("never serves production"), "{found}");
}
