//! What conditions read goes on the record, but for what the tool's own schema calls a secret.
//!
//! Decides by `catalog`, as for what persons are shown. Refuses to touch a decision: it was made with the arguments as they
//! are. Invariant: where nothing is a secret, the record has the very text that the call had.

use jiff::Timestamp;
use serde_json::Value;

use super::condition::{Arguments, Condition, Facts};
use super::{Decision, Policy};
use crate::catalog::{Target, secrets};
use crate::identity::Persona;

impl Policy {
    /// Replaces what a decision's conditions have read of secrets.
    pub(super) fn hide_secrets(
        &self,
        decision: &mut Decision,
        target: &Target,
        persona: &Persona,
        arguments: Arguments<'_>,
    ) {
        let Arguments::Json(text) = arguments else { return };
        let named = |name: &str| self.conditions.iter().find(|condition| condition.name().as_str() == name);
        let reads_values = |condition: &Condition| condition.reads_arguments();
        if !decision.conditions.iter().any(|record| named(&record.name).is_some_and(reads_values)) {
            return;
        }
        let Some(schema) = target.definition().and_then(|definition| secrets::schema(definition)) else { return };
        let Ok(given) = serde_json::from_str::<Value>(text) else { return };
        let hidden = secrets::without(given.clone(), &schema, &|text| text.to_owned());
        if hidden == given {
            return;
        }
        // Both as they are written here: numbers and escapes may be spelled otherwise than the call had them.
        let (given, hidden) = (given.to_string(), hidden.to_string());
        let facts = |text| Facts::new(persona, Arguments::Json(text), Timestamp::UNIX_EPOCH);
        let (given, hidden) = (facts(&given), facts(&hidden));
        for record in &mut decision.conditions {
            let Some(condition) = named(&record.name) else { continue };
            let (given, hidden) = (condition.values_read(&given), condition.values_read(&hidden));
            for ((read, before), after) in record.read.iter_mut().zip(given).zip(hidden) {
                if before != after {
                    *read = after;
                }
            }
        }
    }
}
