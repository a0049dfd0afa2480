//! Places for what is counted of many: so many at once, and whoever was idle longest makes room.
//!
//! Decides who is forgotten. Refuses to know what is counted. Invariants: whoever comes last has a place, whatever others
//! have filled; nobody waits for another but for as long as something is counted.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// What is counted of those whose numbers are given; the number is a hash with a key that nobody else knows.
#[derive(Debug)]
pub(super) struct Places<V> {
    shelves: Vec<Mutex<Shelf<V>>>,
    each_max: usize,
    held: AtomicUsize,
}

#[derive(Debug)]
struct Shelf<V> {
    /// Counts uses; each place knows its last one.
    uses: u64,
    held: HashMap<u64, (u64, V), BuildHasherDefault<Given>>,
}

/// Numbers that are hashes already.
#[derive(Debug, Default)]
struct Given(u64);

impl Hasher for Given {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// Shelves that are locked apart; fewer where there are few places, so that these are those of the last ones.
const SHELVES: usize = 16;

impl<V: Default> Places<V> {
    pub(super) fn new(places_max: usize) -> Self {
        let shelves = if places_max < SHELVES * SHELVES { 1 } else { SHELVES };
        let shelf = |_| Mutex::new(Shelf { uses: 0, held: HashMap::default() });
        Self { shelves: (0..shelves).map(shelf).collect(), each_max: places_max / shelves, held: AtomicUsize::new(0) }
    }

    /// Whether nothing is counted of anybody. Waits for nobody.
    pub(super) fn is_empty(&self) -> bool {
        self.held.load(Ordering::Relaxed) == 0
    }

    /// How many have a place.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Does something with what is counted of one, who gets a place.
    pub(super) fn with<T>(&self, number: u64, act: impl FnOnce(&mut V) -> T) -> T {
        let Some(shelf) = self.shelf(number) else { return act(&mut V::default()) };
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.uses += 1;
        let uses = shelf.uses;
        if let Some((used, counted)) = shelf.held.get_mut(&number) {
            *used = uses;
            return act(counted);
        }
        if shelf.held.len() >= self.each_max {
            let idle = shelf.held.iter().min_by_key(|(_, (used, _))| *used).map(|(number, _)| *number);
            if let Some(idle) = idle {
                shelf.held.remove(&idle);
            }
        } else {
            self.held.fetch_add(1, Ordering::Relaxed);
        }
        act(&mut shelf.held.entry(number).or_insert_with(|| (uses, V::default())).1)
    }

    /// Does something with what is counted of one who has a place; it is given back where that answers so.
    pub(super) fn known<T>(&self, number: u64, act: impl FnOnce(&mut V) -> (T, Stay)) -> Option<T> {
        let mut shelf = self.shelf(number)?.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.uses += 1;
        let uses = shelf.uses;
        let (used, counted) = shelf.held.get_mut(&number)?;
        *used = uses;
        let (answer, stay) = act(counted);
        if stay == Stay::Gone && shelf.held.remove(&number).is_some() {
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
        Some(answer)
    }

    fn shelf(&self, number: u64) -> Option<&Mutex<Shelf<V>>> {
        // Other digits than those by which a shelf finds it.
        let of = u64::try_from(self.shelves.len()).unwrap_or(1).max(1);
        self.shelves.get(usize::try_from((number >> 32) % of).unwrap_or_default())
    }
}

/// Whether there is something left to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stay {
    Here,
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_last_has_a_place_and_whoever_was_idle_longest_has_none() {
        let places: Places<u32> = Places::new(8);
        for number in 0..100 {
            // Those that are there are used often.
            places.with(number % 8, |count| *count += 1);
        }
        assert_eq!(places.with(1_000, |count| *count), 0);
        assert_eq!(places.len(), 8);
        places.with(1_000, |count| *count += 1);
        assert_eq!(places.with(1_000, |count| *count), 1, "and is not forgotten at once");
        assert_eq!(places.known(100 % 8, |count| (*count, Stay::Here)), None, "the next turn would have been its own");
    }

    #[test]
    fn a_place_that_is_given_back_is_free() {
        let places: Places<u32> = Places::new(8);
        assert!(places.is_empty());
        places.with(1, |count| *count = 7);
        assert_eq!(places.known(1, |count| (*count, Stay::Here)), Some(7));
        assert_eq!(places.known(1, |count| (*count, Stay::Gone)), Some(7));
        assert!(places.is_empty());
        assert_eq!(places.known(1, |count| (*count, Stay::Here)), None);
    }
}
