//! Whether a class could be shown anything of a server at all: read from rules alone, before it listed anything.
//!
//! Over-approximates, and decides nothing: items are decided one by one. Invariant: a server of which
//! something would be visible is never left out.

use std::collections::{HashMap, HashSet};

use foldhash::quality::RandomState;

use super::class::Class;
use super::object::{PatternKind, server_matches};
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

    /// Whether some rule that allows this class something names the server itself, not by a pattern: to one of
    /// its subjects is enough, because what an agent's administrator wrote down is no secret of the agent's user.
    #[must_use]
    pub fn names(&self, class: &Class, server: &ServerId) -> bool {
        let Some(environment) = self.environments.of_server(server.as_str()) else { return false };
        class.slices.iter().any(|slice| {
            let names = slice.environments.get(environment).map_or(&[][..], |reach| &reach.names);
            self.rules.iter().any(|rule| {
                rule.effect == Effect::Allow
                    && rule.environments.contains(environment)
                    && rule.object.server() == server.as_str()
                    && names.contains(&rule.subject_id)
            })
        })
    }

    fn reach(&self, class: &Class) -> HashSet<ServerId, RandomState> {
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
            let reaches = |pattern: &&str| match pattern.split_once('/') {
                // A set of every server's means only those with something in it.
                Some(_) => self.index.is_in_set(server.as_str(), pattern),
                None => server_matches(server.as_str(), pattern),
            };
            patterns.iter().all(|of_slice| of_slice.iter().any(reaches))
        });
        shown.map(|(server, _)| server.clone()).collect()
    }

    /// For each slice, the server parts of the rules that allow something in an environment; whole, where the
    /// rule is about a set of every server's.
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
                    let of_every_server = rule.object.kind == PatternKind::Set && !rule.object.names_one_server();
                    patterns.insert(if of_every_server { &rule.object.text } else { rule.object.server() });
                }
            }
        }
        patterns.into_iter().map(|patterns| patterns.into_iter().collect()).collect()
    }
}
