//! A small policy that the tests of this room share.

use std::collections::BTreeMap;

use super::{Built, Issuer, Mistake, Policy, Sources, Strictness, World};
use crate::config::{ScopeMode, ScopeRule};
use crate::identity::{AgentFacts, ClientProof, Groups, Persona};
use crate::ids::{AgentId, Environment, IssuerAlias, ServerId, Subject};

pub(super) const RULES: &str = "\
g,  group:corp/platform, role:developer, *
g,  role:lead, role:developer, *
g,  user:corp/lea, role:lead, staging
g2, github/list_issues, github/@read
g2, deploy/wipe, deploy/@destructive
p,  role:developer, *, github/@read, call, -, allow
p,  role:developer, production, deploy/rollout, call, small-rollout, allow
p,  role:developer, production, deploy/wipe, call, -, allow
p,  agent:claude, *, */*, call, -, allow
p,  agent:claude, *, files/**, read, -, allow
p,  anyone, *, files/file:///srv/**, read, -, allow
p,  anyone, *, files/file:///srv/secret/**, read, -, deny
p,  anyone, production, */@destructive, call, outside-hours, deny
p,  role:reader, *, files/view, call, own-files, allow
p,  group:corp/admins, *, bailiwick/revoke, admin, -, allow
p,  user:corp/lea, *, deploy/*, sample, -, allow
";

pub(super) const CONDITIONS: &str = r#"
[small-rollout]
only = ["service", "replicas"]
argument = "replicas"
at_most = 5

[outside-hours]
not = { time = { zone = "Europe/Berlin", days = ["mon", "tue", "wed", "thu", "fri"], from = "08:00", to = "18:00" } }

[own-files]
only = ["paths"]
argument = "paths"
path_under = "/srv"
"#;

pub(super) fn environment(name: &str) -> Environment {
    Environment::new(name).unwrap()
}

pub(super) fn world() -> World {
    let server = |id: &str, place: &str| (ServerId::new(id).unwrap(), environment(place));
    World {
        environments: vec![environment("staging"), environment("production")],
        servers: vec![server("github", "staging"), server("deploy", "production"), server("files", "staging")],
        issuers: vec![Issuer {
            alias: IssuerAlias::new("corp").unwrap(),
            default_roles: vec!["reader".to_owned()],
            scopes: ScopeMode::Ignored,
        }],
        agents: vec![agent(&["staging", "production"])],
        templates: Vec::new(),
        strictness: Strictness::Serve,
        gates: Vec::new(),
        emergency_roles: Vec::new(),
    }
}

pub(super) fn scoped_world() -> World {
    let mut world = world();
    let rule = |scope: &str, object: &str| ScopeRule {
        scope: scope.to_owned(),
        object: object.to_owned(),
        actions: vec!["call".to_owned()],
    };
    world.issuers[0].scopes = ScopeMode::Required(vec![rule("mcp:use", "*/*"), rule("mcp:issues", "github/*")]);
    world
}

pub(super) fn agent(environments: &[&str]) -> AgentFacts {
    AgentFacts {
        id: AgentId::new("claude").unwrap(),
        environments: environments.iter().map(|name| environment(name)).collect(),
        autonomous: false,
    }
}

pub(super) fn build_with(files: &[(&str, &str)], world: &World) -> Result<Built, Vec<Mistake>> {
    let mut set = BTreeMap::from([
        ("model.conf".to_owned(), include_bytes!("../../policies/model.conf").to_vec()),
        ("policy.csv".to_owned(), RULES.as_bytes().to_vec()),
        ("conditions.toml".to_owned(), CONDITIONS.as_bytes().to_vec()),
    ]);
    set.extend(files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())));
    Policy::build(&Sources::from_files(set), world)
}

pub(super) fn policy() -> Policy {
    build_with(&[], &world()).unwrap().policy
}

pub(super) fn user(name: &str, groups: &[&str]) -> Persona {
    let issuer = IssuerAlias::new("corp").unwrap();
    Persona {
        user: Some(Subject::user(&issuer, name)),
        groups: Groups::Known(groups.iter().map(|group| Subject::group(&issuer, group)).collect()),
        agent: None,
        chain: Vec::new(),
        default_roles: vec!["reader".to_owned()],
        scopes: Vec::new(),
        client: None,
        client_proof: ClientProof::Public,
        authenticated_at: None,
        acr: None,
        behind: crate::identity::Behind::Person,
        issuer,
    }
}
