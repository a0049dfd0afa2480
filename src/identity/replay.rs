//! Which DPoP proofs came before.
//!
//! Decides whether a proof is new, and remembers it as long as it could be shown again. Refuses to know what a proof
//! says. Invariant: no proof is taken twice; where there is no room to remember one it is not taken at all, and one
//! principal can use up only its own room.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::ids::{Digest, PrincipalKey};
use crate::limit;
use crate::outcome::{Reason, Refusal};

/// Which proofs came before.
#[derive(Debug)]
pub(super) struct Replays {
    seen: Mutex<Seen>,
    each_max: usize,
    all_max: usize,
}

/// Two spans of time, so that forgetting costs nothing: what came in the one before the last is dropped as a whole.
#[derive(Debug)]
struct Seen {
    since: Instant,
    now: Span,
    before: Span,
}

#[derive(Debug, Default)]
struct Span {
    by_principal: HashMap<PrincipalKey, HashSet<Digest>>,
    count: usize,
}

impl Replays {
    pub fn new() -> Self {
        Self::bounded(limit::DPOP_PROOFS_PER_PRINCIPAL_MAX, limit::DPOP_PROOFS_MAX)
    }

    fn bounded(each_max: usize, all_max: usize) -> Self {
        let seen = Seen { since: Instant::now(), now: Span::default(), before: Span::default() };
        Self { seen: Mutex::new(seen), each_max, all_max }
    }

    /// Takes a proof of a principal, by the id that no other may have.
    ///
    /// # Errors
    /// [`Reason::DpopProofReplayed`] where it came before, [`Reason::DpopProofsLimited`] where there is no room.
    pub fn take(&self, principal: PrincipalKey, proof: Digest) -> Result<(), Refusal> {
        self.take_at(principal, proof, Instant::now())
    }

    fn take_at(&self, principal: PrincipalKey, proof: Digest, at: Instant) -> Result<(), Refusal> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = seen.turn(at);
        let of = |span: &Span| span.by_principal.get(&principal).map_or(0, HashSet::len);
        let came = |span: &Span| span.by_principal.get(&principal).is_some_and(|proofs| proofs.contains(&proof));
        let answer = if came(&seen.now) || came(&seen.before) {
            Err(Refusal::new(Reason::DpopProofReplayed))
        } else if of(&seen.now) + of(&seen.before) >= self.each_max
            || seen.now.count + seen.before.count >= self.all_max
        {
            Err(Refusal::new(Reason::DpopProofsLimited))
        } else {
            seen.now.by_principal.entry(principal).or_default().insert(proof);
            seen.now.count += 1;
            Ok(())
        };
        // What is forgotten is given back without anybody waiting for it.
        drop(seen);
        drop(forgotten);
        answer
    }
}

impl Seen {
    /// Begins another span when this one has lasted long enough; answers what is forgotten.
    fn turn(&mut self, at: Instant) -> Option<[Span; 2]> {
        let lasted = at.saturating_duration_since(self.since);
        if lasted < limit::DPOP_MEMORY {
            return None;
        }
        self.since = at;
        let ended = std::mem::take(&mut self.now);
        let older = std::mem::take(&mut self.before);
        if lasted < 2 * limit::DPOP_MEMORY {
            self.before = ended;
            return Some([older, Span::default()]);
        }
        Some([older, ended])
    }
}

// A proof is good from so long before `iat` to so long after it.
const _: () = assert!(limit::DPOP_MEMORY.as_secs() > 2 * limit::DPOP_AGE_MAX.as_secs());

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn principal(name: &str) -> PrincipalKey {
        PrincipalKey(Digest::sha256(name.as_bytes()))
    }

    fn proof(number: usize) -> Digest {
        Digest::sha256(&number.to_be_bytes())
    }

    fn taken(replays: &Replays, who: &str, number: usize, at: Instant) -> Result<(), Reason> {
        replays.take_at(principal(who), proof(number), at).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn a_proof_is_taken_once_for_as_long_as_it_could_be_shown_again() {
        let replays = Replays::new();
        let began = Instant::now();
        assert_eq!(taken(&replays, "a", 1, began), Ok(()));
        for after in [0, 1, 60, 120, 121, 150, 240] {
            let at = began + Duration::from_secs(after);
            assert_eq!(taken(&replays, "a", 1, at), Err(Reason::DpopProofReplayed), "{after} s");
            assert_eq!(taken(&replays, "a", 100 + usize::try_from(after).unwrap(), at), Ok(()));
        }
        let later = began + 4 * limit::DPOP_MEMORY;
        assert_eq!(taken(&replays, "a", 1, later), Ok(()), "by then its iat refuses it");
        assert_eq!(replays.seen.lock().unwrap().before.count, 0);
    }

    #[test]
    fn one_principal_uses_up_only_its_own_room_and_no_room_refuses() {
        let replays = Replays::new();
        let now = Instant::now();
        for number in 0..limit::DPOP_PROOFS_PER_PRINCIPAL_MAX {
            assert_eq!(taken(&replays, "greedy", number, now), Ok(()));
        }
        let one_more = limit::DPOP_PROOFS_PER_PRINCIPAL_MAX;
        assert_eq!(taken(&replays, "greedy", one_more, now), Err(Reason::DpopProofsLimited));
        assert_eq!(taken(&replays, "greedy", 0, now), Err(Reason::DpopProofReplayed));
        assert_eq!(taken(&replays, "other", 0, now), Ok(()));
    }

    #[test]
    fn all_proofs_together_are_bounded() {
        let replays = Replays::new();
        let now = Instant::now();
        for number in 0..limit::DPOP_PROOFS_MAX {
            let who = format!("p{}", number / limit::DPOP_PROOFS_PER_PRINCIPAL_MAX);
            assert_eq!(taken(&replays, &who, number, now), Ok(()));
        }
        assert_eq!(taken(&replays, "late", 0, now), Err(Reason::DpopProofsLimited));
        assert_eq!(taken(&replays, "late", 0, now + limit::DPOP_MEMORY), Err(Reason::DpopProofsLimited));
        assert_eq!(taken(&replays, "late", 0, now + 2 * limit::DPOP_MEMORY), Ok(()));
    }
}
