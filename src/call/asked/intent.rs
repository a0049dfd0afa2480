//! What a client declares that a call is for: `dev.bailiwick/intent` in `_meta`.
//!
//! Decides what can be declared. Refuses to believe it. Invariant: what is there is read whole or refused, and goes to no
//! server.

use crate::limit;
use crate::outcome::{Reason, Refusal};
use crate::record::declared::Declared;
use crate::wire::mcp::meta;
use crate::wire::{Object, Value};

/// Reads it.
///
/// # Errors
/// `parameters_invalid`, naming what is wrong.
pub fn read(params: Object<'_>) -> Result<Option<Declared>, Refusal> {
    let Some(written) = params.get("_meta").and_then(Value::as_object).and_then(|meta| meta.get(meta::INTENT)) else {
        return Ok(None);
    };
    let said = written.as_object().ok_or_else(|| wrong("is an object"))?;
    let mut declared = Declared::default();
    for (name, value) in said.members() {
        let place = match &*name {
            "task" => &mut declared.task,
            "purpose" => &mut declared.purpose,
            "prompt_sha256" => &mut declared.prompt_sha256,
            "plan_step" => &mut declared.plan_step,
            _ => return Err(wrong("has no members but task, purpose, prompt_sha256 and plan_step")),
        };
        let text = value.as_str().ok_or_else(|| wrong("has texts"))?;
        if text.len() > limit::INTENT_TEXT_BYTES_MAX {
            return Err(wrong(&format!("has texts of at most {} bytes", limit::INTENT_TEXT_BYTES_MAX)));
        }
        *place = Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    }
    let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if declared.prompt_sha256.as_deref().is_some_and(|text| !is_digest(text)) {
        return Err(wrong("has a prompt_sha256 of 64 lower-case digits"));
    }
    Ok(Some(declared))
}

fn wrong(what: &str) -> Refusal {
    Refusal::new(Reason::ParametersInvalid).hint(format!("`{}` {what}", meta::INTENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Message, Source};

    fn of(intent: &str) -> Result<Option<Declared>, String> {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"_meta":{{"dev.bailiwick/intent":{intent}}}}}}}"#
        );
        let message = Message::parse(text, Source::Client).unwrap();
        read(message.params().unwrap()).map_err(|refusal| refusal.hint.into_owned())
    }

    #[test]
    fn what_is_declared_is_read_whole_or_refused() {
        let digest = "0123456789abcdef".repeat(4);
        let all =
            of(&format!(r#"{{"task":"books","purpose":" close them ","prompt_sha256":"{digest}","plan_step":"3"}}"#));
        let all = all.unwrap().unwrap();
        assert_eq!((all.task.as_deref(), all.purpose.as_deref()), (Some("books"), Some("close them")));
        assert_eq!((all.prompt_sha256.as_deref(), all.plan_step.as_deref()), (Some(&*digest), Some("3")));
        assert_eq!(of(r#"{"purpose":"  "}"#).unwrap().unwrap().purpose, None, "nothing was said");
        let long = "x".repeat(limit::INTENT_TEXT_BYTES_MAX);
        assert!(of(&format!(r#"{{"purpose":"{long}"}}"#)).is_ok());
        for wrong in [
            "1".to_owned(),
            "null".to_owned(),
            r#"{"purpose":1}"#.to_owned(),
            r#"{"purpos":"x"}"#.to_owned(),
            format!(r#"{{"purpose":"{long}x"}}"#),
            r#"{"prompt_sha256":"abc"}"#.to_owned(),
        ] {
            assert!(of(&wrong).is_err_and(|hint| hint.contains("dev.bailiwick/intent")), "{wrong}");
        }
    }
}
