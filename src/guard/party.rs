//! Somebody with a part in a call: who makes it, or opened a mandate that it belongs to.
//!
//! Decides what is kept of them, so that nobody approves what is done for themselves. Refuses to know who may approve.
//! Invariant: of a human of whom nobody says which one they are, nobody is known not to be that one.

use serde::{Deserialize, Serialize};

use crate::identity::{Caller, Person};

/// One party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// As rules spell it; `anyone` where nobody is known.
    pub user: String,
    /// Whether a human stands behind it.
    pub human: bool,
    /// Which one, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// The agent that they act with, and further actors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<String>,
    /// The API key that it was done with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl Party {
    /// Of somebody who calls.
    #[must_use]
    pub fn of(caller: &Caller) -> Self {
        let (persona, token) = (caller.persona(), caller.token());
        Self {
            user: persona.user.as_ref().map_or_else(|| "anyone".to_owned(), ToString::to_string),
            human: token.person != Person::Nobody,
            person: token.person.known().map(str::to_owned),
            agents: persona.agent.iter().chain(&persona.chain).map(|agent| agent.id.to_string()).collect(),
            key: token.is_key().then(|| token.id.clone()).flatten(),
        }
    }

    /// Somebody of whom no more is known than what they are called.
    #[must_use]
    pub fn called(user: &str) -> Self {
        Self { user: user.to_owned(), human: true, person: None, agents: Vec::new(), key: None }
    }

    /// Whether they are a human, and nobody says which.
    #[must_use]
    pub const fn is_unknown_human(&self) -> bool {
        self.human && self.person.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_whom_only_a_name_is_known_nobody_knows_who_they_are() {
        let called = Party::called("user:corp/alice");
        assert!(called.is_unknown_human());
        assert!(!Party { person: Some("alice".to_owned()), ..called.clone() }.is_unknown_human());
        assert!(!Party { human: false, ..called }.is_unknown_human());
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let party = Party {
            user: "anyone".to_owned(),
            human: false,
            person: None,
            agents: vec!["ci".to_owned()],
            key: Some("ci-1".to_owned()),
        };
        let kept = serde_json::to_string(&party).unwrap();
        assert_eq!(serde_json::from_str::<Party>(&kept).unwrap(), party);
    }
}
