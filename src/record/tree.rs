//! The Merkle tree over the records (RFC 6962, section 2.1): what a checkpoint signs.
//!
//! Decides how records become one hash. Refuses to know where hashes are kept ([`super::tiles`]) and who signs
//! them. Invariant: record number N is leaf N - 1, whatever else is missing, and only the unfinished tiles of each
//! level are held: some kilobytes, however long the record is.

use std::io;

use crate::ids::Digest;
use crate::limit;

/// Hashes of a full tile.
pub(super) const TILE_WIDTH: usize = 256;

/// A tree that grows, as far as its right edge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tree {
    size: u64,
    /// The unfinished tile of every level, leaves first.
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    /// A tree whose unfinished tiles are known; `None` where they do not belong to that size.
    pub(super) fn resume(size: u64, levels: Vec<Vec<Digest>>) -> Option<Self> {
        let fits = |(level, tile): (usize, &Vec<Digest>)| tile.len() == unfinished(size, level);
        (levels.len() == level_count(size) && levels.iter().enumerate().all(fits)).then_some(Self { size, levels })
    }

    /// How many leaves it has.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// The unfinished tiles, leaves first.
    pub(super) fn levels(&self) -> &[Vec<Digest>] {
        &self.levels
    }

    /// Adds the record of that number, as its line reads. One that is there already is passed over; one that was lost
    /// before it becomes the leaf of an empty record, so that every later record keeps its place.
    ///
    /// `full` is handed level, index and hashes of every tile that is finished. After an error the tree is spoilt.
    pub(super) fn add(
        &mut self,
        sequence: u64,
        line: &[u8],
        mut full: impl FnMut(usize, u64, &[Digest]) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(lost) = sequence.checked_sub(self.size + 1) else { return Ok(()) };
        if lost > limit::RECORDS_LOST_MAX {
            return Err(io::Error::other(format!("{lost} records before record {sequence} are missing")));
        }
        for _ in 0..lost {
            self.push(leaf(b""), &mut full)?;
        }
        self.push(leaf(line), &mut full)
    }

    fn push(&mut self, leaf: Digest, full: &mut impl FnMut(usize, u64, &[Digest]) -> io::Result<()>) -> io::Result<()> {
        self.size += 1;
        let mut hash = leaf;
        let mut level = 0;
        loop {
            if self.levels.len() <= level {
                self.levels.resize(level + 1, Vec::new());
            }
            let Some(tile) = self.levels.get_mut(level) else { return Ok(()) };
            tile.push(hash);
            if tile.len() < TILE_WIDTH {
                return Ok(());
            }
            level += 1;
            full(level - 1, (self.size >> (8 * level)).saturating_sub(1), tile)?;
            hash = perfect(tile);
            tile.clear();
        }
    }

    /// The hash of the whole tree.
    pub(super) fn root(&self) -> Digest {
        // The tree is a row of perfect trees, the largest first; each is joined with all that is right of it.
        let mut row = Vec::new();
        for tile in self.levels.iter().rev() {
            let mut rest = tile.as_slice();
            while let Some(height) = rest.len().checked_ilog2() {
                let (now, later) = rest.split_at(1 << height);
                row.push(perfect(now));
                rest = later;
            }
        }
        row.into_iter().rev().reduce(|right, left| node(&left, &right)).unwrap_or_else(|| Digest::sha256(b""))
    }
}

/// The hash of one record.
pub(super) fn leaf(record: &[u8]) -> Digest {
    Digest::sha256_of(&[&[0], record])
}

fn node(left: &Digest, right: &Digest) -> Digest {
    Digest::sha256_of(&[&[1], left.as_bytes(), right.as_bytes()])
}

/// The root over as many hashes as a power of two.
pub(super) fn perfect(hashes: &[Digest]) -> Digest {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row.chunks(2).filter_map(|pair| Some(node(pair.first()?, pair.get(1)?))).collect();
    }
    row.first().copied().unwrap_or_else(|| Digest::sha256(b""))
}

/// Hashes in the unfinished tile of a level.
pub(super) fn unfinished(size: u64, level: usize) -> usize {
    let hashes = u32::try_from(8 * level).ok().and_then(|bits| size.checked_shr(bits)).unwrap_or(0);
    usize::try_from(hashes % 256).unwrap_or(0)
}

/// Levels that a tree of that size has, those with an empty last tile included.
pub(super) const fn level_count(size: u64) -> usize {
    let bits = 64 - size.leading_zeros() as usize;
    bits.div_ceil(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition as RFC 6962 has it.
    fn defined(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => Digest::sha256(b""),
            [one] => *one,
            more => {
                let mut split = 1;
                while split * 2 < more.len() {
                    split *= 2;
                }
                node(&defined(&more[..split]), &defined(&more[split..]))
            }
        }
    }

    #[test]
    fn the_root_is_what_rfc_6962_defines_at_every_size() {
        let mut tree = Tree::default();
        let mut leaves = Vec::new();
        let hex = |digest: Digest| digest.to_string();
        assert_eq!(hex(tree.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hex(leaf(b"")), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        for size in 1..=1100_u64 {
            let line = format!("record {size}");
            leaves.push(leaf(line.as_bytes()));
            tree.add(size, line.as_bytes(), |_, _, _| Ok(())).unwrap();
            if size < 20 || size % 37 == 0 || size % 256 < 2 {
                assert_eq!(tree.root(), defined(&leaves), "{size}");
            }
        }
        // A log over eight known leaves, as the tests of Certificate Transparency have it.
        let known =
            ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
        let mut tree = Tree::default();
        for (index, known) in known.iter().enumerate() {
            let bytes = data_encoding::HEXLOWER.decode(known.as_bytes()).unwrap();
            tree.add(index as u64 + 1, &bytes, |_, _, _| Ok(())).unwrap();
        }
        assert_eq!(hex(tree.root()), "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
    }

    #[test]
    fn tiles_are_finished_where_the_format_says() {
        let mut finished = Vec::new();
        let mut tree = Tree::default();
        for sequence in 1..=70_000_u64 {
            tree.add(sequence, b"x", |level, index, hashes| {
                assert_eq!(hashes.len(), TILE_WIDTH);
                finished.push((level, index));
                Ok(())
            })
            .unwrap();
        }
        // The example of the specification: 273 full tiles of leaves and 112 hashes, one full tile above and 17, and 1.
        assert_eq!(finished.iter().filter(|(level, _)| *level == 0).count(), 273);
        assert_eq!(finished.iter().filter(|(level, _)| *level == 1).collect::<Vec<_>>(), [&(1, 0)]);
        assert_eq!(tree.levels().iter().map(Vec::len).collect::<Vec<_>>(), [112, 17, 1]);
        assert_eq!(Tree::resume(70_000, tree.levels().to_vec()), Some(tree.clone()));
        assert_eq!(Tree::resume(70_001, tree.levels().to_vec()), None);
    }

    #[test]
    fn a_lost_record_is_an_empty_leaf_and_too_many_are_an_error() {
        let ignore = |_: usize, _: u64, _: &[Digest]| Ok(());
        let (mut whole, mut torn) = (Tree::default(), Tree::default());
        for (sequence, line) in [(1, b"a".as_slice()), (2, b""), (3, b"c")] {
            whole.add(sequence, line, ignore).unwrap();
        }
        torn.add(1, b"a", ignore).unwrap();
        torn.add(1, b"again", ignore).unwrap();
        torn.add(3, b"c", ignore).unwrap();
        assert_eq!(whole, torn);
        assert!(torn.add(5 + limit::RECORDS_LOST_MAX, b"x", ignore).is_err());
    }
}
