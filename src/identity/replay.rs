//! Which DPoP proofs came before.
//!
//! Decides whether a proof is new, and remembers it as long as it could be shown again. Refuses to know what a proof
//! says. Invariant: no proof is taken twice; where there is no room to remember one it is not taken at all, and one
//! bearer can use up only their own room, however many clients they have.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::ids::Digest;
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
    by_bearer: HashMap<Digest, HashSet<Digest>>,
    count: usize,
    /// The latest that it was, seconds since 1970, when one of them came.
    newest: i64,
}

impl Replays {
    pub fn new() -> Self {
        Self::bounded(limit::DPOP_PROOFS_PER_BEARER_MAX, limit::DPOP_PROOFS_MAX)
    }

    fn bounded(each_max: usize, all_max: usize) -> Self {
        let seen = Seen { since: Instant::now(), now: Span::default(), before: Span::default() };
        Self { seen: Mutex::new(seen), each_max, all_max }
    }

    /// Takes a proof of a bearer, by the id that no other may have; `now` in seconds since 1970.
    ///
    /// # Errors
    /// [`Reason::DpopProofReplayed`] where it came before, [`Reason::DpopProofsLimited`] where there is no room.
    pub fn take(&self, bearer: Digest, proof: Digest, now: i64) -> Result<(), Refusal> {
        self.take_at(bearer, proof, (Instant::now(), now))
    }

    fn take_at(&self, bearer: Digest, proof: Digest, (at, now): (Instant, i64)) -> Result<(), Refusal> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = seen.turn(at, now);
        let of = |span: &Span| span.by_bearer.get(&bearer).map_or(0, HashSet::len);
        let came = |span: &Span| span.by_bearer.get(&bearer).is_some_and(|proofs| proofs.contains(&proof));
        let answer = if came(&seen.now) || came(&seen.before) {
            Err(Refusal::new(Reason::DpopProofReplayed))
        } else if of(&seen.now) + of(&seen.before) >= self.room(&seen)
            || seen.now.count + seen.before.count >= self.all_max
        {
            Err(Refusal::new(Reason::DpopProofsLimited))
        } else {
            seen.now.by_bearer.entry(bearer).or_default().insert(proof);
            seen.now.count += 1;
            seen.now.newest = seen.now.newest.max(now);
            Ok(())
        };
        // What is forgotten is given back without anybody waiting for it.
        drop(seen);
        drop(forgotten);
        answer
    }

    /// How many of one bearer are remembered. Once most of the room is taken, those who have much of it get no more, so
    /// that there is some for who comes late.
    fn room(&self, seen: &Seen) -> usize {
        if seen.now.count + seen.before.count < self.all_max / 4 * 3 {
            return self.each_max;
        }
        // Who is in both spans counts twice, which leaves a little more for the others.
        let bearers = seen.now.by_bearer.len() + seen.before.by_bearer.len() + 1;
        (self.all_max / 4 / bearers).clamp(1, self.each_max)
    }
}

impl Seen {
    /// Begins another span when this one has lasted long enough; answers what is forgotten.
    fn turn(&mut self, at: Instant, now: i64) -> Option<[Span; 2]> {
        let lasted = at.saturating_duration_since(self.since);
        if lasted < limit::DPOP_MEMORY || !self.before.is_past(now) {
            return None;
        }
        self.since = at;
        let ended = std::mem::take(&mut self.now);
        let older = std::mem::take(&mut self.before);
        if lasted < 2 * limit::DPOP_MEMORY || !ended.is_past(now) {
            self.before = ended;
            return Some([older, Span::default()]);
        }
        Some([older, ended])
    }
}

impl Span {
    /// Whether none of it could be shown again. The clock says that, as it says what is fresh: one that was set back
    /// makes old proofs fresh once more.
    fn is_past(&self, now: i64) -> bool {
        let memory = i64::try_from(limit::DPOP_MEMORY.as_secs()).unwrap_or(i64::MAX);
        self.count == 0 || now >= self.newest.saturating_add(memory)
    }
}

// A proof is good from so long before `iat` to so long after it.
const _: () = assert!(limit::DPOP_MEMORY.as_secs() > 2 * limit::DPOP_AGE_MAX.as_secs());

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::time::Duration;

    use super::*;

    fn proof(number: usize) -> Digest {
        Digest::sha256(&number.to_be_bytes())
    }

    /// With a clock that goes as time does.
    fn taken(replays: &Replays, who: &str, number: usize, at: Instant) -> Result<(), Reason> {
        static BEGAN: OnceLock<Instant> = OnceLock::new();
        let since = at.saturating_duration_since(*BEGAN.get_or_init(Instant::now));
        taken_by(replays, who, number, (at, 1_800_000_000 + i64::try_from(since.as_secs()).unwrap()))
    }

    fn taken_by(replays: &Replays, who: &str, number: usize, at: (Instant, i64)) -> Result<(), Reason> {
        replays.take_at(Digest::sha256(who.as_bytes()), proof(number), at).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_proof_new() {
        let replays = Replays::new();
        let (began, clock) = (Instant::now(), 1_800_000_000);
        assert_eq!(taken_by(&replays, "a", 1, (began, clock)), Ok(()));
        for after in [121, 242, 300, 420] {
            let set_back = (began + Duration::from_secs(after), clock - 300 + i64::try_from(after).unwrap());
            assert_eq!(taken_by(&replays, "a", 1, set_back), Err(Reason::DpopProofReplayed), "{after} s");
        }
        let past = (began + Duration::from_secs(800), clock + 500);
        assert_eq!(taken_by(&replays, "a", 1, past), Ok(()), "by then its iat refuses it");
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
    fn one_bearer_uses_up_only_their_own_room_and_no_room_refuses() {
        let replays = Replays::new();
        let now = Instant::now();
        for number in 0..limit::DPOP_PROOFS_PER_BEARER_MAX {
            assert_eq!(taken(&replays, "greedy", number, now), Ok(()));
        }
        let one_more = limit::DPOP_PROOFS_PER_BEARER_MAX;
        assert_eq!(taken(&replays, "greedy", one_more, now), Err(Reason::DpopProofsLimited));
        assert_eq!(taken(&replays, "greedy", 0, now), Err(Reason::DpopProofReplayed));
        assert_eq!(taken(&replays, "other", 0, now), Ok(()));
    }

    #[test]
    fn all_proofs_together_are_bounded() {
        let replays = Replays::bounded(limit::DPOP_PROOFS_PER_BEARER_MAX, limit::DPOP_PROOFS_MAX);
        let now = Instant::now();
        for number in 0..limit::DPOP_PROOFS_MAX {
            assert_eq!(taken(&replays, &format!("p{number}"), number, now), Ok(()));
        }
        assert_eq!(taken(&replays, "late", 0, now), Err(Reason::DpopProofsLimited));
        assert_eq!(taken(&replays, "late", 0, now + limit::DPOP_MEMORY), Err(Reason::DpopProofsLimited));
        assert_eq!(taken(&replays, "late", 0, now + 2 * limit::DPOP_MEMORY), Ok(()));
    }

    #[test]
    fn those_who_took_most_of_the_room_leave_the_rest_to_others() {
        let replays = Replays::bounded(400, 1_000);
        let now = Instant::now();
        let (mut taken_by_greedy, mut number) = (0, 0);
        for who in ["a", "b", "c", "d"].iter().cycle().take(4_000) {
            number += 1;
            taken_by_greedy += usize::from(taken(&replays, who, number, now).is_ok());
        }
        assert_eq!(taken_by_greedy, 750);
        for latecomer in 0..50 {
            number += 1;
            assert_eq!(taken(&replays, &format!("late{latecomer}"), number, now), Ok(()), "{latecomer}");
        }
        assert_eq!(taken(&replays, "a", number + 1, now), Err(Reason::DpopProofsLimited));
    }
}
