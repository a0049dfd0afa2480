//! What only shows when all rows are known: circles, roles that nobody has, rows that never matter.
//!
//! Decides which policies may be served. A row that a deny shadows is only a warning: at three in the
//! morning `p, anyone, *, */*, call, -, deny` must load. Invariant: a policy without any allow is not served.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::condition::Condition;
use super::label::Labels;
use super::load::{Loaded, set_exists};
use super::object::PatternKind;
use super::rule::{Effect, Rule};
use super::source::Mistake;
use super::world::World;
use crate::ids::Action;
use crate::limit::ROLE_DEPTH_MAX;

/// Labels and flows are judged without what was seen; and where labels are not kept, nothing is ever known to be seen.
pub(super) fn situations(conditions: &[Condition], labels: Option<&Labels>, mistakes: &mut Vec<Mistake>) {
    let mut refuse = |condition: &Condition, why: &str| {
        let message = format!("the condition `{}` reads {why}", condition.name());
        mistakes.push(Mistake::file("conditions.toml", message));
    };
    let used: Vec<usize> = labels.into_iter().flat_map(Labels::conditions).collect();
    for (index, condition) in conditions.iter().enumerate() {
        if labels.is_none() && condition.reads_seen() {
            refuse(condition, "what was seen, and labels are not kept: write policies/labels.toml");
        }
        if used.contains(&index) && condition.reads_situation() {
            refuse(condition, "the mandate or what was seen: neither [[label]] nor [[flow]] can be under it");
        }
    }
}

/// A gate that is there for flows and that none of them names stops nothing, which nobody who wrote it means.
pub(super) fn flow_gates(world: &World, labels: Option<&Labels>, mistakes: &mut Vec<Mistake>) {
    let is_asked = |name: &str| labels.is_some_and(|labels| labels.asks(name));
    for gate in world.gates.iter().filter(|gate| gate.flows && !is_asked(&gate.name)) {
        let message = format!("gate `{}` stops nothing: no [[flow]] of labels.toml names it with `gate`", gate.name);
        mistakes.push(Mistake::file("gates.toml", message));
    }
}

/// Finds mistakes and warnings in everything that was loaded.
pub(super) fn lint(
    loaded: &Loaded,
    conditions: &[Condition],
    elsewhere: &[usize],
    mistakes: &mut Vec<Mistake>,
    warnings: &mut Vec<Mistake>,
) {
    if let Some((_, message)) = loaded.graph.lint() {
        mistakes.push(Mistake::file(super::load::ROOT, message));
    }
    if let Some(message) = circular_set(loaded) {
        mistakes.push(Mistake::file(super::load::ROOT, message));
    }
    if !loaded.rules.iter().any(|rule| rule.effect == Effect::Allow) {
        let message = "no row allows anything; the file may be cut short, so it is not served";
        mistakes.push(Mistake::file(super::load::ROOT, message));
    }
    for rule in &loaded.rules {
        if rule.subject.starts_with("role:") && !loaded.held_roles.contains_key(&*rule.subject) {
            let message =
                format!("nobody has `{}`; give it with a g row or default_roles, or fix the name", rule.subject);
            mistakes.push(at(rule, message));
        }
        if rule.object.kind == PatternKind::Set && !set_exists(&loaded.sets, &rule.object) {
            let message =
                format!("nothing is in `{}`; put names into it with g2 rows, or fix the name", rule.object.text);
            mistakes.push(at(rule, message));
        }
    }
    roles_without_rules(loaded, warnings);
    repeated_and_shadowed(&loaded.rules, warnings);
    open_arguments(loaded, conditions, warnings);
    let used: HashSet<usize> =
        loaded.rules.iter().filter_map(|rule| rule.condition).chain(elsewhere.iter().copied()).collect();
    for (index, condition) in conditions.iter().enumerate() {
        if !used.contains(&index) && loaded.inert == 0 && !condition.is_part_of_another() {
            let message = format!("no rule, gate or label uses the condition `{}`", condition.name);
            warnings.push(Mistake::file("conditions.toml", message));
        }
    }
}

fn at(rule: &Rule, message: impl Into<String>) -> Mistake {
    Mistake::at(rule.file(), rule.line, 1, message)
}

fn roles_without_rules(loaded: &Loaded, warnings: &mut Vec<Mistake>) {
    let spoken_of: HashSet<&str> = loaded.rules.iter().map(|rule| &*rule.subject).collect();
    for (role, place) in &loaded.held_roles {
        let leads_on = loaded.graph.id(role).is_some_and(|id| !loaded.graph.links(id).is_empty());
        if !spoken_of.contains(role.as_str()) && !leads_on {
            let (file, line) = place.clone().unwrap_or_else(|| ("servers.toml".to_owned(), 0));
            warnings.push(Mistake::at(
                &file,
                line,
                1,
                format!("no rule speaks about `{role}`; write one, or remove the role"),
            ));
        }
    }
}

/// Rows that say the same as another, and allows that an unconditional deny covers.
fn repeated_and_shadowed(rules: &[Rule], warnings: &mut Vec<Mistake>) {
    type Key<'a> = (&'a str, u64, &'a str, &'a Action, Option<usize>, Effect);
    let mut seen: HashMap<Key<'_>, &Rule> = HashMap::new();
    let mut denies: HashMap<(&str, &Action), Vec<&Rule>> = HashMap::new();
    for rule in rules {
        let key = (&*rule.subject, rule.environments.0, &*rule.object.text, &rule.action, rule.condition, rule.effect);
        if let Some(first) = seen.insert(key, rule) {
            warnings.push(at(rule, format!("the row says the same as {}; remove one", first.place)));
        }
        if rule.effect == Effect::Deny && rule.condition.is_none() {
            denies.entry((&rule.subject, &rule.action)).or_default().push(rule);
        }
    }
    for rule in rules.iter().filter(|rule| rule.effect == Effect::Allow) {
        let denying = [&*rule.subject, "anyone"]
            .into_iter()
            .filter_map(|subject| denies.get(&(subject, &rule.action)))
            .flatten()
            .find(|deny| rule.environments.0 & !deny.environments.0 == 0 && deny.object.covers(&rule.object));
        if let Some(deny) = denying {
            warnings.push(at(rule, format!("the row never matters: {} denies all of it, and deny wins", deny.place)));
        }
    }
}

/// Allows on tools that are not labelled `@read`, whose condition reads arguments but leaves their set open.
fn open_arguments(loaded: &Loaded, conditions: &[Condition], warnings: &mut Vec<Mistake>) {
    for rule in loaded.rules.iter().filter(|rule| rule.effect == Effect::Allow && rule.action == Action::Call) {
        let Some(condition) = rule.condition.and_then(|index| conditions.get(index)) else { continue };
        let reads_only = rule.object.name() == "@read"
            || (rule.object.kind == PatternKind::Exact
                && loaded
                    .sets
                    .get(&rule.object.text)
                    .is_some_and(|sets| sets.iter().any(|set| set.ends_with("/@read"))));
        if condition.leaves_arguments_open() && !reads_only {
            let message = format!("`{}` lets any further argument through; add only = [...] to it", condition.name);
            warnings.push(at(rule, message));
        }
    }
}

/// A set that is in itself, or in sets deeper than Casbin follows.
fn circular_set(loaded: &Loaded) -> Option<String> {
    let walk = |start: &Arc<str>| {
        let mut reached = vec![Arc::clone(start)];
        for _ in 0..=ROLE_DEPTH_MAX {
            reached = reached.iter().filter_map(|set| loaded.sets.get(set)).flatten().cloned().collect();
            reached.sort_unstable();
            reached.dedup();
            if reached.contains(start) {
                return Some(true);
            }
        }
        (!reached.is_empty()).then_some(false)
    };
    let mut names: Vec<&Arc<str>> = loaded.sets.keys().collect();
    names.sort_unstable();
    if let Some(name) = names.iter().find(|name| walk(name) == Some(true)) {
        return Some(format!("the set `{name}` is in itself; remove one of the g2 rows of the circle"));
    }
    let name = names.iter().find(|name| walk(name) == Some(false))?;
    Some(format!("`{name}` is in sets more than {ROLE_DEPTH_MAX} deep; flatten them"))
}
