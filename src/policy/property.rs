//! The full enforcer, the slice and the table agree, over generated policies; and seeded defects are noticed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use super::load::ROOT;
use super::model::{Casbin, Known, Question, Row, Rows};
use super::mutation::{self, Mutation};
use super::rule::Effect;
use super::*;
use crate::config::{ScopeMode, ScopeRule};
use crate::identity::{AgentFacts, ClientProof, Groups, Persona};
use crate::ids::{Action, AgentId, Environment, IssuerAlias, ServerId, Subject};

const SUBJECTS: [&str; 9] = [
    "anyone",
    "user:corp/u0",
    "group:corp/g0",
    "group:corp/g1",
    "role:r0",
    "role:r1",
    "role:r2",
    "agent:a0",
    "agent:a1",
];
const MEMBERS: [&str; 8] =
    ["user:corp/u0", "group:corp/g0", "group:corp/g1", "agent:a0", "user:corp/u1", "role:r0", "role:r1", "agent:a1"];
const OBJECTS: [&str; 13] = [
    "s0/t0",
    "s0/t1",
    "s0/*",
    "s0/t*",
    "*/t0",
    "*/*",
    "s1/t0",
    "s1/*",
    "s0/@read",
    "*/@read",
    "*/@destructive",
    "s1/@read",
    "s*/t0",
];
/// Where names are URIs.
const RESOURCES: [&str; 9] = [
    "s0/**",
    "*/**",
    "s0/file:///a/*",
    "s0/file:///a/**",
    "*/file:///**",
    "s*/file:///a/x",
    "s1/file:///b",
    "*/*",
    "*/@read",
];
static ITEMS: [(&str, &str, Action); 8] = [
    ("s0", "t0", Action::Call),
    ("s1", "t0", Action::Call),
    ("s0", "@read", Action::Call),
    ("s1", "x/y", Action::Call),
    ("s0", "t0", Action::Get),
    ("s0", "file:///a/x", Action::Read),
    ("s0", "file:///a/x/y", Action::Read),
    ("s1", "file:///b", Action::Read),
];
/// Most rules are about calls.
const ACTIONS: [&str; 6] = ["call", "call", "call", "call", "read", "get"];
/// What the generated `g2` rows put into sets.
const LABELLED: [(&str, &str); 4] = [("s0", "t0"), ("s1", "t0"), ("s1", "x/y"), ("s0", "file:///a/x")];
const ENVIRONMENTS: [&str; 3] = ["*", "dev", "prod"];
const SERVERS: [&str; 2] = ["s0", "s1"];
/// Conditions whose value the arguments choose: `{"c0": 1}` is true, 0 false, anything else unknown.
const CONDITIONS: [&str; 3] = ["c0", "c1", "c2"];
const VALUES: [&str; 3] = ["1", "0", "\"x\""];

/// A row: subject, environment, object, action, condition, whether it allows, and whether it stands in the file of its
/// server, where it is about one.
type Drawn = (usize, usize, usize, usize, Option<usize>, bool, bool);

/// A generated policy, in the words of the files, and a caller.
#[derive(Debug, Clone)]
struct Case {
    rules: Vec<Drawn>,
    links: Vec<(usize, usize, usize)>,
    sets: Vec<(usize, usize)>,
    /// In which environment each server is.
    places: [usize; 2],
    /// Scopes that calls at `s1` and reads need; those that the token has.
    scopes: Option<Vec<&'static str>>,
    /// Nothing where nobody knows them.
    groups: Option<Vec<usize>>,
    default_role: bool,
    /// The agent and those for whom it acts: which, and whether it may act in `dev` alone.
    agents: Vec<(usize, bool)>,
    values: [usize; 3],
    /// What is asked.
    items: Vec<usize>,
}

fn case() -> impl Strategy<Value = Case> {
    let rule = (
        0..SUBJECTS.len(),
        0..ENVIRONMENTS.len(),
        0..OBJECTS.len(),
        0..ACTIONS.len(),
        proptest::option::weighted(0.4, 0..CONDITIONS.len()),
        proptest::bool::weighted(0.7),
        proptest::bool::weighted(0.3),
    );
    let agents = prop_oneof![
        6 => Just(0_usize),
        3 => Just(1),
        1 => Just(2),
        1 => Just(3),
    ];
    let caller = (
        proptest::option::weighted(0.95, proptest::collection::vec(0..2_usize, 0..3)),
        any::<bool>(),
        agents.prop_flat_map(|count| proptest::collection::vec((0..2_usize, proptest::bool::weighted(0.1)), count)),
        proptest::option::weighted(0.2, proptest::sample::subsequence(vec!["use", "look"], 0..=2)),
    );
    (
        proptest::collection::vec(rule, 1..9),
        proptest::collection::vec((0..MEMBERS.len(), 0..3_usize, 0..ENVIRONMENTS.len()), 0..6),
        proptest::collection::vec((0..LABELLED.len(), 0..2_usize), 0..3),
        [1..3_usize, 1..3],
        caller,
        [0..3_usize, 0..3, 0..3],
        proptest::sample::subsequence((0..ITEMS.len()).collect::<Vec<_>>(), 4),
    )
        .prop_map(|(rules, links, sets, places, caller, values, items)| {
            let (groups, default_role, agents, scopes) = caller;
            Case { rules, links, sets, places, scopes, groups, default_role, agents, values, items }
        })
}

impl Case {
    fn environment(&self, server: &str) -> &'static str {
        ENVIRONMENTS[self.places[usize::from(server == "s1")]]
    }

    /// Whether a rule about these servers can ever apply there; the lint refuses those that cannot.
    fn reaches(&self, servers: &str, written: usize) -> bool {
        let meant = SERVERS.iter().filter(|server| servers.contains('*') || servers == **server);
        written == 0 || meant.into_iter().any(|server| self.environment(server) == ENVIRONMENTS[written])
    }

    /// The files; rows that the lint would refuse are left out, so that every case is a policy.
    fn sources(&self) -> Sources {
        let mut csv = String::from("p, user:corp/nobody, *, s0/never, call, -, allow\n");
        let mut of_servers = [String::new(), String::new()];
        // Everybody's roles exist, so that no rule is a mistake for naming one.
        for role in 0..3 {
            writeln!(csv, "g, user:corp/nobody, role:r{role}, *").unwrap();
        }
        for (member, role, environment) in &self.links {
            let upward =
                MEMBERS[*member].strip_prefix("role:r").is_none_or(|from| from.parse::<usize>().unwrap() < *role);
            if upward {
                writeln!(csv, "g, {}, role:r{role}, {}", MEMBERS[*member], ENVIRONMENTS[*environment]).unwrap();
            }
        }
        for (item, set) in &self.sets {
            let (server, name) = LABELLED[*item];
            writeln!(csv, "g2, {server}/{name}, {server}/{}", ["@read", "@destructive"][*set]).unwrap();
        }
        for (subject, written, object, action, condition, allow, own) in &self.rules {
            let action = ACTIONS[*action];
            let object = if action == "read" { RESOURCES[*object % RESOURCES.len()] } else { OBJECTS[*object] };
            let server = object.split('/').next().unwrap();
            let file = match SERVERS.iter().position(|known| *own && *known == server) {
                Some(position) => &mut of_servers[position],
                None => &mut csv,
            };
            if self.reaches(server, *written) {
                let condition = condition.map_or("-", |condition| CONDITIONS[condition]);
                let effect = if *allow { "allow" } else { "deny" };
                let (subject, environment) = (SUBJECTS[*subject], ENVIRONMENTS[*written]);
                writeln!(file, "p, {subject}, {environment}, {object}, {action}, {condition}, {effect}").unwrap();
            }
        }
        let conditions: String =
            CONDITIONS.iter().map(|name| format!("[{name}]\nargument = \"{name}\"\nequals = 1\n")).collect();
        let mut files = BTreeMap::from([
            ("model.conf".to_owned(), include_bytes!("../../policies/model.conf").to_vec()),
            (ROOT.to_owned(), csv.into_bytes()),
            ("conditions.toml".to_owned(), conditions.into_bytes()),
        ]);
        for (server, rows) in SERVERS.iter().zip(of_servers).filter(|(_, rows)| !rows.is_empty()) {
            files.insert(format!("servers/{server}.csv"), rows.into_bytes());
        }
        Sources::from_files(files)
    }

    fn persona(&self) -> Persona {
        let issuer = IssuerAlias::new("corp").unwrap();
        let group = |group: &usize| Subject::group(&issuer, &format!("g{group}"));
        let mut agents = self.agents.iter().map(|(number, dev_alone)| AgentFacts {
            environments: if *dev_alone { vec![Environment::new("dev").unwrap()] } else { both() },
            ..agent(*number)
        });
        Persona {
            user: Some(Subject::user(&issuer, "u0")),
            groups: match &self.groups {
                Some(groups) => Groups::Known(groups.iter().map(group).collect()),
                None => Groups::Unknown("the claim is absent".to_owned()),
            },
            agent: agents.next(),
            chain: agents.collect(),
            default_roles: if self.default_role { vec!["r2".to_owned()] } else { Vec::new() },
            scopes: self.scopes.iter().flatten().map(|scope| (*scope).to_owned()).collect(),
            client: None,
            client_proof: ClientProof::Secret,
            authenticated_at: None,
            acr: None,
            behind: crate::identity::Behind::Person,
            issuer,
        }
    }

    /// Whether the token has the scopes that this needs, where the issuer's tokens need any.
    fn has_scopes(&self, (server, name, action): &(&str, &str, Action)) -> bool {
        let Some(scopes) = &self.scopes else { return true };
        match action {
            Action::Read => scopes.contains(&"look"),
            // `s1/*` means no name with a slash in it.
            Action::Call if *server == "s1" && !name.contains('/') => scopes.contains(&"use"),
            _ => true,
        }
    }

    fn arguments(&self) -> String {
        let members: Vec<String> =
            CONDITIONS.iter().zip(self.values).map(|(name, value)| format!("\"{name}\": {}", VALUES[value])).collect();
        format!("{{{}}}", members.join(", "))
    }

    fn truth(&self, condition: usize) -> Truth {
        [Truth::True, Truth::False, Truth::Unknown][self.values[condition]]
    }

    fn world(&self) -> World {
        let scope = |scope: &str, object: &str, action: &str| ScopeRule {
            scope: scope.to_owned(),
            object: object.to_owned(),
            actions: vec![action.to_owned()],
        };
        let scopes = match &self.scopes {
            Some(_) => ScopeMode::Required(vec![scope("use", "s1/*", "call"), scope("look", "*/**", "read")]),
            None => ScopeMode::Ignored,
        };
        let place =
            |server: &&str| (ServerId::new(server).unwrap(), Environment::new(self.environment(server)).unwrap());
        World {
            environments: both(),
            servers: SERVERS.iter().map(place).collect(),
            issuers: vec![Issuer { alias: IssuerAlias::new("corp").unwrap(), default_roles: Vec::new(), scopes }],
            agents: vec![agent(0), agent(1)],
            templates: Vec::new(),
            strictness: Strictness::Serve,
            gates: Vec::new(),
            emergency_roles: Vec::new(),
        }
    }
}

fn both() -> Vec<Environment> {
    ["dev", "prod"].map(|name| Environment::new(name).unwrap()).to_vec()
}

fn agent(number: usize) -> AgentFacts {
    AgentFacts { id: AgentId::new(&format!("a{number}")).unwrap(), environments: both(), autonomous: false }
}

/// One Casbin for all cases: making an enforcer costs more than a case.
fn casbin() -> Arc<Casbin> {
    static CASBIN: OnceLock<Arc<Casbin>> = OnceLock::new();
    let load = || Arc::new(Casbin::load(include_str!("../../policies/model.conf")).unwrap());
    Arc::clone(CASBIN.get_or_init(load))
}

/// Every row and link of the policy, as one Casbin gets them who knows nothing of slices.
struct Full {
    rules: Vec<Row>,
    links: Vec<(Arc<str>, Arc<str>, Arc<str>)>,
    sets: Vec<(Arc<str>, Arc<str>)>,
}

impl Full {
    /// Reads the rows again, from the text, so that it shares no code with what it checks.
    fn of(case: &Case) -> Self {
        let mut full = Self { rules: Vec::new(), links: Vec::new(), sets: Vec::new() };
        let sources = case.sources();
        let files = ["policy.csv", "servers/s0.csv", "servers/s1.csv"];
        let text: String = files.iter().filter_map(|file| sources.text(file).unwrap()).collect();
        let expand = |environment: &str| match environment {
            "*" => vec!["dev", "prod"],
            "dev" => vec!["dev"],
            _ => vec!["prod"],
        };
        for line in text.lines() {
            let cells: Vec<&str> = line.split(", ").collect();
            match cells[0] {
                "p" => {
                    for environment in expand(cells[2]) {
                        let row = [cells[1], environment, cells[3], cells[4], cells[5], cells[6]];
                        full.rules.push(row.map(Arc::from));
                    }
                }
                "g" => {
                    let link = |environment: &str| (Arc::from(cells[1]), Arc::from(cells[2]), Arc::from(environment));
                    full.links.extend(expand(cells[3]).into_iter().map(link));
                }
                _ => {
                    let everywhere = format!("*/{}", cells[2].split_once('/').unwrap().1);
                    full.sets.push((Arc::from(cells[1]), Arc::from(cells[2])));
                    full.sets.push((Arc::from(cells[2]), Arc::from(everywhere)));
                }
            }
        }
        for environment in ["dev", "prod"] {
            let mut own =
                |role: &str| full.links.push((Arc::from("user:corp/u0"), Arc::from(role), Arc::from(environment)));
            case.groups.iter().flatten().for_each(|group| own(&format!("group:corp/g{group}")));
            if case.default_role {
                own("role:r2");
            }
        }
        full
    }

    /// Whether each is allowed to everybody who takes part: the person, the agent, and those for whom that acts.
    fn answers(&self, case: &Case, known: &str) -> Vec<bool> {
        let rows = Rows { rules: &self.rules, links: &self.links, sets: &self.sets };
        let questions: Vec<_> = case.items.iter().map(|item| &ITEMS[*item]).collect();
        let objects: Vec<String> = questions.iter().map(|(server, name, _)| object::object(server, name)).collect();
        let actions: Vec<String> = questions.iter().map(|(_, _, action)| action.to_string()).collect();
        let agents = case.agents.iter().map(|(number, _)| format!("agent:a{number}"));
        let subjects: Vec<String> = std::iter::once("user:corp/u0".to_owned()).chain(agents).collect();
        // Where nobody knows the groups nothing is allowed, and nothing where an agent may not act.
        let reached = |server: &str| case.environment(server) == "dev" || case.agents.iter().all(|(_, dev)| !dev);
        let may_be = |(server, ..): &&(&str, &str, Action)| case.groups.is_some() && reached(server);
        let mut allowed: Vec<bool> = questions.iter().map(may_be).collect();
        for subject in &subjects {
            let asked: Vec<Question<'_>> = questions
                .iter()
                .zip(objects.iter().zip(&actions))
                .map(|((server, ..), (object, action))| {
                    [subject.as_str(), case.environment(server), object.as_str(), action.as_str(), known]
                })
                .collect();
            let answers = casbin().ask(&rows, &asked).unwrap();
            allowed.iter_mut().zip(answers).for_each(|(all, one)| *all &= one);
        }
        allowed
    }
}

/// What a case decides: by the full enforcer, by the slice, by the table; and what lists show.
fn agreement(case: &Case) -> Result<(), TestCaseError> {
    let world = case.world();
    let built = Policy::build_with(&case.sources(), &world, &std::collections::BTreeSet::new(), |_| Ok(casbin()));
    let policy = built.map_err(|mistakes| TestCaseError::fail(format!("{mistakes:?}")))?.policy;
    let persona = case.persona();
    let class = policy.class(&persona);
    let asks: Vec<Ask<'_>> = case
        .items
        .iter()
        .map(|item| {
            let (server, name, action) = &ITEMS[*item];
            let (server, environment) = world.servers.iter().find(|(id, _)| id.as_str() == *server).unwrap();
            Ask { environment, server, name, action }
        })
        .collect();
    let full = Full::of(case);
    let mut known = Known::surely();
    for (condition, name) in CONDITIONS.iter().enumerate() {
        known.add(Effect::Allow, name, case.truth(condition));
        known.add(Effect::Deny, name, case.truth(condition));
    }
    // Scopes narrow what is allowed, and not what is shown.
    let scoped = |(item, allowed): (&usize, bool)| allowed && case.has_scopes(&ITEMS[*item]);
    let expected: Vec<bool> = case.items.iter().zip(full.answers(case, &known.into_text())).map(scoped).collect();
    let arguments = case.arguments();
    let decide = |ask: &Ask<'_>| {
        policy.decide(&class, &persona, ask, Arguments::Json(&arguments), jiff::Timestamp::UNIX_EPOCH).is_allowed()
    };
    let slice: Vec<bool> = asks.iter().map(decide).collect();
    prop_assert_eq!(&slice, &expected, "the slice and the full enforcer");
    let shown = policy.list(&class, &asks);
    let table: Vec<bool> = asks.iter().map(decide).collect();
    prop_assert_eq!(&table, &expected, "the table and the full enforcer");
    let visible = full.answers(case, &Known::at_best().into_text());
    prop_assert_eq!(&shown, &visible, "the list and the full enforcer");
    Ok(())
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

#[test]
fn full_enforcer_slice_and_table_agree_over_ten_thousand_policies() {
    std::thread::scope(|scope| {
        let halves = [(); 2].map(|()| scope.spawn(|| runner(5_000).run(&case(), |case| agreement(&case)).unwrap()));
        halves.into_iter().for_each(|half| half.join().unwrap());
    });
}

#[test]
fn each_seeded_defect_of_slice_and_table_is_noticed() {
    for defect in mutation::ALL {
        let outcome = runner(2_000).run(&case(), |case| mutation::with(defect, || agreement(&case)));
        let Err(TestError::Fail(noticed, _)) = outcome else { panic!("{defect:?} went unnoticed") };
        assert!(noticed.message().contains("and the full enforcer"), "{defect:?}: {noticed}");
    }
    assert!(!mutation::active());
    assert_ne!(mutation::ALL.len(), 0, "{:?}", Mutation::SliceDropsDenies);
}
