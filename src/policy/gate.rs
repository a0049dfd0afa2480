//! Which gates an allowed call meets: by its object, its environment, its action and a named condition.
//!
//! Decides that a person is needed; refuses to know whether somebody has said yes (`guard`). Invariant: a condition
//! that cannot be decided counts as one that holds, so that a missing argument opens no gate.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::condition::{Arguments, Condition, Facts, Quantifier, Situation, Truth};
use super::label::Labelled;
use super::load::set_exists;
use super::object::{self, ObjectPattern, PatternKind};
use super::source::Mistake;
use super::world::{GATEWAY_SERVER, World};
use super::{Ask, Policy};
use crate::catalog::Hints;
use crate::config::GateConfig;
use crate::identity::Persona;
use crate::ids::{Action, ServerId};
use crate::inversion::{self, Control};

const FILE: &str = "gates.toml";

/// The gates of a policy, by the server whose calls they may stop.
#[derive(Debug, Default)]
pub(super) struct Gates {
    by_server: HashMap<ServerId, Vec<Compiled>>,
    /// The conditions that gates read.
    conditions: Vec<usize>,
}

/// A gate as it stands before one server.
#[derive(Debug)]
struct Compiled {
    gate: Arc<GateConfig>,
    actions: Vec<Action>,
    /// Those that may mean something of this server; none means everything.
    patterns: Vec<ObjectPattern>,
    condition: Option<usize>,
}

/// What gates are written with.
#[derive(Clone, Copy)]
pub(super) struct Words<'a> {
    pub(super) conditions: &'a [Condition],
    pub(super) sets: &'a HashMap<Arc<str>, Vec<Arc<str>>>,
    /// Whether labels are kept.
    pub(super) labels: bool,
}

impl Gates {
    /// Holds the gates of a world against its servers and its conditions.
    pub(super) fn of(
        world: &World,
        words: Words<'_>,
        mistakes: &mut Vec<Mistake>,
        warnings: &mut Vec<Mistake>,
    ) -> Self {
        let Words { conditions, sets, labels } = words;
        let mut gates = Self::default();
        // One that flows ask is met by nothing but what was seen.
        for gate in world.gates.iter().filter(|gate| !gate.flows) {
            for label in &gate.labels {
                let message = if !Labelled::NAMES.contains(&label.text.as_str()) {
                    format!("there is no label `{}`; write one of {}", label.text, Labelled::NAMES.join(", "))
                } else if !labels {
                    "labels are not kept: write policies/labels.toml".to_owned()
                } else {
                    continue;
                };
                mistakes.push(at(label.line, label.column, message));
            }
            let condition = gate.when.as_ref().and_then(|when| {
                let found = conditions.iter().position(|condition| condition.name().as_str() == when.text);
                if found.is_none() {
                    let message = format!("there is no condition `{}` in conditions.toml", when.text);
                    mistakes.push(at(when.line, when.column, message));
                }
                found
            });
            gates.conditions.extend(condition);
            let actions: Vec<Action> = gate.actions.iter().filter_map(|action| Action::parse(action)).collect();
            let mut patterns = Vec::new();
            for written in &gate.objects {
                // `**` is for URIs: where several actions are written, one that has them is enough.
                let crossing = actions.iter().find(|action| **action == Action::Read).unwrap_or(&Action::Call);
                match ObjectPattern::parse(&written.text, crossing) {
                    Ok(pattern) if pattern.server() == GATEWAY_SERVER => {
                        mistakes.push(at(written.line, written.column, "the gateway's own operations have no gates"));
                    }
                    Ok(pattern) => {
                        if pattern.kind == PatternKind::Set && !set_exists(sets, &pattern) {
                            let message = format!("nothing is in `{}`; put names into it with g2 rows", pattern.text);
                            mistakes.push(at(written.line, written.column, message));
                        }
                        patterns.push((pattern, written));
                    }
                    Err(message) => mistakes.push(at(written.line, written.column, message)),
                }
            }
            for (pattern, written) in &patterns {
                if !world.servers.iter().any(|(server, _)| may_mean(pattern, server.as_str())) {
                    let message =
                        format!("gate `{}` stops nothing here: no server is `{}`", gate.name, pattern.server());
                    let known = world.strictness == super::Strictness::Demo;
                    let warning = at(written.line, written.column, message);
                    if known { warnings.push(warning) } else { mistakes.push(warning) }
                }
            }
            for (server, environment) in &world.servers {
                let here = gate.environments.is_empty() || gate.environments.contains(environment);
                let own: Vec<_> = patterns
                    .iter()
                    .map(|(pattern, _)| pattern)
                    .filter(|pattern| may_mean(pattern, server.as_str()))
                    .cloned()
                    .collect();
                if here && (gate.objects.is_empty() || !own.is_empty()) {
                    let gate = Arc::clone(gate);
                    let compiled = Compiled { gate, actions: actions.clone(), patterns: own, condition };
                    gates.by_server.entry(server.clone()).or_default().push(compiled);
                }
            }
        }
        gates
    }

    /// The conditions that gates read.
    pub(super) fn conditions(&self) -> &[usize] {
        &self.conditions
    }
}

impl Policy {
    /// The gates that an allowed call meets, in the order of their names. Nothing is allocated where there is none.
    #[must_use]
    pub fn gates_of(
        &self,
        ask: &Ask<'_>,
        hints: Hints,
        persona: &Persona,
        (arguments, now, situation): (Arguments<'_>, Timestamp, &Situation),
    ) -> Vec<Arc<GateConfig>> {
        let Some(of_server) = self.gates.by_server.get(ask.server) else { return Vec::new() };
        let object = object::object(ask.server.as_str(), ask.name);
        let means = |compiled: &&Compiled| {
            compiled.actions.contains(ask.action)
                && (compiled.patterns.is_empty()
                    || compiled.patterns.iter().any(|pattern| self.gate_means(pattern, &object, ask.action)))
        };
        let mut candidates = of_server.iter().filter(means).peekable();
        if candidates.peek().is_none() {
            return Vec::new();
        }
        let facts = Facts::new(persona, arguments, now).within(situation);
        let holds = |compiled: &&Compiled| {
            let condition = compiled.condition.map(|index| self.conditions.get(index));
            condition.is_none_or(|condition| {
                condition.is_none_or(|condition| condition.value(&facts, Quantifier::Any) != Truth::False)
            })
        };
        let mut labelled: Option<Option<Labelled>> = None;
        let mut labels = |compiled: &&Compiled| {
            let wanted = &compiled.gate.labels;
            if wanted.is_empty() {
                return true;
            }
            let labelled = labelled.get_or_insert_with(|| self.labelled(persona, ask, hints, arguments, now));
            // Where nobody knows what a call does with data, it may do anything.
            let meant = |own: &Labelled| wanted.iter().any(|label| own.does(&label.text));
            labelled.as_ref().is_none_or(|own| own.unsaid || meant(own))
        };
        let mut met = Vec::new();
        for compiled in candidates {
            if inversion::is_off(Control::Gates) && !met.is_empty() {
                break;
            }
            if holds(&compiled) && labels(&compiled) {
                met.push(Arc::clone(&compiled.gate));
            }
        }
        met
    }

    fn gate_means(&self, pattern: &ObjectPattern, object: &str, action: &Action) -> bool {
        match pattern.kind {
            PatternKind::Exact => *pattern.text == *object,
            PatternKind::Glob => object::matches(object, &pattern.text, *action == Action::Read),
            PatternKind::Set => self.index.sets_of(object).iter().any(|(_, set)| *set == pattern.text),
        }
    }
}

fn may_mean(pattern: &ObjectPattern, server: &str) -> bool {
    object::server_matches(server, pattern.server())
}

fn at(line: usize, column: usize, message: impl Into<String>) -> Mistake {
    Mistake::at(FILE, u32::try_from(line).unwrap_or_default(), u32::try_from(column).unwrap_or_default(), message)
}
