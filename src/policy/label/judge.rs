//! What one call does with data, and whether that may follow what was seen.
//!
//! Decides by what the file and the upstream's own hints say. Refuses to know what was seen before. Invariant: what
//! nobody knows of the arguments is taken for the worse, for an entry as for a flow.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::super::condition::{Arguments, Condition, Facts, Quantifier, Truth};
use super::super::object::{self, ObjectPattern, PatternKind};
use super::super::{Ask, Policy};
use super::{Flow, Impact, Labelled, Labels, Mode, Seen, Sends, Then, Unlabelled};
use crate::catalog::Hints;
use crate::config::GateConfig;
use crate::identity::Persona;

/// What became of a call that goes somewhere, after what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// No entry of `[[flow]]` speaks against it.
    Free,
    /// This one does.
    Against {
        /// The place of the entry, as `file:line`.
        rule: Arc<str>,
        /// What of what was seen it means.
        from: Seen,
        /// Whether that is only written down.
        observed: bool,
    },
    /// It goes where persons say that it may.
    Asks(Asked),
}

/// What persons have to be asked about a call that follows what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The gates that say whom, in the order of their names.
    pub gates: Vec<Arc<GateConfig>>,
    /// What of what was seen it is about.
    pub from: Seen,
    /// The places of the entries, as `file:line`.
    pub rules: Vec<Arc<str>>,
}

impl Policy {
    /// Whether labels are kept at all.
    #[must_use]
    pub const fn has_labels(&self) -> bool {
        self.labels.is_some()
    }

    /// How long what was seen outside of a mandate is remembered.
    #[must_use]
    pub fn label_memory(&self) -> Duration {
        self.labels.as_ref().map_or(Duration::ZERO, |labels| labels.memory)
    }

    /// What this call does with data; `None` where labels are not kept.
    #[must_use]
    pub fn labelled(
        &self,
        persona: &Persona,
        ask: &Ask<'_>,
        hints: Hints,
        arguments: Arguments<'_>,
        now: Timestamp,
    ) -> Option<Labelled> {
        let labels = self.labels.as_ref()?;
        let object = object::object(ask.server.as_str(), ask.name);
        let crossing = object::crosses(&ask.action.to_string());
        let mut sets: Option<Vec<(Arc<str>, Arc<str>)>> = None;
        let mut facts: Option<Facts<'_>> = None;
        let (mut labelled, mut named) = (Labelled::default(), false);
        for entry in &labels.entries {
            let action = entry.actions.is_empty() || entry.actions.contains(ask.action);
            let means = |pattern: &ObjectPattern, sets: &mut Option<Vec<(Arc<str>, Arc<str>)>>| match pattern.kind {
                PatternKind::Set => {
                    let sets = sets.get_or_insert_with(|| self.index.sets_of(&object));
                    sets.iter().any(|(_, set)| *set == pattern.text)
                }
                PatternKind::Exact | PatternKind::Glob => object::matches(&object, &pattern.text, crossing),
            };
            if !action || !entry.objects.iter().any(|pattern| means(pattern, &mut sets)) {
                continue;
            }
            let facts = facts.get_or_insert_with(|| Facts::new(persona, arguments, now));
            // What nobody knows is taken for the worse.
            let counts = entry
                .when
                .and_then(|when| self.conditions.get(when))
                .is_none_or(|condition| condition.value(facts, Quantifier::Any) != Truth::False);
            if counts {
                named = true;
                labelled.raise(entry);
            }
        }
        if !named && labels.unlabelled == Unlabelled::Worst {
            labelled = Labelled::worst();
        }
        if hints.open_world {
            labelled.sends = Sends::External;
            labelled.untrusted = true;
        }
        if hints.destructive {
            labelled.impact = labelled.impact.max(Impact::Destructive);
        }
        Some(labelled)
    }

    /// Whether flows are more than written down.
    #[must_use]
    pub fn enforces_flows(&self) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.mode == Mode::Enforce)
    }

    /// Whether what was seen matters to where this call goes: only then is it asked for.
    #[must_use]
    pub fn is_judged(&self, labelled: &Labelled) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.flows.iter().any(|flow| labelled.sends >= flow.to))
    }

    /// Whether this call may go where it goes, after what was seen. A refusal wins; else everybody is asked whom any entry
    /// names.
    #[must_use]
    pub fn judge_flow(
        &self,
        labelled: &Labelled,
        seen: Seen,
        persona: &Persona,
        arguments: Arguments<'_>,
        now: Timestamp,
    ) -> Judged {
        let Some(labels) = &self.labels else { return Judged::Free };
        // What it reads by itself it may send away in the same breath.
        let seen = seen.with(labelled.reads());
        let facts = Facts::new(persona, arguments, now);
        let mut asked = Asked { gates: Vec::new(), from: Seen::NOTHING, rules: Vec::new() };
        for flow in self.flows_of(labels, labelled, &facts).filter(|flow| seen.has(flow.from)) {
            match &flow.then {
                // Where flows are only written down, one of them is enough.
                Then::Ask(gate) if labels.mode == Mode::Enforce => {
                    if !asked.gates.contains(gate) {
                        asked.gates.push(Arc::clone(gate));
                    }
                    asked.from = asked.from.with(flow.from);
                    asked.rules.push(Arc::clone(&flow.place));
                }
                Then::Deny | Then::Ask(_) => {
                    let observed = labels.mode == Mode::Observe;
                    return Judged::Against { rule: Arc::clone(&flow.place), from: flow.from, observed };
                }
            }
        }
        asked.gates.sort_by(|one, other| one.name.cmp(&other.name));
        if asked.gates.is_empty() { Judged::Free } else { Judged::Asks(asked) }
    }

    /// What flows say of a call, each as a sentence: it depends on what was seen before, which nobody is asked here.
    pub(in crate::policy) fn flows_told(
        &self,
        persona: &Persona,
        ask: &Ask<'_>,
        arguments: Arguments<'_>,
        now: Timestamp,
    ) -> Vec<String> {
        let labelled = self.labelled(persona, ask, Hints::default(), arguments, now);
        let (Some(labels), Some(labelled)) = (&self.labels, labelled) else { return Vec::new() };
        let facts = Facts::new(persona, arguments, now);
        let told = |flow: &Flow| {
            let then = match (labels.mode, &flow.then) {
                (Mode::Observe, _) => "it is written down".to_owned(),
                (Mode::Enforce, Then::Deny) => "it is refused".to_owned(),
                (Mode::Enforce, Then::Ask(gate)) => format!("gate {} asks ({})", gate.name, gate.kind.as_str()),
            };
            format!("after {}: {then} ({})", flow.from, flow.place)
        };
        self.flows_of(labels, &labelled, &facts).map(told).collect()
    }

    /// Whether any flow asks somebody.
    #[must_use]
    pub fn has_asking_flows(&self) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.flows.iter().any(|flow| matches!(flow.then, Then::Ask(_))))
    }

    /// The flows that mean where this call goes, unless their exception surely holds.
    fn flows_of<'l>(
        &'l self,
        labels: &'l Labels,
        labelled: &'l Labelled,
        facts: &'l Facts<'_>,
    ) -> impl Iterator<Item = &'l Flow> {
        let surely = move |condition: &Condition| condition.value(facts, Quantifier::Every) == Truth::True;
        labels.flows.iter().filter(move |flow| {
            labelled.sends >= flow.to && !flow.unless.and_then(|unless| self.conditions.get(unless)).is_some_and(surely)
        })
    }
}
