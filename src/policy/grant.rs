//! Grants: the allows of the policy, one by one, as reviews look at them.
//!
//! Decides what a grant is and which acts it covers. Refuses to know whether anybody made use of it. Invariant: a grant
//! is named by what it says and not by where it stands; moving a row changes nothing, changing one makes another grant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::object::{self, PatternKind};
use super::rule::{Effect, Rule};
use super::{GATEWAY_SERVER, Policy};
use crate::ids::{Action, Digest};

/// The name of a grant: the first 16 hexadecimal digits of the digest of its cells.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrantId(String);

/// One allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its name.
    pub id: GrantId,
    /// Where it stands: `file:line`.
    pub place: String,
    /// To whom: a user, group, agent, role, or anyone.
    pub subject: String,
    /// Where, as written.
    pub environment: String,
    /// On what, as written.
    pub object: String,
    /// To do what.
    pub action: String,
    /// Under which condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

impl GrantId {
    pub(super) fn of(rule: &Rule) -> Self {
        let cells = [
            &*rule.subject,
            &rule.environment,
            &rule.object.text,
            &rule.action_name,
            &rule.condition_name,
            rule.effect.as_str(),
        ];
        let digest = Digest::of("bailiwick/grant/v1", &cells.map(str::as_bytes)).to_string();
        Self(digest.chars().take(16).collect())
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GrantId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("`{text:.40}` is not a grant: write the 16 characters before it in the review"))
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl Serialize for GrantId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for GrantId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Policy {
    /// Every allow about servers, in the order of the files; the gateway's own operations are nobody's calls.
    #[must_use]
    pub fn grants(&self) -> Vec<Grant> {
        let allows = self.rules.iter().filter(|rule| rule.effect == Effect::Allow);
        let allows = allows.filter(|rule| rule.object.server() != GATEWAY_SERVER);
        let grant = |rule: &Rule| Grant {
            id: GrantId::of(rule),
            place: rule.place.to_string(),
            subject: rule.subject.to_string(),
            environment: rule.environment.clone(),
            object: rule.object.text.to_string(),
            action: rule.action.to_string(),
            condition: rule.condition().map(str::to_owned),
        };
        allows.map(grant).collect()
    }

    /// Whether a grant speaks about an act, whoever did it: by environment, object and action.
    #[must_use]
    pub fn covers(&self, grant: &Grant, environment: &str, server: &str, name: &str, action: &str) -> bool {
        let Some(rule) = self.rules.iter().find(|rule| *rule.place == *grant.place) else { return false };
        let Some(asked) = Action::parse(action) else { return false };
        let object = object::object(server, name);
        let means = match rule.object.kind {
            PatternKind::Set => self.index.sets_of(&object).iter().any(|(_, set)| *set == rule.object.text),
            PatternKind::Exact | PatternKind::Glob => {
                object::matches(&object, &rule.object.text, object::crosses(action))
            }
        };
        let there = self.environments.index(environment).is_some_and(|index| rule.environments.contains(index));
        means && there && rule.action == asked
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{build_with, policy, world};
    use super::*;

    #[test]
    fn a_grant_is_named_by_what_it_says_and_not_by_where_it_stands() {
        let first = policy().grants();
        let moved = format!("# moved\n\n{}", super::super::fixture::RULES);
        let second = build_with(&[("policy.csv", &moved)], &world()).unwrap().policy.grants();
        let ids = |grants: &[Grant]| grants.iter().map(|grant| grant.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&first), ids(&second));
        assert_ne!(first[0].place, second[0].place);
        assert!(first.iter().all(|grant| !grant.object.starts_with("bailiwick/")));
        for grant in &first {
            assert_eq!(grant.id.as_str().parse::<GrantId>().unwrap(), grant.id);
        }
        assert!("zz".parse::<GrantId>().is_err());
    }

    #[test]
    fn a_grant_covers_the_acts_that_its_rule_means_and_no_others() {
        let policy = policy();
        let grants = policy.grants();
        let of = |subject: &str, object: &str| {
            grants.iter().find(|grant| grant.subject == subject && grant.object == object).unwrap()
        };
        let read = of("role:developer", "github/@read");
        assert!(policy.covers(read, "staging", "github", "list_issues", "call"));
        assert!(!policy.covers(read, "staging", "github", "delete", "call"));
        assert!(!policy.covers(read, "production", "github", "list_issues", "call"), "it is not there");
        let rollout = of("role:developer", "deploy/rollout");
        assert!(policy.covers(rollout, "production", "deploy", "rollout", "call"));
        assert!(!policy.covers(rollout, "production", "deploy", "rollout", "read"));
    }

    #[test]
    fn a_grant_that_has_ended_allows_nothing_and_the_others_stay() {
        let grants = policy().grants();
        let ended = [grants[0].id.clone()].into();
        let files = [
            ("model.conf", include_str!("../../policies/model.conf")),
            ("policy.csv", super::super::fixture::RULES),
            ("conditions.toml", super::super::fixture::CONDITIONS),
        ];
        let files = files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())).into();
        let left = Policy::build_without(&super::super::Sources::from_files(files), &world(), &ended).unwrap().policy;
        let ids = |grants: Vec<Grant>| grants.into_iter().map(|grant| grant.id).collect::<Vec<_>>();
        assert_eq!(ids(left.grants()), ids(grants)[1..]);
        assert_ne!(left.base, policy().base, "what was decided before is not remembered");
    }
}
