//! What handles rest on, and what of that was taken back since they were sealed.
//!
//! Decides whether a handle is void. Refuses to know what a mark stands for: `identity` makes the same ones of callers
//! and of what is revoked. Invariant: what voids a handle is never forgotten while the handle opens; whatever leaves
//! the memory voids everything that is as old.

use std::collections::HashMap;

use crate::ids::{Digest, PrincipalKey, RevocationEpoch};
use crate::limit;

/// One name that a handle rests on: a person, a client, a token, a server. Two names with one mark would void too much,
/// and never too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark(u64);

/// Whom a handle is sealed for, and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Who alone can open it.
    pub principal: PrincipalKey,
    /// At which epoch its caller was looked at.
    epoch: RevocationEpoch,
    marks: Vec<Mark>,
}

/// What was taken back, and when last; also what was lifted since.
#[derive(Debug, Clone, Default)]
pub(super) struct Voids {
    marks: HashMap<Mark, RevocationEpoch>,
    /// What was taken back before is not known any more.
    forgotten: RevocationEpoch,
}

impl Mark {
    /// What every handle rests on.
    pub const EVERYTHING: Self = Self(0);

    /// The mark of a name of that kind, of that issuer where it is one's.
    #[must_use]
    pub fn of(kind: &str, issuer: &str, value: &str) -> Self {
        let digest = Digest::of("bailiwick/mark", &[kind.as_bytes(), issuer.as_bytes(), value.as_bytes()]);
        let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    /// As the store names it.
    #[must_use]
    pub fn name(self) -> String {
        format!("{:016x}", self.0)
    }

    /// Reads the name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        u64::from_str_radix(name, 16).ok().map(Self)
    }
}

impl Holder {
    /// Somebody who was looked at in that epoch, and what their handles rest on.
    #[must_use]
    pub fn new(principal: PrincipalKey, epoch: RevocationEpoch, mut marks: Vec<Mark>) -> Self {
        marks.sort_unstable();
        marks.dedup();
        Self { principal, epoch, marks }
    }

    /// The same for a handle that rests on more.
    #[must_use]
    pub fn and(self, marks: impl IntoIterator<Item = Mark>) -> Self {
        Self::new(self.principal, self.epoch, self.marks.into_iter().chain(marks).collect())
    }

    /// The same for a handle that whoever comes with it opens.
    #[must_use]
    pub fn opened_as(self, principal: PrincipalKey) -> Self {
        Self { principal, ..self }
    }

    /// The same as it was looked at in that epoch.
    #[must_use]
    pub fn since(self, epoch: RevocationEpoch) -> Self {
        Self { epoch, ..self }
    }

    /// At which epoch its caller was looked at.
    #[must_use]
    pub const fn epoch(&self) -> RevocationEpoch {
        self.epoch
    }

    /// Reads what [`Self::write`] wrote, and what is behind it.
    pub(super) fn read(principal: PrincipalKey, content: &[u8]) -> Option<(Self, &[u8])> {
        let (epoch, marks, said) = split(content)?;
        Some((Self { principal, epoch, marks: marks.collect() }, said))
    }

    /// What a sealed handle carries of it, before what it says.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let count = u16::try_from(self.marks.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&self.epoch.0.to_be_bytes());
        out.extend_from_slice(&count.to_be_bytes());
        for mark in self.marks.iter().take(usize::from(count)) {
            out.extend_from_slice(&mark.0.to_be_bytes());
        }
    }
}

impl Voids {
    /// The same with these; nothing where that is no news.
    pub(super) fn with(&self, more: &[(Mark, RevocationEpoch)], forgotten: RevocationEpoch) -> Option<Self> {
        let is_news = |(mark, since): &&(Mark, RevocationEpoch)| self.marks.get(mark).is_none_or(|own| own < since);
        let mut news = more.iter().filter(is_news).peekable();
        if news.peek().is_none() && forgotten <= self.forgotten {
            return None;
        }
        let mut new = Self { marks: self.marks.clone(), forgotten: self.forgotten.max(forgotten) };
        for (mark, since) in news {
            let own = new.marks.entry(*mark).or_default();
            *own = (*own).max(*since);
        }
        new.forget();
        Some(new)
    }

    /// Forgets the oldest where there are too many: then whatever is as old is void.
    fn forget(&mut self) {
        let more = self.marks.len().saturating_sub(limit::VOIDED_MARKS_MAX);
        if more == 0 {
            return;
        }
        let mut since: Vec<RevocationEpoch> = self.marks.values().copied().collect();
        since.sort_unstable();
        if let Some(last) = since.get(more - 1).copied() {
            self.forgotten = self.forgotten.max(last);
            self.marks.retain(|_, since| *since > last);
        }
    }

    /// What a handle says behind what it rests on; nothing where that is void.
    pub(super) fn checked<'a>(&self, content: &'a [u8]) -> Option<&'a [u8]> {
        let (epoch, marks, said) = split(content)?;
        self.stand(epoch, marks).then_some(said)
    }

    /// Whether what rests on that is still good.
    pub(super) fn hold(&self, holder: &Holder) -> bool {
        self.stand(holder.epoch, holder.marks.iter().copied())
    }

    /// The same of those whom a block of everything leaves in.
    pub(super) fn hold_by_name(&self, holder: &Holder) -> bool {
        self.are_not_named(holder.epoch, holder.marks.iter().copied())
    }

    fn stand(&self, epoch: RevocationEpoch, marks: impl Iterator<Item = Mark>) -> bool {
        self.are_not_named(epoch, std::iter::once(Mark::EVERYTHING).chain(marks))
    }

    fn are_not_named(&self, epoch: RevocationEpoch, mut marks: impl Iterator<Item = Mark>) -> bool {
        let voids = |mark: Mark| self.marks.get(&mark).is_some_and(|since| epoch < *since);
        epoch >= self.forgotten && (self.marks.is_empty() || !marks.any(voids))
    }
}

/// The epoch, the marks, and what is said behind them.
fn split(content: &[u8]) -> Option<(RevocationEpoch, impl Iterator<Item = Mark>, &[u8])> {
    let (epoch, rest) = content.split_first_chunk::<8>()?;
    let (count, rest) = rest.split_first_chunk::<2>()?;
    let (marks, said) = rest.split_at_checked(usize::from(u16::from_be_bytes(*count)) * 8)?;
    let (marks, _) = marks.as_chunks::<8>();
    let marks = marks.iter().map(|mark| Mark(u64::from_be_bytes(*mark)));
    Some((RevocationEpoch(u64::from_be_bytes(*epoch)), marks, said))
}

#[cfg(test)]
impl From<PrincipalKey> for Holder {
    fn from(principal: PrincipalKey) -> Self {
        Self::new(principal, RevocationEpoch(0), Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(epoch: u64, marks: &[Mark]) -> Vec<u8> {
        let principal = PrincipalKey(Digest::sha256(b"ann"));
        let mut content = Vec::new();
        Holder::new(principal, RevocationEpoch(epoch), marks.to_vec()).write(&mut content);
        content.extend_from_slice(b"said");
        content
    }

    fn none() -> Voids {
        Voids::default()
    }

    #[test]
    fn a_handle_is_void_once_something_it_rests_on_was_taken_back_after_it_was_sealed() {
        let (ann, desk, bob) = (
            Mark::of("subject", "corp", "ann"),
            Mark::of("client", "corp", "desk"),
            Mark::of("subject", "corp", "bob"),
        );
        let voids = none().with(&[(ann, RevocationEpoch(5))], RevocationEpoch(0)).unwrap();
        assert_eq!(voids.checked(&sealed(4, &[ann, desk])), None);
        assert_eq!(voids.checked(&sealed(5, &[ann, desk])), Some(&b"said"[..]), "it is from after that");
        assert_eq!(voids.checked(&sealed(4, &[bob, desk])), Some(&b"said"[..]), "somebody else's");
        // Whoever reads an older list later changes nothing.
        assert!(voids.with(&[(ann, RevocationEpoch(3))], RevocationEpoch(0)).is_none());
        let all = voids.with(&[(Mark::EVERYTHING, RevocationEpoch(7))], RevocationEpoch(0)).unwrap();
        assert_eq!(all.checked(&sealed(6, &[])), None);
        assert_eq!(all.checked(&sealed(7, &[ann])), Some(&b"said"[..]));
        for cut in 0..sealed(7, &[ann]).len() - b"said".len() {
            assert_eq!(all.checked(&sealed(7, &[ann])[..cut]), None, "what is cut says nothing");
        }
    }

    #[test]
    fn what_is_forgotten_voids_whatever_is_as_old() {
        let marks: Vec<(Mark, RevocationEpoch)> =
            (1..=limit::VOIDED_MARKS_MAX as u64 + 10).map(|number| (Mark(number), RevocationEpoch(number))).collect();
        let voids = none().with(&marks, RevocationEpoch(0)).unwrap();
        assert_eq!(voids.marks.len(), limit::VOIDED_MARKS_MAX);
        assert_eq!(voids.checked(&sealed(9, &[])), None, "the tenth is forgotten");
        assert!(voids.checked(&sealed(10, &[])).is_some());
        assert!(voids.checked(&sealed(10, &[Mark(11)])).is_none(), "the eleventh is not");
    }
}
