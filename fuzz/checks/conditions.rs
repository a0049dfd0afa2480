//! Conditions say what a naive reading of the arguments says, and any `conditions.toml` is read or refused.
//!
//! An input that begins with `#` is a `conditions.toml`; every other is the arguments of a call.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bailiwick::config::ScopeMode;
use bailiwick::identity::{AgentFacts, ClientProof, Groups, Persona};
use bailiwick::ids::{Action, Environment, IssuerAlias, ServerId, Subject};
use bailiwick::policy::{Arguments, Ask, Issuer, Policy, Sources, Strictness, World as Names};
use bailiwick::wire::{Message, Source};
use serde_json::{Map, Value};

const MODEL: &str = include_str!("../../policies/model.conf");

const RULES: &str = "g, group:one/staff, role:staff, *
p, role:staff, test, s/small, call, small, allow
p, role:staff, test, s/free, call, -, allow
p, anyone, test, s/free, call, forced, deny
";

const CONDITIONS: &str = r#"
[small]
only = ["count", "text"]
argument = "count"
at_least = 1
at_most = 1000

[forced]
argument = "text"
starts_with = ["force"]
"#;

struct World {
    policy: Policy,
    persona: Persona,
    environment: Environment,
    server: ServerId,
}

/// Panics where something that must hold does not.
pub fn check(data: &[u8]) {
    static WORLD: OnceLock<World> = OnceLock::new();
    let world = WORLD.get_or_init(World::new);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.starts_with('#') {
        // Mistakes are an answer; a panic is not.
        let _ = build(text);
        return;
    }
    // A decision sees only what the wire has let through.
    let call =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{text}}}}}"#);
    let Ok(message) = Message::parse(call, Source::Client) else { return };
    let Some(params) = message.params() else { return };
    let Some(arguments) = params.get("arguments") else { return };
    let Ok(value) = serde_json::from_str::<Value>(arguments.raw()) else { return };
    let Some(object) = value.as_object() else { return };

    let small = world.allowed("small", arguments.raw());
    if let Some(expected) = is_small(object) {
        assert_eq!(small, expected, "small: {text}");
    }
    if let Some(expected) = is_surely_not_forced(object) {
        assert_eq!(world.allowed("free", arguments.raw()), expected, "not forced: {text}");
    }
}

/// An allow needs every element of a list; `None` where numbers are not plain integers or lists are odd.
fn is_small(object: &Map<String, Value>) -> Option<bool> {
    if object.keys().any(|key| key != "count" && key != "text") {
        return Some(false);
    }
    let one = |value: &Value| match value {
        Value::Number(number) => number.as_i64().map(|count| (1..=1_000).contains(&count)),
        Value::Array(_) => None,
        _ => Some(false),
    };
    match object.get("count") {
        None => Some(false),
        Some(Value::Array(all)) if all.is_empty() => None,
        Some(Value::Array(all)) => {
            all.iter().map(one).collect::<Option<Vec<_>>>().map(|all| all.into_iter().all(|yes| yes))
        }
        Some(value) => one(value),
    }
}

/// A deny applies unless its condition is surely false, for any element of a list.
fn is_surely_not_forced(object: &Map<String, Value>) -> Option<bool> {
    let one = |value: &Value| value.as_str().is_some_and(|text| !text.starts_with("force"));
    match object.get("text") {
        None => Some(false),
        Some(Value::Array(all)) if all.is_empty() || all.iter().any(Value::is_array) => None,
        Some(Value::Array(all)) => Some(all.iter().all(one)),
        Some(value) => Some(one(value)),
    }
}

fn build(conditions: &str) -> Result<Policy, usize> {
    let files = [("model.conf", MODEL), ("policy.csv", RULES), ("conditions.toml", conditions)];
    let files: BTreeMap<String, Vec<u8>> =
        files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
    let environment = Environment::new("test").expect("a name");
    let names = Names {
        environments: vec![environment.clone()],
        servers: vec![(ServerId::new("s").expect("a name"), environment)],
        issuers: vec![Issuer { alias: issuer(), default_roles: Vec::new(), scopes: ScopeMode::Ignored }],
        agents: Vec::<AgentFacts>::new(),
        strictness: Strictness::Serve,
    };
    Policy::build(&Sources::from_files(files), &names).map(|built| built.policy).map_err(|mistakes| mistakes.len())
}

fn issuer() -> IssuerAlias {
    IssuerAlias::new("one").expect("a name")
}

impl World {
    fn new() -> Self {
        let persona = Persona {
            issuer: issuer(),
            user: Some(Subject::user(&issuer(), "somebody")),
            groups: Groups::Known(vec![Subject::group(&issuer(), "staff")]),
            agent: None,
            chain: Vec::new(),
            default_roles: Vec::new(),
            scopes: Vec::new(),
            client: None,
            client_proof: ClientProof::None,
            authenticated_at: None,
            acr: None,
        };
        let policy = build(CONDITIONS).expect("the policy of this check has no mistake");
        let environment = Environment::new("test").expect("a name");
        Self { policy, persona, environment, server: ServerId::new("s").expect("a name") }
    }

    fn allowed(&self, name: &str, arguments: &str) -> bool {
        let class: Arc<_> = self.policy.class(&self.persona);
        let ask = Ask { environment: &self.environment, server: &self.server, name, action: &Action::Call };
        let now = jiff::Timestamp::UNIX_EPOCH;
        self.policy.decide(&class, &self.persona, &ask, Arguments::Json(arguments), now).is_allowed()
    }
}
