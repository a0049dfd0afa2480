//! What the rules of a slice amount to: *allow*, *refuse*, or *depends* on conditions.
//!
//! Casbin is asked twice, once with every open condition against the call and once for it. Rules that mean
//! an object count only by subject, condition and effect, so equal shapes share Casbin's answers. The same
//! rules are also read natively, to name the one that decided. Invariant: where the two readings differ
//! there is no answer, which refuses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::class::{Class, Slice};
use super::condition::Truth;
use super::model::{CALLER, Known, NoAnswer, Question, Row, Rows, applies};
use super::rule::{Effect, Rule, RuleId};
use super::{Ask, Policy};
use crate::inversion::{self, Control};
use crate::limit::CONDITION_ANSWERS_MAX;
use crate::outcome::Refusal;

/// What the rules of one shape amount to.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) verdict: Verdict,
    /// Open conditions, sorted; their values decide where the verdict depends.
    pub(super) open: Vec<usize>,
    answers: Mutex<HashMap<Vec<(Truth, Truth)>, bool>>,
}

/// Three values, as conditions have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Allowed whatever the arguments are.
    Allow,
    /// Refused whatever the arguments are.
    Refuse,
    /// The conditions of the rules decide.
    Depends,
}

/// What has been decided about one object, for the whole class.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) parts: Vec<Part>,
    /// The answer, where no condition is open.
    pub(super) settled: Option<Settled>,
    /// Whether lists show it.
    pub(super) visible: bool,
}

/// What has been decided about one object for one subject.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) shape: Arc<Shape>,
    pub(super) rules: Vec<RuleId>,
}

#[derive(Debug)]
pub(super) enum Settled {
    /// By these rules.
    Allowed(Arc<[Arc<str>]>),
    Refused(Refusal),
}

/// Values of conditions: as an allow reads it, and as a deny does.
pub(super) type Values<'a> = &'a dyn Fn(usize) -> (Truth, Truth);

impl Policy {
    /// What the rules of each slice say about an object. `remember` shares Casbin's answers between listed
    /// items; a URI that a client chose is decided alone.
    pub(super) fn cell(
        &self,
        class: &Class,
        environment: usize,
        ask: &Ask<'_>,
        remember: bool,
    ) -> Result<Cell, NoAnswer> {
        let object = super::object::object(ask.server.as_str(), ask.name);
        let sets = self.index.sets_of(&object);
        let mut parts = Vec::with_capacity(class.slices.len());
        for (position, slice) in class.slices.iter().enumerate() {
            let names = slice.environments.get(environment).map_or(&[][..], |reach| &reach.names);
            let rules = self.index.candidates(&self.rules, names, environment, &object, &sets, ask.action);
            let key = (position, environment, self.shape_of(&rules));
            let known = if remember { class.shape(&key) } else { None };
            let shape = match known {
                Some(shape) => shape,
                None => {
                    let shape = Arc::new(self.judge(class, slice, environment, &object, &sets, ask, &rules)?);
                    if remember {
                        class.remember(key, &shape);
                    }
                    shape
                }
            };
            parts.push(Part { shape, rules });
        }
        let visible = !parts.is_empty() && parts.iter().all(|part| part.shape.verdict != Verdict::Refuse);
        let open = parts.iter().any(|part| part.shape.verdict == Verdict::Depends);
        let settled = if !visible {
            Some(Settled::Refused(self.refusal(&parts, &|condition| self.known(class, condition), true)))
        } else if open {
            None
        } else {
            Some(Settled::Allowed(self.deciding(&parts, &|condition| self.known(class, condition))))
        };
        Ok(Cell { parts, settled, visible: visible || inversion::is_off(Control::DefaultDeny) })
    }

    pub(super) fn known(&self, class: &Class, condition: usize) -> (Truth, Truth) {
        class.known.get(condition).copied().unwrap_or((Truth::Unknown, Truth::Unknown))
    }

    fn shape_of(&self, rules: &[RuleId]) -> Vec<(super::role::NameId, Option<usize>, Effect)> {
        let mut shape: Vec<_> =
            self.rules_of(rules).map(|rule| (rule.subject_id, rule.condition, rule.effect)).collect();
        shape.sort_unstable();
        shape.dedup();
        shape
    }

    pub(super) fn rules_of<'a>(&'a self, rules: &'a [RuleId]) -> impl Iterator<Item = &'a Rule> {
        rules.iter().filter_map(|id| self.rules.get(id.0 as usize))
    }

    /// Asks Casbin what the rules amount to, with every open condition against the call and for it.
    #[expect(clippy::too_many_arguments, reason = "one question has this many parts")]
    fn judge(
        &self,
        class: &Class,
        slice: &Slice,
        environment: usize,
        object: &str,
        sets: &[(Arc<str>, Arc<str>)],
        ask: &Ask<'_>,
        rules: &[RuleId],
    ) -> Result<Shape, NoAnswer> {
        let values: Values<'_> = &|condition| self.known(class, condition);
        let mut open: Vec<usize> = self
            .rules_of(rules)
            .filter_map(|rule| {
                let condition = rule.condition?;
                (value(rule.effect, values(condition)) == Truth::Unknown).then_some(condition)
            })
            .collect();
        open.sort_unstable();
        open.dedup();
        let known = |mut known: Known| {
            self.tell(&mut known, rules, values);
            known.into_text()
        };
        let questions = [known(Known::surely()), known(Known::at_best())];
        let questions = if open.is_empty() { &questions[..1] } else { &questions[..] };
        let answers = self.ask_casbin(slice, environment, object, sets, ask, rules, questions)?;
        let surely = answers.first().copied().unwrap_or(false);
        let at_best = answers.last().copied().unwrap_or(false);
        let agree = surely == self.native(rules, values, false) && at_best == self.native(rules, values, true);
        if !agree && !super::is_mutated() {
            return Err(NoAnswer(format!("casbin and the slice disagree about {object}")));
        }
        let verdict = match (surely, at_best) {
            (true, true) => Verdict::Allow,
            (false, true) => Verdict::Depends,
            (_, false) => Verdict::Refuse,
        };
        Ok(Shape { verdict, open, answers: Mutex::default() })
    }

    /// Casbin's answer where it depends, now that the conditions have values.
    pub(super) fn settle(
        &self,
        class: &Class,
        position: usize,
        environment: usize,
        ask: &Ask<'_>,
        part: &Part,
        values: Values<'_>,
    ) -> Result<bool, NoAnswer> {
        let key: Vec<(Truth, Truth)> = part.shape.open.iter().map(|condition| values(*condition)).collect();
        if let Some(answer) = part.shape.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(*answer);
        }
        let slice = class.slices.get(position).ok_or_else(|| NoAnswer("the slice is gone".to_owned()))?;
        let object = super::object::object(ask.server.as_str(), ask.name);
        let sets = self.index.sets_of(&object);
        let mut known = Known::surely();
        self.tell(&mut known, &part.rules, values);
        let answers = self.ask_casbin(slice, environment, &object, &sets, ask, &part.rules, &[known.into_text()])?;
        let answer = answers.first().copied().unwrap_or(false);
        if answer != self.native(&part.rules, values, false) && !super::is_mutated() {
            return Err(NoAnswer(format!("casbin and the slice disagree about {object}")));
        }
        let mut answers = part.shape.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() < CONDITION_ANSWERS_MAX {
            answers.insert(key, answer);
        }
        Ok(answer)
    }

    fn tell(&self, known: &mut Known, rules: &[RuleId], values: Values<'_>) {
        let mut told: Vec<(Effect, usize)> = Vec::new();
        for rule in self.rules_of(rules) {
            if let Some(condition) = rule.condition
                && !told.contains(&(rule.effect, condition))
            {
                told.push((rule.effect, condition));
                known.add(rule.effect, &rule.condition_name, value(rule.effect, values(condition)));
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one question has this many parts")]
    fn ask_casbin(
        &self,
        slice: &Slice,
        environment: usize,
        object: &str,
        sets: &[(Arc<str>, Arc<str>)],
        ask: &Ask<'_>,
        rules: &[RuleId],
        conditions: &[String],
    ) -> Result<Vec<bool>, NoAnswer> {
        let reach = slice.environments.get(environment);
        let environment =
            self.environments.names.get(environment).ok_or_else(|| NoAnswer("no environment".to_owned()))?;
        let rules: Vec<Row> = self.rules_of(rules).map(|rule| rule.row(environment)).collect();
        let rows = Rows { rules: &rules, links: reach.map_or(&[][..], |reach| &reach.links), sets };
        let action = ask.action.to_string();
        let questions: Vec<Question<'_>> =
            conditions.iter().map(|conditions| [CALLER, environment, object, &action, conditions]).collect();
        self.casbin.ask(&rows, &questions)
    }

    /// The native reading of rules that mean the object.
    pub(super) fn native(&self, rules: &[RuleId], values: Values<'_>, at_best: bool) -> bool {
        let applying = |effect: Effect| {
            self.rules_of(rules)
                .filter(|rule| rule.effect == effect)
                .any(|rule| applies(effect, rule_value(rule, values), at_best))
        };
        applying(Effect::Allow) && !applying(Effect::Deny)
    }
}

/// The value of a rule's condition as the rule reads it; without one it is true.
pub(super) fn rule_value(rule: &Rule, values: Values<'_>) -> Truth {
    rule.condition.map_or(Truth::True, |condition| value(rule.effect, values(condition)))
}

const fn value(effect: Effect, (allow, deny): (Truth, Truth)) -> Truth {
    match effect {
        Effect::Allow => allow,
        Effect::Deny => deny,
    }
}
