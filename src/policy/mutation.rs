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

/// What may go wrong within Casbin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    Panic,
    Error,
}

thread_local! {
    static TROUBLE: Slot<Option<Trouble>> = const { Slot::new(None) };
}

/// Runs something while Casbin is in trouble.
pub(super) fn in_trouble<T>(trouble: Trouble, run: impl FnOnce() -> T) -> T {
    TROUBLE.set(Some(trouble));
    let result = run();
    TROUBLE.set(None);
    result
}

/// What a function of the matcher does then: it panics, or answers what the matcher cannot use.
pub(super) fn trouble() -> bool {
    match TROUBLE.get() {
        None => false,
        Some(Trouble::Error) => true,
        Some(Trouble::Panic) => panic!("seeded: casbin panics"),
    }
}

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
