//! What a change does to a row, whichever database keeps it.
//!
//! Decides whether an expectation holds, what the row is afterwards, and when rows are counted. Refuses to know SQL: a database reads the row,
//! asks here, and does the step. Invariant: where this says conflict, nothing of the batch happens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::limit;
use crate::outcome::Failure;
use crate::shelf::{Action, Change, Expect, Name, Row, Section, Version};

use super::unavailable;

/// How many rows may be made before those of a section are counted again: counting walks over all of them, while whoever
/// else wants to write waits.
#[derive(Debug, Clone)]
pub(super) struct Rooms {
    sections: Arc<Mutex<HashMap<&'static str, Room>>>,
    /// Of what room is left, one part in so many is ours: others make rows in the same section.
    share: u32,
}

#[derive(Debug, Clone, Copy)]
struct Room {
    left: u32,
    counted_at: Instant,
}

impl Rooms {
    pub(super) fn shared_by(share: u32) -> Self {
        Self { sections: Arc::default(), share }
    }

    /// Takes the room of one row; where that is not known, the rows have to be counted.
    pub(super) fn take(&self, section: Section) -> bool {
        let mut sections = self.sections.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sections.get_mut(section.name);
        let fresh = known.filter(|room| room.left > 0 && room.counted_at.elapsed() < limit::SHELF_COUNT_AGE_MAX);
        fresh.map(|room| room.left -= 1).is_some()
    }

    /// Takes in that a section holds so many; answers whether one more fits, and takes its room.
    pub(super) fn counted(&self, section: Section, held: i64) -> bool {
        let left = i64::from(section.rows_max).saturating_sub(held).max(0);
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let room = Room { left: (left / self.share).saturating_sub(1), counted_at: Instant::now() };
        self.sections.lock().unwrap_or_else(PoisonError::into_inner).insert(section.name, room);
        left > 0
    }
}

/// The row that a change finds, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) version: Version,
    pub(super) number: i64,
    pub(super) expires_at_us: Option<i64>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// Nothing of the batch.
    Conflict,
    /// The row stays as it is.
    Keep { number: i64 },
    /// The row goes.
    Delete,
    /// The row says this, and this line beside it; where there was none, there is one.
    Write { owner: Option<&'a str>, body: Option<&'a str>, line: &'a str, number: i64, expires_at_us: Option<i64> },
}

/// What a change does to the row that it finds.
pub(super) fn step<'a>(change: &'a Change, found: Option<Found>) -> Step<'a> {
    let expected = match change.expect {
        Expect::Absent => found.is_none(),
        Expect::Version(version) => found.is_some_and(|found| found.version == version),
        Expect::Anything => true,
    };
    if !expected {
        return Step::Conflict;
    }
    let number = found.map_or(0, |found| found.number);
    // Whoever counts or raises may not shorten what somebody else relies on.
    let later = |own: Option<i64>| match (found, own) {
        (Some(Found { expires_at_us: Some(theirs), .. }), Some(own)) => Some(theirs.max(own)),
        (Some(_), _) => None,
        (None, own) => own,
    };
    match &change.action {
        Action::Check => Step::Keep { number },
        Action::Remove if found.is_none() => Step::Keep { number },
        Action::Remove => Step::Delete,
        Action::Put { owner, body, expires_at_us } => {
            Step::Write { owner: Some(owner), body: Some(body), line: "", number, expires_at_us: *expires_at_us }
        }
        Action::Count { by, at_most, expires_at_us } => {
            let counted = number.saturating_add(*by).max(0);
            if *by > 0 && counted > *at_most {
                return Step::Conflict;
            }
            Step::Write { owner: None, body: None, line: "", number: counted, expires_at_us: later(*expires_at_us) }
        }
        Action::Raise { bits, expires_at_us, note } => {
            // At most as many lines as there are bits.
            let line = note.as_deref().filter(|_| bits & !number != 0).unwrap_or_default();
            Step::Write { owner: None, body: None, line, number: number | bits, expires_at_us: later(*expires_at_us) }
        }
    }
}

/// Refuses what is out of bounds, and answers in which order the changes are made: one order for everybody, so that two
/// batches never wait for each other.
pub(super) fn order(changes: &[Change]) -> Result<Vec<usize>, Failure> {
    if changes.len() > limit::SHELF_CHANGES_MAX {
        return Err(unavailable(format!("{} rows are changed together; the most is less", changes.len())));
    }
    for change in changes {
        if change.key.len() > limit::SHELF_KEY_BYTES_MAX {
            return Err(unavailable(format!("a name in `{}` is too long", change.section.name)));
        }
        if let Action::Put { owner, body, .. } = &change.action
            && (body.len() > limit::SHELF_BODY_BYTES_MAX || owner.len() > limit::SHELF_KEY_BYTES_MAX)
        {
            return Err(unavailable(format!("a row of `{}` is too large", change.section.name)));
        }
        if let Action::Raise { note: Some(note), .. } = &change.action
            && note.len() > limit::SHELF_NOTE_BYTES_MAX
        {
            return Err(unavailable(format!("what a row of `{}` is to say besides is too long", change.section.name)));
        }
    }
    let mut order: Vec<usize> = (0..changes.len()).collect();
    order.sort_by_key(|index| changes.get(*index).map(|change| (change.section.name, change.key.as_str())));
    Ok(order)
}

/// Puts rows with their sections into the places of their names, however the database has ordered them.
pub(super) fn in_places(names: &[Name], found: &[(String, Row)]) -> Vec<Option<Row>> {
    let of = |(section, key): &Name| {
        let row = found.iter().find(|(named, row)| named == section.name && row.key == *key);
        row.map(|(_, row)| row.clone())
    };
    names.iter().map(of).collect()
}

/// Puts the numbers back into the order of the changes.
pub(super) fn in_order(count: usize, numbers: &[(usize, i64)]) -> Vec<i64> {
    let mut ordered = vec![0; count];
    for (index, number) in numbers {
        if let Some(place) = ordered.get_mut(*index) {
            *place = *number;
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_seldom_and_never_more_of_them_made_than_fit() {
        let section = |rows_max| Section { name: "thing", rows_max };
        let made = |rooms: &Rooms, max: u32| {
            let (mut held, mut counts) = (0_i64, 0);
            loop {
                if !rooms.take(section(max)) {
                    counts += 1;
                    if !rooms.counted(section(max), held) {
                        return (held, counts);
                    }
                }
                held += 1;
            }
        };
        assert_eq!(made(&Rooms::shared_by(1), 1_000), (1_000, 2), "alone, once at the beginning and once at the end");
        let (held, counts) = made(&Rooms::shared_by(limit::SHELF_SHARES), 100_000);
        assert!(held == 100_000 && counts < 200, "{held} {counts}");
        let rooms = Rooms::shared_by(1);
        assert!(rooms.counted(section(9), 3));
        let long_ago = Instant::now().checked_sub(limit::SHELF_COUNT_AGE_MAX).unwrap();
        rooms.sections.lock().unwrap().get_mut("thing").unwrap().counted_at = long_ago;
        assert!(!rooms.take(section(9)), "others may have made some since");
    }
}
