//! Identity classes: everyone about whom the rules say the same, and what has been decided for them.
//!
//! Decides who is treated alike. Invariant: callers of one class get the same answers, because the key is
//! the digest of everything that a decision reads of a caller before it has a call.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use foldhash::quality::RandomState;

use super::Policy;
use super::condition::{Facts, Quantifier, Truth};
use super::role::{EnvironmentSet, NameId};
use super::rule::Effect;
use super::verdict::{Cell, Shape};
use super::world::role_name;
use crate::identity::{Groups, Persona};
use crate::ids::{Action, AgentId, ClassKey, Digest, Environment, Subject};
use crate::inversion::{self, Control};
use crate::limit::TABLE_ITEMS_MAX;
use crate::outcome::{Reason, Refusal};

/// Everyone about whom the rules say the same.
#[derive(Debug)]
pub struct Class {
    key: ClassKey,
    /// Why nothing can be decided for them at all.
    pub(super) blocked: Option<Refusal>,
    pub(super) slices: Vec<Slice>,
    /// Where every agent of the chain may act.
    pub(super) environments: EnvironmentSet,
    /// For each condition, what is known before there is a call: as an allow and as a deny reads it.
    pub(super) known: Vec<(Truth, Truth)>,
    shapes: Mutex<HashMap<ShapeKey, Arc<Shape>>>,
    table: ArcSwap<Table>,
    filling: Mutex<()>,
    /// The servers of which it may be shown something, once somebody asked.
    pub(super) reach: std::sync::OnceLock<HashSet<crate::ids::ServerId, RandomState>>,
}

/// What decides the answer of a slice once the rules are known to mean the object.
pub(super) type ShapeKey = (usize, usize, Vec<(NameId, Option<usize>, Effect)>);

/// One subject of the class; all of them must be allowed.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) kind: SubjectKind,
    /// For each environment.
    pub(super) environments: Vec<Reach>,
}

/// Which part of the caller a slice is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubjectKind {
    /// The human or service subject, with groups and default roles.
    User,
    /// The agent that calls.
    Agent(AgentId),
    /// A further actor of the chain.
    Actor(AgentId),
}

/// The names that speak about a subject in one environment.
#[derive(Debug, Default)]
pub(super) struct Reach {
    pub(super) names: Vec<NameId>,
    /// The `g` links that lead there, from [`super::model::CALLER`].
    pub(super) links: Vec<(Arc<str>, Arc<str>, Arc<str>)>,
}

type Names = HashMap<Arc<str>, Arc<Cell>, RandomState>;
/// A verdict to add: server, action, name.
pub(super) type Entry<'a> = ((&'a str, &'a Action, &'a str), Arc<Cell>);

/// Verdicts of listed items: server, action, name.
#[derive(Debug, Default, Clone)]
pub(super) struct Table {
    servers: HashMap<Arc<str>, Vec<(Action, Names)>, RandomState>,
    items: usize,
}

impl Table {
    pub(super) fn get(&self, server: &str, action: &Action, name: &str) -> Option<&Arc<Cell>> {
        self.servers.get(server)?.iter().find(|(known, _)| known == action)?.1.get(name)
    }

    fn insert(&mut self, server: &str, action: &Action, name: &str, cell: Arc<Cell>) {
        let actions = match self.servers.get_mut(server) {
            Some(actions) => actions,
            None => self.servers.entry(Arc::from(server)).or_default(),
        };
        if !actions.iter().any(|(known, _)| known == action) {
            actions.push((action.clone(), Names::default()));
        }
        if let Some((_, names)) = actions.iter_mut().find(|(known, _)| known == action)
            && names.insert(Arc::from(name), cell).is_none()
        {
            self.items += 1;
        }
    }
}

impl Class {
    /// The digest of everything that a decision reads of these callers.
    #[must_use]
    pub const fn key(&self) -> ClassKey {
        self.key
    }

    /// Why nothing at all can be decided for these callers, such as unknown groups.
    #[must_use]
    pub const fn blocked(&self) -> Option<&Refusal> {
        self.blocked.as_ref()
    }

    /// How many listed items have a remembered verdict.
    #[must_use]
    pub fn table_items(&self) -> usize {
        self.table.load().items
    }

    pub(super) fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.table.load()
    }

    /// Adds verdicts; one list at a time, so that two first lists do the work once.
    pub(super) fn fill<'a>(&self, fill: impl FnOnce(&Table) -> Vec<Entry<'a>>) {
        let _one = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.table.load_full();
        let added = fill(&current);
        if added.is_empty() {
            return;
        }
        let mut table =
            if current.items + added.len() > TABLE_ITEMS_MAX { Table::default() } else { (*current).clone() };
        for ((server, action, name), cell) in added.into_iter().take(TABLE_ITEMS_MAX) {
            table.insert(server, action, name, cell);
        }
        self.table.store(Arc::new(table));
    }

    pub(super) fn shape(&self, key: &ShapeKey) -> Option<Arc<Shape>> {
        self.shapes.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub(super) fn remember(&self, key: ShapeKey, shape: &Arc<Shape>) {
        let mut shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        if shapes.len() < TABLE_ITEMS_MAX {
            shapes.insert(key, Arc::clone(shape));
        }
    }

    /// Works out the class of a persona: who speaks about it, where it may act, what is known of it.
    pub(super) fn of(policy: &Policy, persona: &Persona) -> Self {
        let mut slices = Vec::new();
        if let Some(user) = &persona.user {
            let mut starts = vec![user.as_str().to_owned()];
            if let Groups::Known(groups) = &persona.groups {
                starts.extend(groups.iter().map(|group| group.as_str().to_owned()));
            }
            starts.extend(persona.default_roles.iter().map(|role| role_name(role)));
            slices.push(Slice::of(policy, SubjectKind::User, &starts));
        }
        let chain = if inversion::is_off(Control::Chain) { &[][..] } else { &persona.chain };
        for (position, agent) in persona.agent.iter().chain(chain).enumerate() {
            let kind = if position == 0 && persona.agent.is_some() { SubjectKind::Agent } else { SubjectKind::Actor };
            let starts = [Subject::agent(&agent.id).as_str().to_owned()];
            slices.push(Slice::of(policy, kind(agent.id.clone()), &starts));
        }
        let mut environments = EnvironmentSet(u64::MAX);
        for agent in persona.agent.iter().chain(&persona.chain) {
            environments = EnvironmentSet(environments.0 & policy.environments_of(&agent.environments).0);
        }
        let blocked = match &persona.groups {
            Groups::Unknown(_) => Some(Refusal::new(Reason::GroupsUnavailable)),
            Groups::Known(_) if slices.is_empty() => Some(Refusal::new(Reason::NotAllowed)),
            Groups::Known(_) if persona.lacks_proof() => Some(Refusal::new(Reason::ClientProofInsufficient)),
            Groups::Known(_) => None,
        };
        let facts = Facts::before_a_call(persona);
        let known: Vec<(Truth, Truth)> = policy
            .conditions
            .iter()
            .map(|condition| (condition.value(&facts, Quantifier::Every), condition.value(&facts, Quantifier::Any)))
            .collect();
        let key = key(policy, persona, &slices, environments, blocked.as_ref(), &known);
        Self::assemble(key, blocked, slices, environments, known)
    }

    /// A class of one name of the rules, about whom nothing else is known: for `who-can` and `what-can`.
    pub(super) fn of_name(policy: &Policy, name: &str) -> Self {
        let starts = if name == "anyone" { Vec::new() } else { vec![name.to_owned()] };
        let slices = vec![Slice::of(policy, SubjectKind::User, &starts)];
        let agent = policy.world.agents.iter().find(|agent| Subject::agent(&agent.id).as_str() == name);
        let environments = agent.map_or(EnvironmentSet(u64::MAX), |agent| policy.environments_of(&agent.environments));
        let known = vec![(Truth::Unknown, Truth::Unknown); policy.conditions.len()];
        Self::assemble(ClassKey(Digest::of("bailiwick/name/v1", &[name.as_bytes()])), None, slices, environments, known)
    }

    fn assemble(
        key: ClassKey,
        blocked: Option<Refusal>,
        slices: Vec<Slice>,
        environments: EnvironmentSet,
        known: Vec<(Truth, Truth)>,
    ) -> Self {
        Self {
            key,
            blocked,
            slices,
            environments,
            known,
            shapes: Mutex::default(),
            table: ArcSwap::default(),
            filling: Mutex::new(()),
            reach: std::sync::OnceLock::new(),
        }
    }
}

impl Policy {
    fn environments_of(&self, names: &[Environment]) -> EnvironmentSet {
        let known = names.iter().filter_map(|name| self.environments.index(name.as_str()));
        known.map(EnvironmentSet::of).fold(EnvironmentSet::default(), EnvironmentSet::with)
    }
}

fn key(
    policy: &Policy,
    persona: &Persona,
    slices: &[Slice],
    environments: EnvironmentSet,
    blocked: Option<&Refusal>,
    known: &[(Truth, Truth)],
) -> ClassKey {
    let mut parts: Vec<Vec<u8>> = vec![
        policy.base.as_bytes().to_vec(),
        environments.0.to_be_bytes().to_vec(),
        blocked.map_or("", |refusal| refusal.reason.code()).into(),
        known.iter().flat_map(|(allow, deny)| [*allow as u8, *deny as u8]).collect(),
    ];
    for slice in slices {
        // Refusals name the agent, and so agents are kept apart even where the rules are not.
        parts.push(format!("{:?}", slice.kind).into_bytes());
        for reach in &slice.environments {
            parts.push(reach.names.iter().flat_map(|name| name.0.to_be_bytes()).collect());
        }
    }
    if policy.scopes.contains_key(&persona.issuer) {
        parts.push(persona.issuer.as_str().into());
        parts.extend(persona.scopes.iter().map(|scope| scope.clone().into_bytes()));
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    ClassKey(Digest::of("bailiwick/class/v1", &parts))
}

impl Slice {
    pub(super) fn of(policy: &Policy, kind: SubjectKind, starts: &[String]) -> Self {
        let caller: Arc<str> = Arc::from(super::model::CALLER);
        let starts: Vec<NameId> = starts.iter().filter_map(|name| policy.graph.id(name)).collect();
        let environments = (0..)
            .zip(&policy.environments.names)
            .map(|(index, environment)| {
                let (mut names, followed) = policy.graph.reach(&starts, index);
                names.push(policy.anyone);
                names.retain(|name| policy.index.speaks_about(*name));
                names.sort_unstable();
                names.dedup();
                let own = starts.iter().map(|start| (Arc::clone(&caller), policy.graph.name(*start)));
                let further = followed.iter().map(|(from, to)| (policy.graph.name(*from), policy.graph.name(*to)));
                let links = own.chain(further).map(|(from, to)| (from, to, Arc::clone(environment)));
                Reach { names, links: links.collect() }
            })
            .collect();
        Self { kind, environments }
    }
}
