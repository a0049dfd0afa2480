//! What governance costs: the same call with nothing of it configured, with all of it, and with what has to be kept for
//! each call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Result;
use crate::client::Connection;
use crate::load::{Ask, Load, check, drive, request, request_of};
use crate::parts::{WARM_UP, heading, measured, print_row, through};
use crate::replicas::postgres::{Database, PASSWORD};
use crate::upstream::ECHO;
use crate::world::{Gateway, META, Setup, World};

/// How often each is driven, in turn: what else happens on the machine falls on both.
const TURNS: usize = 3;

/// Calls that governance does not concern beside the same without it; then calls that are counted in the store.
pub async fn governed(world: &World, duration: Duration) -> Result<()> {
    let plain = world.gateway(&Setup { durability: "os", ..Setup::default() }).await?;
    let all = world.gateway(&Setup { durability: "os", governed: true, ..Setup::default() }).await?;
    heading("tools/call, `os`: nothing of governance configured, and all of it (CPU of the gateway)", "governance");
    for _ in 0..TURNS {
        for (name, gateway) in [("none", &plain), ("all", &all)] {
            let load = |time| through(gateway, 16, time, call());
            drive(load(WARM_UP)).await?;
            let (row, cpu) = measured(&gateway.process, drive(load(duration))).await?;
            print!("{name:>12}  ");
            print_row("16", &row, cpu);
        }
    }
    counted("SQLite", &all, duration).await?;
    labelled("SQLite", &all).await?;
    let Some(database) = Database::fresh().await else { return Ok(()) };
    let store = Some((database.url(), PASSWORD));
    let shared = world.gateway(&Setup { durability: "os", governed: true, store, ..Setup::default() }).await?;
    counted("PostgreSQL", &shared, duration).await?;
    labelled("PostgreSQL", &shared).await
}

fn call() -> Ask {
    Ask::Call(format!("s0__{ECHO}"))
}

/// One connection: calls that nobody counts, and calls of a mandate with a budget, each of which is one operation of
/// the store.
async fn counted(store: &str, gateway: &Gateway, duration: Duration) -> Result<()> {
    heading(&format!("one connection, `os`, budgets on {store} (CPU of the gateway)"), "counted");
    let handle = open(gateway).await?;
    let worker = format!("{}\r\nbailiwick-mandate: {handle}", gateway.worker);
    let mut medians = Vec::new();
    for (name, tokens) in [("no", Arc::clone(&gateway.tokens)), ("yes", Arc::new(vec![worker]))] {
        let load = |time| Load { tokens: Arc::clone(&tokens), ..through(gateway, 1, time, call()) };
        drive(load(WARM_UP)).await?;
        let (row, cpu) = measured(&gateway.process, drive(load(duration))).await?;
        print!("{name:>12}  ");
        print_row("1", &row, cpu);
        medians.push(row.latency_ms(500));
    }
    println!("one operation on {store} adds {:.3} ms to the p50", medians[1] - medians[0]);
    Ok(())
}

/// Opens a mandate with a budget; its handle.
async fn open(gateway: &Gateway) -> Result<String> {
    let tool = "bailiwick__mandate_open";
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{"template":"counted"}},"_meta":{META}}}}}"#
    );
    let headers = request_of("tools/call", tool, &gateway.worker);
    let answer = Connection::open(gateway.address).await?.post("/mcp", &headers, &body).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let handle = answer["result"]["structuredContent"]["handle"].as_str();
    Ok(handle.ok_or_else(|| format!("no mandate: {answer}"))?.to_owned())
}

/// One call after the other, of each person: what neither raises a label nor reaches a sink, what reaches one, and what
/// raises a label of somebody who had none.
async fn labelled(store: &str, gateway: &Gateway) -> Result<()> {
    println!("\none connection, `os`, labels on {store}; each person calls once");
    let mut connection = Connection::open(gateway.address).await?;
    let (mut plain, mut sink, mut raise) = (Vec::new(), Vec::new(), Vec::new());
    // What the first call of all costs a server is no label's.
    for server in ["s3", "s1"] {
        timed(&mut connection, gateway.tokens.first().ok_or("nobody")?, server).await?;
    }
    for token in gateway.tokens.iter().skip(1) {
        // Nor what anybody's first call costs.
        timed(&mut connection, token, "s0").await?;
        plain.push(timed(&mut connection, token, "s0").await?);
        sink.push(timed(&mut connection, token, "s3").await?);
        raise.push(timed(&mut connection, token, "s1").await?);
    }
    let plain = median(&mut plain);
    println!("{:>34}  {plain:>8.3} ms", "neither");
    for (name, times) in [("an external sink", &mut sink), ("a first private answer", &mut raise)] {
        let time = median(times);
        println!("{name:>34}  {time:>8.3} ms, {:+.3}", time - plain);
    }
    Ok(())
}

/// How long one call takes.
async fn timed(connection: &mut Connection, token: &str, server: &str) -> Result<Duration> {
    static SERIAL: AtomicU64 = AtomicU64::new(500_000_000);
    let (ask, serial) = (Ask::Call(format!("{server}__{ECHO}")), SERIAL.fetch_add(1, Ordering::Relaxed));
    let (headers, body) = request(&ask, Some(token), serial);
    let began = Instant::now();
    let answer = connection.post("/mcp", &headers, &body).await?;
    let took = began.elapsed();
    check(&ask, &answer, serial)?;
    Ok(took)
}

/// In milliseconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1_000.0)
}
