//! What is done to an object, and what can be pinned: two closed lists.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is done to an object; the closed list that rules may name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Action {
    /// `tools/call` and the tasks that come of it.
    Call,
    /// `resources/read`.
    Read,
    /// `prompts/get`.
    Get,
    /// `completion/complete`.
    Complete,
    /// Subscribing to a resource.
    Subscribe,
    /// The server asks the user.
    Elicit,
    /// The server asks the client's model.
    Sample,
    /// The server asks for the client's roots.
    Roots,
    /// An operation of the gateway's own.
    Admin,
    /// A method that the gateway does not know, by its name.
    Method(Box<str>),
}

impl Action {
    /// Reads an action as rules spell it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "call" => Self::Call,
            "read" => Self::Read,
            "get" => Self::Get,
            "complete" => Self::Complete,
            "subscribe" => Self::Subscribe,
            "elicit" => Self::Elicit,
            "sample" => Self::Sample,
            "roots" => Self::Roots,
            "admin" => Self::Admin,
            other => Self::Method(other.strip_prefix("method:").filter(|name| !name.is_empty())?.into()),
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call => formatter.pad("call"),
            Self::Read => formatter.pad("read"),
            Self::Get => formatter.pad("get"),
            Self::Complete => formatter.pad("complete"),
            Self::Subscribe => formatter.pad("subscribe"),
            Self::Elicit => formatter.pad("elicit"),
            Self::Sample => formatter.pad("sample"),
            Self::Roots => formatter.pad("roots"),
            Self::Admin => formatter.pad("admin"),
            Self::Method(name) => write!(formatter, "method:{name}"),
        }
    }
}

/// What can be pinned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PinKind {
    /// A tool.
    Tool,
    /// A prompt.
    Prompt,
    /// A resource template.
    Template,
    /// What a server says to the model of itself.
    Instructions,
}

impl PinKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tool, Self::Prompt, Self::Template, Self::Instructions];

    /// As records and commands spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Template => "template",
            Self::Instructions => "instructions",
        }
    }

    /// The table of `pins.lock` that it stands in.
    #[must_use]
    pub const fn section(self) -> &'static str {
        match self {
            Self::Tool => "tools",
            Self::Prompt => "prompts",
            Self::Template => "templates",
            Self::Instructions => "instructions",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for PinKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}
