//! Who a line is about, written down once for each verified credential instead of once for each line.
//!
//! Decides only how those fields are spelled. Refuses to know what they were verified with. Invariant: the text
//! is what serde would write at that place of the line, redacted like every other text that somebody chose.

use serde::Serialize;

use super::event::{ActorFacts, SubjectFacts, TokenNote};

/// The fields `subject`, `agent`, `chain` and `token` of a line, as text that begins with a comma; empty for
/// somebody of whom nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who(Box<str>);

#[derive(Serialize)]
struct Fields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<SubjectFacts<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<ActorFacts<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    chain: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<TokenNote<'a>>,
}

impl Who {
    /// Writes the fields down: the human or service subject, the agent and its client, further actors
    /// outermost first as rules spell them, and the token that was presented.
    #[must_use]
    pub fn of(
        subject: Option<SubjectFacts<'_>>,
        agent: Option<ActorFacts<'_>>,
        chain: &[&str],
        token: Option<TokenNote<'_>>,
    ) -> Self {
        let fields = Fields { subject, agent, chain, token };
        let text = match serde_json::to_string(&fields) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, "defect: who calls cannot be written down");
                String::new()
            }
        };
        let members = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or_default();
        Self(if members.is_empty() { Box::default() } else { format!(",{members}").into() })
    }

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_leaves_nothing_and_somebody_leaves_members() {
        assert_eq!(Who::of(None, None, &[], None).as_str(), "");
        let agent = ActorFacts { id: Some("a"), client: Some("Bearer abc\n"), proof: "public" };
        let who = Who::of(None, Some(agent), &["agent:b"], None);
        assert_eq!(
            who.as_str(),
            r#","agent":{"id":"a","client":"Bearer [redacted]\n","proof":"public"},"chain":["agent:b"]"#
        );
    }
}
