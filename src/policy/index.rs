//! Finds the rules that may speak about an object, without asking Casbin about all of them.
//!
//! Selects candidates and decides nothing: Casbin gets them and says what they amount to. Invariant: a rule
//! that Casbin would match is always a candidate.

use std::collections::HashMap;
use std::sync::Arc;

use super::object::{self, PatternKind};
use super::role::NameId;
use super::rule::{Rule, RuleId};
use crate::ids::Action;

/// Rules by subject, action and object.
#[derive(Debug, Default)]
pub(super) struct Index {
    names: Vec<HashMap<Action, ByObject>>,
    /// Object or set, and the sets that it is directly in.
    sets: HashMap<Arc<str>, Vec<Arc<str>>>,
}

#[derive(Debug, Default)]
struct ByObject {
    exact: HashMap<Arc<str>, Vec<RuleId>>,
    sets: HashMap<Arc<str>, Vec<RuleId>>,
    /// Patterns by the server that they name; under `*` those that name several.
    globs: HashMap<Arc<str>, Vec<RuleId>>,
}

impl Index {
    pub(super) fn of(rules: &[Rule], names: usize, sets: HashMap<Arc<str>, Vec<Arc<str>>>) -> Self {
        let mut by_name: Vec<HashMap<Action, ByObject>> = Vec::new();
        by_name.resize_with(names, HashMap::new);
        for (rule, id) in rules.iter().zip((0..).map(RuleId)) {
            let Some(actions) = by_name.get_mut(rule.subject_id.0 as usize) else { continue };
            let by_object = actions.entry(rule.action.clone()).or_default();
            let (map, key) = match rule.object.kind {
                PatternKind::Exact => (&mut by_object.exact, Arc::clone(&rule.object.text)),
                PatternKind::Set => (&mut by_object.sets, Arc::clone(&rule.object.text)),
                PatternKind::Glob if rule.object.names_one_server() => {
                    (&mut by_object.globs, Arc::from(rule.object.server()))
                }
                PatternKind::Glob => (&mut by_object.globs, Arc::from("*")),
            };
            map.entry(key).or_default().push(id);
        }
        Self { names: by_name, sets }
    }

    /// Whether any rule speaks about the name.
    pub(super) fn speaks_about(&self, name: NameId) -> bool {
        self.names.get(name.0 as usize).is_some_and(|actions| !actions.is_empty())
    }

    /// The sets that an object is in, and the links that lead there.
    pub(super) fn sets_of(&self, object: &str) -> Vec<(Arc<str>, Arc<str>)> {
        let mut links: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        let Some((object, first)) = self.sets.get_key_value(object) else { return links };
        links.extend(first.iter().map(|set| (Arc::clone(object), Arc::clone(set))));
        let mut next = 0;
        while let Some((_, set)) = links.get(next).cloned() {
            next += 1;
            for further in self.sets.get(&set).into_iter().flatten() {
                let link = (Arc::clone(&set), Arc::clone(further));
                if !links.contains(&link) {
                    links.push(link);
                }
            }
        }
        links
    }

    /// The rules about any of these names that may mean the object, in the order of the files.
    pub(super) fn candidates(
        &self,
        rules: &[Rule],
        names: &[NameId],
        environment: usize,
        object: &str,
        sets: &[(Arc<str>, Arc<str>)],
        action: &Action,
    ) -> Vec<RuleId> {
        let server = object.split_once('/').map_or("", |(server, _)| server);
        let crossing = object::crosses(crossing_name(action));
        let mut found: Vec<RuleId> = Vec::new();
        for name in names {
            let Some(by_object) = self.names.get(name.0 as usize).and_then(|actions| actions.get(action)) else {
                continue;
            };
            found.extend(by_object.exact.get(object).into_iter().flatten());
            if !by_object.sets.is_empty() {
                found.extend(sets.iter().filter_map(|(_, set)| by_object.sets.get(set)).flatten());
            }
            for globs in [by_object.globs.get(server), by_object.globs.get("*")].into_iter().flatten() {
                let means = |id: &&RuleId| {
                    rules.get(id.0 as usize).is_some_and(|rule| object::matches(object, &rule.object.text, crossing))
                };
                found.extend(globs.iter().filter(means));
            }
        }
        found.retain(|id| rules.get(id.0 as usize).is_some_and(|rule| rule.environments.contains(environment)));
        found.sort_unstable();
        found.dedup();
        #[cfg(test)]
        super::mutation::candidates(rules, &mut found);
        found
    }
}

const fn crossing_name(action: &Action) -> &'static str {
    match action {
        Action::Read => "read",
        Action::Subscribe => "subscribe",
        Action::Complete => "complete",
        _ => "",
    }
}
