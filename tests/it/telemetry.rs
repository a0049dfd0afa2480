//! What a collector and a SIEM are told: real OTLP and OCSF over HTTP, received in this process.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const ARGUMENT: &str = "the-argument-nobody-shall-see";
const KEY: &str = "the-key-of-the-collector";

/// A collector that keeps what it gets.
#[derive(Clone)]
struct Collector {
    url: String,
    state: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    bodies: Vec<(String, HeaderMap, String)>,
    /// It answers this instead of 200.
    refuse: Option<StatusCode>,
}

impl Collector {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::<Mutex<Kept>>::default();
        let take = |State(state): State<Arc<Mutex<Kept>>>, uri: Uri, headers: HeaderMap, body: Bytes| async move {
            let mut kept = state.lock().unwrap();
            if let Some(refuse) = kept.refuse {
                return refuse;
            }
            kept.bodies.push((uri.path().to_owned(), headers, String::from_utf8(body.to_vec()).unwrap()));
            StatusCode::OK
        };
        let router = axum::Router::new().fallback(take).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, state }
    }

    fn refuse(&self, status: Option<StatusCode>) {
        self.state.lock().unwrap().refuse = status;
    }

    /// The bodies that came to a path.
    fn at(&self, path: &str) -> Vec<String> {
        let kept = self.state.lock().unwrap();
        kept.bodies.iter().filter(|(own, ..)| own == path).map(|(.., body)| body.clone()).collect()
    }

    fn header(&self, name: &str) -> Option<String> {
        let kept = self.state.lock().unwrap();
        Some(kept.bodies.last()?.1.get(name)?.to_str().unwrap().to_owned())
    }

    fn spans(&self) -> Vec<Value> {
        let bodies = self.at("/v1/traces");
        let documents = bodies.iter().map(|body| serde_json::from_str::<Value>(body).unwrap());
        documents
            .flat_map(|document| document["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone())
            .collect()
    }

    /// Every OCSF event, in the order in which they came.
    fn events(&self) -> Vec<Value> {
        let bodies = self.at("/ocsf");
        bodies.iter().flat_map(|body| body.lines().map(|line| serde_json::from_str(line).unwrap())).collect()
    }
}

fn attribute<'a>(span: &'a Value, key: &str) -> Option<&'a str> {
    let found = span["attributes"].as_array()?.iter().find(|own| own["key"] == key)?;
    found["value"]["stringValue"].as_str()
}

async fn start(lines: &str) -> (Issuer, Scripted, Gateway) {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).record(lines).http_server("tools", &upstream.url, "").start().await;
    (issuer, upstream, gateway)
}

fn holds_no_secret(text: &str, token: &str) {
    for secret in [ARGUMENT, KEY, token.split('.').nth(1).unwrap()] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn a_call_is_a_span_with_its_stages_in_the_callers_trace_and_the_upstream_is_below_it() {
    let collector = Collector::start().await;
    let lines = format!("[telemetry]\notlp = \"{}\"\nmetrics_interval = \"1s\"\n", collector.url);
    let (issuer, upstream, gateway) = start(&lines).await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    let client = gateway.client(&token);
    let params = json!({"name": "tools__echo", "arguments": {"x": ARGUMENT}, "_meta": {"traceparent": PARENT}});
    client.modern("tools/call", params).await.result();
    client.call_tool("tools__absent", json!({"x": ARGUMENT})).await;
    eventually("both calls to be told of", async || {
        collector.spans().iter().filter(|span| span["kind"] == 2).count() == 2
    })
    .await;
    let spans = collector.spans();
    let root = spans.iter().find(|span| span["name"] == "tools/call echo").unwrap();
    assert_eq!(
        (root["traceId"].as_str(), root["parentSpanId"].as_str()),
        (Some(&PARENT[3..35]), Some(&PARENT[36..52]))
    );
    for (key, value) in [
        ("mcp.method.name", "tools/call"),
        ("gen_ai.operation.name", "execute_tool"),
        ("gen_ai.tool.name", "echo"),
        ("gen_ai.agent.id", "assistant"),
        ("bailiwick.server", "tools"),
    ] {
        assert_eq!(attribute(root, key), Some(value), "{key}");
    }
    let children: Vec<&Value> = spans.iter().filter(|span| span["parentSpanId"] == root["spanId"]).collect();
    let names: Vec<&str> = children.iter().map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["decide", "delegate", "record", "forward"]);
    let forward = children[3];
    let arrived = &upstream.calls()[0];
    let expected = format!("00-{}-{}-01", &PARENT[3..35], forward["spanId"].as_str().unwrap());
    assert_eq!(arrived.message["params"]["_meta"]["traceparent"], json!(expected), "in `_meta`");
    assert_eq!(arrived.headers.get("traceparent"), Some(&expected), "and in the header");
    let leg = gateway.records("intent")[0]["leg"].as_str().map(str::to_owned);
    assert_eq!(arrived.headers.get("x-request-id"), leg.as_ref(), "the upstream's own log leads to the record");

    let refused = spans.iter().find(|span| attribute(span, "error.type") == Some("target_unknown")).unwrap();
    assert_eq!((refused["name"].as_str(), refused["status"]["code"].as_u64()), (Some("tools/call"), Some(2)));
    assert_eq!(attribute(root, "bailiwick.call"), gateway.records("intent")[0]["call"].as_str());

    eventually("metrics to come", async || {
        collector.at("/v1/metrics").iter().any(|body| body.contains("bailiwick_calls"))
    })
    .await;
    let last: Value = serde_json::from_str(collector.at("/v1/metrics").last().unwrap()).unwrap();
    let metrics = last["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
    assert!(
        metrics.iter().any(|metric| metric["name"] == "mcp.client.operation.duration"
            && metric["histogram"]["dataPoints"][0]["count"] == "1"),
        "{last:#}"
    );
    for body in [collector.at("/v1/traces"), collector.at("/v1/metrics")].concat() {
        holds_no_secret(&body, &token);
    }
}

#[tokio::test]
async fn a_header_begins_the_trace_where_meta_says_nothing_and_without_telemetry_nothing_is_touched() {
    let collector = Collector::start().await;
    let (issuer, upstream, gateway) = start(&format!("[telemetry]\notlp = \"{}\"\n", collector.url)).await;
    let call = async |gateway: &Gateway, issuer: &Issuer| {
        let token = issuer.token("alice", &["developers"], &gateway.resource());
        let (mut headers, body) =
            crate::support::client::modern_request("tools/call", json!({"name": "tools__echo", "arguments": {}}));
        headers.push(("traceparent", PARENT.to_owned()));
        assert_eq!(gateway.client(&token).post(&headers, body.to_string()).await.status, 200);
    };
    call(&gateway, &issuer).await;
    let arrived = upstream.calls()[0].clone();
    assert!(arrived.message["params"]["_meta"]["traceparent"].as_str().unwrap().starts_with(&PARENT[..36]));

    let (issuer, upstream, gateway) = start("").await;
    call(&gateway, &issuer).await;
    let arrived = upstream.calls()[0].clone();
    assert!(
        arrived.message["params"]["_meta"].get("traceparent").is_none() && !arrived.headers.contains_key("traceparent")
    );
}

#[tokio::test]
async fn a_collector_that_is_down_holds_up_no_call_and_what_is_dropped_is_counted() {
    let (issuer, _upstream, gateway) = start("[telemetry]\notlp = \"http://127.0.0.1:9\"\n").await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    for _ in 0..20 {
        client.call_tool("tools__echo", json!({})).await.result();
    }
    eventually("what was dropped to be counted", async || {
        let answer =
            bailiwick::control::client::request::<()>(&gateway.state(), http::Method::GET, "/metrics", None).await;
        String::from_utf8_lossy(&answer.unwrap().body).contains("bailiwick_spans_dropped_total 100")
    })
    .await;
}

/// The numbers of the records that came, without those that nobody is sent.
fn sequences(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["metadata"]["sequence"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn the_record_comes_as_ocsf_without_loss_across_rotation_a_place_that_is_down_and_a_restart() {
    let collector = Collector::start().await;
    let lines = format!(
        "segment_bytes = \"4KiB\"\ncheckpoint_interval = \"100ms\"\nkeep_bytes = \"8KiB\"\nreserve_bytes = \"64KiB\"\n\
         [export.siem]\nformat = \"ocsf\"\nto = \"{}/ocsf\"\nheader = \"x-key\"\nsecret = \"file:key\"\n",
        collector.url
    );
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let mut gateway = Setup::new(&issuer)
        .record(&lines)
        .policy_file("../key", KEY)
        .http_server("tools", &upstream.url, "")
        .start()
        .await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    let client = gateway.client(&token);
    for _ in 0..10 {
        client.call_tool("tools__echo", json!({"x": ARGUMENT})).await.result();
    }
    client.call_tool("tools__absent", json!({"x": ARGUMENT})).await;
    eventually("the refusal to come", async || collector.events().iter().any(|event| event["action_id"] == 2)).await;
    assert_eq!(collector.header("x-key").as_deref(), Some(KEY));

    // It is down for a while: calls go on, and retention waits.
    collector.refuse(Some(StatusCode::SERVICE_UNAVAILABLE));
    for _ in 0..20 {
        client.call_tool("tools__echo", json!({"x": ARGUMENT})).await.result();
    }
    let readiness = async || {
        let answer =
            bailiwick::control::client::request::<()>(&gateway.state(), http::Method::GET, "/readyz", None).await;
        String::from_utf8_lossy(&answer.unwrap().body).into_owned()
    };
    eventually("readiness to name it", async || readiness().await.contains("it answered 503")).await;
    assert!(gateway.stop().await.success());
    gateway.launch().await;
    collector.refuse(None);
    gateway.client(&token).call_tool("tools__echo", json!({"x": ARGUMENT})).await.result();

    let last = || gateway.records("result").last().map(|record| record["seq"].as_u64().unwrap());
    eventually("everything to come", async || sequences(&collector.events()).last().copied() >= last()).await;
    let events = collector.events();
    let mut seen = sequences(&events);
    assert!(seen.is_sorted(), "in order: {seen:?}");
    seen.dedup();
    // What is between two numbers that came was the beginning of a segment, which nobody is sent.
    let kinds: Vec<&str> = events.iter().map(|event| event["metadata"]["log_name"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "intent").count(), 31, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "result").count(), 31, "each once: the batch was acknowledged");
    assert!(kinds.contains(&"start") && kinds.contains(&"stop") && kinds.contains(&"refusal"), "{kinds:?}");
    let rotations = gateway.journal().iter().filter(|record| record["type"] == "rotation").count();
    assert!(rotations > 0, "the record was rotated in between");
    for end in events.iter().filter(|event| event["metadata"]["log_name"] == "result") {
        assert_eq!(
            (end["class_uid"].as_u64(), end["resources"][0]["name"].as_str(), end["status_id"].as_u64()),
            (Some(6003), Some("echo"), Some(1)),
            "{end:#}"
        );
        assert_eq!(end["actor"]["user"]["uid"], "user:test/alice");
    }
    for body in collector.at("/ocsf") {
        holds_no_secret(&body, &token);
    }
    // Now that everything was read, what is too much may go.
    eventually("old segments to go", async || !gateway.records("retention").is_empty()).await;
}
