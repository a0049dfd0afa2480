//! Kills the gateway at random moments under load, again and again, and holds what arrived at the upstream against the
//! record: no call without an intent, no intent without an end, no broken chain.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bailiwick::record::read::{Reader, segments};
use serde_json::Value;

use crate::Result;
use crate::load::{Ask, Load, drive};
use crate::upstream::{self, ECHO};
use crate::world::{Gateway, Setup, World};

/// How long after it answers a gateway is killed, at most.
const ALIVE_MAX: Duration = Duration::from_millis(150);
const CONNECTIONS: usize = 16;

/// What reached the upstream: the serial number of each call.
type Arrived = Arc<Mutex<HashSet<u64>>>;

/// Kills it so often, starts it again each time, and judges the record at the end.
pub async fn crash(world: &World, kills: usize) -> Result<()> {
    let arrived = Arrived::default();
    let first = Some(listen(Arc::clone(&arrived)).await?);
    println!("\n{kills} kills (SIGKILL) at random moments, {CONNECTIONS} connections, durability = \"fsync\"");
    let mut gateway = world.gateway(&Setup { first, ..Setup::default() }).await?;
    let mut down = Duration::ZERO;
    let began = Instant::now();
    for number in 0..kills {
        let load = tokio::spawn(drive(Load {
            address: gateway.address,
            path: "/mcp".to_owned(),
            connections: CONNECTIONS,
            duration: Duration::from_secs(60),
            tokens: Arc::clone(&gateway.tokens),
            ask: Ask::Call(format!("s0__{ECHO}")),
        }));
        tokio::time::sleep(moment(number)).await;
        let killed = Instant::now();
        gateway = gateway.again()?;
        load.abort();
        gateway.answers().await?;
        down = down.max(killed.elapsed());
    }
    let journal = gateway.state().join("journal");
    gateway.stop().await?;
    let arrived = arrived.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let told = Told::read(&journal)?;
    let missing = arrived.iter().filter(|serial| !told.intents.contains(*serial)).count();
    let open = told.legs.difference(&told.ends).count();
    println!(
        "  {:.0} s; from a kill to the next governed call {:.0} ms at most",
        began.elapsed().as_secs_f64(),
        down.as_secs_f64() * 1e3
    );
    println!("  calls that reached the upstream: {}; without an intent: {missing}", arrived.len());
    println!("  intents: {}; without an end: {open}; closed as unknown: {}", told.legs.len(), told.unknown);
    println!("  torn ends that were repaired: {}", told.repairs);
    match bailiwick::record::verify(&journal) {
        Ok(bailiwick::record::Verdict::Whole(walk)) => println!("  the chain is whole: {} records", walk.records),
        other => return Err(format!("the chain is broken: {other:?}").into()),
    }
    if missing > 0 || open > 0 {
        return Err("the record misses something".into());
    }
    Ok(())
}

/// What the journal tells.
#[derive(Default)]
struct Told {
    /// The serial number of each call that was about to be forwarded.
    intents: HashSet<u64>,
    /// Their legs.
    legs: HashSet<String>,
    /// Legs with an end.
    ends: HashSet<String>,
    unknown: usize,
    repairs: usize,
}

impl Told {
    fn read(journal: &Path) -> Result<Self> {
        let mut told = Self::default();
        for first in segments(journal)? {
            for line in Reader::new(journal, first).segment()?.lines() {
                let record: Value = serde_json::from_str(line)?;
                let leg = || record["leg"].as_str().unwrap_or_default().to_owned();
                match record["type"].as_str() {
                    Some("intent") => {
                        let serial = record["arguments"]["values"]["count"].as_u64();
                        let serial = serial.ok_or_else(|| format!("an intent does not say its number: {line}"))?;
                        told.intents.insert(serial);
                        told.legs.insert(leg());
                    }
                    Some("result") => {
                        told.unknown += usize::from(record["result"]["outcome"] == "unknown");
                        told.ends.insert(leg());
                    }
                    Some("repair") => told.repairs += 1,
                    _ => {}
                }
            }
        }
        Ok(told)
    }
}

/// A moment that is never the same: the number's digest, so that a run can be repeated.
fn moment(number: usize) -> Duration {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    number.hash(&mut hasher);
    let microseconds = hasher.finish() % u64::try_from(ALIVE_MAX.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(microseconds)
}

/// An upstream that remembers which calls reached it.
async fn listen(arrived: Arrived) -> Result<SocketAddr> {
    let router = Router::new().route("/mcp/{count}", post(remember)).with_state(arrived);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async { axum::serve(listener, router).await });
    Ok(address)
}

async fn remember(State(arrived): State<Arrived>, body: Bytes) -> Response {
    let count =
        serde_json::from_slice::<Value>(&body).ok().and_then(|call| call["params"]["arguments"]["count"].as_u64());
    if let Some(count) = count {
        arrived.lock().unwrap_or_else(PoisonError::into_inner).insert(count);
    }
    upstream::answered(&upstream::tools(10), &body)
}

impl Gateway {
    /// Waits until a governed call is answered.
    async fn answers(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.call(&format!("s0__{ECHO}"), 0).await.unwrap_or(false) {
            if Instant::now() > deadline {
                return Err("the gateway does not come back".into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}
