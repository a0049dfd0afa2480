//! Token scopes: they narrow what rules allow and never widen it.
//!
//! Lists ignore them; a call that the rules allow needs every scope that `servers.toml` names for it.

use std::collections::HashMap;

use super::object::{self, ObjectPattern};
use super::source::Mistake;
use super::world::World;
use super::{Ask, Policy};
use crate::config::ScopeMode;
use crate::identity::Persona;
use crate::ids::{Action, IssuerAlias};
use crate::outcome::{Reason, Refusal};

/// A scope that some calls need.
#[derive(Debug)]
pub(super) struct ScopeNeed {
    scope: String,
    object: ObjectPattern,
    actions: Vec<Action>,
}

impl Policy {
    /// The refusal that names all scopes of the operation, if the token lacks any of them.
    pub(super) fn missing_scopes(&self, persona: &Persona, ask: &Ask<'_>) -> Option<Refusal> {
        let needs = self.scopes.get(&persona.issuer)?;
        let object = object::object(ask.server.as_str(), ask.name);
        let mut needed: Vec<&str> = Vec::new();
        for need in needs {
            let crossing = object::crosses(&ask.action.to_string());
            if need.actions.contains(ask.action)
                && object::matches(&object, &need.object.text, crossing)
                && !needed.contains(&need.scope.as_str())
            {
                needed.push(&need.scope);
            }
        }
        if needed.iter().all(|scope| persona.scopes.iter().any(|held| held == scope)) {
            return None;
        }
        let mut refusal = Refusal::new(Reason::InsufficientScope);
        refusal.scopes = needed.into_iter().map(str::to_owned).collect();
        Some(refusal)
    }
}

/// Compiles the scopes of the issuers that need them.
pub(super) fn scope_needs(world: &World, mistakes: &mut Vec<Mistake>) -> HashMap<IssuerAlias, Vec<ScopeNeed>> {
    let mut needs = HashMap::new();
    for issuer in &world.issuers {
        let ScopeMode::Required(rules) = &issuer.scopes else { continue };
        let mut own = Vec::new();
        for rule in rules {
            let mut refuse = |message: String| {
                let message = format!("scope `{}` of issuer `{}`: {message}", rule.scope, issuer.alias);
                mistakes.push(Mistake::file("servers.toml", message));
            };
            let actions: Option<Vec<Action>> = rule.actions.iter().map(|action| Action::parse(action)).collect();
            let Some(actions) = actions.filter(|actions| !actions.is_empty()) else {
                refuse("the actions are not all known; write actions as in rules".to_owned());
                continue;
            };
            let spelled = actions.iter().find_map(|action| ObjectPattern::parse(&rule.object, action).ok());
            match spelled.filter(|pattern| pattern.kind != object::PatternKind::Set) {
                Some(object) => own.push(ScopeNeed { scope: rule.scope.clone(), object, actions }),
                None => refuse(format!("`{}` is not an object pattern; write SERVER/NAME", rule.object)),
            }
        }
        needs.insert(issuer.alias.clone(), own);
    }
    needs
}
