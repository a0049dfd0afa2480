//! What is known of the moment of a call beside its arguments: the mandate that it is part of, and what its caller has seen.
//!
//! Decides nothing. Refuses to know who keeps it. Invariant: what nobody has looked at is unknown, and not nothing: a call
//! of which nobody has said whether it has a mandate is none without one.

use std::sync::Arc;

use super::Truth;
use crate::policy::label::Seen;

/// What is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Situation {
    mandate: Option<Under>,
    seen: Option<Seen>,
}

/// The mandate of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Under {
    Nothing,
    Mandate { template: Option<Arc<str>> },
}

/// Nothing is known.
pub(in crate::policy) static UNKNOWN: Situation = Situation { mandate: None, seen: None };

impl Situation {
    /// The call is part of no mandate.
    #[must_use]
    pub const fn without_mandate() -> Self {
        Self { mandate: Some(Under::Nothing), seen: None }
    }

    /// The call is part of a mandate of this template; of one that was written freely, where there is none.
    #[must_use]
    pub fn under(template: Option<&str>) -> Self {
        Self { mandate: Some(Under::Mandate { template: template.map(Arc::from) }), seen: None }
    }

    /// The same, and what its caller has seen.
    #[must_use]
    pub fn having_seen(self, seen: Seen) -> Self {
        Self { seen: Some(seen), ..self }
    }

    pub(super) fn is_under_mandate(&self) -> Truth {
        self.mandate.as_ref().map_or(Truth::Unknown, |under| Truth::of(*under != Under::Nothing))
    }

    pub(super) fn is_of_template(&self, accepted: &[String]) -> Truth {
        match &self.mandate {
            None => Truth::Unknown,
            Some(Under::Nothing | Under::Mandate { template: None }) => Truth::False,
            Some(Under::Mandate { template: Some(template) }) => {
                Truth::of(accepted.iter().any(|name| **name == **template))
            }
        }
    }

    pub(super) fn has_seen(&self, labels: Seen) -> Truth {
        self.seen.map_or(Truth::Unknown, |seen| Truth::of(seen.has(labels)))
    }

    pub(super) fn mandate_told(&self) -> String {
        match &self.mandate {
            None => "unknown".to_owned(),
            Some(Under::Nothing) => "none".to_owned(),
            Some(Under::Mandate { template: None }) => "without a template".to_owned(),
            Some(Under::Mandate { template: Some(template) }) => template.to_string(),
        }
    }

    pub(super) fn seen_told(&self) -> String {
        self.seen.map_or_else(|| "unknown".to_owned(), |seen| seen.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_looked_at_is_unknown() {
        let template = ["nightly".to_owned()];
        for (situation, mandate, of_template, private) in [
            (Situation::default(), Truth::Unknown, Truth::Unknown, Truth::Unknown),
            (Situation::without_mandate(), Truth::False, Truth::False, Truth::Unknown),
            (Situation::under(None), Truth::True, Truth::False, Truth::Unknown),
            (Situation::under(Some("daily")), Truth::True, Truth::False, Truth::Unknown),
            (Situation::under(Some("nightly")), Truth::True, Truth::True, Truth::Unknown),
            (Situation::without_mandate().having_seen(Seen::NOTHING), Truth::False, Truth::False, Truth::False),
            (Situation::under(None).having_seen(Seen::REGULATED), Truth::True, Truth::False, Truth::True),
        ] {
            let values =
                (situation.is_under_mandate(), situation.is_of_template(&template), situation.has_seen(Seen::PRIVATE));
            assert_eq!(values, (mandate, of_template, private), "{situation:?}");
        }
    }
}
