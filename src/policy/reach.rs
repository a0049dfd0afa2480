//! Whether a class could be shown anything of a server at all: read from rules alone, before it listed anything.
//!
//! Over-approximates, and decides nothing: items are decided one by one. Invariant: a server of which
//! something would be visible is never left out.

use std::collections::{HashMap, HashSet};

use super::class::Class;
use super::object::server_matches;
use super::role::NameId;
use super::rule::Effect;
use super::{Policy, World};
use crate::ids::ServerId;

impl Policy {
    /// Whether some rule may let this class see something of the server. Costs a hash lookup once the class
    /// was asked about any server.
    #[must_use]
    pub fn may_see(&self, class: &Class, server: &ServerId) -> bool {
        class.reach.get_or_init(|| self.reach(class)).contains(server)
    }

    fn reach(&self, class: &Class) -> HashSet<ServerId> {
        if class.blocked.is_some() || class.slices.is_empty() {
            // Nothing is decided for them; the refusal is told by whoever asks for a decision.
            return self.world.servers.iter().map(|(server, _)| server.clone()).collect();
        }
        let mut of_environment: HashMap<usize, Vec<Vec<&str>>> = HashMap::new();
        let World { servers, .. } = &self.world;
        let shown = servers.iter().filter(|(server, environment)| {
            let Some(environment) = self.environments.index(environment.as_str()) else { return false };
            if !class.environments.contains(environment) {
                return false;
            }
            let patterns = of_environment.entry(environment).or_insert_with(|| self.patterns(class, environment));
            patterns.iter().all(|of_slice| of_slice.iter().any(|pattern| server_matches(server.as_str(), pattern)))
        });
        shown.map(|(server, _)| server.clone()).collect()
    }

    /// For each slice, the server parts of the rules that allow something in an environment.
    fn patterns(&self, class: &Class, environment: usize) -> Vec<Vec<&str>> {
        let names: Vec<HashSet<NameId>> = class
            .slices
            .iter()
            .map(|slice| {
                slice
                    .environments
                    .get(environment)
                    .map_or_else(HashSet::new, |reach| reach.names.iter().copied().collect())
            })
            .collect();
        let mut patterns: Vec<HashSet<&str>> = vec![HashSet::new(); names.len()];
        for rule in &self.rules {
            if rule.effect != Effect::Allow || !rule.environments.contains(environment) {
                continue;
            }
            for (names, patterns) in names.iter().zip(&mut patterns) {
                if names.contains(&rule.subject_id) {
                    patterns.insert(rule.object.server());
                }
            }
        }
        patterns.into_iter().map(|patterns| patterns.into_iter().collect()).collect()
    }
}
