//! Decides whether a caller may do this to that: Casbin over the rules of `policies/`.
//!
//! The only room that knows Casbin; synchronous, no I/O in a decision. Reads who somebody is and what is
//! asked for; refuses to know tokens, transports and the store. Invariant: what is not allowed by a rule
//! is refused, a deny wins, and whatever goes wrong in here refuses.
//!
//! ```text
//! Sources + World -> Policy::build      reader.rs rows, load.rs rules, lint.rs, condition/, model.rs
//! Persona         -> Class              class.rs: everyone about whom the rules say the same
//! Class + Ask     -> Verdict            index.rs candidates, verdict.rs Casbin, a table of listed items
//! + arguments     -> Decision           decide.rs: conditions, scopes, environment
//! Caller + Target -> Permit             permit.rs: the proof
//! ```

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::ids::{Action, Digest, Environment, IssuerAlias, PolicyRevision, ServerId};
use crate::limit::{CLASS_LOOKUPS_MAX, CLASSES_MAX, POLICY_MISTAKES_MAX};

mod asker;
mod class;
pub mod condition;
mod decide;
mod difference;
mod expect;
mod explain;
#[cfg(test)]
mod fixture;
mod gate;
pub mod grant;
mod hidden;
mod index;
mod input;
pub mod label;
mod lint;
mod load;
mod lookup;
mod means;
#[cfg(test)]
mod mistakes;
mod model;
#[cfg(test)]
mod mutation;
mod object;
pub mod operation;
mod permit;
mod persona;
#[cfg(test)]
mod property;
mod reach;
mod reader;
mod replay;
mod role;
mod rule;
mod scope;
mod source;
mod still;
#[cfg(test)]
mod tests;
mod verdict;
mod world;

pub use asker::Asker;
pub use class::{Class, SubjectKind};
pub use condition::{Arguments, Situation, Truth};
pub use decide::{ConditionRecord, Decision};
pub use difference::Difference;
pub use expect::{FailedTest, TestReport, Wrong};
pub use explain::{Explanation, RuleExplanation, SubjectExplanation, WhoCan};
pub use grant::{Grant, GrantId};
pub use label::{Judged, Labelled, Seen};
pub use object::RESERVED_SETS;
pub use operation::{AdminOperation, Weight};
pub use permit::{Denied, Permit};
pub use persona::Described;
pub use replay::{Replayed, Told};
pub use rule::{Effect, Rule};
pub use source::{Mistake, Sources};
pub use still::Decided;
pub use verdict::Verdict;
pub use world::{GATEWAY_ENVIRONMENT, GATEWAY_SERVER, Issuer, Strictness, World};

use self::condition::Condition;
use self::index::Index;
use self::load::Environments;
use self::lookup::Lookup;
use self::model::{Casbin, NoAnswer};
use self::role::{NameId, RoleGraph};
use self::scope::ScopeNeed;

/// One complete policy: immutable, swapped as a whole.
#[derive(Debug)]
pub struct Policy {
    revision: PolicyRevision,
    /// Revision and world: what every class key begins with.
    base: Digest,
    /// Conditions and labels: what rules are made of.
    words: Digest,
    /// The rows of roles and sets, as they were read.
    links: BTreeSet<Vec<String>>,
    world: World,
    environments: Environments,
    rules: Vec<Rule>,
    graph: RoleGraph,
    anyone: NameId,
    index: Index,
    conditions: Vec<Condition>,
    /// Those that read what the caller has seen; in most policies none.
    seen_conditions: Vec<usize>,
    gates: gate::Gates,
    casbin: Arc<Casbin>,
    scopes: HashMap<IssuerAlias, Vec<ScopeNeed>>,
    tests: Vec<expect::Expected>,
    labels: Option<label::Labels>,
    operations: (ServerId, Environment),
    classes: moka::sync::Cache<crate::ids::ClassKey, Arc<Class>>,
    lookups: moka::sync::Cache<Digest, Arc<Lookup>>,
}

/// What is asked: an action on a primitive of a server.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Where the server's effects land.
    pub environment: &'a Environment,
    /// The server.
    pub server: &'a ServerId,
    /// The primitive's name or URI in the upstream's own spelling; empty for `elicit`, `sample`, `roots`
    /// and `method:NAME`, which are about the server.
    pub name: &'a str,
    /// What is done.
    pub action: &'a Action,
}

/// A policy without mistakes, and what is odd about it.
#[derive(Debug)]
pub struct Built {
    /// The policy.
    pub policy: Policy,
    /// What `check` tells and `serve` logs.
    pub warnings: Vec<Mistake>,
}

impl Policy {
    /// Builds a policy off to the side.
    ///
    /// # Errors
    /// Every mistake in the files, in the order of the files, at most [`POLICY_MISTAKES_MAX`].
    pub fn build(sources: &Sources, world: &World) -> Result<Built, Vec<Mistake>> {
        Self::build_without(sources, world, &BTreeSet::new())
    }

    /// The same without grants that have ended: allows that nobody has attested in a review.
    ///
    /// # Errors
    /// As [`Policy::build`].
    pub fn build_without(sources: &Sources, world: &World, ended: &BTreeSet<GrantId>) -> Result<Built, Vec<Mistake>> {
        Self::build_with(sources, world, ended, |model| Casbin::load(model).map(Arc::new))
    }

    fn build_with(
        sources: &Sources,
        world: &World,
        ended: &BTreeSet<GrantId>,
        load_casbin: impl FnOnce(&str) -> Result<Arc<Casbin>, NoAnswer>,
    ) -> Result<Built, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut warnings = Vec::new();
        let text = |name: &str, mistakes: &mut Vec<Mistake>| match sources.text(name) {
            Ok(text) => text.map(str::to_owned),
            Err(mistake) => {
                mistakes.push(mistake);
                None
            }
        };
        let model_text = text("model.conf", &mut mistakes).unwrap_or_default();
        model::check("model.conf", &model_text, &mut mistakes);
        let conditions_text = text("conditions.toml", &mut mistakes).unwrap_or_default();
        let conditions = condition::conditions("conditions.toml", &conditions_text, &mut mistakes);
        let environments = Environments::of(world, &mut mistakes);
        let mut loaded = load::load(sources, world, &environments, &conditions, &mut mistakes);
        let labels_text = text("labels.toml", &mut mistakes);
        let labels = labels_text.as_deref().and_then(|text| {
            let (sets, gates) = (&loaded.sets, &world.gates);
            let known = label::Known { environments: &environments, conditions: &conditions, sets, gates };
            label::labels(text, &known, &mut mistakes, &mut warnings)
        });
        let written = gate::Words { conditions: &conditions, sets: &loaded.sets, labels: labels.is_some() };
        let gates = gate::Gates::of(world, written, &mut mistakes, &mut warnings);
        lint::flow_gates(world, labels.as_ref(), &mut mistakes);
        lint::situations(&conditions, labels.as_ref(), &mut mistakes);
        let elsewhere: Vec<usize> =
            gates.conditions().iter().copied().chain(labels.iter().flat_map(label::Labels::conditions)).collect();
        lint::lint(&loaded, &conditions, &elsewhere, &mut mistakes, &mut warnings);
        loaded.rules.retain(|rule| !ended.contains(&GrantId::of(rule)));
        let scopes = scope::scope_needs(world, &mut mistakes);
        let tests_text = text("tests.toml", &mut mistakes).unwrap_or_default();
        let tests = expect::read(&tests_text, &mut mistakes);
        let operations = (ServerId::new(GATEWAY_SERVER).ok()).zip(Environment::new(GATEWAY_ENVIRONMENT).ok());
        let casbin = if mistakes.is_empty() {
            load_casbin(&model_text)
                .map_err(|error| {
                    mistakes.push(Mistake::file("model.conf", format!("casbin refuses the model: {}", error.0)));
                })
                .ok()
        } else {
            None
        };
        let (Some(casbin), Some(operations), true) = (casbin, operations, mistakes.is_empty()) else {
            mistakes.sort();
            mistakes.truncate(POLICY_MISTAKES_MAX);
            return Err(mistakes);
        };
        warnings.sort();
        warnings.truncate(POLICY_MISTAKES_MAX);
        let anyone = loaded.graph.intern("anyone");
        let names = loaded.graph.names().count();
        let index = Index::of(&loaded.rules, names, loaded.sets);
        let revision = sources.revision();
        let words = [conditions_text.as_bytes(), labels_text.as_deref().unwrap_or("").as_bytes()];
        let words = Digest::of("bailiwick/policy-words/v1", &words);
        let base = Digest::of(
            "bailiwick/policy-base/v1",
            &[revision.0.as_bytes(), format!("{world:?}").as_bytes(), format!("{ended:?}").as_bytes()],
        );
        let reads_seen = |(index, condition): (usize, &Condition)| condition.reads_seen().then_some(index);
        let policy = Self {
            seen_conditions: conditions.iter().enumerate().filter_map(reads_seen).collect(),
            revision,
            base,
            words,
            links: loaded.links,
            world: world.clone(),
            environments,
            rules: loaded.rules,
            graph: loaded.graph,
            anyone,
            index,
            conditions,
            gates,
            casbin,
            scopes,
            tests,
            labels,
            operations,
            classes: moka::sync::Cache::new(CLASSES_MAX),
            lookups: moka::sync::Cache::new(CLASS_LOOKUPS_MAX),
        };
        Ok(Built { policy, warnings })
    }

    /// The digest of the files that it was built from.
    #[must_use]
    pub const fn revision(&self) -> PolicyRevision {
        self.revision
    }

    /// What makes it another one: its files, the servers that it is for, and the grants that have ended.
    #[must_use]
    pub const fn base(&self) -> Digest {
        self.base
    }

    /// Every rule, in the order of the files.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Every condition, in the order of the file.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// What it may speak about.
    #[must_use]
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// An operation of the gateway's own: `bailiwick/NAME`, action `admin`.
    #[must_use]
    pub const fn operation<'a>(&'a self, name: &'a str) -> Ask<'a> {
        Ask { environment: &self.operations.1, server: &self.operations.0, name, action: &Action::Admin }
    }
}

/// Whether a test has broken something on purpose, so that the cross-check does not hide it.
#[cfg(test)]
fn is_mutated() -> bool {
    mutation::active()
}

#[cfg(not(test))]
const fn is_mutated() -> bool {
    false
}
