//! Processes that end right after their start are not started over and over.
//!
//! Decides how long nobody tries again. Knows nothing of processes. Invariant: whose credential is worth nothing, or
//! whose calls end their own process, makes nobody else wait.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::health::Backoff;
use crate::ids::Digest;
use crate::limit;
use crate::outcome::{Failure, Reason};

/// Early ends in a row before a pause is made.
const EARLY_ENDS_MAX: u32 = 3;
/// A process that ends sooner by itself ended early.
const EARLY: Duration = Duration::from_secs(10);

/// The pauses of one server, by whom its processes are started for.
#[derive(Debug, Default)]
pub(super) struct Rests(Mutex<HashMap<Option<Digest>, Rest>>);

#[derive(Debug)]
struct Rest {
    early_ends: u32,
    until: Option<Instant>,
    backoff: Backoff,
    ended: Instant,
}

impl Rests {
    /// Whether one may be started now.
    ///
    /// # Errors
    /// [`Reason::UpstreamUnreachable`]
    pub(super) fn check(&self, holder: Option<Digest>) -> Result<(), Failure> {
        let until = self.lock().get(&holder).and_then(|rest| rest.until).filter(|until| Instant::now() < *until);
        let Some(until) = until else { return Ok(()) };
        let pause = until.saturating_duration_since(Instant::now()).as_secs() + 1;
        let detail = format!("it ended right after its start again and again; it is started again in {pause} s");
        Err(Failure::before(Reason::UpstreamUnreachable, detail))
    }

    /// One that lived so long has ended, by itself or not.
    pub(super) fn ended(&self, holder: Option<Digest>, lived: Duration, dismissed: bool) {
        let mut rests = self.lock();
        if lived >= EARLY || dismissed {
            rests.remove(&holder);
            return;
        }
        if rests.len() >= limit::PROCESS_RESTS_MAX && !rests.contains_key(&holder) {
            let oldest = rests.iter().min_by_key(|(_, rest)| rest.ended).map(|(holder, _)| *holder);
            oldest.and_then(|holder| rests.remove(&holder));
        }
        let now = Instant::now();
        let rest = rests.entry(holder).or_insert_with(|| Rest {
            early_ends: 0,
            until: None,
            backoff: Backoff::new(),
            ended: now,
        });
        rest.early_ends += 1;
        rest.ended = now;
        if rest.early_ends >= EARLY_ENDS_MAX {
            rest.until = Some(now + rest.backoff.pause());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<Digest>, Rest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_processes_end_at_once_waits_and_nobody_else_does() {
        let rests = Rests::default();
        let holder = |number: usize| Some(Digest::sha256(&number.to_be_bytes()));
        for _ in 0..EARLY_ENDS_MAX {
            assert!(rests.check(holder(1)).is_ok());
            rests.ended(holder(1), Duration::ZERO, false);
        }
        assert_eq!(rests.check(holder(1)).unwrap_err().reason, Reason::UpstreamUnreachable);
        assert!(rests.check(holder(2)).is_ok() && rests.check(None).is_ok());
        rests.ended(holder(1), EARLY, false);
        assert!(rests.check(holder(1)).is_ok(), "one that lived is no sign any more");
    }

    #[test]
    fn so_many_are_remembered_and_the_oldest_is_forgotten_first() {
        let rests = Rests::default();
        for number in 0..=limit::PROCESS_RESTS_MAX {
            rests.ended(Some(Digest::sha256(&number.to_be_bytes())), Duration::ZERO, false);
        }
        assert_eq!(rests.lock().len(), limit::PROCESS_RESTS_MAX);
        assert!(!rests.lock().contains_key(&Some(Digest::sha256(&0_usize.to_be_bytes()))));
    }
}
