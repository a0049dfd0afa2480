//! What the things of this process are numbered with that clients name again later: questions, streams.
//!
//! Decides where the count begins: anywhere, so that a number which an earlier process has given, or another one, is hardly
//! one of this process. Knows nothing of what is counted. Invariant: no number is given twice, and none is too large for a
//! client that keeps numbers as floating point.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that began somewhere.
#[derive(Debug)]
pub(super) struct Count(AtomicU64);

impl Default for Count {
    fn default() -> Self {
        let mut bytes = [0_u8; 6];
        // Without randomness it begins where all did once; whoever is asked is told apart by their session anyway.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        Self(AtomicU64::new(bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))))
    }
}

impl Count {
    /// The next number.
    pub(super) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_two_processes_have_no_number_in_common_and_all_are_safe_integers() {
        let (one, other) = (Count::default(), Count::default());
        let first = one.next();
        assert_eq!(one.next(), first + 1);
        assert!(first.abs_diff(other.next()) > 1_000_000, "they began at the same place");
        assert!(first < 1 << 52, "2^53 is the first number that a double cannot tell from the next");
    }
}
