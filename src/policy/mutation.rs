//! Seeded defects: the property test must notice each of them.

use std::cell::Cell as Slot;

use super::rule::{Effect, Rule, RuleId};

/// A defect that a programmer could make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutation {
    /// The slice leaves denies out.
    SliceDropsDenies,
    /// The slice leaves the last candidate out.
    SliceDropsLast,
    /// The table takes the verdict of a neighbour.
    TableMixesItems,
    /// The table takes *depends* for *allow*.
    TableTakesDependsForAllow,
}

pub(super) const ALL: [Mutation; 4] = [
    Mutation::SliceDropsDenies,
    Mutation::SliceDropsLast,
    Mutation::TableMixesItems,
    Mutation::TableTakesDependsForAllow,
];

thread_local! {
    static ACTIVE: Slot<Option<Mutation>> = const { Slot::new(None) };
}

/// Runs something with a defect.
pub(super) fn with<T>(mutation: Mutation, run: impl FnOnce() -> T) -> T {
    ACTIVE.set(Some(mutation));
    let result = run();
    ACTIVE.set(None);
    result
}

pub(super) fn active() -> bool {
    ACTIVE.get().is_some()
}

pub(super) fn is(mutation: Mutation) -> bool {
    ACTIVE.get() == Some(mutation)
}

pub(super) fn candidates(rules: &[Rule], found: &mut Vec<RuleId>) {
    if is(Mutation::SliceDropsDenies) {
        found.retain(|id| rules[id.0 as usize].effect == Effect::Allow);
    }
    if is(Mutation::SliceDropsLast) {
        found.pop();
    }
}
