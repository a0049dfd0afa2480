//! Draws the events of one request out of whatever carries them, within its time limits.
//!
//! Decides when waiting is over. Knows nothing of transports or eras. Invariant: there is exactly one
//! end, and an upstream that says nothing gets one too.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::Either;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attribution::Unanswered;
use super::exchange::{Event, Opened, Signal, Stream};
use super::gate::Permit;
use super::parked::Asker;
use crate::config::HealthConfig;
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason};

/// Where the events of one request come from. Dropping it cancels the request.
pub(super) trait Answers: Send + 'static {
    /// What comes next; not asked again after [`Event::Done`].
    fn draw(&mut self) -> impl Future<Output = Signal> + Send;

    /// The next event, where nothing can be asked.
    fn next(&mut self) -> impl Future<Output = Event> + Send {
        async {
            loop {
                if let Signal::Event(event) = self.draw().await {
                    return event;
                }
            }
        }
    }
}

/// The clock of a call that may have to wait for a person, and its place among the calls in flight.
#[derive(Debug, Default)]
pub(super) struct Pause {
    place: Mutex<Option<Permit>>,
    /// Questions that were not answered yet.
    open: Unanswered,
    answered: Notify,
}

impl Pause {
    pub(super) fn new(place: Option<Permit>, open: Unanswered) -> Self {
        Self { place: Mutex::new(place), open, ..Self::default() }
    }

    /// Gives the place free while the call waits.
    pub(super) fn release(&self) {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Takes a place again.
    pub(super) fn restore(&self, place: Permit) {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).replace(place);
    }

    /// Its client was told of the questions.
    pub(super) fn told(&self) {
        self.open.told();
    }

    /// A question was answered: the clock goes on.
    pub(super) fn answered(&self) {
        self.open.answered();
        self.answered.notify_one();
    }

    /// Something was asked: until it is answered a person is waited for.
    pub(super) fn asked(&self) {
        self.open.asked();
    }

    fn is_waiting(&self) -> bool {
        self.open.is_any()
    }
}

/// How long one request may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Until the first byte of an answer.
    pub(super) first_byte: Instant,
    /// Between two events.
    pub(super) idle: Duration,
    /// Until the end.
    pub(super) deadline: Instant,
}

impl Patience {
    /// For a request that has an end.
    pub(super) fn call(health: &HealthConfig) -> Self {
        let now = Instant::now();
        let deadline = now + health.call_timeout;
        Self { first_byte: (now + health.first_byte_timeout).min(deadline), idle: health.idle_timeout, deadline }
    }

    /// For a stream that stays open.
    pub(super) fn listening(health: &HealthConfig) -> Self {
        let now = Instant::now();
        // A year: longer than any process or connection lives.
        let deadline = now + Duration::from_secs(365 * 24 * 3600);
        Self { first_byte: now + health.first_byte_timeout, idle: limit::CHANGE_STREAM_IDLE, deadline }
    }

    /// For the beginning of a connection or process.
    pub(super) fn connect(health: &HealthConfig) -> Self {
        let deadline = Instant::now() + health.connect_timeout;
        Self { first_byte: deadline, idle: health.connect_timeout, deadline }
    }

    /// For an answer that a person may have to be waited for: only silence within it is too long.
    pub(super) fn unhurried(self) -> Self {
        let far = Instant::now() + Duration::from_secs(365 * 24 * 3600);
        Self { first_byte: far, deadline: far, ..self }
    }

    /// When the next event must have come.
    pub(super) fn next_event(&self) -> Instant {
        (Instant::now() + self.idle).min(self.deadline)
    }
}

/// That time is over.
pub(super) fn timed_out(what: &str) -> Outcome {
    Outcome::Failed(Failure::after(Reason::UpstreamTimeout, what))
}

/// Waits for the first event in place, until `first`; goes on in a task only if there is more than the end.
pub(super) async fn drive(
    mut answers: impl Answers,
    patience: Patience,
    first: Instant,
    asker: Option<Arc<Asker>>,
) -> Opened {
    let drawn = match tokio::time::timeout_at(first, answers.draw()).await {
        Ok(signal) => signal,
        Err(_) => Signal::Event(Event::Done(late())),
    };
    match drawn {
        Signal::Event(Event::Done(outcome)) => Opened::Done(outcome),
        first => go_on(answers, first, patience, asker),
    }
}

/// Goes on in a task after what came first.
pub(super) fn go_on(answers: impl Answers, first: Signal, patience: Patience, asker: Option<Arc<Asker>>) -> Opened {
    // One place more than whatever comes before the end, so that a client that stops reading finds the end as well.
    let (sender, receiver) = mpsc::channel(limit::EXCHANGE_EVENTS_MAX + 1);
    let end = sender.clone().try_reserve_owned().ok();
    let cancelled = CancellationToken::new();
    let guard = cancelled.clone().drop_guard();
    let pause = asker.as_ref().map(|asker| Arc::clone(&asker.pause)).unwrap_or_default();
    tokio::spawn(async move {
        // Dropping the answers tells the upstream, so that must happen however this ends.
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = feed(answers, first, patience, &pause, Client { sender, end }) => {}
        }
    });
    Opened::Streaming(Stream::new(receiver, guard, asker))
}

/// Whoever reads what is drawn.
struct Client {
    sender: mpsc::Sender<Signal>,
    /// The place of the end.
    end: Option<mpsc::OwnedPermit<Signal>>,
}

async fn feed(mut answers: impl Answers, first: Signal, mut patience: Patience, pause: &Pause, client: Client) {
    let Client { sender, end } = client;
    let over = |signal| drop(end.map(|place| place.send(signal)));
    let length = patience.deadline.saturating_duration_since(Instant::now());
    let mut signal = first;
    loop {
        if matches!(signal, Signal::Event(Event::Done(_))) {
            return over(signal);
        }
        // A client that reads nothing more holds its place no longer than the call may take.
        let place = loop {
            let until = if pause.is_waiting() { None } else { Some(patience.deadline) };
            tokio::select! {
                biased;
                place = sender.reserve() => break place,
                () = pause.answered.notified() => patience.deadline = Instant::now() + length,
                () = until.map_or_else(forever, |until| Either::Right(tokio::time::sleep_until(until))) => {
                    if !pause.is_waiting() {
                        let unread = timed_out("what came of it was not read in time");
                        return over(Signal::Event(Event::Done(unread)));
                    }
                }
            }
        };
        match place {
            Ok(place) => place.send(signal),
            Err(_) => return,
        }
        let drawing = answers.draw();
        tokio::pin!(drawing);
        signal = loop {
            // While a person is waited for, the time that an answer may take counts, and it is counted elsewhere.
            let until = if pause.is_waiting() { None } else { Some(patience.next_event()) };
            tokio::select! {
                biased;
                drawn = &mut drawing => break drawn,
                () = pause.answered.notified() => patience.deadline = Instant::now() + length,
                () = until.map_or_else(forever, |until| Either::Right(tokio::time::sleep_until(until))) => {
                    break Signal::Event(Event::Done(late()));
                }
            }
        };
    }
}

fn late() -> Outcome {
    timed_out("no event came in time")
}

fn forever<T>() -> Either<std::future::Pending<()>, T> {
    Either::Left(std::future::pending())
}

async fn next(answers: &mut impl Answers, until: Instant) -> Event {
    match tokio::time::timeout_at(until, answers.next()).await {
        Ok(event) => event,
        Err(_) => Event::Done(late()),
    }
}

/// Waits for the end and leaves the notifications out.
pub(super) async fn outcome(answers: &mut impl Answers, patience: Patience) -> Outcome {
    loop {
        if let Event::Done(outcome) = next(answers, patience.next_event()).await {
            return outcome;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::tests::patient;

    /// An upstream that says what it was given, and then nothing more.
    struct Silent(Option<Event>);

    impl Answers for Silent {
        async fn draw(&mut self) -> Signal {
            match self.0.take() {
                Some(event) => Signal::Event(event),
                None => std::future::pending().await,
            }
        }
    }

    /// An upstream that says more than anybody reads.
    struct Endless {
        _at_the_server: Arc<()>,
    }

    impl Answers for Endless {
        async fn draw(&mut self) -> Signal {
            Signal::Event(Event::Notification(crate::wire::Message::notification("notifications/x", None)))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_holds_its_place_no_longer_than_the_call_may_take() {
        let health = patient();
        let place = Arc::new(());
        let answers = Endless { _at_the_server: Arc::clone(&place) };
        let patience = Patience::call(&health);
        let opened = drive(answers, patience, patience.first_byte, None).await;
        let mut exchange = crate::upstream::Exchange::opening(Box::pin(std::future::ready(opened)));
        tokio::time::sleep(health.call_timeout - Duration::from_millis(1)).await;
        assert_eq!(Arc::strong_count(&place), 2, "until then it may be read");
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(Arc::strong_count(&place), 1, "the request is over at the server");
        let mut read = 0;
        let end = loop {
            match exchange.next().await {
                Event::Done(outcome) => break outcome,
                _ => read += 1,
            }
        };
        assert!(ended_late(&end) && read == limit::EXCHANGE_EVENTS_MAX, "{read}");
    }

    fn ended_late(outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Failed(failure) if failure.reason == Reason::UpstreamTimeout)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_stays_open_is_given_up_after_so_long_a_silence_and_a_call_sooner() {
        let health = patient();
        for (listens, max) in [(true, limit::CHANGE_STREAM_IDLE), (false, health.idle_timeout)] {
            let patience = if listens { Patience::listening(&health) } else { Patience::call(&health) };
            let notification = crate::wire::Message::notification("notifications/x", None);
            let began = Instant::now();
            let mut answers = Silent(Some(Event::Notification(notification)));
            assert!(ended_late(&outcome(&mut answers, patience).await));
            let took = began.elapsed();
            assert!(took >= max && took < max + Duration::from_secs(1), "{took:?}");
        }
    }
}
