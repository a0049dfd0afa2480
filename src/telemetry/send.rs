//! Sends what was told to the collector.
//!
//! Decides when: spans once a second or when there are many, metrics at their interval. What the collector does not take is
//! dropped and counted: telemetry is not the record. Invariant: no header that it sends is ever shown.

use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderName, HeaderValue, Request, header};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::trace::Finished;
use super::{exposition, otlp};
use crate::config::TelemetryConfig;
use crate::egress::{EgressPolicy, OauthClient, oauth_client};
use crate::ids::ReplicaId;
use crate::limit;
use crate::record::Metrics;

/// The way to the collector.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    config: Arc<TelemetryConfig>,
    resource: Arc<Value>,
    metrics: Arc<Metrics>,
    client: Arc<Mutex<Option<OauthClient>>>,
    began: SystemTime,
}

impl Sender {
    pub fn new(config: &TelemetryConfig, replica: ReplicaId, metrics: Arc<Metrics>) -> Self {
        Self {
            config: Arc::new(config.clone()),
            resource: Arc::new(otlp::resource(&replica.to_string())),
            metrics,
            client: Arc::default(),
            began: SystemTime::now(),
        }
    }

    async fn send(&self, path: &str, body: &Value) -> Result<(), String> {
        let client = {
            let mut kept = self.client.lock().await;
            match kept.as_ref() {
                Some(client) => client.clone(),
                None => {
                    // The administrator wrote this address, and collectors are near.
                    let built = tokio::task::spawn_blocking(|| oauth_client(EgressPolicy::server(true))).await;
                    let built = built.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
                    kept.insert(built).clone()
                }
            }
        };
        let place = format!("{}{path}", self.config.otlp.as_str().trim_end_matches('/'));
        let body = serde_json::to_vec(body).map_err(|error| error.to_string())?;
        let mut request = Request::post(place)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| error.to_string())?;
        for (name, secret) in &self.config.headers {
            let secret = secret.read().await.map_err(|error| error.to_string())?;
            let name = HeaderName::try_from(name.as_str()).map_err(|error| error.to_string())?;
            let mut value = HeaderValue::try_from(secret.expose_secret())
                .map_err(|_| format!("the secret for {name} cannot be a header"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
        let answer = client.send(request).await.map_err(|error| error.to_string())?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
    }
}

/// Sends spans until the gateway stops, and then what is left.
pub(super) async fn traces(sender: Sender, mut waiting: mpsc::Receiver<Finished>, stop: CancellationToken) {
    let mut failed = false;
    loop {
        let mut batch = Vec::new();
        let stopping = tokio::select! {
            count = waiting.recv_many(&mut batch, limit::TRACES_BATCH_MAX) => count == 0,
            () = stop.cancelled() => true,
        };
        if stopping {
            waiting.close();
            while let Ok(finished) = waiting.try_recv() {
                batch.push(finished);
            }
        } else if batch.len() < limit::TRACES_BATCH_MAX {
            // Others come along: one request carries them all.
            let _stopped = tokio::time::timeout(limit::TRACES_PAUSE, stop.cancelled()).await;
            while batch.len() < limit::TRACES_BATCH_MAX
                && let Ok(finished) = waiting.try_recv()
            {
                batch.push(finished);
            }
        }
        for batch in batch.chunks(limit::TRACES_BATCH_MAX) {
            let spans = batch.iter().map(|call| call.spans.len() as u64).sum();
            match sender.send("/v1/traces", &otlp::traces(&sender.resource, batch)).await {
                Ok(()) => {
                    sender.metrics.spans_sent.inc_by(spans);
                    failed = false;
                }
                Err(problem) => {
                    sender.metrics.spans_dropped.inc_by(spans);
                    if !failed {
                        tracing::warn!(problem, "traces cannot be sent; they are dropped until they can be");
                    }
                    failed = true;
                }
            }
        }
        if stopping {
            return;
        }
    }
}

/// Sends metrics at every interval.
pub(super) async fn metrics(sender: Sender, scrape: impl Fn() -> String) {
    let mut failed = false;
    loop {
        tokio::time::sleep(sender.config.metrics_interval).await;
        let families = exposition::read(&scrape());
        let sent = sender.send("/v1/metrics", &otlp::metrics(&sender.resource, &families, sender.began)).await;
        if let Err(problem) = &sent
            && !failed
        {
            tracing::warn!(problem, "metrics cannot be sent; the next ones are tried");
        }
        failed = sent.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Inner;
    use crate::telemetry::context::Context;
    use crate::telemetry::trace::Trace;

    /// A collector that says how many spans each request had.
    async fn collector() -> (String, mpsc::UnboundedReceiver<usize>) {
        let (told, asked) = mpsc::unbounded_channel();
        let take = move |body: String| async move {
            let document: Value = serde_json::from_str(&body).unwrap();
            let spans = &document["resourceSpans"][0]["scopeSpans"][0]["spans"];
            told.send(spans.as_array().unwrap().len()).unwrap();
        };
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().route("/v1/traces", axum::routing::post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, asked)
    }

    #[tokio::test]
    async fn so_many_calls_wait_and_so_many_are_sent_at_once_and_the_rest_is_counted() {
        let (url, mut asked) = collector().await;
        let config = TelemetryConfig {
            otlp: url.parse().unwrap(),
            headers: Vec::new(),
            sample_percent: 100,
            metrics_interval: limit::METRICS_INTERVAL_MIN,
        };
        let metrics = Metrics::new();
        let (queue, waiting) = mpsc::channel(limit::TRACES_QUEUED_MAX);
        let inner = Arc::new(Inner { sample_percent: 100, queue, metrics: Arc::clone(&metrics), sender: None });
        for _ in 0..=limit::TRACES_QUEUED_MAX {
            drop(Trace::begin(Context::fresh(), Arc::clone(&inner)));
        }
        // Each has a span and one stage.
        assert_eq!(metrics.spans_dropped.get(), 2);
        let stop = CancellationToken::new();
        stop.cancel();
        traces(Sender::new(&config, ReplicaId::new(), Arc::clone(&metrics)), waiting, stop).await;
        assert_eq!(metrics.spans_sent.get(), 2 * limit::TRACES_QUEUED_MAX as u64, "what is left is sent at the end");
        let mut requests = Vec::new();
        while let Ok(spans) = asked.try_recv() {
            requests.push(spans);
        }
        assert_eq!(requests.iter().max(), Some(&(2 * limit::TRACES_BATCH_MAX)), "{requests:?}");
        assert_eq!(requests.len(), limit::TRACES_QUEUED_MAX / limit::TRACES_BATCH_MAX);
    }
}
