//! How the last calls ended, and how many of them were errors.
//!
//! Decides what an end is, and whose errors count how often. Invariant: no more ends are kept than are asked about.

use std::collections::VecDeque;

use crate::outcome::{Outcome, Reason, says_error};
use crate::wire::{Json, Value};

/// How a call ended, as far as the breaker tells ends apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With a result.
    Well,
    /// With an error of the tool, or with nothing that is an answer.
    Failed,
    /// With an error that says that it was called wrongly.
    Misused,
}

impl End {
    /// How a call ended; nothing where that says nothing about who called and what was called. That a server could not be
    /// reached says nothing about who called it.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Complete(result) => Some(if says_error(result) { Self::Failed } else { Self::Well }),
            Outcome::Error(error) => Some(if is_misuse(error) { Self::Misused } else { Self::Failed }),
            Outcome::Failed(failure) if is_its_servers(failure.reason) => Some(Self::Failed),
            Outcome::InputRequired { .. } | Outcome::Task(_) | Outcome::Refused(_) | Outcome::Failed(_) => None,
        }
    }

    /// Whether it was an error, whoever made it.
    #[must_use]
    pub const fn is_error(self) -> bool {
        !matches!(self, Self::Well)
    }
}

/// `Invalid params`, as JSON-RPC has it.
fn is_misuse(error: &Json) -> bool {
    error.value().as_object().and_then(|error| error.get("code")).and_then(Value::as_i64) == Some(-32602)
}

/// Whether a failure is that of a server which had got the call: it did not answer in time, or nothing that is an answer.
const fn is_its_servers(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::UpstreamTimeout | Reason::UpstreamClosed | Reason::UpstreamGarbage | Reason::UpstreamStatus
    )
}

/// The last ends: of each, whom it is put down to as a number, and whether it was an error.
#[derive(Debug, Default)]
pub(super) struct Ends {
    last: VecDeque<(u64, bool)>,
    errors: usize,
}

impl Ends {
    /// One more; so many are kept.
    pub(super) fn push(&mut self, of: u64, is_error: bool, most: usize) {
        self.last.push_back((of, is_error));
        self.errors += usize::from(is_error);
        while self.last.len() > most {
            let gone = self.last.pop_front().is_some_and(|(_, error)| error);
            self.errors -= usize::from(gone);
        }
    }

    pub(super) const fn errors(&self) -> usize {
        self.errors
    }

    pub(super) fn is_full(&self, most: usize) -> bool {
        self.last.len() >= most
    }

    pub(super) fn clear(&mut self) {
        self.last.clear();
        self.errors = 0;
    }

    /// Whether all of them are put down to one.
    pub(super) fn are_of_one(&self) -> bool {
        let first = self.last.front().map(|(of, _)| *of);
        self.last.iter().all(|(of, _)| Some(*of) == first)
    }

    /// The errors where so many count at most of any one.
    pub(super) fn errors_of_each(&self, most: usize) -> usize {
        let mut counted = 0_usize;
        let mut seen: Vec<u64> = Vec::new();
        for (of, _) in self.last.iter().filter(|(_, error)| *error) {
            if !seen.contains(of) {
                seen.push(*of);
                let errors = self.last.iter().filter(|(other, error)| *error && other == of).count();
                counted = counted.saturating_add(errors.min(most));
            }
        }
        counted
    }
}

/// So many in a hundred of so many.
pub(super) fn share(percent: u32, of: usize) -> usize {
    usize::try_from(percent).unwrap_or(usize::MAX).saturating_mul(of).div_ceil(100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Failure, Refusal};
    use crate::wire::Source;

    #[test]
    fn an_end_is_told_by_what_the_server_answered_and_by_nothing_that_is_ours() {
        let json = |text: &str| Json::parse(text, Source::Upstream).unwrap();
        let failed = |reason| Outcome::Failed(Failure::after(reason, "x"));
        let cases = [
            (Outcome::Complete(json(r#"{"content":[]}"#)), Some(End::Well)),
            (Outcome::Complete(json(r#"{"content":[],"isError":false}"#)), Some(End::Well)),
            (Outcome::Complete(json(r#"{"content":[{"text":"\"isError\":true"}]}"#)), Some(End::Well)),
            (Outcome::Complete(json(r#"{"content":[],"isError":true}"#)), Some(End::Failed)),
            (Outcome::Error(json(r#"{"code":-32603,"message":"no"}"#)), Some(End::Failed)),
            (Outcome::Error(json(r#"{"code":-32602,"message":"no"}"#)), Some(End::Misused)),
            (failed(Reason::UpstreamTimeout), Some(End::Failed)),
            (failed(Reason::UpstreamUnreachable), None),
            (Outcome::Refused(Refusal::new(Reason::NotAllowed)), None),
        ];
        for (outcome, expected) in cases {
            assert_eq!(End::of(&outcome), expected, "{outcome:?}");
        }
    }

    #[test]
    fn errors_are_counted_as_they_come_and_go() {
        let mut ends = Ends::default();
        for (number, error) in [true, true, false, true, false].into_iter().enumerate() {
            ends.push(u64::try_from(number).unwrap(), error, 3);
        }
        assert_eq!((ends.errors(), ends.is_full(3), ends.is_full(4)), (1, true, false));
        ends.push(9, true, 1);
        assert_eq!((ends.errors(), ends.are_of_one()), (1, true), "also where fewer are kept than before");
        ends.clear();
        assert_eq!((ends.errors(), ends.is_full(1)), (0, false));
    }
}
