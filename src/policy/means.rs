//! What objects and conditions mean to whoever narrows what the rules allow.
//!
//! Decides whether a pattern of a mandate means a target, with the one matcher and the sets of the rules, and whether a
//! condition holds as an allow reads it. Refuses to know what follows from that. Invariant: what is not spelled as rules
//! spell it means nothing.

use jiff::Timestamp;

use super::condition::{Arguments, Truth};
use super::object::{self, ObjectPattern, PatternKind};
use super::operation::mandate_operation;
use super::world::GATEWAY_SERVER;
use super::{Ask, Class, Policy};
use crate::identity::Persona;
use crate::ids::{Action, TemplateName};

impl Policy {
    /// Whether a pattern, as rules spell objects, means what is asked.
    #[must_use]
    pub fn means(&self, pattern: &str, ask: &Ask<'_>) -> bool {
        let Ok(pattern) = ObjectPattern::parse(pattern, &Action::Read) else { return false };
        let object = object::object(ask.server.as_str(), ask.name);
        match pattern.kind {
            PatternKind::Exact => *pattern.text == *object,
            PatternKind::Glob => {
                ask.server.as_str() != GATEWAY_SERVER
                    && object::matches(&object, &pattern.text, object::crosses(&ask.action.to_string()))
            }
            PatternKind::Set => self.index.sets_of(&object).iter().any(|(_, set)| **set == *pattern.text),
        }
    }

    /// Whether a pattern could mean anything here.
    ///
    /// # Errors
    /// A lower-case sentence: how objects are spelled, which server there is not.
    pub fn check_pattern(&self, pattern: &str) -> Result<(), String> {
        let pattern = ObjectPattern::parse(pattern, &Action::Read)?;
        if pattern.server() == GATEWAY_SERVER {
            return Err("the gateway's own operations are no tools; name a server".to_owned());
        }
        if pattern.names_one_server() && self.environments.of_server(pattern.server()).is_none() {
            return Err(format!("there is no server `{}`; write the id of a server, or *", pattern.server()));
        }
        Ok(())
    }

    /// Whether a condition holds for these arguments as an allow reads it; nothing where there is none of that name.
    #[must_use]
    pub fn holds(&self, condition: &str, persona: &Persona, arguments: Arguments<'_>, now: Timestamp) -> Option<bool> {
        let condition = self.conditions.iter().find(|known| known.name().as_str() == condition)?;
        Some(condition.values(persona, arguments, now).0 == Truth::True)
    }

    /// Whether everything that one pattern means is surely meant by another one, too.
    #[must_use]
    pub fn pattern_covers(&self, wide: &str, narrow: &str) -> bool {
        let Ok((wide, narrow)) = pair(wide, narrow) else { return false };
        let member = || {
            wide.kind == PatternKind::Set
                && narrow.kind == PatternKind::Exact
                && self.index.sets_of(&narrow.text).iter().any(|(_, set)| **set == *wide.text)
        };
        // One server's names, wild or not, are among all names of that server.
        let of_server = || {
            wide.kind == PatternKind::Glob
                && narrow.kind != PatternKind::Set
                && wide.names_one_server()
                && wide.server() == narrow.server()
                && (wide.name() == "**"
                    || (wide.name() == "*" && !narrow.name().contains('/') && !narrow.name().contains("**")))
        };
        wide.covers(&narrow) || member() || of_server()
    }

    /// Whether a list may show this class that it can open mandates of a template.
    #[must_use]
    pub fn shows_mandate(&self, class: &Class, template: &TemplateName) -> bool {
        self.visible(class, &self.operation(&mandate_operation(template)))
    }

    /// Whether there is a condition of that name.
    #[must_use]
    pub fn has_condition(&self, name: &str) -> bool {
        self.conditions.iter().any(|condition| condition.name().as_str() == name)
    }
}

fn pair(one: &str, other: &str) -> Result<(ObjectPattern, ObjectPattern), String> {
    Ok((ObjectPattern::parse(one, &Action::Read)?, ObjectPattern::parse(other, &Action::Read)?))
}
