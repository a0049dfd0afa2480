//! Drives requests over a number of connections and says how long they took.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Result;
use crate::client::{Answer, Connection, find};
use crate::world::{META, PEOPLE};

/// What is asked, over and over.
pub struct Load {
    /// Whom to ask.
    pub address: SocketAddr,
    /// Which path.
    pub path: String,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// For how long.
    pub duration: Duration,
    /// A token for each person; empty for an upstream, which knows nobody.
    pub tokens: Arc<Vec<String>>,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked.
#[derive(Clone)]
pub enum Ask {
    /// `tools/call` of this tool, arguments never the same.
    Call(String),
    /// `tools/list`, first page.
    List,
}

/// How it went.
pub struct Row {
    /// Answers.
    pub answers: u64,
    /// Wall time.
    pub elapsed: Duration,
    /// Bytes of the last answer.
    pub answer_bytes: usize,
    /// Latencies, ascending.
    latencies: Vec<u32>,
}

impl Row {
    /// Several rows as one.
    pub fn of_all(rows: Vec<Self>) -> Self {
        let mut all = Self { answers: 0, elapsed: Duration::ZERO, answer_bytes: 0, latencies: Vec::new() };
        for row in rows {
            all.answers += row.answers;
            all.elapsed += row.elapsed;
            all.answer_bytes = all.answer_bytes.max(row.answer_bytes);
            all.latencies.extend(row.latencies);
        }
        all.latencies.sort_unstable();
        all
    }

    /// Answers for each second.
    pub fn rate(&self) -> f64 {
        self.answers as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency under which so many of a thousand answers stay, milliseconds.
    pub fn latency_ms(&self, of_a_thousand: usize) -> f64 {
        let index = (self.latencies.len() * of_a_thousand / 1_000).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(index).map_or(f64::NAN, |tenths| f64::from(*tenths) / 10_000.0)
    }
}

/// Arguments are never the same, not even in another row.
pub fn serial() -> u64 {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    SERIAL.fetch_add(1, Ordering::Relaxed)
}

/// Drives one row; every answer is looked at, and a wrong one ends the benchmark.
pub async fn drive(load: Load) -> Result<Row> {
    let load = Arc::new(load);
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        connections.push(Connection::open(load.address).await?);
    }
    let start = Instant::now();
    let end = start + load.duration;
    let tasks: Vec<_> = connections
        .into_iter()
        .enumerate()
        .map(|(index, connection)| tokio::spawn(drive_one(Arc::clone(&load), connection, index, end)))
        .collect();
    let mut row = Row { answers: 0, elapsed: Duration::ZERO, answer_bytes: 0, latencies: Vec::new() };
    for task in tasks {
        let part = task.await??;
        row.answers += part.answers;
        row.answer_bytes = row.answer_bytes.max(part.answer_bytes);
        row.latencies.extend(part.latencies);
    }
    row.elapsed = start.elapsed();
    row.latencies.sort_unstable();
    Ok(row)
}

async fn drive_one(load: Arc<Load>, mut connection: Connection, index: usize, end: Instant) -> Result<Row> {
    let mut row = Row { answers: 0, elapsed: Duration::ZERO, answer_bytes: 0, latencies: Vec::new() };
    let mut person = index;
    while Instant::now() < end {
        let serial = serial();
        let token = load.tokens.get(person % load.tokens.len().max(1)).map(String::as_str);
        let (headers, body) = request(&load.ask, token, serial);
        let sent = Instant::now();
        let answer = connection.post(&load.path, &headers, &body).await?;
        let took = sent.elapsed();
        person = (person + load.connections) % PEOPLE;
        check(&load.ask, &answer, serial)?;
        row.answers += 1;
        row.answer_bytes = answer.body.len();
        // Tenths of a microsecond; seven minutes at most.
        row.latencies.push(u32::try_from(took.as_nanos() / 100).unwrap_or(u32::MAX));
    }
    Ok(row)
}

/// The headers of a modern request that names something.
pub fn request_of(method: &str, name: &str, token: &str) -> String {
    format!(
        "mcp-protocol-version: 2026-07-28\r\nmcp-method: {method}\r\nmcp-name: {name}\r\nauthorization: Bearer {token}\r\n"
    )
}

/// Headers and body of one request; the serial number is its id and stands in its arguments.
pub fn request(ask: &Ask, token: Option<&str>, serial: u64) -> (String, String) {
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let version = "mcp-protocol-version: 2026-07-28\r\n";
    match ask {
        Ask::Call(tool) => (
            format!("{version}mcp-method: tools/call\r\nmcp-name: {tool}\r\n{authorization}"),
            format!(
                r#"{{"jsonrpc":"2.0","id":{serial},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"count":{serial},"text":"the quick brown fox jumps over the lazy dog"}},"_meta":{META}}}}}"#
            ),
        ),
        Ask::List => (
            format!("{version}mcp-method: tools/list\r\n{authorization}"),
            format!(r#"{{"jsonrpc":"2.0","id":{serial},"method":"tools/list","params":{{"_meta":{META}}}}}"#),
        ),
    }
}

/// Whether this is the answer to that request, and a good one.
pub fn check(ask: &Ask, answer: &Answer, serial: u64) -> Result<()> {
    let own = |what: &str| find(&answer.body, what.as_bytes()).is_some();
    let good = answer.status == 200
        && match ask {
            Ask::Call(_) => own(&format!("\"count\":{serial},")) && own("\"isError\":false"),
            Ask::List => own("\"tools\":[{") && own(&format!("\"id\":{serial}")),
        };
    if good {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(&answer.body[..answer.body.len().min(500)]).into_owned();
    Err(format!("request {serial} was not answered as it should be: HTTP {} {shown}", answer.status).into())
}
