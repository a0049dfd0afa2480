//! What tools do with data, as the administrator says it: `policies/labels.toml`.
//!
//! ```toml
//! mode = "enforce"                 # or "observe": what would have been refused is recorded
//! unlabelled = "worst"             # or "harmless": what is assumed of a primitive that no entry names
//! label_memory = "24h"             # how long what was seen outside of a mandate is remembered
//!
//! [[label]]
//! objects = ["crm/*", "mail/@read"]
//! actions = ["call", "read"]       # the default is all of them
//! when = "large-export"            # a condition on the arguments; the entry counts unless it surely does not hold
//! reads = "private"                # nothing, internal, private, regulated
//! content = "untrusted"            # or "trusted": whether what comes back may be somebody else's words
//! sends = "external"               # nowhere, internal, external
//! effect = "write"                 # read, write, destructive, irreversible
//! store = "team-memory"            # what it reads from or writes into, where others read it again
//!
//! [[flow]]
//! from = ["private", "untrusted"]  # all of these were seen
//! to = "external"                  # and this, or further, is where it goes
//! then = "deny"                    # or "approve" or "confirm", as the gate of that name asks
//! gate = "exfiltration"            # of gates.toml; not with "deny"
//! unless = "known-recipient"       # a condition that surely holds
//! ```
//!
//! Decides what one call does, and whether that may follow what was seen before. Refuses to know what was seen: `guard`
//! keeps that. Invariant: what an upstream says of its own tools can only raise what is assumed of them, and so can
//! each further entry; several entries add up to the worst of each. Whether a tool reads from a store is said by the
//! entry that names the store: nothing that is said beside it makes a reader anything less.

mod judge;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::object::ObjectPattern;
use crate::config::GateConfig;
use crate::ids::Action;
pub use judge::{Asked, Judged};
pub(super) use parse::{Known, labels};

/// What comes back from a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reads {
    /// Nothing that anybody would mind.
    #[default]
    Nothing,
    /// What everybody in the house may know.
    Internal,
    /// What only some may know.
    Private,
    /// What the law protects.
    Regulated,
}

/// Where the arguments of a call go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sends {
    /// Nowhere that somebody else reads.
    #[default]
    Nowhere,
    /// To others in the house.
    Internal,
    /// Out of the house.
    External,
}

/// What a call changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Impact {
    /// Nothing.
    #[default]
    Read,
    /// Something that can be changed back.
    Write,
    /// Something that is gone afterwards.
    Destructive,
    /// Something that nobody can undo.
    Irreversible,
}

/// What has been seen: bits that are only ever set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen(i64);

impl Seen {
    /// Nothing yet.
    pub const NOTHING: Self = Self(0);
    /// Somebody else's words, which may be instructions.
    pub const UNTRUSTED: Self = Self(1);
    /// What everybody in the house may know.
    pub const INTERNAL: Self = Self(2);
    /// What only some may know.
    pub const PRIVATE: Self = Self(4);
    /// What the law protects.
    pub const REGULATED: Self = Self(8);
    const NAMES: [(Self, &'static str); 4] = [
        (Self::UNTRUSTED, "untrusted"),
        (Self::INTERNAL, "internal"),
        (Self::PRIVATE, "private"),
        (Self::REGULATED, "regulated"),
    ];

    /// The bits as they are kept; unknown ones are kept, too.
    #[must_use]
    pub const fn of_bits(bits: i64) -> Self {
        Self(bits)
    }

    /// The bits to keep.
    #[must_use]
    pub const fn bits(self) -> i64 {
        self.0
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` was seen. What is regulated is private, too, and what is private is internal: whoever raises
    /// what is said of a tool takes it out of nothing.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        let private = if self.0 & Self::REGULATED.0 != 0 { self.0 | Self::PRIVATE.0 } else { self.0 };
        let all = if private & Self::PRIVATE.0 != 0 { private | Self::INTERNAL.0 } else { private };
        all & other.0 == other.0
    }

    /// Whether anything was seen.
    #[must_use]
    pub const fn is_any(self) -> bool {
        self.0 != 0
    }

    /// What of it `other` has not.
    #[must_use]
    pub const fn beyond(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The label of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(seen, _)| *seen)
    }

    /// The names of what was seen.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(seen, _)| self.0 & seen.0 != 0).map(|(_, name)| *name)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.names().collect();
        formatter.pad(&if names.is_empty() { "nothing".to_owned() } else { names.join(", ") })
    }
}

/// What one call does with data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labelled {
    /// What comes back.
    pub reads: Reads,
    /// Whether what comes back may be somebody else's words.
    pub untrusted: bool,
    /// Where its arguments go.
    pub sends: Sends,
    /// What it changes.
    pub impact: Impact,
    /// What it reads from or writes into, where others read it again.
    pub stores: Vec<Store>,
    /// Whether nobody has said anything of it, and the worst is assumed: then it meets every gate that names a label.
    pub unsaid: bool,
}

/// Something that a call reads from or writes into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Its name.
    pub name: Arc<str>,
    /// Whether an entry that names it says that it is read from.
    pub read: bool,
}

impl Labelled {
    /// What is assumed where nobody has said anything.
    fn worst() -> Self {
        Self { reads: Reads::Private, untrusted: true, sends: Sends::External, unsaid: true, ..Self::default() }
    }

    /// What its caller has seen once it came back.
    #[must_use]
    pub const fn shows(&self) -> Seen {
        let read = self.reads();
        if self.untrusted { read.with(Seen::UNTRUSTED) } else { read }
    }

    /// What it reads by itself, and could send away at once.
    #[must_use]
    pub const fn reads(&self) -> Seen {
        match self.reads {
            Reads::Nothing => Seen::NOTHING,
            Reads::Internal => Seen::INTERNAL,
            Reads::Private => Seen::PRIVATE,
            Reads::Regulated => Seen::REGULATED,
        }
    }

    /// Whether it gives back what others have put into that store of its own.
    #[must_use]
    pub fn reads_from(&self, store: &Store) -> bool {
        store.read || self.reads > Reads::Nothing
    }

    /// Whether it gives back what others have put into any of its stores.
    #[must_use]
    pub fn reads_stores(&self) -> bool {
        self.stores.iter().any(|store| self.reads_from(store))
    }

    /// The stores that it puts something into.
    pub fn written(&self) -> impl Iterator<Item = &str> {
        self.stores.iter().filter(|_| self.writes_stores()).map(|store| &*store.name)
    }

    /// Whether others may read from its stores what it puts there.
    #[must_use]
    pub fn writes_stores(&self) -> bool {
        !self.stores.is_empty() && self.impact >= Impact::Write
    }

    /// Whether a gate that names this label means it: it does that, or worse. An upstream that says more of its own tools
    /// meets more gates, and never fewer.
    #[must_use]
    pub fn does(&self, label: &str) -> bool {
        match label {
            "internal" => self.reads >= Reads::Internal,
            "private" => self.reads >= Reads::Private,
            "regulated" => self.reads >= Reads::Regulated,
            "write" => self.impact >= Impact::Write,
            "destructive" => self.impact >= Impact::Destructive,
            "irreversible" => self.impact >= Impact::Irreversible,
            "external" => self.sends >= Sends::External,
            "untrusted" => self.untrusted,
            _ => false,
        }
    }

    /// The names of what it does, as they are recorded: `production` is the environment's affair and not among them.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let reads = match self.reads {
            Reads::Nothing => None,
            Reads::Internal => Some("internal"),
            Reads::Private => Some("private"),
            Reads::Regulated => Some("regulated"),
        };
        let impact = match self.impact {
            Impact::Read => None,
            Impact::Write => Some("write"),
            Impact::Destructive => Some("destructive"),
            Impact::Irreversible => Some("irreversible"),
        };
        let sends = (self.sends == Sends::External).then_some("external");
        let untrusted = self.untrusted.then_some("untrusted");
        [reads, impact, sends, untrusted].into_iter().flatten()
    }

    /// Every name that [`Labelled::names`] may say, and that a gate may mean.
    pub const NAMES: [&'static str; 8] =
        ["internal", "private", "regulated", "write", "destructive", "irreversible", "external", "untrusted"];

    fn raise(&mut self, entry: &Entry) {
        self.reads = self.reads.max(entry.reads);
        self.untrusted |= entry.untrusted;
        self.sends = self.sends.max(entry.sends);
        self.impact = self.impact.max(entry.impact);
        let Some(name) = &entry.store else { return };
        let read = entry.impact == Impact::Read || entry.reads > Reads::Nothing;
        match self.stores.iter_mut().find(|store| store.name == *name) {
            Some(store) => store.read |= read,
            None => self.stores.push(Store { name: Arc::clone(name), read }),
        }
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct Labels {
    mode: Mode,
    unlabelled: Unlabelled,
    memory: Duration,
    entries: Vec<Entry>,
    flows: Vec<Flow>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Enforce,
    Observe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unlabelled {
    Worst,
    Harmless,
}

#[derive(Debug)]
struct Entry {
    objects: Vec<ObjectPattern>,
    /// Empty: all of them.
    actions: Vec<Action>,
    when: Option<usize>,
    reads: Reads,
    untrusted: bool,
    sends: Sends,
    impact: Impact,
    store: Option<Arc<str>>,
}

impl Labels {
    /// The conditions that entries and flows read.
    pub(super) fn conditions(&self) -> impl Iterator<Item = usize> {
        let entries = self.entries.iter().filter_map(|entry| entry.when);
        entries.chain(self.flows.iter().filter_map(|flow| flow.unless))
    }

    /// Whether a flow asks the gate of that name.
    pub(super) fn asks(&self, gate: &str) -> bool {
        self.flows.iter().any(|flow| matches!(&flow.then, Then::Ask(asked) if asked.name == gate))
    }
}

/// What may not follow what was seen.
#[derive(Debug)]
struct Flow {
    place: Arc<str>,
    from: Seen,
    to: Sends,
    unless: Option<usize>,
    then: Then,
}

/// What becomes of a call that a flow means.
#[derive(Debug, Clone)]
enum Then {
    /// It is refused.
    Deny,
    /// Persons are asked, as this gate says.
    Ask(Arc<GateConfig>),
}
