//! What a server may ask in the middle of a call, and what a client said it can be asked.
//!
//! Decides how capabilities become bits, and bits capabilities again. Knows nothing of who may ask.
//! Invariant: what was not declared is no bit, whatever else the object holds.

use super::mcp::{TASKS_EXTENSION, meta};
use super::value::{Json, Object, Value};

/// One kind of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InputKind {
    /// `elicitation/create`: a form for the user.
    Form,
    /// `elicitation/create` in URL mode: a page that the user shall visit.
    Url,
    /// `sampling/createMessage`: the client's model.
    Sampling,
    /// The same with tools.
    SamplingWithTools,
    /// `roots/list`: the client's roots.
    Roots,
}

impl InputKind {
    /// Which kind of question a request is; `None` for anything that is none.
    #[must_use]
    pub fn of(method: &str, params: Option<Object<'_>>) -> Option<Self> {
        let member = |key| params.and_then(|params| params.get(key));
        match method {
            "elicitation/create" => match member("mode").map(Value::as_str) {
                None => Some(Self::Form),
                Some(Some(mode)) if mode == "form" => Some(Self::Form),
                Some(Some(mode)) if mode == "url" => Some(Self::Url),
                Some(_) => None,
            },
            "sampling/createMessage" if member("tools").or(member("toolChoice")).is_some() => {
                Some(Self::SamplingWithTools)
            }
            "sampling/createMessage" => Some(Self::Sampling),
            "roots/list" => Some(Self::Roots),
            _ => None,
        }
    }

    /// The method that asks so.
    #[must_use]
    pub const fn method(self) -> &'static str {
        match self {
            Self::Form | Self::Url => "elicitation/create",
            Self::Sampling | Self::SamplingWithTools => "sampling/createMessage",
            Self::Roots => "roots/list",
        }
    }

    const fn bit(self) -> u16 {
        match self {
            Self::Form => 1,
            Self::Url => 1 << 1,
            Self::Sampling => 1 << 2,
            Self::SamplingWithTools => 1 << 3,
            Self::Roots => 1 << 4,
        }
    }
}

/// What somebody can be asked: a fixed set of bits, so that sessions can be kept apart by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Askable(u16);

/// The MCP Apps extension changes what servers list and answer, so it counts too where it is declared.
const APPS: u16 = 1 << 5;
/// The tasks extension: who declares it may be answered with a task.
const TASKS: u16 = 1 << 6;
/// Who says that its roots change is told of by its client.
const ROOTS_CHANGE: u16 = 1 << 7;
/// A model's context may be asked for with sampling.
const CONTEXT: u16 = 1 << 8;
/// The identifier of the MCP Apps extension.
const APPS_EXTENSION: &str = "io.modelcontextprotocol/ui";

impl Askable {
    /// Nothing.
    pub const NOTHING: Self = Self(0);

    /// What a client's capabilities object declares.
    #[must_use]
    pub fn declared(capabilities: &Json) -> Self {
        let mut bits = Self::NOTHING;
        let Some(all) = capabilities.value().as_object() else { return bits };
        for (key, value) in all.members() {
            let Some(object) = value.as_object() else { continue };
            match key.as_ref() {
                "elicitation" => {
                    let has = |mode| object.get(mode).is_some_and(|mode| mode.as_object().is_some());
                    // An object without a mode is how forms were declared before there were modes.
                    if has("form") || !has("url") {
                        bits = bits.with(InputKind::Form);
                    }
                    if has("url") {
                        bits = bits.with(InputKind::Url);
                    }
                }
                "sampling" => {
                    bits = bits.with(InputKind::Sampling);
                    if object.get("tools").is_some_and(|tools| tools.as_object().is_some()) {
                        bits = bits.with(InputKind::SamplingWithTools);
                    }
                    if object.get("context").is_some_and(|context| context.as_object().is_some()) {
                        bits.0 |= CONTEXT;
                    }
                }
                "roots" => {
                    bits = bits.with(InputKind::Roots);
                    if object.get("listChanged").and_then(Value::as_bool) == Some(true) {
                        bits.0 |= ROOTS_CHANGE;
                    }
                }
                "extensions" => {
                    for (extension, bit) in [(APPS_EXTENSION, APPS), (TASKS_EXTENSION, TASKS)] {
                        if object.get(extension).is_some_and(|settings| settings.as_object().is_some()) {
                            bits.0 |= bit;
                        }
                    }
                }
                _ => {}
            }
        }
        bits
    }

    /// The same bits as they stand in the `_meta` of a request's parameters.
    #[must_use]
    pub fn of_params(params: &Json) -> Self {
        let own = params.value().as_object().and_then(|params| params.get("_meta")).and_then(Value::as_object);
        let capabilities = own.and_then(|own| own.get(meta::CLIENT_CAPABILITIES));
        capabilities.map_or(Self::NOTHING, |capabilities| Self::declared(&params.share(capabilities)))
    }

    /// One more.
    #[must_use]
    pub const fn with(self, kind: InputKind) -> Self {
        Self(self.0 | kind.bit())
    }

    /// One less.
    #[must_use]
    pub const fn without(self, kind: InputKind) -> Self {
        let with_it = match kind {
            InputKind::Roots => ROOTS_CHANGE,
            InputKind::Sampling => CONTEXT,
            InputKind::Form | InputKind::Url | InputKind::SamplingWithTools => 0,
        };
        Self(self.0 & !(kind.bit() | with_it))
    }

    /// Whether a model's context can be asked for.
    #[must_use]
    pub const fn has_context(self) -> bool {
        self.0 & CONTEXT != 0
    }

    /// The same without a model's context.
    #[must_use]
    pub const fn without_context(self) -> Self {
        Self(self.0 & !CONTEXT)
    }

    /// Whether changes of the roots are told.
    #[must_use]
    pub const fn roots_change(self) -> bool {
        self.0 & ROOTS_CHANGE != 0
    }

    /// Whether this can be asked.
    #[must_use]
    pub const fn has(self, kind: InputKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Whether anything can be asked at all.
    #[must_use]
    pub const fn is_any(self) -> bool {
        self.0 & !(APPS | TASKS | ROOTS_CHANGE | CONTEXT) != 0
    }

    /// Whether tasks were declared.
    #[must_use]
    pub const fn has_tasks(self) -> bool {
        self.0 & TASKS != 0
    }

    /// The same without tasks.
    #[must_use]
    pub const fn without_tasks(self) -> Self {
        Self(self.0 & !TASKS)
    }

    /// What is declared to a legacy server, whose sessions keep it for as long as they live: nothing but what
    /// the bits say, so that every request that shares the session has declared exactly that.
    #[must_use]
    pub fn capabilities(self) -> serde_json::Value {
        let mut all = serde_json::Map::new();
        let empty = || serde_json::Value::Object(serde_json::Map::new());
        let part = |names: &[(&str, bool)]| {
            let declared = names.iter().filter(|(_, declared)| *declared);
            serde_json::Value::Object(declared.map(|(name, _)| ((*name).to_owned(), empty())).collect())
        };
        let (form, url) = (self.has(InputKind::Form), self.has(InputKind::Url));
        if form || url {
            all.insert("elicitation".to_owned(), part(&[("form", form), ("url", url)]));
        }
        if self.has(InputKind::Sampling) {
            let tools = ("tools", self.has(InputKind::SamplingWithTools));
            all.insert("sampling".to_owned(), part(&[tools, ("context", self.has_context())]));
        }
        if self.has(InputKind::Roots) {
            let roots = if self.roots_change() { serde_json::json!({ "listChanged": true }) } else { empty() };
            all.insert("roots".to_owned(), roots);
        }
        let mut extensions = serde_json::Map::new();
        if self.0 & APPS != 0 {
            let settings = serde_json::json!({ "mimeTypes": ["text/html;profile=mcp-app"] });
            extensions.insert(APPS_EXTENSION.to_owned(), settings);
        }
        if self.has_tasks() {
            extensions.insert(TASKS_EXTENSION.to_owned(), empty());
        }
        if !extensions.is_empty() {
            all.insert("extensions".to_owned(), serde_json::Value::Object(extensions));
        }
        serde_json::Value::Object(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    fn bits(text: &str) -> Askable {
        Askable::declared(&Json::parse(text, Source::Client).unwrap())
    }

    #[test]
    fn an_elicitation_without_a_mode_means_forms() {
        for (text, form, url) in [
            ("{}", false, false),
            (r#"{"elicitation":{}}"#, true, false),
            (r#"{"elicitation":{"form":{}}}"#, true, false),
            (r#"{"elicitation":{"url":{}}}"#, false, true),
            (r#"{"elicitation":{"form":{},"url":{}}}"#, true, true),
            (r#"{"elicitation":true}"#, false, false),
            (r#"{"elicitation":null,"x":{"elicitation":{}}}"#, false, false),
        ] {
            assert_eq!((bits(text).has(InputKind::Form), bits(text).has(InputKind::Url)), (form, url), "{text}");
        }
    }

    #[test]
    fn bits_survive_the_capabilities_that_they_declare() {
        for number in 0..512 {
            let bits = Askable(number);
            // Tools and a context without sampling are nothing, and neither are changes of roots without roots.
            let (sampling, roots) = (InputKind::Sampling, InputKind::Roots);
            let plain =
                if bits.has(sampling) { bits } else { bits.without(sampling).without(InputKind::SamplingWithTools) };
            let plain = if plain.has(roots) { plain } else { plain.without(roots) };
            let declared = Json::of(&bits.capabilities());
            assert_eq!(Askable::declared(&declared), plain, "{}", declared.as_str());
        }
    }

    #[test]
    fn a_question_is_told_by_method_and_mode() {
        let kind = |method: &str, params: &str| {
            let params = Json::parse(params, Source::Upstream).unwrap();
            InputKind::of(method, params.value().as_object())
        };
        assert_eq!(kind("elicitation/create", "{}"), Some(InputKind::Form));
        assert_eq!(kind("elicitation/create", r#"{"mode":"form"}"#), Some(InputKind::Form));
        assert_eq!(kind("elicitation/create", r#"{"mode":"url"}"#), Some(InputKind::Url));
        assert_eq!(kind("elicitation/create", r#"{"mode":"new"}"#), None);
        assert_eq!(kind("elicitation/create", r#"{"mode":7}"#), None);
        assert_eq!(kind("sampling/createMessage", "{}"), Some(InputKind::Sampling));
        assert_eq!(kind("sampling/createMessage", r#"{"tools":[]}"#), Some(InputKind::SamplingWithTools));
        assert_eq!(kind("roots/list", "{}"), Some(InputKind::Roots));
        assert_eq!(kind("ping", "{}"), None);
    }
}
