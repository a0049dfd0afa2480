//! What governance costs: the same call with nothing of it configured, with all of it, and with what has to be kept for
//! each call.

use std::sync::Arc;
use std::time::Duration;

use crate::Result;
use crate::client::Connection;
use crate::load::{Ask, Load, drive, request_of};
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
    let Some(database) = Database::fresh().await else { return Ok(()) };
    let store = Some((database.url(), PASSWORD));
    let shared = world.gateway(&Setup { durability: "os", governed: true, store, ..Setup::default() }).await?;
    counted("PostgreSQL", &shared, duration).await
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
