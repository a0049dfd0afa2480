//! The words of OTLP over HTTP, as JSON: traces and metrics (opentelemetry-proto 1.x, `application/json`).
//!
//! Ids are hexadecimal, times are nanoseconds in text, as the mapping to JSON wants it. Refuses to know where it goes.
//! Invariant: every document names the service, its version and the replica.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::context::spelled;
use super::exposition::{Family, Kind as Shape, Sample};
use super::trace::{Finished, Span};

/// Monotonic counts since the start, as OTLP counts.
const CUMULATIVE: u32 = 2;

/// Who tells.
pub fn resource(replica: &str) -> Value {
    let attributes = [
        ("service.name", "bailiwick"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", replica),
    ];
    json!({ "attributes": attributes.map(|(key, value)| attribute(key, value)) })
}

fn scope() -> Value {
    json!({ "name": "bailiwick", "version": env!("CARGO_PKG_VERSION") })
}

fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// The body of `/v1/traces`.
pub(super) fn traces(resource: &Value, finished: &[Finished]) -> Value {
    let spans: Vec<Value> =
        finished.iter().flat_map(|call| call.spans.iter().map(|span| one(&call.trace, span))).collect();
    json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "scope": scope(), "spans": spans }] }] })
}

fn one(trace: &[u8; 16], span: &Span) -> Value {
    let attributes: Vec<Value> = span.attributes.iter().map(|(key, value)| attribute(key, value)).collect();
    json!({
        "traceId": spelled(trace),
        "spanId": spelled(&span.id),
        "parentSpanId": span.parent.map_or_else(String::new, |parent| spelled(&parent)),
        "name": span.name,
        "kind": span.kind as u32,
        "startTimeUnixNano": nanoseconds(span.began),
        "endTimeUnixNano": nanoseconds(span.ended),
        "attributes": attributes,
        "status": if span.failed { json!({ "code": 2 }) } else { json!({}) },
    })
}

fn nanoseconds(at: SystemTime) -> String {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

/// The body of `/v1/metrics`.
pub(super) fn metrics(resource: &Value, families: &[Family], began: SystemTime) -> Value {
    let times = (nanoseconds(began), nanoseconds(SystemTime::now()));
    let metrics: Vec<Value> = families.iter().map(|family| metric(family, &times)).collect();
    json!({ "resourceMetrics": [{ "resource": resource, "scopeMetrics": [{ "scope": scope(), "metrics": metrics }] }] })
}

fn metric(family: &Family, times: &(String, String)) -> Value {
    // The conventions have a name for this one.
    let name = match family.name.as_str() {
        "bailiwick_call_duration_seconds" => "mcp.client.operation.duration",
        name => name,
    };
    let mut metric = json!({ "name": name, "description": family.help });
    let (key, value) = match family.kind {
        Shape::Counter => {
            let points: Vec<Value> = family.samples.iter().map(|sample| point(sample, times)).collect();
            ("sum", json!({ "dataPoints": points, "aggregationTemporality": CUMULATIVE, "isMonotonic": true }))
        }
        Shape::Gauge => {
            let points: Vec<Value> = family.samples.iter().map(|sample| point(sample, times)).collect();
            ("gauge", json!({ "dataPoints": points }))
        }
        Shape::Histogram => {
            let points: Vec<Value> = family.histograms().iter().map(|own| histogram(own, times)).collect();
            ("histogram", json!({ "dataPoints": points, "aggregationTemporality": CUMULATIVE }))
        }
    };
    if let Some(metric) = metric.as_object_mut() {
        metric.insert(key.to_owned(), value);
        if name.ends_with("duration") || name.ends_with("_seconds") {
            metric.insert("unit".to_owned(), "s".into());
        }
    }
    metric
}

fn labels(labels: &[(String, String)]) -> Vec<Value> {
    labels.iter().map(|(key, value)| attribute(key, value)).collect()
}

fn point(sample: &Sample, (began, now): &(String, String)) -> Value {
    json!({
        "attributes": labels(&sample.labels),
        "startTimeUnixNano": began,
        "timeUnixNano": now,
        "asDouble": sample.value,
    })
}

fn histogram(own: &super::exposition::Histogram, (began, now): &(String, String)) -> Value {
    json!({
        "attributes": labels(&own.labels),
        "startTimeUnixNano": began,
        "timeUnixNano": now,
        "count": own.count.to_string(),
        "sum": own.sum,
        "explicitBounds": own.bounds,
        "bucketCounts": own.counts.iter().map(u64::to_string).collect::<Vec<_>>(),
    })
}
