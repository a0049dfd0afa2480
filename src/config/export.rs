//! What the files say about what leaves the gateway: telemetry to a collector, and the record to whoever watches it.
//!
//! Invariant: a secret is a reference here, read when something is sent.

use std::time::Duration;

use url::Url;

use super::{SecretReference, SinkConfig};
use crate::ids::ServerId;

/// `[telemetry]`: traces and metrics for a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// Where the collector takes OTLP over HTTP; `/v1/traces` and `/v1/metrics` are added.
    pub otlp: Url,
    /// Headers that go with it, lower case.
    pub headers: Vec<(String, SecretReference)>,
    /// How many of a hundred calls are traced.
    pub sample_percent: u32,
    /// How often metrics are sent.
    pub metrics_interval: Duration,
}

/// `[export.NAME]`: the record for somebody who watches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportConfig {
    /// Its name, which its cursor is kept under.
    pub name: ServerId,
    /// Where it goes.
    pub to: ExportPlace,
}

/// Where a record goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportPlace {
    /// A file or a log, one event a line.
    Sink(SinkConfig),
    /// A collector over HTTP.
    Http {
        /// Where.
        url: Url,
        /// The header that carries a secret, what stands before it, and where it is.
        header: Option<(String, String, SecretReference)>,
    },
}

impl std::fmt::Display for ExportPlace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sink(sink) => sink.fmt(formatter),
            // A query could hold a secret.
            Self::Http { url, .. } => write!(formatter, "{}{}", url.origin().ascii_serialization(), url.path()),
        }
    }
}
