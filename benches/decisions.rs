//! What a decision costs, without sockets: `cargo bench --bench decisions`.
//!
//! Policies of 1,000 and 10,000 rules with groups, roles, object sets, wildcards, denies and conditions; ten
//! servers of a hundred tools. Every figure is the median of its runs. What one whole call costs us is measured behind
//! them, with CPU time.
#![expect(clippy::print_stdout, clippy::indexing_slicing, reason = "a benchmark prints its results")]
// The gateway is answered from within one future here, which the server elsewhere boxes.
#![recursion_limit = "256"]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use bailiwick::config::ScopeMode;
use bailiwick::identity::{AgentFacts, ClientProof, Groups, Persona};
use bailiwick::ids::{Action, AgentId, Environment, IssuerAlias, ServerId, Subject};
use bailiwick::policy::{Arguments, Ask, Issuer, Policy, Sources, Strictness, World};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const SERVERS: usize = 10;
const TOOLS: usize = 100;
const TEAMS: usize = 200;
const WARM_RUNS: usize = 200_000;
const ARGUMENTS: &str = r#"{"count":41,"text":"the quick brown fox jumps over the lazy dog"}"#;

#[path = "decisions/own_work.rs"]
mod own_work;

fn main() -> Result<()> {
    if own_work::is_upstream()? {
        return Ok(());
    }
    println!("{:<66}  {:>12}  {:>12}", "µs, median", "1,000 rules", "10,000 rules");
    let small = measure(1_000)?;
    let large = measure(10_000)?;
    for ((what, small), (_, large)) in small.iter().zip(&large) {
        println!("{what:<66}  {small:>12.2}  {large:>12.2}");
    }
    own_work::print()
}

fn measure(rules: usize) -> Result<Vec<(&'static str, f64)>> {
    let names = Names::new()?;
    let sources = sources(rules)?;
    let build = || Policy::build(&sources, &names.world).map(|built| built.policy).map_err(|all| format!("{all:?}"));
    let mut figures = Vec::new();

    let times = (0..5).map(|_| timed(build)).collect::<Vec<_>>();
    figures.push(("a policy is built", median(times.iter().map(|(took, _)| *took))));
    let policy = build()?;
    if policy.rules().len() != rules {
        return Err(format!("{} rules were generated instead of {rules}", policy.rules().len()).into());
    }
    let asks = names.asks();
    let plain = &asks[1];
    let conditional = &asks[0];
    let now = jiff::Timestamp::now();

    // Two teams each: nobody has the same rules as somebody before.
    let strangers: Vec<Persona> = (0..100).map(|number| names.persona(number, number + TEAMS / 2)).collect();
    let first_sight = strangers.iter().map(|persona| {
        timed(|| {
            let class = policy.class(persona);
            policy.decide(&class, persona, plain, Arguments::Json(ARGUMENTS), now)
        })
        .0
    });
    figures.push(("first sight of an identity, and its first decision", median(first_sight)));

    let fresh = build()?;
    let first_list = strangers.iter().map(|persona| {
        timed(|| {
            let class = fresh.class(persona);
            fresh.list(&class, &asks)
        })
        .0
    });
    figures.push(("first list of 1,000 tools for an identity", median(first_list)));

    let persona = &strangers[7];
    let class = fresh.class(persona);
    let shown = fresh.list(&class, &asks).into_iter().filter(|shown| *shown).count();
    if shown < 100 || shown == asks.len() {
        return Err(format!("a list of {shown} out of {} tools says little", asks.len()).into());
    }
    let lists = (0..500).map(|_| timed(|| fresh.list(&class, &asks)).0);
    figures.push(("list of 1,000 tools for a known identity", median(lists)));
    figures.push(("class of a known persona", repeated(|| fresh.class(persona))));

    for (what, ask) in
        [("warm decision, no condition", plain), ("warm decision, one condition on two arguments", conditional)]
    {
        let decide = || fresh.decide(&class, persona, ask, Arguments::Json(ARGUMENTS), now);
        if !decide().is_allowed() {
            return Err(format!("{what}: it is refused: {:?}", decide().refusal).into());
        }
        figures.push((what, repeated(decide)));
    }
    Ok(figures)
}

/// The names that exist.
struct Names {
    world: World,
    issuer: IssuerAlias,
    environment: Environment,
    agent: AgentFacts,
    servers: Vec<ServerId>,
    tools: Vec<String>,
}

impl Names {
    fn new() -> Result<Self> {
        let issuer = IssuerAlias::new("bench")?;
        let environment = Environment::new("bench")?;
        let servers =
            (0..SERVERS).map(|server| Ok(ServerId::new(&format!("s{server}"))?)).collect::<Result<Vec<_>>>()?;
        let environments = vec![environment.clone()];
        let agent = AgentFacts { id: AgentId::new("bench")?, environments: environments.clone(), autonomous: false };
        let world = World {
            templates: Vec::new(),
            environments,
            servers: servers.iter().map(|server| (server.clone(), environment.clone())).collect(),
            issuers: vec![Issuer { alias: issuer.clone(), default_roles: Vec::new(), scopes: ScopeMode::Ignored }],
            agents: vec![agent.clone()],
            strictness: Strictness::Serve,
            gates: Vec::new(),
            emergency_roles: Vec::new(),
        };
        let tools = (0..TOOLS).map(|tool| format!("tool_{tool}")).collect();
        Ok(Self { world, issuer, environment, agent, servers, tools })
    }

    /// Every tool of every server; the first is allowed on a condition, the second without.
    fn asks(&self) -> Vec<Ask<'_>> {
        let ask = |server, name| Ask { environment: &self.environment, server, name, action: &Action::Call };
        self.servers.iter().flat_map(|server| self.tools.iter().map(move |tool| ask(server, tool.as_str()))).collect()
    }

    fn persona(&self, one: usize, other: usize) -> Persona {
        let mut groups: Vec<Subject> = ["staff".to_owned(), format!("team-{one}"), format!("team-{other}")]
            .iter()
            .map(|name| Subject::group(&self.issuer, name))
            .collect();
        groups.sort();
        Persona {
            issuer: self.issuer.clone(),
            user: Some(Subject::user(&self.issuer, &format!("person-{one}"))),
            groups: Groups::Known(groups),
            agent: Some(self.agent.clone()),
            chain: Vec::new(),
            default_roles: Vec::new(),
            scopes: Vec::new(),
            client: Some("bench-assistant".to_owned()),
            client_proof: ClientProof::Public,
            authenticated_at: None,
            acr: None,
            behind: bailiwick::identity::Behind::Person,
        }
    }
}

/// Exactly so many rules.
fn sources(rules: usize) -> Result<Sources> {
    let mut text = String::from("g, group:bench/staff, role:staff, *\n");
    for team in 0..TEAMS {
        writeln!(text, "g, group:bench/team-{team}, role:team-{team}, *")?;
    }
    for server in 0..SERVERS {
        for tool in (10..TOOLS).step_by(10) {
            writeln!(text, "g2, s{server}/tool_{tool}, s{server}/@read")?;
        }
    }
    let mut count = 0;
    let mut rule = |row: &str| {
        count += usize::from(count < rules);
        if count <= rules {
            text.push_str(row);
            text.push('\n');
        }
        count == rules
    };
    rule("p, role:staff, bench, s0/tool_0, call, small, allow");
    rule("p, role:staff, bench, s0/tool_1, call, -, allow");
    for server in 0..SERVERS {
        rule(&format!("p, agent:bench, bench, s{server}/*, call, -, allow"));
        rule(&format!("p, role:staff, bench, s{server}/@read, call, -, allow"));
        rule(&format!("p, anyone, bench, s{server}/tool_9*, call, forced, deny"));
    }
    let conditions = ["-", "small", "one-project"];
    for number in 0.. {
        let (team, server, tool) = (number % TEAMS, (number / 7) % SERVERS, (number / 3) % TOOLS);
        let (condition, effect) = (conditions[number % 3], if number % 11 == 10 { "deny" } else { "allow" });
        let object = if number % 13 == 12 { format!("tool_{}*", tool / 10) } else { format!("tool_{}", tool.max(2)) };
        if rule(&format!("p, role:team-{team}, bench, s{server}/{object}, call, {condition}, {effect}")) {
            break;
        }
    }
    let model = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/model.conf"))?;
    Ok(Sources::from_files(BTreeMap::from([
        ("model.conf".to_owned(), model),
        ("policy.csv".to_owned(), text.into_bytes()),
        ("conditions.toml".to_owned(), CONDITIONS.as_bytes().to_vec()),
    ])))
}

const CONDITIONS: &str = r#"[small]
only = ["count", "text"]
argument = "count"
at_least = 1
at_most = 1000

[one-project]
argument = "project"
one_of = ["group/one", "group/two"]

[forced]
argument = "text"
starts_with = ["force"]
"#;

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let value = black_box(work());
    (start.elapsed(), value)
}

/// Microseconds.
fn median(times: impl Iterator<Item = Duration>) -> f64 {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

/// Microseconds for each of many runs; the median of batches, because one run is too short for the clock.
fn repeated<T>(mut work: impl FnMut() -> T) -> f64 {
    const BATCH: usize = 1_000;
    let batches = (0..WARM_RUNS / BATCH).map(|_| {
        timed(|| {
            for _ in 0..BATCH {
                black_box(work());
            }
        })
        .0
    });
    median(batches) / BATCH as f64
}
