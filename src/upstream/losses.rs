//! Sessions that were lost after they had carried calls, and whose principals were not told yet.
//!
//! Decides who is told that what they had begun is gone. Knows nothing of transports. Invariant: whatever replaced such
//! a session, the next call in its place is told once, and nothing of it was sent.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::pool::Key;
use crate::limit;

/// Those of one server, and since when.
#[derive(Debug, Default)]
pub(super) struct Losses(Mutex<HashMap<Key, Instant>>);

impl Losses {
    /// One is lost, and whoever noticed that has nobody to tell. Said before another session is in its place.
    pub(super) fn owe(&self, key: &Key) {
        let mut untold = self.lock();
        if untold.len() >= limit::SESSIONS_PER_SERVER_MAX && !untold.contains_key(key) {
            let oldest = untold.iter().min_by_key(|(_, since)| **since).map(|(key, _)| key.clone());
            oldest.and_then(|key| untold.remove(&key));
        }
        untold.insert(key.clone(), Instant::now());
    }

    /// Whether a call in that place has to be told; once.
    pub(super) fn tell(&self, key: &Key) -> bool {
        self.lock().remove(key).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Isolation;
    use crate::ids::{Digest, PrincipalKey};
    use crate::upstream::Access;
    use crate::wire::Askable;

    fn key(number: usize) -> Key {
        let principal = Some(PrincipalKey(Digest::sha256(&number.to_be_bytes())));
        Key::of(&Access { principal, ..Access::bare() }, Isolation::Principal, Askable::NOTHING)
    }

    #[test]
    fn each_is_told_once_of_their_own_and_so_many_are_remembered() {
        let losses = Losses::default();
        losses.owe(&key(0));
        losses.owe(&key(0));
        assert!(!losses.tell(&key(1)), "it was not theirs");
        assert!(losses.tell(&key(0)) && !losses.tell(&key(0)));
        for number in 0..=limit::SESSIONS_PER_SERVER_MAX {
            losses.owe(&key(number));
        }
        assert_eq!(losses.lock().len(), limit::SESSIONS_PER_SERVER_MAX);
        assert!(!losses.tell(&key(0)) && losses.tell(&key(1)), "the oldest is forgotten first");
    }
}
