//! The last proof before anything leaves: the intent of this very call is on the record.
//!
//! Decides nothing about the call; it asks the proof inside whether it still holds, before the intent
//! is written and again when it is safe. Invariant: an [`Entry`] exists only after its intent is as
//! durable as the configuration demands, and its end is recorded exactly once, whatever happens.

use std::time::Instant;

use futures_util::future::BoxFuture;

use super::event::{ChargeNote, Intent};
use super::fields::ResultFacts;
use super::hidden::Hidden;
use super::journal::Journal;
use super::metrics::ServerLabel;
use crate::ids::{CallId, LegId, ServerId};
use crate::inversion::{self, Control};
use crate::outcome::{Failure, Outcome, Reason, Refusal, Stop};
use crate::wire::{LastWords, Outgoing};

/// What the record asks of the proof that it seals: the delegate room's `Grant` implements it.
pub trait Evidence: Send {
    /// Whether everything that was decided still holds: revocation epoch, policy, pins.
    ///
    /// # Errors
    /// The refusal that has come up since.
    fn recheck(&self) -> Result<(), Refusal>;

    /// Consumes what was reserved, once the intent is durable and before anything goes out; `None` where nothing was.
    fn consume(&self) -> Option<BoxFuture<'_, Result<(), Stop>>> {
        None
    }

    /// Tells of what was consumed, right after that: it is used up, whatever becomes of the request.
    fn consumed(&self, _journal: &Journal) {}

    /// What it has used up of budgets, once it was consumed.
    fn charged(&self) -> &[ChargeNote] {
        &[]
    }

    /// What is about to be done, as the record tells it.
    fn intent(&self) -> Intent<'_>;

    /// What of its arguments no word of the record may repeat.
    fn hidden(&self) -> Option<&Hidden> {
        None
    }

    /// Where it is about to be done, as metrics label it; `None` for the gateway itself.
    fn server(&self) -> Option<&ServerId>;
}

/// The proof that the intent of this leg is durable, together with what may now be forwarded.
///
/// Made only by [`Journal::open`]. [`Entry::close`] consumes it; one that is dropped without is recorded
/// as `unknown`.
#[derive(Debug)]
#[must_use = "an entry that is dropped is recorded as `unknown`"]
pub struct Entry<P: Evidence> {
    proof: P,
    /// Taken by the one who forwards it: an entry is good for one request.
    outgoing: Option<Outgoing>,
    /// Where its client says why it cancels; what is not said when the end is recorded goes nowhere.
    last_words: Option<LastWords>,
    method: String,
    call: CallId,
    leg: LegId,
    opened: Instant,
    journal: Journal,
    closed: bool,
}

impl<P: Evidence> Entry<P> {
    /// What was proven.
    pub const fn proof(&self) -> &P {
        &self.proof
    }

    /// Takes what may now be forwarded; there is nothing to take a second time.
    pub const fn take_outgoing(&mut self) -> Option<Outgoing> {
        self.outgoing.take()
    }

    /// The call.
    pub const fn call_id(&self) -> CallId {
        self.call
    }

    /// The request of that call.
    pub const fn leg_id(&self) -> LegId {
        self.leg
    }

    /// Records how it ended. Nobody waits for the disk here.
    pub fn close(mut self, outcome: &Outcome) {
        self.end(Some(outcome));
    }

    fn end(&mut self, outcome: Option<&Outcome>) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let took = self.opened.elapsed();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let key = self.journal.key().now();
        let result = match outcome {
            Some(outcome) => ResultFacts::of(outcome, &key, micros),
            None => ResultFacts::unknown("nobody waited for the end", Some(micros)),
        };
        let result = result.charging(self.proof.charged());
        let words = self.last_words.as_ref().and_then(LastWords::end);
        let hidden = self.proof.hidden();
        let clean_words = hidden.and_then(|hidden| Some(hidden.without(words.as_deref()?)));
        let result = result.cancelled_with(clean_words.as_deref().or(words.as_deref()));
        let clean = self.proof.hidden().and_then(|hidden| Some(hidden.without(result.detail()?)));
        let result = match &clean {
            Some(clean) => result.saying(clean),
            None => result,
        };
        let label = result.label();
        self.journal.ended(self.call, self.leg, result);
        let metrics = self.journal.metrics();
        metrics.calls_in_flight.dec();
        metrics.ended(ServerLabel(self.proof.server().cloned()), &self.method, label, took);
    }
}

impl<P: Evidence> Drop for Entry<P> {
    fn drop(&mut self) {
        self.end(None);
    }
}

impl Journal {
    /// Seals a proof: rechecks it, writes the intent, waits until that is durable, consumes what was reserved, rechecks
    /// it again.
    ///
    /// # Errors
    /// The refusal of the recheck, or [`Reason::RecordUnavailable`]. Like every other stop of a call they
    /// are for the caller of this to record with [`Journal::stopped`], which also closes the intent.
    pub async fn open<P: Evidence>(&self, proof: P, outgoing: Outgoing) -> Result<Entry<P>, Stop> {
        proof.recheck()?;
        let started = Instant::now();
        let (call, leg, waiting) = {
            let intent = proof.intent();
            (intent.attempt.call, intent.attempt.leg, self.intend(&intent)?)
        };
        let mut unforwarded = Unforwarded { journal: self, call, leg, armed: true };
        self.write_here().await;
        let safe = waiting.await;
        // Dying in between leaves an intent whose end nobody knows, and what it consumed is never consumed again.
        let consumed = match proof.consume() {
            Some(consumed) if safe => consumed.await,
            _ => Ok(()),
        };
        if safe && consumed.is_ok() {
            proof.consumed(self);
        }
        // From here on there is no await: whoever gets the error records it.
        unforwarded.armed = false;
        if !safe && !inversion::is_off(Control::RecordFirst) {
            return Err(unavailable("the intent could not be written"));
        }
        consumed?;
        self.metrics().journal_wait_seconds.observe(started.elapsed().as_secs_f64());
        proof.recheck()?;
        self.metrics().calls_in_flight.inc();
        let last_words = outgoing.last_words.clone().inspect(LastWords::begin);
        Ok(Entry {
            proof,
            method: outgoing.method.clone(),
            last_words,
            outgoing: Some(outgoing),
            call,
            leg,
            opened: Instant::now(),
            journal: self.clone(),
            closed: false,
        })
    }
}

/// The record cannot take the call, so there is no call.
pub(super) fn unavailable(detail: &'static str) -> Stop {
    Stop::Failed(Failure::before(Reason::RecordUnavailable, detail))
}

/// The client may go while its intent is being written: then nothing was forwarded, and the record says so.
struct Unforwarded<'a> {
    journal: &'a Journal,
    call: CallId,
    leg: LegId,
    armed: bool,
}

impl Drop for Unforwarded<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.journal.ended(self.call, self.leg, ResultFacts::not_forwarded(Reason::Cancelled));
        }
    }
}
