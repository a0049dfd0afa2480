//! Tells a collector how calls went: one span for each call with a child for each stage, and all metrics, over OTLP.
//!
//! Decides which calls are told of, and never holds one up: what finds no place in the queue is dropped and counted.
//! Refuses to know arguments, results, tokens and people. Invariant: a gateway without `[telemetry]` does nothing of it.
//!
//! [`trace`] is what a call carries, `context` the words of W3C, `otlp` those of the collector, `exposition` reads our
//! own metrics, `send` is the task.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::TelemetryConfig;
use crate::ids::ReplicaId;
use crate::limit;
use crate::record::Metrics;

mod context;
mod exposition;
mod otlp;
mod send;
pub mod trace;

pub use context::{Context, HEADER};
pub use trace::{Ended, Stage, Subject, Trace};

use trace::Finished;

/// Where traces go, if they go anywhere.
#[derive(Debug, Clone, Default)]
pub struct Telemetry(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    sample_percent: u32,
    queue: mpsc::Sender<Finished>,
    metrics: Arc<Metrics>,
    /// Nothing in tests that look into the queue.
    sender: Option<send::Sender>,
}

impl Telemetry {
    /// Nobody is told anything.
    #[must_use]
    pub fn off() -> Self {
        Self::default()
    }

    /// Begins to send, in a task that ends with `stop`.
    pub fn start(
        config: Option<&TelemetryConfig>,
        replica: ReplicaId,
        metrics: &Arc<Metrics>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let Some(config) = config else { return Self::off() };
        let (queue, waiting) = mpsc::channel(limit::TRACES_QUEUED_MAX);
        let sender = send::Sender::new(config, replica, Arc::clone(metrics));
        tasks.spawn(send::traces(sender.clone(), waiting, stop.clone()));
        let (sample_percent, metrics) = (config.sample_percent, Arc::clone(metrics));
        Self(Some(Arc::new(Inner { sample_percent, queue, metrics, sender: Some(sender) })))
    }

    /// Begins to send metrics, which `scrape` answers as text.
    pub fn follow_metrics(
        &self,
        scrape: impl Fn() -> String + Send + Sync + 'static,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        if let Some(sender) = self.0.as_ref().and_then(|inner| inner.sender.clone()) {
            tasks.spawn(stop.clone().run_until_cancelled_owned(send::metrics(sender, scrape)));
        }
    }

    /// Begins to follow a call; `context` is where it comes from.
    #[must_use]
    pub fn begin(&self, context: Option<Context>) -> Trace {
        let Some(inner) = &self.0 else { return Trace::off() };
        let context = context.unwrap_or_else(Context::fresh);
        if !context.is_sampled(inner.sample_percent) {
            return Trace::off();
        }
        Trace::begin(context, Arc::clone(inner))
    }

    /// Whether calls are followed at all.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }
}

impl Inner {
    /// Hands a call over; what finds no place is dropped and counted.
    fn push(&self, finished: Finished) {
        let spans = finished.spans.len() as u64;
        if self.queue.try_send(finished).is_err() {
            self.metrics.spans_dropped.inc_by(spans);
        }
    }
}
