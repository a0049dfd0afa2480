//! Decides what is counted, and under which labels.
//!
//! Refuses labels that a caller can choose: methods are a closed list and servers come from the
//! configuration, so that nobody outside decides how many series there are. Invariant: every refusal is
//! counted by its reason, also those that the record only counts in bulk.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::event::{AdminNote, PinNote};
use crate::ids::ServerId;
use crate::outcome::Reason;

/// The `Content-Type` of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Legs that were forwarded, by how they ended.
    pub calls: Family<CallLabels, Counter>,
    /// Seconds from the durable intent to the end of a leg.
    pub call_seconds: Family<ServerLabels, Histogram, fn() -> Histogram>,
    /// Legs that are being forwarded.
    pub calls_in_flight: Gauge,
    /// Refusals and failures before forwarding.
    pub refusals: Family<ReasonLabels, Counter>,
    /// Whether an upstream answers: 1 or 0.
    pub upstream_well: Family<ServerLabels, Gauge>,
    /// Processes of an upstream that were started.
    pub processes_started: Family<ServerLabels, Counter>,
    /// Processes of an upstream that ended, by why.
    pub processes_ended: Family<ProcessLabels, Counter>,
    /// How often rows of the store were read or changed.
    pub store_operations: Family<StoreLabels, Counter>,
    /// Whether the journal can be written: 1 or 0.
    pub journal_well: Gauge,
    /// Seconds that one sync takes.
    pub journal_sync_seconds: Histogram,
    /// Lines that one write takes.
    pub journal_batch_lines: Histogram,
    /// Seconds that an intent waits until it is safe.
    pub journal_wait_seconds: Histogram,
    /// Lines that found no place in the queue.
    pub journal_dropped: Counter,
    /// Bytes of all segments.
    pub journal_bytes: Gauge<u64, AtomicU64>,
    /// How much of `keep_bytes` they are, of a hundred.
    pub journal_kept_percent: Gauge,
    /// How much of the journal's disk is in use, of a hundred.
    pub journal_disk_percent: Gauge,
    /// Records that the last checkpoint covers.
    pub checkpoint_records: Gauge<u64, AtomicU64>,
    /// Whether checkpoints can be signed: 1 or 0.
    pub checkpoint_well: Gauge,
    /// Checkpoints that could not be sent to a place.
    pub checkpoint_sink_failures: Counter,
    /// Decisions that the next policies would make otherwise.
    pub shadow_differences: Family<ChangeLabels, Counter>,
    /// Decisions that were not evaluated under the next policies.
    pub shadow_dropped: Counter,
    /// Records that were sent to an export.
    pub exported: Family<ExportLabels, Counter>,
    /// Batches that could not be sent.
    pub export_failures: Family<ExportLabels, Counter>,
    /// Records that were read for an export and are not sent yet.
    pub export_waiting: Family<ExportLabels, Gauge>,
    /// Spans that were sent.
    pub spans_sent: Counter,
    /// Spans that found no place in the queue, or that could not be sent.
    pub spans_dropped: Counter,
    /// Definitions that were accepted, rejected or kept back.
    pub pins: Family<PinLabels, Counter>,
    /// What administrators did, or were refused.
    pub admin_operations: Family<AdminLabels, Counter>,
    /// What happened to requests for approval.
    pub approvals: Family<EventLabels, Counter>,
    /// Seconds from when an approval was asked for until somebody had decided.
    pub approval_wait_seconds: Family<EventLabels, Histogram, fn() -> Histogram>,
    /// What the breaker has stopped: agents (for everybody or for one person), mandates, tools.
    pub breaker_trips: Family<KindLabels, Counter>,
    /// Whether the files that were read last are in force, and the next start would take them: 1 or 0.
    pub files_well: Gauge,
    /// The revocation epoch that is in force.
    pub revocation_epoch: Gauge<u64, AtomicU64>,
}

/// Labels of a forwarded leg.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallLabels {
    /// The upstream.
    pub server: ServerLabel,
    /// The method, of a closed list.
    pub method: &'static str,
    /// How it ended.
    pub outcome: &'static str,
}

/// Labels of something that belongs to one upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ServerLabels {
    /// The upstream.
    pub server: ServerLabel,
}

/// Labels of what the store is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreLabels {
    /// What the first row is that is asked for, of a closed list.
    pub section: &'static str,
    /// `read` or `change`.
    pub operation: &'static str,
}

/// Labels of processes that ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProcessLabels {
    /// The upstream.
    pub server: ServerLabel,
    /// Why, of a closed list.
    pub why: &'static str,
}

/// Labels of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// The reason.
    pub reason: ReasonLabel,
}

/// Labels of something that belongs to one export.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ExportLabels {
    /// Its name in the files.
    pub export: String,
}

/// Labels of what became of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PinLabels {
    /// The upstream.
    pub server: String,
    /// `accepted`, `rejected`, `changed` where something else was accepted before, or `new`.
    pub state: &'static str,
}

/// Labels of a decision that would change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ChangeLabels {
    /// `newly_allowed` or `newly_refused`.
    pub change: &'static str,
}

/// Labels of an administrator's operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AdminLabels {
    /// The operation, of a closed list.
    pub operation: &'static str,
    /// `host`, `user` or `agent`.
    pub actor_kind: &'static str,
    /// `done`, `refused` or `failed`.
    pub outcome: &'static str,
}

/// Labels of what happened to a request for approval.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EventLabels {
    /// What happened, of a closed list.
    pub event: &'static str,
}

/// Labels of what the breaker has stopped.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabels {
    /// `agent`, `mandate` or `tool`.
    pub kind: &'static str,
}

/// An upstream as a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerLabel(pub Option<ServerId>);

/// A reason as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReasonLabel(pub Reason);

impl EncodeLabelValue for ServerLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_ref().map_or("bailiwick", ServerId::as_str), encoder)
    }
}

impl EncodeLabelValue for ReasonLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.0.code(), encoder)
    }
}

impl Metrics {
    /// Registers everything.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("bailiwick");
        let metrics = Self {
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(call_buckets),
            calls_in_flight: Gauge::default(),
            refusals: Family::default(),
            upstream_well: Family::default(),
            processes_started: Family::default(),
            processes_ended: Family::default(),
            store_operations: Family::default(),
            journal_well: Gauge::default(),
            journal_sync_seconds: short_buckets(),
            journal_batch_lines: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0]),
            journal_wait_seconds: short_buckets(),
            journal_dropped: Counter::default(),
            journal_bytes: Gauge::default(),
            journal_kept_percent: Gauge::default(),
            journal_disk_percent: Gauge::default(),
            checkpoint_records: Gauge::default(),
            checkpoint_well: Gauge::default(),
            exported: Family::default(),
            export_failures: Family::default(),
            export_waiting: Family::default(),
            spans_sent: Counter::default(),
            spans_dropped: Counter::default(),
            checkpoint_sink_failures: Counter::default(),
            shadow_differences: Family::default(),
            shadow_dropped: Counter::default(),
            pins: Family::default(),
            admin_operations: Family::default(),
            approvals: Family::default(),
            approval_wait_seconds: Family::new_with_constructor(wait_buckets),
            breaker_trips: Family::default(),
            files_well: Gauge::default(),
            revocation_epoch: Gauge::default(),
            registry: Registry::default(),
        };
        metrics.journal_well.set(1);
        metrics.checkpoint_well.set(1);
        metrics.files_well.set(1);
        let m = &metrics;
        registry.register("pins", "definitions by what became of them", m.pins.clone());
        registry.register("calls", "forwarded requests by how they ended", m.calls.clone());
        registry.register("call_duration_seconds", "from the durable intent to the end", m.call_seconds.clone());
        registry.register("calls_in_flight", "requests being forwarded", m.calls_in_flight.clone());
        registry.register("refusals", "requests that were not forwarded, by reason", m.refusals.clone());
        registry.register("upstream_well", "whether the upstream answers", m.upstream_well.clone());
        registry.register("processes_started", "processes of an upstream", m.processes_started.clone());
        registry.register("processes_ended", "processes of an upstream by why they ended", m.processes_ended.clone());
        registry.register("store_operations", "what rows of the store were asked", m.store_operations.clone());
        registry.register("journal_well", "whether the journal can be written", m.journal_well.clone());
        registry.register("journal_sync_seconds", "duration of one sync", m.journal_sync_seconds.clone());
        registry.register("journal_batch_lines", "lines of one write", m.journal_batch_lines.clone());
        registry.register("journal_wait_seconds", "wait of an intent until it is safe", m.journal_wait_seconds.clone());
        registry.register("journal_dropped_lines", "lines without a place in the queue", m.journal_dropped.clone());
        registry.register("journal_bytes", "bytes of all segments", m.journal_bytes.clone());
        registry.register("journal_kept_percent", "segments, of keep_bytes", m.journal_kept_percent.clone());
        registry.register("journal_disk_percent", "use of the journal's disk", m.journal_disk_percent.clone());
        registry.register("checkpoint_records", "records that are signed", m.checkpoint_records.clone());
        registry.register("checkpoint_well", "whether checkpoints can be signed", m.checkpoint_well.clone());
        registry.register("exported_records", "records that were sent to an export", m.exported.clone());
        registry.register("export_failures", "batches that could not be sent", m.export_failures.clone());
        registry.register("export_waiting_records", "records that wait for an export", m.export_waiting.clone());
        registry.register("spans_sent", "spans that a collector took", m.spans_sent.clone());
        registry.register("spans_dropped", "spans that were not sent", m.spans_dropped.clone());
        let failures = m.checkpoint_sink_failures.clone();
        registry.register("checkpoint_sink_failures", "checkpoints that could not be sent", failures);
        registry.register("shadow_differences", "decisions that policies.next changes", m.shadow_differences.clone());
        registry.register("shadow_dropped", "decisions that policies.next was not asked", m.shadow_dropped.clone());
        registry.register("admin_operations", "what administrators did or were refused", m.admin_operations.clone());
        registry.register("approvals", "what happened to requests for approval", m.approvals.clone());
        let waits = m.approval_wait_seconds.clone();
        registry.register("approval_wait_seconds", "from asked to decided, by what was decided", waits);
        registry.register("breaker_trips", "what the breaker has stopped", m.breaker_trips.clone());
        // What rises from nothing at all rises for nobody who watches.
        for kind in ["agent", "mandate", "tool"] {
            let _from_zero = m.breaker_trips.get_or_create(&KindLabels { kind });
        }
        registry.register(
            "files_well",
            "whether the files are in force and the next start takes them",
            m.files_well.clone(),
        );
        registry.register("revocation_epoch", "the revocation epoch in force", m.revocation_epoch.clone());
        Arc::new(Self { registry, ..metrics })
    }

    /// The breaker has stopped something.
    pub fn breaker_tripped(&self, kind: &'static str) {
        self.breaker_trips.get_or_create(&KindLabels { kind }).inc();
    }

    /// Counts one request that was not forwarded.
    pub fn refused(&self, reason: Reason) {
        self.refusals.get_or_create(&ReasonLabels { reason: ReasonLabel(reason) }).inc();
    }

    /// Counts one operation of an administrator.
    pub fn administered(&self, note: &AdminNote<'_>) {
        let AdminNote { operation, actor_kind, outcome, .. } = *note;
        self.admin_operations.get_or_create(&AdminLabels { operation, actor_kind, outcome }).inc();
    }

    /// Counts what happened to a request for approval. Somebody who may not approve and tries is worth a look.
    pub fn approval(&self, event: &'static str) {
        self.approvals.get_or_create(&EventLabels { event }).inc();
    }

    /// Says how long a request for approval has waited until it was `approved` or `denied`.
    pub fn approval_waited(&self, event: &'static str, waited: Duration) {
        self.approval_wait_seconds.get_or_create(&EventLabels { event }).observe(waited.as_secs_f64());
    }

    /// Counts what became of a definition. One that changed after it was accepted is worth waking somebody.
    pub fn pinned(&self, note: &PinNote<'_>) {
        let state = match (note.state, note.before.is_some() || note.renamed_from.is_some()) {
            ("quarantined", true) => "changed",
            ("quarantined", false) => "new",
            (state, _) => state,
        };
        self.pins.get_or_create(&PinLabels { server: note.server.to_owned(), state }).inc();
    }

    /// Counts one decision that the next policies would make otherwise.
    pub fn shadow_differed(&self, change: &'static str) {
        self.shadow_differences.get_or_create(&ChangeLabels { change }).inc();
    }

    /// Counts one forwarded leg that ended.
    pub fn ended(&self, server: ServerLabel, method: &str, outcome: &'static str, took: Duration) {
        let labels = ServerLabels { server };
        self.call_seconds.get_or_create(&labels).observe(took.as_secs_f64());
        let method = known_method(method);
        self.calls.get_or_create(&CallLabels { server: labels.server, method, outcome }).inc();
    }

    /// Counts records that were sent to an export, and says how many wait.
    pub fn exported(&self, export: &str, sent: usize, waiting: usize) {
        let labels = ExportLabels { export: export.to_owned() };
        self.export_waiting.get_or_create(&labels).set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.exported.get_or_create(&labels).inc_by(sent as u64);
    }

    /// Counts a batch that could not be sent.
    pub fn export_failed(&self, export: &str) {
        self.export_failures.get_or_create(&ExportLabels { export: export.to_owned() }).inc();
    }

    /// Says whether an upstream answers.
    pub fn upstream(&self, server: &ServerId, well: bool) {
        let labels = ServerLabels { server: ServerLabel(Some(server.clone())) };
        self.upstream_well.get_or_create(&labels).set(i64::from(well));
    }

    /// Says how many processes of an upstream were started in all, and how many ended, by why.
    pub fn processes(&self, server: &ServerId, started: u64, ended: impl IntoIterator<Item = (&'static str, u64)>) {
        let server = ServerLabel(Some(server.clone()));
        let total = |counter: &Counter, total| counter.inner().store(total, Ordering::Relaxed);
        total(&self.processes_started.get_or_create(&ServerLabels { server: server.clone() }), started);
        for (why, count) in ended {
            total(&self.processes_ended.get_or_create(&ProcessLabels { server: server.clone(), why }), count);
        }
    }

    /// Says how often rows of a section were read or changed in all.
    pub fn store_operations(&self, all: impl IntoIterator<Item = (&'static str, &'static str, u64)>) {
        for (section, operation, count) in all {
            let labels = StoreLabels { section, operation };
            self.store_operations.get_or_create(&labels).inner().store(count, Ordering::Relaxed);
        }
    }

    /// The exposition text; see [`CONTENT_TYPE`].
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            tracing::error!("the metrics could not be written as text");
        }
        text
    }
}

fn call_buckets() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0])
}

/// People answer within seconds, or after lunch, or on Monday.
fn wait_buckets() -> Histogram {
    Histogram::new([5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 14400.0, 86400.0])
}

fn short_buckets() -> Histogram {
    Histogram::new([0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0])
}

/// The method as a label: a client can invent as many others as it likes.
fn known_method(method: &str) -> &'static str {
    const KNOWN: &[&str] = &[
        "tools/call",
        "tools/list",
        "resources/read",
        "resources/list",
        "resources/templates/list",
        "resources/subscribe",
        "prompts/get",
        "prompts/list",
        "completion/complete",
        "tasks/get",
        "tasks/result",
        "tasks/cancel",
        "server/discover",
        "subscriptions/listen",
        "initialize",
        "ping",
    ];
    KNOWN.iter().find(|known| **known == method).copied().unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_family_and_no_label_that_a_caller_chose() {
        let metrics = Metrics::new();
        let server = ServerId::new("git").unwrap();
        metrics.ended(ServerLabel(Some(server.clone())), "tools/call", "complete", Duration::from_millis(3));
        metrics.ended(ServerLabel(Some(server.clone())), "evil/\"method", "complete", Duration::from_millis(3));
        metrics.refused(Reason::NotAllowed);
        metrics.upstream(&server, true);
        let text = metrics.encode();
        for line in [
            "bailiwick_calls_total{server=\"git\",method=\"tools/call\",outcome=\"complete\"} 1",
            "bailiwick_calls_total{server=\"git\",method=\"other\",outcome=\"complete\"} 1",
            "bailiwick_refusals_total{reason=\"not_allowed\"} 1",
            "bailiwick_upstream_well{server=\"git\"} 1",
            "bailiwick_journal_well 1",
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
        assert!(!text.contains("evil"));
    }
}
