//! One decision: class, question and arguments in; allowed or a refusal out, with the rules that decided
//! and the values that conditions read.
//!
//! Reads arguments only where a rule depends on them. Invariant: groups that are unknown, an environment
//! that is not the server's, a scope that is missing and an answer that Casbin did not give all refuse.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::class::Class;
use super::condition::{Arguments, Facts, Quantifier, Situation, Truth, UNKNOWN};
use super::model::{NoAnswer, applies};
use super::operation::{AdminOperation, mandate_operation};
use super::rule::{Effect, Rule};
use super::verdict::{Cell, Part, Settled, Values, Verdict, rule_value};
use super::world::GATEWAY_SERVER;
use super::{Ask, Policy};
use crate::identity::{Caller, Persona};
use crate::ids::TemplateName;
use crate::inversion::{self, Control};
use crate::outcome::{Reason, Refusal};

/// What was decided, and by what.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The refusal, if it was refused.
    pub refusal: Option<Refusal>,
    /// Whether lists show the object to this class: only then may the caller be told the reason.
    pub visible: bool,
    /// The rules that decided, as `file:line`.
    pub rules: Arc<[Arc<str>]>,
    /// The conditions that were read, for the record.
    pub conditions: Vec<ConditionRecord>,
}

impl Decision {
    /// Whether it was allowed.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        self.refusal.is_none()
    }

    fn refused(refusal: Refusal, visible: bool) -> Self {
        let rules = refusal.rule.as_deref().map(Arc::from).into_iter().collect();
        Self { refusal: Some(refusal), visible, rules, conditions: Vec::new() }
    }
}

/// One condition as a decision read it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ConditionRecord {
    /// Its name.
    pub name: String,
    /// Its value as an allow reads it: every element of a list.
    pub as_allow: Truth,
    /// Its value as a deny reads it: any element of a list.
    pub as_deny: Truth,
    /// Which arguments and facts it read, and their values; arguments as JSON text, cut to a limit.
    pub read: Vec<(String, String)>,
}

impl Policy {
    /// Whether a list shows the object to this class: some allow may hold for every subject, and no deny
    /// surely applies.
    #[must_use]
    pub fn visible(&self, class: &Class, ask: &Ask<'_>) -> bool {
        let Ok(environment) = self.reachable(class, ask) else { return false };
        if let Some(cell) = class.table().get(ask.server.as_str(), ask.action, ask.name) {
            return cell.visible;
        }
        self.cell(class, environment, ask, false).is_ok_and(|cell| cell.visible)
    }

    /// Which items of a list this class is shown. Decides what the table does not know yet and remembers it:
    /// only items that an upstream listed belong here.
    #[must_use]
    pub fn list(&self, class: &Class, asks: &[Ask<'_>]) -> Vec<bool> {
        let table = class.table();
        let known = |ask: &Ask<'_>| match self.reachable(class, ask) {
            Err(_) => Some(false),
            Ok(_) => table.get(ask.server.as_str(), ask.action, ask.name).map(|cell| cell.visible),
        };
        let first: Vec<Option<bool>> = asks.iter().map(known).collect();
        if first.iter().all(Option::is_some) {
            return first.into_iter().map(|shown| shown == Some(true)).collect();
        }
        let missing: Vec<&Ask<'_>> =
            asks.iter().zip(&first).filter(|(_, shown)| shown.is_none()).map(|(ask, _)| ask).collect();
        class.fill(|table| self.fill(class, table, &missing));
        asks.iter().map(|ask| self.visible(class, ask)).collect()
    }

    /// Decides a listed item that was called before it was shown, so that only its first call asks Casbin.
    pub(super) fn remember(&self, class: &Class, ask: &Ask<'_>) {
        let known = class.table().get(ask.server.as_str(), ask.action, ask.name).is_some();
        if !known && self.reachable(class, ask).is_ok() {
            class.fill(|table| self.fill(class, table, &[ask]));
        }
    }

    /// Decides each missing item; items that the same rules mean share one cell.
    fn fill<'a>(
        &self,
        class: &Class,
        table: &super::class::Table,
        missing: &[&Ask<'a>],
    ) -> Vec<super::class::Entry<'a>> {
        let mut shared: HashMap<(usize, Vec<super::rule::RuleId>), Arc<Cell>> = HashMap::new();
        let mut cells = Vec::new();
        for ask in missing {
            let Ok(environment) = self.reachable(class, ask) else { continue };
            if table.get(ask.server.as_str(), ask.action, ask.name).is_some() {
                continue;
            }
            // Without an answer there is no cell: the item stays hidden, and is asked about again.
            let Ok(cell) = self.cell(class, environment, ask, true) else { continue };
            let rules: Vec<_> = cell
                .parts
                .iter()
                .flat_map(|part| part.rules.iter().copied().chain(std::iter::once(SEPARATOR)))
                .collect();
            let cell = Arc::clone(shared.entry((environment, rules)).or_insert_with(|| Arc::new(cell)));
            #[cfg(test)]
            let cell = if super::mutation::is(super::mutation::Mutation::TableMixesItems) {
                shared.values().next().map_or(cell, Arc::clone)
            } else {
                cell
            };
            cells.push(((ask.server.as_str(), ask.action, ask.name), cell));
        }
        cells
    }

    /// Decides one question.
    #[must_use]
    pub fn decide(
        &self,
        class: &Class,
        persona: &Persona,
        ask: &Ask<'_>,
        arguments: Arguments<'_>,
        now: Timestamp,
    ) -> Decision {
        self.decide_within(class, persona, ask, (arguments, now), &UNKNOWN)
    }

    /// The same with what else is known of the moment of the call.
    #[must_use]
    pub fn decide_within(
        &self,
        class: &Class,
        persona: &Persona,
        ask: &Ask<'_>,
        (arguments, now): (Arguments<'_>, Timestamp),
        situation: &Situation,
    ) -> Decision {
        let call = (arguments, now, situation);
        let environment = match self.reachable(class, ask) {
            Ok(environment) => environment,
            // Unknown groups and missing proof are told: the refusal is the same for every object.
            Err(refusal) => {
                let told = matches!(refusal.reason, Reason::GroupsUnavailable | Reason::ClientProofInsufficient);
                return Decision::refused(refusal, told);
            }
        };
        let table = class.table();
        let mut decision = match table.get(ask.server.as_str(), ask.action, ask.name) {
            Some(cell) => self.decide_cell(class, persona, environment, ask, cell, call),
            None => match self.cell(class, environment, ask, false) {
                Ok(cell) => self.decide_cell(class, persona, environment, ask, &cell, call),
                Err(error) => unavailable(&error, false),
            },
        };
        let refused_by_default =
            |refusal: &Refusal| matches!(refusal.reason, Reason::NotAllowed | Reason::ConditionUnmet);
        if inversion::is_off(Control::DefaultDeny) && decision.refusal.as_ref().is_some_and(refused_by_default)
            || inversion::is_off(Control::DenyWins)
                && decision.refusal.as_ref().is_some_and(|refusal| refusal.reason == Reason::DeniedByRule)
        {
            decision.refusal = None;
        }
        if decision.is_allowed()
            && let Some(refusal) = self.missing_scopes(persona, ask)
        {
            decision.refusal = Some(refusal);
        }
        decision
    }

    /// Whether what the caller has seen may matter to this question: only then is it looked up. Most policies have no such
    /// condition, and are asked no more than that.
    #[must_use]
    pub fn asks_what_was_seen(&self, caller: &Caller, ask: &Ask<'_>) -> bool {
        if self.seen_conditions.is_empty() {
            return false;
        }
        let reads = |index: usize| self.seen_conditions.contains(&index);
        if self.gates.conditions().iter().any(|index| reads(*index)) {
            return true;
        }
        let class = self.class_of(caller);
        let Ok(environment) = self.reachable(&class, ask) else { return false };
        let of_rules = |cell: &Cell| {
            cell.parts.iter().flat_map(|part| self.rules_of(&part.rules)).filter_map(|rule| rule.condition).any(reads)
        };
        match class.table().get(ask.server.as_str(), ask.action, ask.name) {
            Some(cell) => of_rules(cell),
            None => self.cell(&class, environment, ask, false).is_ok_and(|cell| of_rules(&cell)),
        }
    }

    /// Decides whether a class may follow a task that a call of this object became: as lists decide, because
    /// the arguments are not there any more, and with the scopes that the call needs. The rules are those
    /// that may have allowed.
    #[must_use]
    pub fn decide_following(&self, class: &Class, persona: &Persona, ask: &Ask<'_>) -> Decision {
        let environment = match self.reachable(class, ask) {
            Ok(environment) => environment,
            Err(refusal) => {
                let told = refusal.reason == Reason::GroupsUnavailable;
                return Decision::refused(refusal, told);
            }
        };
        let (table, found) = (class.table(), std::cell::OnceCell::new());
        let cell = match table.get(ask.server.as_str(), ask.action, ask.name) {
            Some(cell) => cell,
            None => match self.cell(class, environment, ask, false) {
                Ok(cell) => found.get_or_init(|| cell),
                Err(error) => return unavailable(&error, false),
            },
        };
        let values: Values<'_> = &|condition| self.known(class, condition);
        if !cell.visible {
            return Decision::refused(self.refusal(&cell.parts, values, true), false);
        }
        let mut rules: Vec<Arc<str>> = Vec::new();
        for rule in cell.parts.iter().flat_map(|part| self.rules_of(&part.rules)) {
            let may = rule.effect == Effect::Allow && applies(rule.effect, rule_value(rule, values), true);
            if may && !rules.contains(&rule.place) {
                rules.push(Arc::clone(&rule.place));
            }
        }
        let refusal = self.missing_scopes(persona, ask);
        Decision { refusal, visible: true, rules: rules.into(), conditions: Vec::new() }
    }

    /// Decides whether somebody who was authenticated at the administrators' listener may do this; answers the rules
    /// that allow it.
    ///
    /// # Errors
    /// The refusal. An operation is never hidden: the list of them is public.
    pub fn authorize_operation(
        &self,
        caller: &Caller,
        operation: AdminOperation,
        now: Timestamp,
    ) -> Result<Arc<[Arc<str>]>, Refusal> {
        let class = self.class_of(caller);
        let ask = self.operation(operation.name());
        let decision = self.decide(&class, caller.persona(), &ask, Arguments::None, now);
        decision.refusal.map_or(Ok(decision.rules), Err)
    }

    /// Whether a caller may open a mandate of this template; answers the rules that allow it.
    ///
    /// # Errors
    /// The refusal. Templates are not hidden from whoever knows their name.
    pub fn authorize_mandate(
        &self,
        caller: &Caller,
        template: &TemplateName,
        now: Timestamp,
    ) -> Result<Arc<[Arc<str>]>, Refusal> {
        let class = self.class_of(caller);
        let operation = mandate_operation(template);
        let decision = self.decide(&class, caller.persona(), &self.operation(&operation), Arguments::None, now);
        decision.refusal.map_or(Ok(decision.rules), Err)
    }

    fn decide_cell(
        &self,
        class: &Class,
        persona: &Persona,
        environment: usize,
        ask: &Ask<'_>,
        cell: &Cell,
        (arguments, now, situation): (Arguments<'_>, Timestamp, &Situation),
    ) -> Decision {
        #[cfg(test)]
        if super::mutation::is(super::mutation::Mutation::TableTakesDependsForAllow) && cell.settled.is_none() {
            return Decision { refusal: None, visible: true, rules: Arc::from([]), conditions: Vec::new() };
        }
        match &cell.settled {
            Some(Settled::Allowed(rules)) => {
                return Decision { refusal: None, visible: true, rules: Arc::clone(rules), conditions: Vec::new() };
            }
            Some(Settled::Refused(refusal)) => return Decision::refused(refusal.clone(), cell.visible),
            None => {}
        }
        let facts = Facts::new(persona, arguments, now).within(situation);
        let read = self.read_conditions(cell, &facts);
        let values: Values<'_> = &|condition| {
            let found = read.iter().find(|(index, _)| *index == condition);
            found.map_or_else(|| self.known(class, condition), |(_, record)| (record.as_allow, record.as_deny))
        };
        let mut refused = false;
        for (position, part) in cell.parts.iter().enumerate() {
            refused |= match part.shape.verdict {
                Verdict::Allow => false,
                Verdict::Refuse => true,
                Verdict::Depends => match self.settle(class, position, environment, ask, part, values) {
                    Ok(allowed) => !allowed,
                    Err(error) => return unavailable(&error, cell.visible),
                },
            };
        }
        let mut decision = if refused {
            Decision::refused(self.refusal(&cell.parts, values, false), cell.visible)
        } else {
            let rules = self.deciding(&cell.parts, values);
            Decision { refusal: None, visible: true, rules, conditions: Vec::new() }
        };
        decision.conditions = read.into_iter().map(|(_, record)| record).collect();
        decision
    }

    fn read_conditions(&self, cell: &Cell, facts: &Facts<'_>) -> Vec<(usize, ConditionRecord)> {
        let mut open: Vec<usize> = cell.parts.iter().flat_map(|part| part.shape.open.iter().copied()).collect();
        // Rules whose condition is known before the call keep that value; the others are read again.
        open.extend(cell.parts.iter().flat_map(|part| self.rules_of(&part.rules)).filter_map(|rule| rule.condition));
        open.sort_unstable();
        open.dedup();
        open.into_iter()
            .filter_map(|index| {
                let condition = self.conditions.get(index)?;
                let record = ConditionRecord {
                    name: condition.name.to_string(),
                    as_allow: condition.value(facts, Quantifier::Every),
                    as_deny: condition.value(facts, Quantifier::Any),
                    read: condition.values_read(facts),
                };
                Some((index, record))
            })
            .collect()
    }

    /// The environment's index, if this class can reach the server's environment at all.
    pub(super) fn reachable(&self, class: &Class, ask: &Ask<'_>) -> Result<usize, Refusal> {
        if let Some(blocked) = &class.blocked {
            return Err(blocked.clone());
        }
        let environment = self
            .environments
            .of_server(ask.server.as_str())
            .filter(|index| self.environments.names.get(*index).is_some_and(|name| **name == *ask.environment.as_str()))
            .ok_or_else(|| Refusal::new(Reason::NotAllowed))?;
        // Agents need no leave for the gateway's own operations: rules decide about those.
        let reached = class.environments.contains(environment) || ask.server.as_str() == GATEWAY_SERVER;
        if reached { Ok(environment) } else { Err(Refusal::new(Reason::EnvironmentRefused)) }
    }

    /// The rules that allowed, over all subjects.
    pub(super) fn deciding(&self, parts: &[Part], values: Values<'_>) -> Arc<[Arc<str>]> {
        let mut rules: Vec<Arc<str>> = Vec::new();
        for rule in parts.iter().flat_map(|part| self.rules_of(&part.rules)) {
            let allows = rule.effect == Effect::Allow && applies(rule.effect, rule_value(rule, values), false);
            if allows && !rules.contains(&rule.place) {
                rules.push(Arc::clone(&rule.place));
            }
        }
        rules.into()
    }

    /// Why the parts do not all allow: a deny first, then an unmet condition, then nothing at all. `at_best`
    /// counts open conditions for the call, so that what is named is sure.
    pub(super) fn refusal(&self, parts: &[Part], values: Values<'_>, at_best: bool) -> Refusal {
        let all = || parts.iter().flat_map(|part| self.rules_of(&part.rules));
        let denies =
            |rule: &&Rule| rule.effect == Effect::Deny && applies(rule.effect, rule_value(rule, values), at_best);
        if let Some(rule) = all().find(denies) {
            return Refusal::new(Reason::DeniedByRule).rule(rule.place.to_string());
        }
        for part in parts {
            let mut allows = self.rules_of(&part.rules).filter(|rule| rule.effect == Effect::Allow).peekable();
            if allows.peek().is_none() {
                return Refusal::new(Reason::NotAllowed);
            }
            let rules: Vec<&Rule> = allows.collect();
            if rules.iter().any(|rule| applies(rule.effect, rule_value(rule, values), at_best)) {
                continue;
            }
            let Some(rule) = rules.first() else { continue };
            let refusal = Refusal::new(Reason::ConditionUnmet).rule(rule.place.to_string());
            let condition = rule.condition.and_then(|index| self.conditions.get(index));
            return match condition {
                Some(condition) => match &condition.hint {
                    Some(hint) => refusal.hint(hint.clone()),
                    None => refusal
                        .hint(format!("this is allowed only when {condition}").chars().take(300).collect::<String>()),
                },
                None => refusal,
            };
        }
        Refusal::new(Reason::NotAllowed)
    }
}

/// Keeps the rules of one subject apart from the next one's when cells are shared.
const SEPARATOR: super::rule::RuleId = super::rule::RuleId(u32::MAX);

fn unavailable(error: &NoAnswer, visible: bool) -> Decision {
    tracing::error!(error = %error.0, "the policy could not decide; refused");
    Decision::refused(Refusal::new(Reason::PolicyUnavailable), visible)
}
