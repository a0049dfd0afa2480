//! The parts of the benchmark and the tables that they print.

use std::sync::Arc;
use std::time::Duration;

use crate::Result;
use crate::client::Connection;
use crate::load::{Ask, Load, Row, drive};
use crate::process::Process;
use crate::upstream::ECHO;
use crate::world::{Gateway, META, PEOPLE, Setup, World};

const CONNECTIONS: [usize; 3] = [1, 16, 64];
pub const WARM_UP: Duration = Duration::from_millis(500);

/// The upstream by itself: the floor.
pub async fn direct(world: &World, duration: Duration) -> Result<()> {
    heading("tools/call, direct (CPU of the upstream)", "");
    for connections in CONNECTIONS {
        let load = |duration| Load {
            address: world.upstream_address,
            path: "/mcp/10".to_owned(),
            connections,
            duration,
            tokens: Arc::new(Vec::new()),
            ask: Ask::Call(ECHO.to_owned()),
        };
        drive(load(WARM_UP)).await?;
        let (row, cpu) = measured(&world.upstream, drive(load(duration))).await?;
        print_row(&connections.to_string(), &row, cpu);
    }
    Ok(())
}

/// Calls through the gateway, with a fresh policy revision in the middle of each row.
pub async fn calls(world: &World, duration: Duration) -> Result<()> {
    for durability in ["os", "fsync"] {
        let gateway = world.gateway(&Setup { durability, ..Setup::default() }).await?;
        heading(&format!("tools/call, governed, durability = \"{durability}\" (CPU of the gateway)"), "revision ms");
        for (index, connections) in CONNECTIONS.into_iter().enumerate() {
            let call = || Ask::Call(format!("s0__{ECHO}"));
            drive(through(&gateway, connections, WARM_UP, call())).await?;
            let reload = async {
                tokio::time::sleep(duration / 2).await;
                gateway.fresh_revision(index + 1).await
            };
            let driven = drive(through(&gateway, connections, duration, call()));
            let both = async { tokio::try_join!(driven, reload) };
            let (user, system) = gateway.process.cpu_parts()?;
            let (row, revision) = both.await?;
            let (user_after, system_after) = gateway.process.cpu_parts()?;
            let (user, system) = (user_after.saturating_sub(user), system_after.saturating_sub(system));
            print!("{:>12.1}  ", revision.as_secs_f64() * 1_000.0);
            print_row(&connections.to_string(), &row, user + system);
            let each = |time: Duration| time.as_secs_f64() * 1e6 / row.answers.max(1) as f64;
            println!("{:>69} {:.1} of it in the kernel, {:.1} outside", "", each(system), each(user));
        }
    }
    Ok(())
}

/// `tools/list` for people whose list is known.
pub async fn list(world: &World, duration: Duration) -> Result<()> {
    for tools in [100, 1_000] {
        let gateway = world.gateway(&Setup { tools, ..Setup::default() }).await?;
        heading(&format!("tools/list of a server with {tools} tools (CPU of the gateway)"), "answer KB");
        for connections in [1, 16] {
            let load =
                |duration| Load { path: "/mcp/s0".to_owned(), ..through(&gateway, connections, duration, Ask::List) };
            drive(load(WARM_UP * 4)).await?;
            let (row, cpu) = measured(&gateway.process, drive(load(duration))).await?;
            print!("{:>12.1}  ", row.answer_bytes as f64 / 1_000.0);
            print_row(&connections.to_string(), &row, cpu);
        }
    }
    Ok(())
}

/// Resident memory: at rest with ten upstreams, and for each legacy session.
pub async fn memory(world: &World) -> Result<()> {
    const SESSIONS: usize = 1_000;
    let gateway = world.gateway(&Setup::default()).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let idle = gateway.process.resident_kilobytes()?;
    println!("\nmemory\n  at rest, ten upstreams: {:.1} MB", idle as f64 / 1_000.0);
    let mut connection = Connection::open(gateway.address).await?;
    // The first ones bring back the code that they run, which is not theirs.
    for number in 0..SESSIONS / 10 {
        open_session(&mut connection, &gateway, number).await?;
    }
    let before = gateway.process.resident_kilobytes()?;
    for number in 0..SESSIONS {
        open_session(&mut connection, &gateway, number).await?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let more = gateway.process.resident_kilobytes()?.saturating_sub(before);
    println!(
        "  {SESSIONS} legacy sessions: {:.1} MB more, {:.2} KB each",
        more as f64 / 1_000.0,
        more as f64 / SESSIONS as f64
    );
    Ok(())
}

async fn open_session(connection: &mut Connection, gateway: &Gateway, number: usize) -> Result<()> {
    let authorization = format!("authorization: Bearer {}\r\n", gateway.tokens[number % PEOPLE]);
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#;
    let answer = connection.post("/mcp", &authorization, initialize).await?;
    let session = answer.header("mcp-session-id").ok_or_else(|| format!("no session: HTTP {}", answer.status))?;
    let headers = format!("{authorization}mcp-session-id: {session}\r\nmcp-protocol-version: 2025-11-25\r\n");
    let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let accepted = connection.post("/mcp", &headers, initialized).await?;
    if accepted.status != 202 {
        return Err(format!("notifications/initialized: HTTP {}", accepted.status).into());
    }
    Ok(())
}

/// From the start of the process to its first answers.
pub async fn start(world: &World) -> Result<()> {
    // It accepts connections into its backlog and never says a word: upstreams that are still connecting.
    let mute = std::net::TcpListener::bind("127.0.0.1:0")?;
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let gateway = world.spawn(&Setup { mute: Some(mute.local_addr()?), ..Setup::default() })?;
        first.push(first_answer(&gateway).await?);
        let gateway = gateway.again()?;
        again.push(first_answer(&gateway).await?);
    }
    let mut governed = Vec::new();
    for _ in 0..5 {
        let gateway = world.gateway(&Setup::default()).await?;
        governed.push(gateway.started.elapsed());
    }
    println!("\nstart, 1,000 rules");
    println!("  to the first answer, upstreams still connecting: {}", spread(&mut again));
    println!("  the same on an empty state directory (keys and tables are made): {}", spread(&mut first));
    println!(
        "  to the first governed call (keys and lists fetched, 20 ms between attempts): {}",
        spread(&mut governed)
    );
    Ok(())
}

/// A request without a token is answered with 401 as soon as the endpoint works.
async fn first_answer(gateway: &Gateway) -> Result<Duration> {
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{{"_meta":{META}}}}}"#);
    let headers = "mcp-protocol-version: 2026-07-28\r\nmcp-method: server/discover\r\n";
    while gateway.started.elapsed() < Duration::from_secs(10) {
        if let Ok(mut connection) = Connection::open(gateway.address).await {
            let answer = connection.post("/mcp", headers, &body).await?;
            if answer.status != 401 {
                return Err(format!("a request without a token: HTTP {}", answer.status).into());
            }
            return Ok(gateway.started.elapsed());
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    Err("no answer within ten seconds".into())
}

pub fn through(gateway: &Gateway, connections: usize, duration: Duration, ask: Ask) -> Load {
    Load {
        address: gateway.address,
        path: "/mcp".to_owned(),
        connections,
        duration,
        tokens: Arc::clone(&gateway.tokens),
        ask,
    }
}

pub async fn measured(process: &Process, work: impl Future<Output = Result<Row>>) -> Result<(Row, Duration)> {
    let start = process.cpu()?;
    let row = work.await?;
    Ok((row, process.cpu()?.saturating_sub(start)))
}

pub fn heading(title: &str, first: &str) {
    println!("\n{title}");
    if !first.is_empty() {
        print!("{first:>12}  ");
    }
    println!(
        "{:>11}  {:>9}  {:>8}  {:>8}  {:>8}  {:>8}",
        "connections", "calls/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs"
    );
}

pub fn print_row(label: &str, row: &Row, cpu: Duration) {
    println!(
        "{label:>11}  {:>9.0}  {:>8.3}  {:>8.3}  {:>8.3}  {:>8.1}",
        row.rate(),
        row.latency_ms(500),
        row.latency_ms(990),
        row.latency_ms(999),
        cpu.as_secs_f64() * 1e6 / row.answers.max(1) as f64,
    );
}

fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let ms = |time: Option<&Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64() * 1_000.0);
    format!(
        "{:.1} ms (fastest {:.1}, slowest {:.1})",
        ms(times.get(times.len() / 2)),
        ms(times.first()),
        ms(times.last())
    )
}
