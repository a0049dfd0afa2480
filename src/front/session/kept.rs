//! What clients said of themselves that has no place in their session ids.
//!
//! Decides whose goes where all of it is too much. Refuses to know what was said. Invariants: everything is counted
//! exactly, under one lock, so that what has gone takes nobody's place; while all of it together fits, what one principal
//! says makes its own oldest go and nobody else's; where it does not, the oldest of whoever has most goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::SessionKey;
use crate::ids::PrincipalKey;
use crate::limit;

/// Everything that is kept.
pub(super) struct Kept<T> {
    life: Duration,
    all: Mutex<All<T>>,
}

/// All parts are in the order of their numbers, and so of their age.
struct All<T> {
    parts: BTreeMap<u64, Part<T>>,
    numbers: HashMap<SessionKey, u64>,
    owners: HashMap<PrincipalKey, Own>,
    /// Who has how much; the last one has most.
    most: BTreeSet<(usize, PrincipalKey)>,
    bytes: usize,
    next: u64,
}

struct Part<T> {
    session: SessionKey,
    principal: PrincipalKey,
    bytes: usize,
    began: Instant,
    what: T,
}

/// What one principal has.
#[derive(Default)]
struct Own {
    bytes: usize,
    numbers: BTreeSet<u64>,
}

impl<T: Clone> Kept<T> {
    /// Nothing is kept; what will be goes after that time.
    pub(super) fn new(life: Duration) -> Self {
        Self { life, all: Mutex::default() }
    }

    /// Keeps what a principal's client said in a session. What is longer than the bounds allow has no place.
    pub(super) fn keep(&self, principal: PrincipalKey, session: SessionKey, bytes: usize, what: T) {
        let now = Instant::now();
        let mut all = self.lock();
        all.forget(session);
        while let Some(oldest) = all.oldest().filter(|part| now.duration_since(part.began) >= self.life) {
            let session = oldest.session;
            all.forget(session);
        }
        all.make_room(principal, bytes);
        all.add(Part { session, principal, bytes, began: now, what });
    }

    /// What was said in a session, while it is kept.
    pub(super) fn get(&self, session: SessionKey) -> Option<T> {
        let all = self.lock();
        let part = all.parts.get(all.numbers.get(&session)?)?;
        (part.began.elapsed() < self.life).then(|| part.what.clone())
    }

    /// A session has ended.
    pub(super) fn forget(&self, session: SessionKey) {
        self.lock().forget(session);
    }

    /// How many bytes of how many sessions are kept.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        let all = self.lock();
        (all.bytes, all.parts.len())
    }

    /// How many bytes of how many sessions are kept for one principal.
    #[cfg(test)]
    pub(super) fn held_by(&self, principal: PrincipalKey) -> (usize, usize) {
        self.lock().owners.get(&principal).map_or((0, 0), |own| (own.bytes, own.numbers.len()))
    }

    fn lock(&self) -> MutexGuard<'_, All<T>> {
        // Nothing in here is left half done: no step of it panics.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> All<T> {
    fn oldest(&self) -> Option<&Part<T>> {
        self.parts.first_key_value().map(|(_, part)| part)
    }

    /// First of the principal's own, for as long as it has too much; then of whoever has most.
    fn make_room(&mut self, principal: PrincipalKey, bytes: usize) {
        while let Some(own) = self.owners.get(&principal)
            && own.bytes + bytes > limit::SESSIONS_KEPT_PER_PRINCIPAL_BYTES_MAX
        {
            self.drop_oldest_of(principal);
        }
        while let Some((_, most)) = self.most.last().copied()
            && self.bytes + bytes > limit::SESSIONS_KEPT_BYTES_MAX
        {
            self.drop_oldest_of(most);
        }
    }

    fn drop_oldest_of(&mut self, principal: PrincipalKey) {
        let oldest = self.owners.get(&principal).and_then(|own| own.numbers.first().copied());
        if let Some(part) = oldest.and_then(|number| self.parts.get(&number)) {
            let session = part.session;
            self.forget(session);
        }
    }

    fn add(&mut self, part: Part<T>) {
        let number = self.next;
        self.next += 1;
        self.bytes += part.bytes;
        self.numbers.insert(part.session, number);
        self.count(part.principal, |own| {
            own.bytes += part.bytes;
            own.numbers.insert(number);
        });
        self.parts.insert(number, part);
    }

    fn forget(&mut self, session: SessionKey) {
        let Some(number) = self.numbers.remove(&session) else { return };
        let Some(part) = self.parts.remove(&number) else { return };
        self.bytes -= part.bytes;
        self.count(part.principal, |own| {
            own.bytes -= part.bytes;
            own.numbers.remove(&number);
        });
    }

    /// Changes what a principal has, and where it stands among the others; who has nothing is not remembered.
    fn count(&mut self, principal: PrincipalKey, change: impl FnOnce(&mut Own)) {
        let own = self.owners.entry(principal).or_default();
        self.most.remove(&(own.bytes, principal));
        change(own);
        if own.numbers.is_empty() {
            self.owners.remove(&principal);
        } else {
            self.most.insert((own.bytes, principal));
        }
    }
}

impl<T> Default for All<T> {
    fn default() -> Self {
        Self {
            parts: BTreeMap::new(),
            numbers: HashMap::new(),
            owners: HashMap::new(),
            most: BTreeSet::new(),
            bytes: 0,
            next: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Digest;

    const OF_ONE: usize = limit::SESSIONS_KEPT_PER_PRINCIPAL_BYTES_MAX;
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn principal(number: usize) -> PrincipalKey {
        PrincipalKey(Digest::of("test", &[&number.to_be_bytes()]))
    }

    fn session(of: usize, number: usize) -> SessionKey {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&of.to_be_bytes());
        key[8..].copy_from_slice(&number.to_be_bytes());
        SessionKey(key)
    }

    #[test]
    fn however_many_say_much_at_once_nobody_loses_what_fits() {
        let kept = Kept::new(DAY);
        let part = OF_ONE / 16;
        // One has little, and as many others as fit have all that one may have, over and over.
        kept.keep(principal(0), session(0, 0), part, 0);
        let others = limit::SESSIONS_KEPT_BYTES_MAX / OF_ONE - 1;
        std::thread::scope(|scope| {
            for who in 1..=others {
                let kept = &kept;
                scope.spawn(move || {
                    for number in 0..200 {
                        kept.keep(principal(who), session(who, number), part, number);
                        assert_eq!(kept.get(session(who, number)), Some(number));
                        assert!(kept.held_by(principal(who)).0 <= OF_ONE);
                    }
                });
            }
        });
        assert_eq!(kept.get(session(0, 0)), Some(0), "another's was pushed out");
        for who in 1..=others {
            // The newest of each, and no older one.
            assert!((184..200).all(|number| kept.get(session(who, number)) == Some(number)), "{who}");
            assert!((0..184).all(|number| kept.get(session(who, number)).is_none()), "{who}");
        }
        assert_eq!(kept.held(), (others * OF_ONE + part, others * 16 + 1));
    }

    #[test]
    fn where_all_is_too_much_the_oldest_of_whoever_has_most_goes() {
        let kept = Kept::new(DAY);
        let (many, half) = (limit::SESSIONS_KEPT_BYTES_MAX / OF_ONE, OF_ONE / 2);
        // Everybody has two halves of what one may have, but the first, who has one.
        kept.keep(principal(0), session(0, 0), half, 0);
        for who in 1..=many {
            kept.keep(principal(who), session(who, 0), half, 0);
            kept.keep(principal(who), session(who, 1), half, 1);
        }
        assert_eq!(kept.held().0, limit::SESSIONS_KEPT_BYTES_MAX);
        assert_eq!(kept.get(session(0, 0)), Some(0), "who has least keeps it, however old");
        let lost: Vec<_> = (1..=many).filter(|who| kept.get(session(*who, 0)).is_none()).collect();
        assert_eq!(lost.len(), 1, "one made room for one: {lost:?}");
        assert!((1..=many).all(|who| kept.get(session(who, 1)) == Some(1)), "and that was an oldest");
    }

    #[test]
    fn what_has_ended_or_is_too_old_counts_no_more() {
        let kept = Kept::new(DAY);
        kept.keep(principal(1), session(1, 0), OF_ONE, 0);
        kept.forget(session(1, 0));
        kept.forget(session(1, 0));
        assert_eq!((kept.get(session(1, 0)), kept.held(), kept.held_by(principal(1))), (None, (0, 0), (0, 0)));
        let brief = Kept::new(Duration::ZERO);
        brief.keep(principal(1), session(1, 0), OF_ONE, 0);
        assert_eq!(brief.get(session(1, 0)), None);
        brief.keep(principal(2), session(2, 0), 7, 0);
        assert_eq!(brief.held(), (7, 1), "what is too old goes when something new comes");
        // The same session again is one, not two.
        kept.keep(principal(1), session(1, 0), 5, 1);
        kept.keep(principal(1), session(1, 0), 6, 2);
        assert_eq!((kept.get(session(1, 0)), kept.held()), (Some(2), (6, 1)));
    }
}
