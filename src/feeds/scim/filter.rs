//! The one filter that is understood: `ATTRIBUTE eq "VALUE"`. Everything else is refused and never guessed.

use super::fits;
use crate::config::feed::ScimSubject;
use crate::outcome::{Reason, Refusal};

/// Whose `sub` is asked for; nobody, where the attribute does not say.
///
/// # Errors
/// `parameters_invalid`.
pub(super) fn subject(text: &str, attribute: ScimSubject) -> Result<Option<String>, Refusal> {
    let refuse = || {
        Refusal::new(Reason::ParametersInvalid)
            .hint("only `userName eq \"...\"` and `externalId eq \"...\"` are understood")
    };
    let (name, rest) = text.trim().split_once(char::is_whitespace).ok_or_else(refuse)?;
    let (operator, value) = rest.trim_start().split_once(char::is_whitespace).ok_or_else(refuse)?;
    let known = ["userName", "externalId"].iter().any(|known| name.eq_ignore_ascii_case(known));
    if !operator.eq_ignore_ascii_case("eq") || !known {
        return Err(refuse());
    }
    let value: String = serde_json::from_str(value.trim()).map_err(|_| refuse())?;
    Ok(Some(value).filter(|value| fits(value) && name.eq_ignore_ascii_case(attribute.attribute())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_filter_is_understood_and_nothing_else_is_guessed() {
        let of = |text: &str| subject(text, ScimSubject::UserName);
        assert_eq!(of("userName eq \"ann@corp.example\"").unwrap().as_deref(), Some("ann@corp.example"));
        assert_eq!(of(" USERNAME  EQ  \"a \\\" b\" ").unwrap().as_deref(), Some("a \" b"));
        assert_eq!(of("externalId eq \"7\"").unwrap(), None, "that says nothing of the sub");
        assert_eq!(of("userName eq \"\"").unwrap(), None);
        for wrong in [
            "",
            "userName",
            "userName eq",
            "userName eq ann",
            "userName sw \"a\"",
            "active eq true",
            "userName eq \"a\" or userName eq \"b\"",
            "not (userName eq \"a\")",
        ] {
            assert_eq!(of(wrong).unwrap_err().reason, Reason::ParametersInvalid, "{wrong}");
        }
    }
}
