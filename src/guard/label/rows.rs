//! Which rows say what a caller has seen, and how they are named.
//!
//! Decides whose labels count for a call and grow with it. Refuses to know what was seen. Invariant: what is seen under a
//! mandate is seen under those above it and by whoever holds them, and of two clients of one agent neither has seen less.

use std::sync::Arc;
use std::time::Duration;

use super::{CALLERS, MANDATED, Origin, micros};
use crate::guard::mandate::{Held, Mandate};
use crate::identity::Persona;
use crate::ids::{AgentId, Digest};
use crate::limit;
use crate::policy::label::Seen;
use crate::shelf::{Action, Change, Expect, Section};

/// Whose labels count for a call and grow with it.
#[derive(Debug)]
pub(super) struct Rows {
    /// By which it is remembered: the mandate, or the user and the agent.
    pub(super) own: Arc<str>,
    mandate: Option<Held>,
}

impl Rows {
    pub(super) fn of(persona: &Persona, mandate: Option<&Held>) -> Self {
        let own = match mandate {
            Some(held) => Arc::from(format!("mandate {}", held.mandate().id)),
            None => key_of(persona),
        };
        Self { own, mandate: mandate.cloned() }
    }

    /// Each row that counts.
    pub(super) fn read(&self) -> Vec<(Section, String)> {
        let Some(held) = &self.mandate else { return vec![(CALLERS, self.own.to_string())] };
        let mandates = held.all().map(|mandate| (MANDATED, mandate.id.to_string()));
        // An isolated one, and what is below it, knows only what was seen there.
        let holders = holders(held).into_iter().filter(|_| !held.is_isolated());
        mandates.chain(holders.map(|holder| (CALLERS, holder))).collect()
    }

    /// What has to be done so that each of them says this. What is seen under a mandate is seen outside as well: nobody
    /// opens one to forget.
    pub(super) fn raise(&self, seen: Seen, memory: Duration, origin: &Origin) -> Vec<Change> {
        let expires_at_us = origin.at_us.saturating_add(micros(memory));
        let caller = |key: String| raise(CALLERS, key, seen, Some(expires_at_us), origin);
        let Some(held) = &self.mandate else { return vec![caller(self.own.to_string())] };
        let mandates = held.all().map(|mandate| raise_mandate(mandate, seen, memory, origin));
        mandates.chain(holders(held).into_iter().map(caller)).collect()
    }
}

/// Whose labels: the user and the agent in front. Which of its clients an agent uses makes no difference: it would shed
/// its labels by calling with another one.
fn key_of(persona: &Persona) -> Arc<str> {
    let user = persona.user.as_ref().map_or("anyone", crate::ids::Subject::as_str);
    let agent = persona.agent.as_ref().map(|agent| agent.id.as_str());
    Arc::from(key(user, agent.or(persona.client.as_deref()).unwrap_or("-")))
}

pub(super) fn key(user: &str, agent: &str) -> String {
    let text = format!("{user} {agent} -");
    if text.len() <= limit::SHELF_KEY_BYTES_MAX {
        return text;
    }
    let digest = Digest::of("bailiwick/labels/v1", &[user.as_bytes(), agent.as_bytes(), b"-"]);
    format!("{user:.200} {digest}")
}

/// The rows of whoever holds the mandates that a call is part of, each once. A mandate is always for an agent.
fn holders(held: &Held) -> Vec<String> {
    let mut holders: Vec<String> = Vec::new();
    for mandate in held.all() {
        let holder = holder(mandate);
        if !holders.contains(&holder) {
            holders.push(holder);
        }
    }
    holders
}

/// The row of whoever holds a mandate.
pub(super) fn holder(mandate: &Mandate) -> String {
    let agent = mandate.agent.as_ref().map_or("-", AgentId::as_str);
    key(mandate.subject.as_deref().unwrap_or("anyone"), agent)
}

/// Kept for as long as somebody may call under the mandate, and be remembered for it.
pub(super) fn raise_mandate(mandate: &Mandate, seen: Seen, memory: Duration, origin: &Origin) -> Change {
    let kept = micros(memory.min(limit::MANDATE_KEPT));
    raise(MANDATED, mandate.id.to_string(), seen, Some(mandate.ends_us.saturating_add(kept)), origin)
}

pub(super) fn raise(section: Section, key: String, seen: Seen, expires_at_us: Option<i64>, origin: &Origin) -> Change {
    let note = Some(origin.line(seen));
    let action = Action::Raise { bits: seen.bits(), expires_at_us, note };
    Change::new(section, key, Expect::Anything, action)
}
