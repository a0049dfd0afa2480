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
//! then = "deny"
//! unless = "known-recipient"       # a condition that surely holds
//! ```
//!
//! Decides what one call does, and whether that may follow what was seen before. Refuses to know what was seen: `guard`
//! keeps that. Invariant: what an upstream says of its own tools can only raise what is assumed of them; several entries
//! add up to the worst of each.

mod parse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::condition::{Arguments, Condition, Facts, Quantifier, Truth};
use super::object::{self, ObjectPattern, PatternKind};
use super::{Ask, Policy};
use crate::catalog::Hints;
use crate::identity::Persona;
use crate::ids::Action;
pub(super) use parse::labels;

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

    /// Whether all of `other` was seen. What is regulated is private, too.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        let all = if self.0 & Self::REGULATED.0 != 0 { self.0 | Self::PRIVATE.0 } else { self.0 };
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
    pub stores: Vec<Arc<str>>,
}

impl Labelled {
    /// What is assumed where nobody has said anything.
    fn worst() -> Self {
        Self { reads: Reads::Private, untrusted: true, sends: Sends::External, ..Self::default() }
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

    /// Whether it gives back what others have put into its stores.
    #[must_use]
    pub fn reads_stores(&self) -> bool {
        !self.stores.is_empty() && (self.impact == Impact::Read || self.reads > Reads::Nothing)
    }

    /// Whether others may read from its stores what it puts there.
    #[must_use]
    pub fn writes_stores(&self) -> bool {
        !self.stores.is_empty() && self.impact >= Impact::Write
    }

    /// The names by which gates mean it: `production` is the environment's affair and not among them.
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

    /// Every name that [`Labelled::names`] may say.
    pub const NAMES: [&'static str; 8] =
        ["internal", "private", "regulated", "write", "destructive", "irreversible", "external", "untrusted"];

    fn raise(&mut self, entry: &Entry) {
        self.reads = self.reads.max(entry.reads);
        self.untrusted |= entry.untrusted;
        self.sends = self.sends.max(entry.sends);
        self.impact = self.impact.max(entry.impact);
        if let Some(store) = &entry.store
            && !self.stores.contains(store)
        {
            self.stores.push(Arc::clone(store));
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

/// What may not follow what was seen.
#[derive(Debug)]
struct Flow {
    place: Arc<str>,
    from: Seen,
    to: Sends,
    unless: Option<usize>,
}

/// What became of a call that goes somewhere, after what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// No entry of `[[flow]]` speaks against it.
    Free,
    /// This one does.
    Against {
        /// The place of the entry, as `file:line`.
        rule: Arc<str>,
        /// What of what was seen it means.
        from: Seen,
        /// Whether that is only written down.
        observed: bool,
    },
}

impl Policy {
    /// Whether labels are kept at all.
    #[must_use]
    pub const fn has_labels(&self) -> bool {
        self.labels.is_some()
    }

    /// How long what was seen outside of a mandate is remembered.
    #[must_use]
    pub fn label_memory(&self) -> Duration {
        self.labels.as_ref().map_or(Duration::ZERO, |labels| labels.memory)
    }

    /// What this call does with data; `None` where labels are not kept.
    #[must_use]
    pub fn labelled(
        &self,
        persona: &Persona,
        ask: &Ask<'_>,
        hints: Hints,
        arguments: Arguments<'_>,
        now: Timestamp,
    ) -> Option<Labelled> {
        let labels = self.labels.as_ref()?;
        let object = object::object(ask.server.as_str(), ask.name);
        let crossing = object::crosses(&ask.action.to_string());
        let mut sets: Option<Vec<(Arc<str>, Arc<str>)>> = None;
        let mut facts: Option<Facts<'_>> = None;
        let (mut labelled, mut named) = (Labelled::default(), false);
        for entry in &labels.entries {
            let action = entry.actions.is_empty() || entry.actions.contains(ask.action);
            let means = |pattern: &ObjectPattern, sets: &mut Option<Vec<(Arc<str>, Arc<str>)>>| match pattern.kind {
                PatternKind::Set => {
                    let sets = sets.get_or_insert_with(|| self.index.sets_of(&object));
                    sets.iter().any(|(_, set)| *set == pattern.text)
                }
                PatternKind::Exact | PatternKind::Glob => object::matches(&object, &pattern.text, crossing),
            };
            if !action || !entry.objects.iter().any(|pattern| means(pattern, &mut sets)) {
                continue;
            }
            named = true;
            let facts = facts.get_or_insert_with(|| Facts::new(persona, arguments, now));
            // What nobody knows is taken for the worse.
            let counts = entry
                .when
                .and_then(|when| self.conditions.get(when))
                .is_none_or(|condition| condition.value(facts, Quantifier::Any) != Truth::False);
            if counts {
                labelled.raise(entry);
            }
        }
        if !named && labels.unlabelled == Unlabelled::Worst {
            labelled = Labelled::worst();
        }
        if hints.open_world {
            labelled.sends = Sends::External;
            labelled.untrusted = true;
        }
        if hints.destructive {
            labelled.impact = labelled.impact.max(Impact::Destructive);
        }
        Some(labelled)
    }

    /// Whether what was seen matters to where this call goes: only then is it asked for.
    #[must_use]
    pub fn is_judged(&self, labelled: &Labelled) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.flows.iter().any(|flow| labelled.sends >= flow.to))
    }

    /// Whether this call may go where it goes, after what was seen.
    #[must_use]
    pub fn judge_flow(
        &self,
        labelled: &Labelled,
        seen: Seen,
        persona: &Persona,
        arguments: Arguments<'_>,
        now: Timestamp,
    ) -> Judged {
        let Some(labels) = &self.labels else { return Judged::Free };
        // What it reads by itself it may send away in the same breath.
        let seen = seen.with(labelled.reads());
        let facts = Facts::new(persona, arguments, now);
        let surely = |condition: &Condition| condition.value(&facts, Quantifier::Every) == Truth::True;
        let against = labels.flows.iter().find(|flow| {
            labelled.sends >= flow.to
                && seen.has(flow.from)
                && !flow.unless.and_then(|unless| self.conditions.get(unless)).is_some_and(surely)
        });
        match against {
            None => Judged::Free,
            Some(flow) => Judged::Against {
                rule: Arc::clone(&flow.place),
                from: flow.from,
                observed: labels.mode == Mode::Observe,
            },
        }
    }
}
