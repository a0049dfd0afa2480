//! What conditions read goes on the record, but for what the tool's own schema calls a secret.
//!
//! Decides by `catalog`, as for what persons are shown. Refuses to touch a decision: it was made with the arguments as they
//! are. Invariant: where nothing is a secret, the record has the very text that the call had.

use jiff::Timestamp;
use serde_json::Value;

use super::condition::{ArgumentRead, Arguments, Condition, Facts};
use super::{Decision, Policy};
use crate::catalog::{Secrecy, Target, secrets};
use crate::identity::Persona;

/// What the record says in the place of a value of which nobody can say whether it is a secret.
const UNREADABLE: &str = "[not shown]";

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
        let Some(definition) = target.definition().filter(|definition| definition.secrecy == Secrecy::Perhaps) else {
            return;
        };
        let named = |name: &str| self.conditions.iter().find(|condition| condition.name().as_str() == name);
        let reads_values = |condition: &Condition| condition.reads_arguments();
        if !decision.conditions.iter().any(|record| named(&record.name).is_some_and(reads_values)) {
            return;
        }
        let Some(schema) = secrets::schema(definition) else { return };
        self.hide(decision, &schema, persona, text);
    }

    fn hide(&self, decision: &mut Decision, schema: &Value, persona: &Persona, text: &str) {
        let named = |name: &str| self.conditions.iter().find(|condition| condition.name().as_str() == name);
        let Ok(given) = serde_json::from_str::<Value>(text) else {
            // Such as a number that is larger than any: nobody can say what of it is a secret.
            for record in &mut decision.conditions {
                let of_arguments = named(&record.name).map(Condition::arguments_read).unwrap_or_default();
                for (_, value) in record.read.iter_mut().filter(|(name, _)| of_arguments.contains(&value_of(name))) {
                    UNREADABLE.clone_into(value);
                }
            }
            return;
        };
        let hidden = secrets::without(given.clone(), schema, &|text| text.to_owned());
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

fn value_of(name: &str) -> ArgumentRead {
    ArgumentRead::Value(name.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::condition::Situation;
    use super::super::fixture::{build_with, user, world};
    use super::*;
    use crate::ids::Action;

    #[test]
    fn what_is_a_secret_is_replaced_and_the_rest_stays_as_the_call_had_it() {
        let conditions =
            "[small]\nall = [{ argument = \"pin\", length_at_most = 9 }, { argument = \"count\", at_most = 5 }]\n";
        let rules = "p, user:corp/ann, *, deploy/rollout, call, small, allow\n";
        let policy = build_with(&[("policy.csv", rules), ("conditions.toml", conditions)], &world()).unwrap().policy;
        let schema = json!({ "properties": { "pin": { "format": "password" } } });
        let (ann, at) = (user("ann", &[]), Timestamp::UNIX_EPOCH);
        let ask = policy.ask_about("deploy", "rollout", &Action::Call).unwrap();
        let read = |text: &str, schema: &Value| {
            let (class, situation) = (policy.class(&ann), Situation::default());
            let mut decision = policy.decide_within(&class, &ann, &ask, (Arguments::Json(text), at), &situation);
            policy.hide(&mut decision, schema, &ann, text);
            let mut values = decision.conditions.remove(0).read;
            values.sort();
            values.into_iter().map(|(_, value)| value).collect::<Vec<_>>()
        };
        let text = r#"{"pin":"hush","count":1.50}"#;
        assert_eq!(read(text, &schema), ["1.50", "\"[4 characters hidden]\""]);
        assert_eq!(read(text, &json!({})), ["1.50", "\"hush\""]);
        // A number that is larger than any.
        let text = r#"{"pin":"hush","count":1,"other":1e999}"#;
        assert_eq!(read(text, &schema), [UNREADABLE, UNREADABLE]);
    }
}
