//! What was taken back and is lifted again, as far as handles from before it have to stay void.
//!
//! Decides what is kept of it: names of handles' marks and no words. Rows of the shelf, written in the change that
//! lifts. Invariant: whatever is forgotten raises the epoch before which every handle is void.

use std::collections::BTreeMap;

use crate::identity::revoked::RevocationTarget;
use crate::ids::RevocationEpoch;
use crate::wire::voids::Mark;

use super::{Told, epoch};

/// The section of these rows: the name is a mark, the owner the epoch of the change that lifted, the number the epoch
/// since which it had been taken back.
pub(super) const SECTION: &str = "voided";
/// The row whose number is the epoch before which nothing is known any more.
pub(super) const FORGOTTEN: &str = "forgotten";

/// What is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Voided {
    /// What was taken back, and since when.
    pub marks: Vec<(Mark, RevocationEpoch)>,
    /// Before which epoch that is not known any more.
    pub forgotten: RevocationEpoch,
    /// The epoch in which it was read: nothing is missing that was lifted up to then.
    pub epoch: RevocationEpoch,
}

impl Voided {
    /// Takes in a row, of which there is one without a name where nothing is remembered.
    pub(super) fn take(&mut self, now: i64, key: Option<&str>, number: Option<i64>) {
        self.epoch = epoch(now);
        let (Some(key), Some(number)) = (key, number) else { return };
        if key == FORGOTTEN {
            self.forgotten = self.forgotten.max(epoch(number));
        } else if let Some(mark) = Mark::parse(key) {
            self.marks.push((mark, epoch(number)));
        }
    }
}

/// An epoch as text that is sorted like its number.
pub(super) fn sorted(epoch: i64) -> String {
    format!("{epoch:020}")
}

/// Whether something between the two is told by nobody: it may have been anybody's revocation.
pub(super) fn has_gaps(told: &BTreeMap<u64, Told>, after: i64, to: RevocationEpoch) -> bool {
    let after = after.cast_unsigned();
    after < to.0 && told.range(after + 1..=to.0).count() as u64 != to.0 - after
}

/// Whether handles that it voids are known by the files of the time at which it was lifted, of which a journal tells
/// nothing: whatever is as old may be one of them.
pub(super) const fn reaches_by_files(target: &RevocationTarget) -> bool {
    matches!(target, RevocationTarget::Owner(_))
}

/// The rows of what is lifted.
pub(super) fn names(target: &RevocationTarget) -> impl Iterator<Item = String> {
    target.marks().into_iter().map(Mark::name)
}
