//! What somebody should look at before they accept a definition.
//!
//! Decides by fixed lists: the same definition has the same flags, whoever asks. Refuses to judge: a flag stops nothing
//! but acceptance without a person. Invariant: every text of a definition is looked at, the names of its members too.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use serde::{Deserialize, Serialize};

use super::names::{Neighbours, is_mixed};
use super::text::{Odd, oddities};
use crate::wire::{Json, Value};

/// One thing that is odd about a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// Characters that nobody sees.
    Invisible,
    /// Characters that turn the direction of writing.
    Bidirectional,
    /// Characters that control a terminal.
    Control,
    /// Its name mixes scripts.
    MixedScript,
    /// Its name looks like another one.
    LookAlike,
    /// Its text tells a model what to do, beyond what it is for.
    Instructions,
}

impl Flag {
    /// As records and commands spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invisible => "invisible",
            Self::Bidirectional => "bidirectional",
            Self::Control => "control",
            Self::MixedScript => "mixed_script",
            Self::LookAlike => "look_alike",
            Self::Instructions => "instructions",
        }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// Words that a description has no use for; compared without regard to case, with every run of blanks as one and every
/// apostrophe as the plain one.
/// `docs/pins.md` lists them.
pub(super) const PHRASES: &[&str] = &[
    "ignore previous instructions",
    "ignore all previous",
    "ignore the above",
    "ignore any previous",
    "disregard previous",
    "disregard all previous",
    "disregard the above",
    "forget previous instructions",
    "forget all previous",
    "override previous instructions",
    "do not tell the user",
    "don't tell the user",
    "do not mention this",
    "don't mention this",
    "do not inform the user",
    "without telling the user",
    "without informing the user",
    "hide this from the user",
    "keep this secret",
    "do not reveal this",
    "before using any other tool",
    "before calling any other tool",
    "instead of any other tool",
    "you must always call",
    "always call this tool first",
    "your system prompt",
    "the system prompt",
    "new system prompt",
    "<system>",
    "<important>",
    "</important>",
    "<secret>",
    "[system]",
    "~/.ssh",
    "id_rsa",
    "~/.aws/credentials",
    "/etc/passwd",
    "mcp.json",
];

static SEARCH: LazyLock<Option<AhoCorasick>> =
    LazyLock::new(|| AhoCorasick::builder().ascii_case_insensitive(true).build(PHRASES).ok());

/// What is odd about a definition of that name, among those neighbours.
#[must_use]
pub fn flags(name: &str, definition: &Json, neighbours: &Neighbours) -> BTreeSet<Flag> {
    let mut flags = BTreeSet::new();
    look(definition.value(), &mut flags);
    if is_mixed(name) {
        flags.insert(Flag::MixedScript);
    }
    if neighbours.look_like(name) {
        flags.insert(Flag::LookAlike);
    }
    flags
}

/// The depth is that of scanned JSON, which is bounded.
fn look(value: Value<'_>, flags: &mut BTreeSet<Flag>) {
    if let Some(object) = value.as_object() {
        for (key, member) in object.members() {
            look_at(&key, flags);
            look(member, flags);
        }
    } else if let Some(elements) = value.as_array() {
        elements.for_each(|element| look(element, flags));
    } else if let Some(text) = value.as_str() {
        look_at(&text, flags);
    }
}

fn look_at(text: &str, flags: &mut BTreeSet<Flag>) {
    flags.extend(oddities(text).map(|odd| match odd {
        Odd::Bidirectional => Flag::Bidirectional,
        Odd::Invisible => Flag::Invisible,
        Odd::Control => Flag::Control,
    }));
    if flags.contains(&Flag::Instructions) {
        return;
    }
    let plain = text.split_whitespace().collect::<Vec<_>>().join(" ").replace(['\u{2019}', '\u{2bc}'], "'");
    // Without the list nothing can be said for a text.
    if SEARCH.as_ref().is_none_or(|search| search.is_match(&plain)) {
        flags.insert(Flag::Instructions);
    }
}
