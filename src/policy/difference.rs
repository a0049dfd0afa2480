//! What changes between two policies: the rows that come and go, and whether somebody may do more afterwards.
//!
//! Decides only by rows: it may call a change widening that turns out not to be, never the other way round.

use std::collections::BTreeSet;

use super::Policy;
use super::rule::Effect;
use super::world::World;

/// What changes between two policies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Rules that are new, as sentences.
    pub added: Vec<String>,
    /// Rules that are gone, as sentences.
    pub removed: Vec<String>,
    /// Whether an allow was added, a deny removed, or anything changed that is not a rule: then somebody may
    /// be able to do more.
    pub widens: bool,
}

impl Policy {
    /// What changes from this policy to another one.
    #[must_use]
    pub fn difference(&self, next: &Self) -> Difference {
        let sentences = |policy: &Self, effect: Effect| -> BTreeSet<String> {
            let rules = policy.rules().iter().filter(|rule| rule.effect() == effect);
            rules.map(|rule| rule.to_string()).collect()
        };
        let (old_allows, new_allows) = (sentences(self, Effect::Allow), sentences(next, Effect::Allow));
        let (old_denies, new_denies) = (sentences(self, Effect::Deny), sentences(next, Effect::Deny));
        let minus = |one: &BTreeSet<String>, other: &BTreeSet<String>| -> Vec<String> {
            one.difference(other).cloned().collect()
        };
        let added: Vec<_> = [minus(&new_allows, &old_allows), minus(&new_denies, &old_denies)].concat();
        let removed: Vec<_> = [minus(&old_allows, &new_allows), minus(&old_denies, &new_denies)].concat();
        let only_narrows = new_allows.is_subset(&old_allows) && old_denies.is_subset(&new_denies);
        // Roles, sets, conditions and the world decide too; where they differ, sentences do not tell.
        let world = |policy: &Self| {
            format!("{:?}", World { gates: Vec::new(), emergency_roles: Vec::new(), ..policy.world.clone() })
        };
        // One gate more is a brake.
        let same_words = self.words == next.words && world(self) == world(next) && self.gates_stand_in(next);
        Difference { added, removed, widens: !(only_narrows && same_words) }
    }
}
