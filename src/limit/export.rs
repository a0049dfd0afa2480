//! Bounds of what leaves the gateway besides answers: the record for others, traces and metrics.

use std::time::Duration;

/// Places that the record is sent to.
pub const EXPORTS_MAX: usize = 8;
/// Events that are sent at once.
pub const EXPORT_BATCH_EVENTS_MAX: usize = 500;
/// Whoever watches wants to know within seconds.
pub const EXPORT_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A place that is down is not asked more often in the end.
pub const EXPORT_RETRY_MAX: Duration = Duration::from_secs(60);
/// Calls whose end has not been seen yet, for each export: what is known of one is forgotten beyond.
pub const EXPORT_OPEN_LEGS_MAX: usize = 10_000;
/// Calls whose spans wait to be sent; those of more are dropped and counted.
pub const TRACES_QUEUED_MAX: usize = 2_048;
/// Calls whose spans are sent at once.
pub const TRACES_BATCH_MAX: usize = 128;
/// How long the spans of a call wait for those of others.
pub const TRACES_PAUSE: Duration = Duration::from_secs(1);
/// Metrics are not sent more often.
pub const METRICS_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// A `traceparent` has 55 characters; versions to come may have more.
pub const TRACEPARENT_BYTES_MAX: usize = 128;
/// What is shown of a name in a trace.
pub const SPAN_TEXT_CHARACTERS_MAX: usize = 256;
