//! Whether one upstream can be reached: calls to one that is down fail at once and cost nothing.
//!
//! Decides when an upstream counts as down. Knows nothing of how it is reached. Invariant: while it is
//! down only the prober in the background tries it. One that takes requests and answers none is suspected
//! first and asked something that every server answers: one slow tool alone takes no server out.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use crate::limit;
use crate::outcome::{Failure, Reason};

/// Whether an upstream can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Nothing was heard yet.
    Connecting,
    /// It answers.
    Up,
    /// It cannot be reached.
    Down {
        /// Why, for administrators; may name hosts, never secrets.
        reason: String,
        /// Since when.
        since: SystemTime,
    },
}

impl std::fmt::Display for Health {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connecting => formatter.write_str("connecting"),
            Self::Up => formatter.write_str("up"),
            Self::Down { reason, .. } => write!(formatter, "down: {reason}"),
        }
    }
}

const CONNECTING: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

/// The state of one upstream; reading it on the way of a call is one atomic load.
#[derive(Debug)]
pub(super) struct Circuit {
    state: AtomicU8,
    /// Requests in a row that ran out of time before anything was answered to any request.
    unanswered: AtomicU32,
    down: Mutex<Option<Down>>,
}

#[derive(Debug)]
struct Down {
    reason: String,
    since: SystemTime,
}

impl Circuit {
    pub(super) const fn new() -> Self {
        Self { state: AtomicU8::new(CONNECTING), unanswered: AtomicU32::new(0), down: Mutex::new(None) }
    }

    /// Lets a call pass unless the upstream is down.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.state.load(Ordering::Acquire) != DOWN {
            return Ok(());
        }
        let detail = match &*self.lock() {
            Some(down) => format!("it is down and tried in the background: {}", down.reason),
            None => "it is down and tried in the background".to_owned(),
        };
        Err(Failure::before(Reason::UpstreamUnreachable, detail))
    }

    /// It answered, whatever it said; answers whether that is news.
    pub(super) fn answered(&self) -> bool {
        // Looked at first: on the way of every call, a load is cheaper than a store.
        if self.unanswered.load(Ordering::Relaxed) != 0 {
            self.unanswered.store(0, Ordering::Relaxed);
        }
        if self.state.load(Ordering::Acquire) == UP {
            return false;
        }
        let mut down = self.lock();
        *down = None;
        self.state.swap(UP, Ordering::AcqRel) != UP
    }

    /// A request ran out of time without any answer; answers whether it should be asked if it lives.
    pub(super) fn unanswered(&self) -> bool {
        let before = self.unanswered.fetch_add(1, Ordering::Relaxed);
        before.saturating_add(1) >= limit::UNANSWERED_IN_A_ROW_MAX
    }

    /// Whether it is up as far as anybody knows, and has not answered anything for too many requests.
    pub(super) fn is_suspected(&self) -> bool {
        self.state.load(Ordering::Acquire) != DOWN
            && self.unanswered.load(Ordering::Relaxed) >= limit::UNANSWERED_IN_A_ROW_MAX
    }

    /// It cannot be reached; answers whether that is news.
    pub(super) fn failed(&self, reason: &str) -> bool {
        let mut down = self.lock();
        let since = down.as_ref().map_or_else(SystemTime::now, |down| down.since);
        *down = Some(Down { reason: reason.to_owned(), since });
        self.state.swap(DOWN, Ordering::AcqRel) != DOWN
    }

    pub(super) fn health(&self) -> Health {
        match (self.state.load(Ordering::Acquire), &*self.lock()) {
            (DOWN, Some(down)) => Health::Down { reason: down.reason.clone(), since: down.since },
            (CONNECTING, _) => Health::Connecting,
            _ => Health::Up,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Down>> {
        self.down.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Pauses that double up to a bound, with some spread so that many gateways do not knock together.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { next: limit::RETRY_PAUSE_MIN }
    }

    /// The pause before the next attempt.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(limit::RETRY_PAUSE_MAX);
        // The low bits of the clock are random enough to spread attempts by a quarter.
        let spread = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
        pause.mul_f64(1.0 - f64::from(spread % 256) / 1024.0)
    }

    /// It worked; begin from the shortest pause again.
    pub(super) const fn reset(&mut self) {
        self.next = limit::RETRY_PAUSE_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_to_an_upstream_that_is_down_fails_before_anything_is_sent() {
        let circuit = Circuit::new();
        assert_eq!(circuit.health(), Health::Connecting);
        assert!(circuit.check().is_ok());
        assert!(circuit.failed("connection refused"));
        assert!(!circuit.failed("again"));
        let failure = circuit.check().unwrap_err();
        assert_eq!((failure.reason, failure.may_have_acted), (Reason::UpstreamUnreachable, false));
        assert!(circuit.answered());
        assert!(!circuit.answered());
        assert!(circuit.check().is_ok());
        assert_eq!(circuit.health(), Health::Up);
    }

    #[test]
    fn an_upstream_is_suspected_when_nothing_is_answered_in_a_row_and_one_answer_clears_it() {
        let circuit = Circuit::new();
        circuit.answered();
        for _ in 1..limit::UNANSWERED_IN_A_ROW_MAX {
            assert!(!circuit.unanswered() && !circuit.is_suspected());
        }
        circuit.answered();
        for _ in 1..limit::UNANSWERED_IN_A_ROW_MAX {
            assert!(!circuit.unanswered());
        }
        assert!(circuit.unanswered() && circuit.is_suspected());
        assert!(circuit.check().is_ok(), "suspected is not down");
        circuit.failed("no answer came in time");
        assert!(!circuit.is_suspected(), "it is known by now");
        assert!(circuit.answered() && !circuit.is_suspected());
    }

    #[test]
    fn pauses_double_and_are_bounded() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..20).map(|_| backoff.pause()).collect();
        assert!(
            pauses.iter().all(|pause| *pause >= limit::RETRY_PAUSE_MIN * 3 / 4 && *pause <= limit::RETRY_PAUSE_MAX)
        );
        assert!(pauses[3] > pauses[0] * 4);
        backoff.reset();
        assert!(backoff.pause() <= limit::RETRY_PAUSE_MIN);
    }
}
