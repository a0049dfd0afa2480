//! The rows of reviews: how they are named, written and read, and which of them are written together.
//!
//! Decides what happens as a whole. Refuses to know who may answer. Invariant: a grant ends together with the rows that
//! say so, or not at all.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Said;
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::policy::GrantId;
use crate::shelf::{Action, Change, Expect, Row, Section, Shelf};

pub(in crate::gateway) const REVIEWS: Section = Section { name: "review", rows_max: limit::REVIEWS_MAX };
pub(in crate::gateway) const GRANTS: Section = Section { name: "review_grant", rows_max: limit::REVIEW_GRANTS_MAX };
pub(in crate::gateway) const ENDED: Section = Section { name: "ended_grant", rows_max: limit::ENDED_GRANTS_MAX };

/// The rows that answer for each grant.
pub(super) type Answers = BTreeMap<GrantId, Vec<Change>>;

/// In the order of the files, and told apart where a grant is written twice.
pub(super) fn key(review: &str, number: usize, grant: &GrantId) -> String {
    format!("{review}/{number:06}/{grant}")
}

pub(super) fn put(
    section: Section,
    key: String,
    expect: Expect,
    owner: &str,
    said: &impl Serialize,
    expires_at_us: Option<i64>,
) -> Result<Change, Failure> {
    let body = serde_json::to_string(said).map_err(|error| Failure::before(Reason::Internal, error.to_string()))?;
    Ok(Change::new(section, key, expect, Action::Put { owner: owner.to_owned(), body, expires_at_us }))
}

/// What ends grants, as batches of which each is done as a whole: a grant ends with the rows that say so, or not at all.
pub(super) fn ending(review: &str, answers: Answers, said: &Said) -> Result<Vec<Vec<Change>>, Failure> {
    let mut batches: Vec<Vec<Change>> = Vec::new();
    for (grant, rows) in answers {
        // One place of each batch is the grant's own.
        for rows in rows.chunks(limit::SHELF_CHANGES_MAX - 1) {
            let mut changes = vec![put(ENDED, grant.to_string(), Expect::Anything, review, said, None)?];
            changes.extend_from_slice(rows);
            match batches.last_mut() {
                Some(last) if last.len() + changes.len() <= limit::SHELF_CHANGES_MAX => last.extend(changes),
                _ => batches.push(changes),
            }
        }
    }
    Ok(batches)
}

pub(super) fn read<T: serde::de::DeserializeOwned>(row: &Row) -> Result<T, Failure> {
    serde_json::from_str(&row.body).map_err(|error| {
        Failure::before(Reason::StoreUnavailable, format!("the row {} is not understood: {error}", row.key))
    })
}

/// All rows of a section, page by page.
pub(super) async fn all(shelf: &dyn Shelf, section: Section, owner: Option<&str>) -> Result<Vec<Row>, Failure> {
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let page = shelf.rows(section, owner, rows.last().map(|row| row.key.as_str())).await?;
        if page.is_empty() {
            return Ok(rows);
        }
        rows.extend(page);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_grant_ends_together_with_every_row_that_says_so() {
        let grant = |number: usize| format!("{number:016x}").parse::<GrantId>().unwrap();
        let said = Said { by: "deadline".to_owned(), at: Timestamp::UNIX_EPOCH };
        // Most are written once, some twice, one more often than fits.
        let rows = |number: usize| match number {
            7 => limit::SHELF_CHANGES_MAX * 2,
            number if number.is_multiple_of(5) => 2,
            _ => 1,
        };
        let row = |number: usize, row: usize| {
            Change::new(
                GRANTS,
                key("r", row, &grant(number)),
                Expect::Version(crate::shelf::Version(3)),
                Action::Remove,
            )
        };
        let answers: Answers =
            (0..200).map(|number| (grant(number), (0..rows(number)).map(|one| row(number, one)).collect())).collect();
        let batches = ending("r", answers, &said).unwrap();
        let mut seen = 0;
        for batch in &batches {
            assert!(batch.len() <= limit::SHELF_CHANGES_MAX);
            let ended: BTreeSet<&str> =
                batch.iter().filter(|change| change.section == ENDED).map(|change| change.key.as_str()).collect();
            for change in batch.iter().filter(|change| change.section == GRANTS) {
                seen += 1;
                assert!(ended.contains(change.key.rsplit_once('/').unwrap().1), "{change:?} is in a batch of its own");
                assert!(matches!(change.expect, Expect::Version(_)), "whoever attests meanwhile keeps all of it back");
            }
        }
        assert_eq!(seen, (0..200).map(rows).sum::<usize>());
    }
}
