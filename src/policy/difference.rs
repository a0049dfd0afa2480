//! What changes between two policies: the rows that come and go, and whether somebody may do more afterwards.
//!
//! Decides only by rows: it may call a change widening that turns out not to be, never the other way round. What somebody
//! takes away has to go in at once, with the rows that spoke of it: a deny about a server that is gone holds nothing back.

use std::collections::BTreeSet;

use super::object::{self, ObjectPattern};
use super::operation;
use super::rule::{Effect, Rule};
use super::world::{GATEWAY_SERVER, World};
use super::{Action, GATEWAY_ENVIRONMENT, Policy};
use crate::config::GateConfig;

/// What changes between two policies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Rules that are new, as sentences.
    pub added: Vec<String>,
    /// Rules that are gone, as sentences.
    pub removed: Vec<String>,
    /// Whether an allow was added, a deny removed, or anything changed that is not a rule and more than taken away: then
    /// somebody may be able to do more.
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
        let there = &next.world;
        let denies = self.rules().iter().filter(|rule| rule.effect() == Effect::Deny && there.may_have_rule(rule));
        let only_narrows =
            new_allows.is_subset(&old_allows) && denies.map(Rule::to_string).all(|deny| new_denies.contains(&deny));
        // Roles, sets and conditions decide too; where they differ, sentences do not tell.
        let left: BTreeSet<&Vec<String>> = self.links.iter().filter(|link| there.may_have_link(link)).collect();
        let same_words = self.words == next.words && left.into_iter().eq(&next.links);
        // One gate more is a brake.
        let gates_stand = self.world.gates.iter().all(|gate| there.gates.contains(gate) || !there.may_have_gate(gate));
        Difference {
            added,
            removed,
            widens: !(only_narrows && same_words && there.is_within(&self.world) && gates_stand),
        }
    }
}

impl World {
    /// Whether nothing exists here that does not exist there as it is, so that no row means more here than it does there.
    /// Who gets a role in an emergency, and which calls wait for somebody, is compared by others.
    fn is_within(&self, there: &Self) -> bool {
        let Self { environments, servers, issuers, agents, templates, strictness, emergency_roles: _, gates: _ } = self;
        environments.iter().all(|one| there.environments.contains(one))
            && servers.iter().all(|one| there.servers.contains(one))
            && issuers.iter().all(|one| there.issuers.contains(one))
            && agents.iter().all(|one| there.agents.iter().any(|other| one.may_no_more_than(other)))
            && templates.iter().all(|one| there.templates.contains(one))
            && *strictness == there.strictness
    }

    /// Whether such a rule could mean somebody and something here.
    fn may_have_rule(&self, rule: &Rule) -> bool {
        self.may_have_subject(&rule.subject) && self.may_have(&rule.object, &rule.environment)
    }

    fn may_have_link(&self, link: &[String]) -> bool {
        let cell = |index: usize| link.get(index).map_or("", String::as_str);
        match cell(0) {
            "g" => self.may_have_subject(cell(1)) && self.may_have_environment(cell(3)),
            _ => self.may_have_object(cell(1)),
        }
    }

    fn may_have_gate(&self, gate: &GateConfig) -> bool {
        gate.objects.is_empty() || gate.objects.iter().any(|object| self.may_have_object(&object.text))
    }

    fn may_have_subject(&self, subject: &str) -> bool {
        let agent = subject.strip_prefix("agent:");
        agent.is_none_or(|agent| self.agents.iter().any(|known| known.id.as_str() == agent))
    }

    fn may_have_environment(&self, environment: &str) -> bool {
        matches!(environment, "*" | GATEWAY_ENVIRONMENT)
            || self.environments.iter().any(|known| known.as_str() == environment)
    }

    fn may_have_object(&self, object: &str) -> bool {
        ObjectPattern::parse(object, &Action::Read).map_or(true, |pattern| self.may_have(&pattern, "*"))
    }

    /// Whether something of that name could be in that environment.
    fn may_have(&self, pattern: &ObjectPattern, environment: &str) -> bool {
        if pattern.server() == GATEWAY_SERVER {
            return operation::check(pattern, &self.templates).is_ok();
        }
        self.servers.iter().any(|(server, place)| {
            (environment == "*" || place.as_str() == environment)
                && object::server_matches(server.as_str(), pattern.server())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{RULES, agent, build_with, environment, world};
    use super::*;
    use crate::ids::{ServerId, TemplateName};

    fn policy(rules: &str, world: &World) -> Policy {
        build_with(&[("policy.csv", rules)], world).unwrap().policy
    }

    /// The rules without the rows that speak of any of these.
    fn without(words: &[&str]) -> String {
        let rest = RULES.lines().filter(|row| !words.iter().any(|word| row.contains(word)));
        rest.map(|row| format!("{row}\n")).collect()
    }

    fn widens((before, old): (&str, &World), (after, new): (&str, &World)) -> bool {
        policy(before, old).difference(&policy(after, new)).widens
    }

    #[test]
    fn a_role_in_the_first_line_counts_also_after_a_byte_order_mark() {
        let rules = |group: &str, mark: &str| {
            format!("{mark}g, group:corp/{group}, role:developer, *\np, role:developer, *, */*, call, -, allow\n")
        };
        for (mark, other) in [("", ""), ("\u{feff}", "\u{feff}"), ("", "\u{feff}"), ("\u{feff}", "")] {
            let (before, after) = (rules("few", mark), rules("many", other));
            assert!(widens((&before, &world()), (&after, &world())), "{mark:?} {other:?}");
        }
        let same = rules("few", "\u{feff}").replace(", ", " ,\t");
        assert!(!widens((&rules("few", ""), &world()), (&same, &world())), "spelled otherwise");
    }

    #[test]
    fn what_is_taken_away_with_the_rows_that_spoke_of_it_does_not_widen_and_the_same_given_does() {
        let all = world();
        let mut fewer = world();
        fewer.servers.retain(|(server, _)| server.as_str() != "deploy");
        let (denied, gone) =
            (format!("{RULES}p, anyone, *, deploy/wipe, call, -, deny\n"), without(&["deploy", "production"]));
        assert!(!widens((&denied, &all), (&gone, &fewer)), "a server");
        assert!(widens((&gone, &fewer), (&denied, &all)), "a server that comes");

        let mut narrow = fewer.clone();
        narrow.environments.retain(|one| one.as_str() == "staging");
        narrow.agents = vec![agent(&["staging"])];
        let there = without(&["deploy", "production"]);
        assert!(!widens((&denied, &all), (&there, &narrow)), "an environment");
        assert!(widens((&there, &narrow), (&denied, &all)), "an environment that comes");

        let mut nobody = world();
        nobody.agents.clear();
        let stopped = format!("{RULES}p, agent:claude, *, github/*, call, -, deny\n");
        let unnamed = without(&["agent:claude"]);
        assert!(!widens((&stopped, &all), (&unnamed, &nobody)), "an agent");
        assert!(widens((&unnamed, &nobody), (&stopped, &all)), "an agent that comes");

        let mut near = world();
        near.agents = vec![agent(&["staging"])];
        assert!(!widens((RULES, &all), (RULES, &near)), "an environment of an agent");
        assert!(widens((RULES, &near), (RULES, &all)));
        near.agents[0].autonomous = true;
        assert!(widens((RULES, &all), (RULES, &near)), "another kind of agent");

        let mut tasks = world();
        tasks.templates = vec![TemplateName::new("nightly").unwrap()];
        let opens = format!("{RULES}p, user:corp/lea, *, bailiwick/mandate:nightly, admin, -, deny\n");
        assert!(!widens((&opens, &tasks), (RULES, &all)), "a template");
        assert!(widens((RULES, &all), (&opens, &tasks)), "a template that comes");
    }

    #[test]
    fn a_deny_or_a_role_of_what_is_still_there_is_not_taken_away_without_a_word() {
        let mut fewer = world();
        fewer.servers.retain(|(server, _)| server.as_str() != "deploy");
        let gone = without(&["deploy", "production"]);
        for row in ["p, anyone, *, files/view, call, -, deny\n", "p, anyone, *, */view, call, -, deny\n"] {
            assert!(widens((&format!("{RULES}{row}"), &world()), (&gone, &fewer)), "{row}");
        }
        let moved = World { servers: vec![(ServerId::new("deploy").unwrap(), environment("staging"))], ..world() };
        assert!(!world().is_within(&moved) && !moved.is_within(&world()), "a server elsewhere is another one");
        assert!(widens((RULES, &world()), (&without(&["g,  user:corp/lea"]), &world())), "denies may hang on roles");
    }
}
