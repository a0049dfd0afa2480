//! What the record tells of a reload: every row that came or went, in as many lines as they need.
//!
//! Decides how many rows one line has. Refuses to know what a row means. Invariant: each line says which one of how many it
//! is, so that a reload that is not told whole is seen to be so.

use serde::Serialize;

use super::event::ReloadNote;
use super::redact;
use crate::ids::PolicyRevision;
use crate::limit;

#[derive(Serialize)]
pub(super) struct ReloadFields<'a> {
    reload: ReloadFacts<'a>,
}

#[derive(Serialize)]
struct ReloadFacts<'a> {
    actor: &'a str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<PolicyRevision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<PolicyRevision>,
    added: usize,
    removed: usize,
    /// Each row with a `+` or `-` before it, removed ones first: they are what widens or narrows most often.
    rows: Vec<String>,
    /// Which of how many lines that tell of this reload.
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_words_option")]
    problem: Option<&'a str>,
}

impl<'a> ReloadFields<'a> {
    /// The lines that tell of a reload, row by row: one, or so many as all of its rows need.
    pub(super) fn parts(note: &ReloadNote<'a>) -> impl Iterator<Item = Self> {
        let note = *note;
        let parts = (note.removed.len() + note.added.len()).div_ceil(limit::RECORD_ROWS_MAX).max(1);
        let count = move |count: usize| (parts > 1).then_some(count);
        (0..parts).map(move |part| {
            // Cut before anything is spelled out: each row is, once.
            let rows = note.removed.iter().map(|row| ('-', row)).chain(note.added.iter().map(|row| ('+', row)));
            let rows = rows.skip(part * limit::RECORD_ROWS_MAX).take(limit::RECORD_ROWS_MAX);
            let reload = ReloadFacts {
                actor: note.actor,
                outcome: if note.to.is_some() { "loaded" } else { "refused" },
                from: note.from,
                to: note.to,
                added: note.added.len(),
                removed: note.removed.len(),
                rows: rows.map(|(sign, row)| format!("{sign} {}", redact::text(row))).collect(),
                part: count(part + 1),
                parts: count(parts),
                problem: note.problem,
            };
            Self { reload }
        })
    }
}
