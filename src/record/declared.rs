//! What a client says that a call is for.
//!
//! Decides the spelling. Refuses to judge: nobody can check it, and so it decides nothing but whether something was said.
//! Invariant: it is called declared, and holds no secret that can be recognised, and nothing that is left out of the record
//! of the arguments beside it.

use serde::{Serialize, Serializer};

use super::hidden::Hidden;
use super::redact;

/// What a client says of a call, beside its arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Declared {
    /// The task that it is part of, in the client's own words.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "words")]
    pub task: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "words")]
    pub purpose: Option<String>,
    /// The SHA-256 of the prompt that it comes from, 64 lower-case digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_sha256: Option<String>,
    /// The step of a plan.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "words")]
    pub plan_step: Option<String>,
}

impl Declared {
    /// The same without what is left out of the record of the arguments.
    #[must_use]
    pub fn without(&self, hidden: &Hidden) -> Self {
        let clean = |words: Option<&String>| words.map(|words| hidden.without(words).into_owned());
        Self {
            task: clean(self.task.as_ref()),
            purpose: clean(self.purpose.as_ref()),
            // Digits of a digest are no words.
            prompt_sha256: self.prompt_sha256.clone(),
            plan_step: clean(self.plan_step.as_ref()),
        }
    }
}

#[expect(clippy::ref_option, reason = "serde asks so")]
fn words<S: Serializer>(value: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    redact::serialize_words_option(&value.as_deref(), serializer)
}
