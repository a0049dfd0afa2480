//! What a client's capabilities become on their way to a server.
//!
//! Decides what is taken out: what policy does not let this server ask, and what is not relayed. Unknown
//! keys and extensions survive as they are. Invariant: nothing is ever added, so that a server never learns
//! of a capability that this client does not have.

use std::sync::LazyLock;

use crate::ids::Endpoint;
use crate::wire::{Askable, Edit, InputKind, Json, Object, Value};

static NOTHING: LazyLock<Json> = LazyLock::new(|| Json::of(&serde_json::Map::new()));

/// What a client declared of what can be asked there. Where the whole gateway is one server to it, the context of "this
/// server" would be everybody's, and shows one server what others said.
#[must_use]
pub fn askable_at(endpoint: &Endpoint, capabilities: &Json) -> Askable {
    let declared = Askable::declared(capabilities);
    if is_of_one(endpoint) { declared } else { declared.without_context() }
}

/// Whether to a client of this endpoint one server is all that there is.
#[must_use]
pub const fn is_of_one(endpoint: &Endpoint) -> bool {
    matches!(endpoint, Endpoint::Server(_))
}

/// The capabilities that a server is shown for a client that declared these, and may be asked that.
pub fn declared(capabilities: &Json, askable: Askable) -> Json {
    let Some(object) = capabilities.value().as_object() else { return NOTHING.clone() };
    let mut edits = Vec::new();
    let mut members = 0;
    for (key, value) in object.members() {
        members += 1;
        match key.as_ref() {
            "elicitation" => edits.extend(elicitation(value, askable)),
            "sampling" => edits.extend(sampling(value, askable)),
            "roots" if !askable.has(InputKind::Roots) => edits.push(Edit::Remove("roots")),
            // The tasks of 2025-11-25.
            "tasks" => edits.push(Edit::Remove("tasks")),
            _ => {}
        }
    }
    match (members, edits.is_empty()) {
        (0, _) => NOTHING.clone(),
        (_, true) => capabilities.clone(),
        _ => object.edited(&edits),
    }
}

fn elicitation(value: Value<'_>, askable: Askable) -> Option<Edit<'static>> {
    let (form, url) = (askable.has(InputKind::Form), askable.has(InputKind::Url));
    let removed = Edit::Remove("elicitation");
    match value.as_object() {
        Some(object) if form || url => without(object, &[("form", !form), ("url", !url)], "elicitation"),
        _ => Some(removed),
    }
}

fn sampling(value: Value<'_>, askable: Askable) -> Option<Edit<'static>> {
    match value.as_object() {
        Some(object) if askable.has(InputKind::Sampling) => without(
            object,
            &[("context", !askable.has_context()), ("tools", !askable.has(InputKind::SamplingWithTools))],
            "sampling",
        ),
        _ => Some(Edit::Remove("sampling")),
    }
}

/// The edit that takes members out of the one named `name`, if one is there that shall go.
fn without(object: Object<'_>, members: &[(&str, bool)], name: &'static str) -> Option<Edit<'static>> {
    let gone: Vec<_> =
        members.iter().filter(|(member, gone)| *gone && object.get(member).is_some()).map(|(name, _)| name).collect();
    let edits: Vec<_> = gone.iter().map(|member| Edit::Remove(member)).collect();
    (!edits.is_empty()).then(|| Edit::Set(name, object.edited(&edits)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    fn shown(capabilities: &str, take: &[InputKind]) -> String {
        let capabilities = Json::parse(capabilities, Source::Client).unwrap();
        let said = askable_at(&Endpoint::Merged, &capabilities);
        let askable = take.iter().fold(said, |left, kind| left.without(*kind));
        declared(&capabilities, askable).as_str().to_owned()
    }

    #[test]
    fn what_nobody_here_has_heard_of_survives() {
        let odd =
            r#"{"zeta":{"k":1.0},"roots":{"listChanged":true},"extensions":{"com.x/y":{"a": [1]}},"experimental":{}}"#;
        assert_eq!(shown(odd, &[]), odd);
        assert_eq!(shown("{ }", &[]), "{}");
        assert_eq!(shown("7", &[]), "{}");
    }

    #[test]
    fn what_may_not_be_asked_is_not_declared() {
        let all = r#"{"elicitation":{"form":{},"url":{}},"sampling":{"tools":{},"context":{}},"roots":{},"x":1}"#;
        assert_eq!(shown(all, &[]), r#"{"elicitation":{"form":{},"url":{}},"sampling":{"tools":{}},"roots":{},"x":1}"#);
        let only_forms = [InputKind::Url, InputKind::Sampling, InputKind::SamplingWithTools, InputKind::Roots];
        assert_eq!(shown(all, &only_forms), r#"{"elicitation":{"form":{}},"x":1}"#);
        let nothing = [only_forms.as_slice(), &[InputKind::Form]].concat();
        assert_eq!(shown(all, &nothing), r#"{"x":1}"#);
        assert_eq!(shown(r#"{"elicitation":{"url":{}}}"#, &[InputKind::Url]), "{}");
        assert_eq!(shown(r#"{"elicitation":{}}"#, &[]), r#"{"elicitation":{}}"#);
    }

    #[test]
    fn a_models_context_is_declared_where_one_server_is_all_that_there_is() {
        let all = r#"{"sampling":{"tools":{},"context":{"x":1}},"roots":{"listChanged":true}}"#;
        let capabilities = Json::parse(all, Source::Client).unwrap();
        let one = Endpoint::Server(crate::ids::ServerId::new("one").unwrap());
        assert_eq!(declared(&capabilities, askable_at(&one, &capabilities)).as_str(), all);
        assert!(!declared(&capabilities, askable_at(&Endpoint::Merged, &capabilities)).as_str().contains("context"));
        let denied = askable_at(&one, &capabilities).without(InputKind::Sampling).without(InputKind::Roots);
        assert_eq!(declared(&capabilities, denied).as_str(), "{}");
    }

    #[test]
    fn the_tasks_of_2025_are_not_declared_and_the_extension_is_the_clients_own() {
        let tasks = r#"{"tasks":{"list":{}},"extensions":{"io.modelcontextprotocol/tasks":{"x":1},"a/b":{}}}"#;
        assert_eq!(shown(tasks, &[]), r#"{"extensions":{"io.modelcontextprotocol/tasks":{"x":1},"a/b":{}}}"#);
    }
}
