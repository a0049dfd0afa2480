//! Casbin: the only file that names it.
//!
//! Decides what Casbin is told and what its answer is worth. `policies/model.conf` must be the expected
//! model, because a slip there (a column named `effect`, an unanchored matcher) fails open. Enforcers are
//! small: each question brings its own rows and links. Invariant: an error, a panic or a question without
//! rows is never an *allow*.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use casbin::function_map::OperatorFunction;
use casbin::rhai::Dynamic;
use casbin::{CoreApi, DefaultModel, Enforcer, NullAdapter};
use futures_util::FutureExt as _;

use super::condition::Truth;
use super::object;
use super::rule::Effect;
use super::source::Mistake;
use crate::limit::ENFORCERS_IDLE_MAX;

/// Section, key and value of everything that the model must say.
const MODEL: &[(&str, &str, &str)] = &[
    ("request_definition", "r", "subject, environment, object, action, conditions"),
    ("policy_definition", "p", "subject, environment, object, action, condition, eft"),
    ("role_definition", "g", "_, _, _"),
    ("role_definition", "g2", "_, _"),
    ("policy_effect", "e", "some(where (p.eft == allow)) && !some(where (p.eft == deny))"),
    (
        "matchers",
        "m",
        "r.environment == p.environment && r.action == p.action && (p.subject == \"anyone\" || \
         g(r.subject, p.subject, r.environment)) && (means(r.object, p.object, r.action) || \
         g2(r.object, p.object)) && holds(r.conditions, p.condition, p.eft)",
    ),
];

/// Who asks, in every slice: classes are shared, so the caller's own names become links of this one.
pub(super) const CALLER: &str = "caller";

/// Finds out whether a model file says exactly what it must.
pub(super) fn check(file: &str, text: &str, mistakes: &mut Vec<Mistake>) {
    let mut section = String::new();
    let mut seen = Vec::new();
    let squeeze = |text: &str| text.split_whitespace().collect::<String>();
    for (line, number) in text.lines().zip(1_u32..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.to_owned();
            continue;
        }
        let (key, value) = line.split_once('=').map_or((line, ""), |(key, value)| (key.trim(), value.trim()));
        let Some((_, _, expected)) = MODEL.iter().find(|(known, name, _)| *known == section && *name == key) else {
            mistakes.push(Mistake::at(file, number, 1, format!("`{key}` does not belong into [{section}]; remove it")));
            continue;
        };
        if squeeze(value) != squeeze(expected) {
            mistakes.push(Mistake::at(file, number, 1, format!("the model is fixed; write {key} = {expected}")));
        }
        if seen.contains(&(section.clone(), key.to_owned())) {
            mistakes.push(Mistake::at(file, number, 1, format!("`{key}` is defined twice; remove one")));
        }
        seen.push((section.clone(), key.to_owned()));
    }
    for (section, key, expected) in MODEL {
        if !seen.iter().any(|(known, name)| known == section && name == key) {
            mistakes.push(Mistake::file(file, format!("[{section}] is incomplete; write {key} = {expected}")));
        }
    }
}

/// One row as Casbin gets it: the six columns.
pub(super) type Row = [Arc<str>; 6];

/// The rows and links that bear on some questions.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    pub(super) rules: &'a [Row],
    /// `g`: member, role, environment.
    pub(super) links: &'a [(Arc<str>, Arc<str>, Arc<str>)],
    /// `g2`: object, set.
    pub(super) sets: &'a [(Arc<str>, Arc<str>)],
}

/// One question: subject, environment, object, action, conditions.
pub(super) type Question<'a> = [&'a str; 5];

/// Why there is no answer; refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoAnswer(pub(super) String);

/// Enforcers that wait for a question, all of the same model.
pub(super) struct Casbin {
    model: String,
    idle: Mutex<Vec<Enforcer>>,
}

impl std::fmt::Debug for Casbin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Casbin").finish_non_exhaustive()
    }
}

impl Casbin {
    /// Loads a model that [`check`] accepted.
    pub(super) fn load(model: &str) -> Result<Self, NoAnswer> {
        let casbin = Self { model: model.to_owned(), idle: Mutex::new(Vec::new()) };
        let first = casbin.enforcer()?;
        casbin.put_back(first);
        Ok(casbin)
    }

    /// Casbin's answer to each question, over the same rows.
    pub(super) fn ask(&self, rows: &Rows<'_>, questions: &[Question<'_>]) -> Result<Vec<bool>, NoAnswer> {
        if rows.rules.is_empty() {
            // Casbin evaluates its matcher once against empty columns then, and could allow.
            return Ok(vec![false; questions.len()]);
        }
        let mut enforcer = self.take().map_or_else(|| self.enforcer(), Ok)?;
        // A panic leaves the enforcer outside of the pool, so nothing half-done is used again.
        let answers = catch_unwind(AssertUnwindSafe(|| {
            load(&mut enforcer, rows)?;
            questions.iter().map(|question| enforce(&enforcer, question)).collect()
        }));
        match answers {
            Ok(answers) => {
                self.put_back(enforcer);
                answers
            }
            Err(_) => Err(NoAnswer("casbin panicked".to_owned())),
        }
    }

    fn take(&self) -> Option<Enforcer> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put_back(&self, enforcer: Enforcer) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < ENFORCERS_IDLE_MAX {
            idle.push(enforcer);
        }
    }

    fn enforcer(&self) -> Result<Enforcer, NoAnswer> {
        let refuse = |error: casbin::Error| NoAnswer(error.to_string());
        let pending = || NoAnswer("casbin waited for something".to_owned());
        // Both futures only ever touch memory.
        let model = DefaultModel::from_str(&self.model).now_or_never().ok_or_else(pending)?.map_err(refuse)?;
        let mut enforcer = Enforcer::new_raw(model, NullAdapter).now_or_never().ok_or_else(pending)?.map_err(refuse)?;
        enforcer.add_function("means", OperatorFunction::Arg3(means));
        enforcer.add_function("holds", OperatorFunction::Arg3(holds_for_casbin));
        Ok(enforcer)
    }
}

fn load(enforcer: &mut Enforcer, rows: &Rows<'_>) -> Result<(), NoAnswer> {
    let roles = enforcer.get_role_manager();
    {
        let mut roles = roles.write();
        roles.clear();
        for (member, role, environment) in rows.links {
            roles.add_link(member, role, Some(environment));
        }
        for (object, set) in rows.sets {
            roles.add_link(object, set, None);
        }
    }
    let policy = enforcer.get_mut_model().get_mut_model().get_mut("p").and_then(|section| section.get_mut("p"));
    let policy = policy.ok_or_else(|| NoAnswer("the model has no p".to_owned()))?.get_mut_policy();
    policy.clear();
    for rule in rows.rules {
        policy.insert(rule.iter().map(|cell| cell.to_string()).collect());
    }
    Ok(())
}

fn enforce(enforcer: &Enforcer, question: &Question<'_>) -> Result<bool, NoAnswer> {
    let request: Vec<String> = question.iter().map(|part| (*part).to_owned()).collect();
    enforcer.enforce(request).map_err(|error| NoAnswer(error.to_string()))
}

/// `means(object, pattern, action)` of the matcher. What is not text makes the matcher fail, which refuses.
fn means(object: Dynamic, pattern: Dynamic, action: Dynamic) -> Dynamic {
    #[cfg(test)]
    if super::mutation::trouble() {
        return Dynamic::UNIT;
    }
    let (Ok(object), Ok(pattern), Ok(action)) =
        (object.into_immutable_string(), pattern.into_immutable_string(), action.into_immutable_string())
    else {
        return Dynamic::UNIT;
    };
    object::matches(&object, &pattern, object::crosses(&action)).into()
}

/// `holds(conditions, condition, effect)` of the matcher.
fn holds_for_casbin(conditions: Dynamic, condition: Dynamic, effect: Dynamic) -> Dynamic {
    let (Ok(conditions), Ok(condition), Ok(effect)) =
        (conditions.into_immutable_string(), condition.into_immutable_string(), effect.into_immutable_string())
    else {
        return Dynamic::UNIT;
    };
    holds(&conditions, &condition, &effect).into()
}

/// What Casbin is told about conditions: words `EFFECT:NAME=VALUE`; what is not mentioned is unknown.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(String);

impl Known {
    /// Unknown conditions count against the call.
    pub(super) fn surely() -> Self {
        Self(" ".to_owned())
    }

    /// Unknown conditions count for the call: what could be allowed at best.
    pub(super) fn at_best() -> Self {
        Self(" ? ".to_owned())
    }

    /// Adds what is known of a condition, as rules with this effect read it.
    pub(super) fn add(&mut self, effect: Effect, name: &str, value: Truth) {
        if value != Truth::Unknown {
            self.0.push_str(&format!("{}:{name}={value} ", effect.as_str()));
        }
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

fn holds(conditions: &str, condition: &str, effect: &str) -> bool {
    if condition == "-" {
        return true;
    }
    let says = |value: &str| conditions.contains(&format!(" {effect}:{condition}={value} "));
    let at_best = conditions.starts_with(" ? ");
    match (effect, at_best) {
        ("allow", false) | ("deny", true) => says("true"),
        _ => !says("false"),
    }
}

/// The same meaning for one rule, to name the rule that decided and to cross-check Casbin.
pub(super) const fn applies(effect: Effect, value: Truth, at_best: bool) -> bool {
    match (effect, at_best) {
        (Effect::Allow, false) | (Effect::Deny, true) => matches!(value, Truth::True),
        (Effect::Allow, true) | (Effect::Deny, false) => !matches!(value, Truth::False),
    }
}
