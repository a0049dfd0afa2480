//! The full enforcer, the slice and the table agree, over generated policies; and seeded defects are noticed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use super::model::{Casbin, Known, Question, Row, Rows};
use super::mutation::{self, Mutation};
use super::rule::Effect;
use super::*;
use crate::config::ScopeMode;
use crate::identity::{AgentFacts, ClientProof, Groups, Persona};
use crate::ids::{AgentId, Subject};

const SUBJECTS: [&str; 8] =
    ["anyone", "user:corp/u0", "group:corp/g0", "group:corp/g1", "role:r0", "role:r1", "role:r2", "agent:a0"];
const MEMBERS: [&str; 7] =
    ["user:corp/u0", "group:corp/g0", "group:corp/g1", "agent:a0", "user:corp/u1", "role:r0", "role:r1"];
const OBJECTS: [&str; 12] = [
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
];
const ITEMS: [(&str, &str); 4] = [("s0", "t0"), ("s1", "t0"), ("s0", "@read"), ("s1", "x/y")];
/// What the generated `g2` rows put into sets.
const LABELLED: [(&str, &str); 3] = [("s0", "t0"), ("s1", "t0"), ("s1", "x/y")];
const ENVIRONMENTS: [&str; 3] = ["*", "dev", "prod"];
/// Conditions whose value the arguments choose: `{"c0": 1}` is true, 0 false, anything else unknown.
const CONDITIONS: [&str; 3] = ["c0", "c1", "c2"];
const VALUES: [&str; 3] = ["1", "0", "\"x\""];

/// A generated policy, in the words of the files, and a caller.
#[derive(Debug, Clone)]
struct Case {
    rules: Vec<(usize, usize, usize, Option<usize>, bool)>,
    links: Vec<(usize, usize, usize)>,
    sets: Vec<(usize, usize)>,
    groups: Vec<usize>,
    default_role: bool,
    agent: bool,
    values: [usize; 3],
}

fn case() -> impl Strategy<Value = Case> {
    let rule = (
        0..SUBJECTS.len(),
        0..ENVIRONMENTS.len(),
        0..OBJECTS.len(),
        proptest::option::weighted(0.4, 0..CONDITIONS.len()),
        proptest::bool::weighted(0.7),
    );
    (
        proptest::collection::vec(rule, 1..8),
        proptest::collection::vec((0..MEMBERS.len(), 0..3_usize, 0..ENVIRONMENTS.len()), 0..6),
        proptest::collection::vec((0..3_usize, 0..2_usize), 0..3),
        proptest::collection::vec(0..2_usize, 0..3),
        any::<bool>(),
        proptest::bool::weighted(0.4),
        [0..3_usize, 0..3, 0..3],
    )
        .prop_map(|(rules, links, sets, groups, default_role, agent, values)| Case {
            rules,
            links,
            sets,
            groups,
            default_role,
            agent,
            values,
        })
}

fn environment(server: &str) -> &'static str {
    if server == "s0" { "dev" } else { "prod" }
}

impl Case {
    /// The files; rows that the lint would refuse are left out, so that every case is a policy.
    fn sources(&self) -> Sources {
        let mut csv = String::from("p, user:corp/nobody, *, s0/never, call, -, allow\n");
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
        for (subject, written, object, condition, allow) in &self.rules {
            let server = OBJECTS[*object].split('/').next().unwrap();
            let reachable = server == "*" || *written == 0 || environment(server) == ENVIRONMENTS[*written];
            if reachable {
                writeln!(
                    csv,
                    "p, {}, {}, {}, call, {}, {}",
                    SUBJECTS[*subject],
                    ENVIRONMENTS[*written],
                    OBJECTS[*object],
                    condition.map_or("-", |condition| CONDITIONS[condition]),
                    if *allow { "allow" } else { "deny" },
                )
                .unwrap();
            }
        }
        let conditions: String =
            CONDITIONS.iter().map(|name| format!("[{name}]\nargument = \"{name}\"\nequals = 1\n")).collect();
        Sources::from_files(BTreeMap::from([
            ("model.conf".to_owned(), include_bytes!("../../policies/model.conf").to_vec()),
            ("policy.csv".to_owned(), csv.into_bytes()),
            ("conditions.toml".to_owned(), conditions.into_bytes()),
        ]))
    }

    fn persona(&self) -> Persona {
        let issuer = IssuerAlias::new("corp").unwrap();
        let groups = self.groups.iter().map(|group| Subject::group(&issuer, &format!("g{group}"))).collect();
        Persona {
            user: Some(Subject::user(&issuer, "u0")),
            groups: Groups::Known(groups),
            agent: self.agent.then(agent),
            chain: Vec::new(),
            default_roles: if self.default_role { vec!["r2".to_owned()] } else { Vec::new() },
            scopes: Vec::new(),
            client: None,
            client_proof: ClientProof::Secret,
            authenticated_at: None,
            acr: None,
            behind: crate::identity::Behind::Person,
            issuer,
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
}

fn agent() -> AgentFacts {
    let environments = ["dev", "prod"].map(|name| Environment::new(name).unwrap()).to_vec();
    AgentFacts { id: AgentId::new("a0").unwrap(), environments, autonomous: false }
}

fn world() -> World {
    let environment_named = |name| Environment::new(name).unwrap();
    World {
        environments: vec![environment_named("dev"), environment_named("prod")],
        servers: ["s0", "s1"]
            .map(|server| (ServerId::new(server).unwrap(), environment_named(environment(server))))
            .to_vec(),
        issuers: vec![Issuer {
            alias: IssuerAlias::new("corp").unwrap(),
            default_roles: Vec::new(),
            scopes: ScopeMode::Ignored,
        }],
        agents: vec![agent()],
        templates: Vec::new(),
        strictness: Strictness::Serve,
        gates: Vec::new(),
        emergency_roles: Vec::new(),
    }
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
        let text = sources.text("policy.csv").unwrap().unwrap();
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
            case.groups.iter().for_each(|group| own(&format!("group:corp/g{group}")));
            if case.default_role {
                own("role:r2");
            }
        }
        full
    }

    fn answers(&self, case: &Case, questions: &[(&str, &str)], known: &str) -> Vec<bool> {
        let rows = Rows { rules: &self.rules, links: &self.links, sets: &self.sets };
        let objects: Vec<String> = questions.iter().map(|(server, name)| object::object(server, name)).collect();
        let subjects: &[&str] = if case.agent { &["user:corp/u0", "agent:a0"] } else { &["user:corp/u0"] };
        let mut allowed = vec![true; questions.len()];
        for subject in subjects {
            let asked: Vec<Question<'_>> = questions
                .iter()
                .zip(&objects)
                .map(|((server, _), object)| [subject, environment(server), object, "call", known])
                .collect();
            let answers = casbin().ask(&rows, &asked).unwrap();
            allowed.iter_mut().zip(answers).for_each(|(all, one)| *all &= one);
        }
        allowed
    }
}

/// What a case decides: by the full enforcer, by the slice, by the table; and what lists show.
fn agreement(case: &Case) -> Result<(), TestCaseError> {
    let built = Policy::build_with(&case.sources(), &world(), &std::collections::BTreeSet::new(), |_| Ok(casbin()));
    let policy = built.map_err(|mistakes| TestCaseError::fail(format!("{mistakes:?}")))?.policy;
    let persona = case.persona();
    let class = policy.class(&persona);
    let environments = ["s0", "s1"].map(|server| Environment::new(environment(server)).unwrap());
    let servers = ["s0", "s1"].map(|server| ServerId::new(server).unwrap());
    let asks: Vec<Ask<'_>> = ITEMS
        .iter()
        .map(|(server, name)| {
            let index = usize::from(*server == "s1");
            Ask { environment: &environments[index], server: &servers[index], name, action: &Action::Call }
        })
        .collect();
    let full = Full::of(case);
    let mut known = Known::surely();
    for (condition, name) in CONDITIONS.iter().enumerate() {
        known.add(Effect::Allow, name, case.truth(condition));
        known.add(Effect::Deny, name, case.truth(condition));
    }
    let expected = full.answers(case, &ITEMS, &known.into_text());
    let arguments = case.arguments();
    let decide = |ask: &Ask<'_>| {
        policy.decide(&class, &persona, ask, Arguments::Json(&arguments), jiff::Timestamp::UNIX_EPOCH).is_allowed()
    };
    let slice: Vec<bool> = asks.iter().map(decide).collect();
    prop_assert_eq!(&slice, &expected, "the slice and the full enforcer");
    let shown = policy.list(&class, &asks);
    let table: Vec<bool> = asks.iter().map(decide).collect();
    prop_assert_eq!(&table, &expected, "the table and the full enforcer");
    let visible = full.answers(case, &ITEMS, &Known::at_best().into_text());
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
