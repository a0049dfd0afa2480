//! Whom an event names: subject identifiers of RFC 9493, as far as they can be people of one issuer.
//!
//! Invariant: whoever is named belongs to the feed's own issuer; a format that could mean somebody else counts only
//! where the files say that its value is the issuer's `sub`.

use serde_json::Value;

use crate::config::FeedConfig;
use crate::config::feed::SubjectFormat;
use crate::limit;
use crate::outcome::{Reason, Refusal};

/// A person, a session, or both.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) subject: Option<String>,
    pub(super) session: Option<String>,
}

/// Whom it names; `issuer` is the exact `iss` of the feed's issuer.
///
/// # Errors
/// `feed_subject_foreign` or `feed_message_invalid`.
pub(super) fn named(feed: &FeedConfig, issuer: &str, identifier: Option<&Value>) -> Result<Named, Refusal> {
    let identifier = identifier.ok_or_else(|| invalid("it has no `sub_id`"))?;
    match text(identifier, "format")? {
        "complex" => {
            let member = |name: &str| identifier.get(name);
            let subject = member("user").map(|user| person(feed, issuer, user)).transpose()?;
            let session = member("session").map(|session| session_id(issuer, session)).transpose()?;
            if subject.is_none() && session.is_none() {
                return Err(invalid("its `sub_id` names neither a user nor a session"));
            }
            Ok(Named { subject, session })
        }
        _ => Ok(Named { subject: Some(person(feed, issuer, identifier)?), session: None }),
    }
}

fn person(feed: &FeedConfig, issuer: &str, identifier: &Value) -> Result<String, Refusal> {
    let is_ours = |format| feed.events.as_ref().is_some_and(|events| events.formats.contains(&format));
    match text(identifier, "format")? {
        "iss_sub" => of_issuer(issuer, identifier),
        "email" if is_ours(SubjectFormat::Email) => text(identifier, "email").map(str::to_owned),
        "opaque" if is_ours(SubjectFormat::Opaque) => text(identifier, "id").map(str::to_owned),
        _ => Err(invalid("its `sub_id` has a format that names nobody here: send iss_sub, or see `formats`")),
    }
}

/// The value of `sid`, which is the issuer's own.
fn session_id(issuer: &str, identifier: &Value) -> Result<String, Refusal> {
    match text(identifier, "format")? {
        "opaque" => text(identifier, "id").map(str::to_owned),
        "iss_sub" => of_issuer(issuer, identifier),
        _ => Err(invalid("the session of its `sub_id` is not opaque")),
    }
}

fn of_issuer(issuer: &str, identifier: &Value) -> Result<String, Refusal> {
    if text(identifier, "iss")? != issuer {
        return Err(Refusal::new(Reason::FeedSubjectForeign));
    }
    text(identifier, "sub").map(str::to_owned)
}

fn text<'a>(identifier: &'a Value, name: &str) -> Result<&'a str, Refusal> {
    let value = identifier.get(name).and_then(Value::as_str).unwrap_or_default();
    let fits = !value.is_empty() && value.len() <= limit::REVOCATION_VALUE_BYTES_MAX;
    if fits { Ok(value) } else { Err(invalid("its `sub_id` is incomplete")) }
}

fn invalid(hint: &'static str) -> Refusal {
    Refusal::new(Reason::FeedMessageInvalid).hint(hint)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::feed::EventsConfig;

    const ISSUER: &str = "https://idp.example";

    fn feed(formats: &[SubjectFormat]) -> FeedConfig {
        let events = EventsConfig {
            audiences: vec!["gateway".into()],
            transmitter: None,
            formats: formats.to_vec(),
            secret: None,
            poll: None,
        };
        FeedConfig { events: Some(events), ..crate::feeds::rate::tests::feed("a", 1) }
    }

    fn find(formats: &[SubjectFormat], identifier: &Value) -> Result<Named, Reason> {
        named(&feed(formats), ISSUER, Some(identifier)).map_err(|refusal| refusal.reason)
    }

    fn subject(name: &str) -> Named {
        Named { subject: Some(name.into()), session: None }
    }

    #[test]
    fn people_of_the_issuer_are_found_and_those_of_another_are_refused() {
        let of = |iss: &str| json!({"format": "iss_sub", "iss": iss, "sub": "ann"});
        assert_eq!(find(&[], &of(ISSUER)), Ok(subject("ann")));
        for foreign in ["https://other.example", "https://idp.example/", "HTTPS://idp.example"] {
            assert_eq!(find(&[], &of(foreign)), Err(Reason::FeedSubjectForeign), "{foreign}");
            let inside = json!({"format": "complex", "user": of(foreign)});
            assert_eq!(find(&[], &inside), Err(Reason::FeedSubjectForeign), "{foreign}");
        }
        let both = json!({"format": "complex", "user": of(ISSUER), "session": {"format": "opaque", "id": "s1"}});
        assert_eq!(find(&[], &both), Ok(Named { session: Some("s1".into()), ..subject("ann") }));
    }

    #[test]
    fn other_formats_name_somebody_only_where_the_files_say_so() {
        let email = json!({"format": "email", "email": "ann@corp.example"});
        let opaque = json!({"format": "opaque", "id": "u-1"});
        assert_eq!(find(&[], &email), Err(Reason::FeedMessageInvalid));
        assert_eq!(find(&[], &opaque), Err(Reason::FeedMessageInvalid));
        assert_eq!(find(&[SubjectFormat::Email], &email), Ok(subject("ann@corp.example")));
        assert_eq!(find(&[SubjectFormat::Opaque], &opaque), Ok(subject("u-1")));
        assert_eq!(find(&[SubjectFormat::Email], &opaque), Err(Reason::FeedMessageInvalid));
    }

    #[test]
    fn what_is_incomplete_names_nobody() {
        let long = "x".repeat(limit::REVOCATION_VALUE_BYTES_MAX + 1);
        for bad in [
            json!(null),
            json!("ann"),
            json!({}),
            json!({"format": "iss_sub", "iss": ISSUER}),
            json!({"format": "iss_sub", "iss": ISSUER, "sub": ""}),
            json!({"format": "iss_sub", "iss": ISSUER, "sub": 7}),
            json!({"format": "iss_sub", "iss": ISSUER, "sub": long}),
            json!({"format": "phone_number", "phone_number": "+12065550100"}),
            json!({"format": "aliases", "identifiers": [{"format": "iss_sub", "iss": ISSUER, "sub": "ann"}]}),
            json!({"format": "complex"}),
            json!({"format": "complex", "device": {"format": "opaque", "id": "d"}}),
            json!({"format": "complex", "session": {"format": "email", "email": "a@b"}}),
        ] {
            assert_eq!(find(&[], &bad), Err(Reason::FeedMessageInvalid), "{bad}");
        }
        assert!(named(&feed(&[]), ISSUER, None).is_err());
    }
}
