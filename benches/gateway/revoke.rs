//! How soon a revocation counts, under load: from its request to its acknowledgement, and to the first refusal of a
//! caller who calls without a pause; and how soon their open stream ends. The same with three replicas, each of the
//! three at another one.

use std::time::{Duration, Instant};

use bailiwick::control::RevocationOrder;
use bailiwick::control::client;
use futures_util::future::try_join_all;
use http::Method;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Result;
use crate::client::Connection;
use crate::load::{Ask, Load, check, drive, request};
use crate::parts::{WARM_UP, through};
use crate::replicas::postgres::{Database, PASSWORD};
use crate::upstream::ECHO;
use crate::world::{Gateway, PEOPLE, Setup, World};

/// People who lose their access, one after the other; all others are the load.
const REVOKED: usize = 100;
/// Gateways on which that is done: a hundred revocations alone have no p99 but the slowest.
const ROUNDS: usize = 5;
const CONNECTIONS: usize = 16;

/// Revokes a hundred people while the others call, on one gateway after the other.
pub async fn revoke(world: &World) -> Result<()> {
    for durability in ["os", "fsync"] {
        let mut all = All::default();
        for _ in 0..ROUNDS {
            let gateway = world.gateway(&Setup { durability, ..Setup::default() }).await?;
            let call = || Ask::Call(format!("s0__{ECHO}"));
            let others = || Load {
                tokens: std::sync::Arc::new(gateway.tokens[REVOKED..].to_vec()),
                ..through(&gateway, CONNECTIONS, Duration::from_secs(600), call())
            };
            drive(Load { duration: WARM_UP, ..others() }).await?;
            let load = tokio::spawn(drive(others()));
            all.of([&gateway, &gateway, &gateway], load).await?;
        }
        println!(
            "\n{} revocations of a subject, {CONNECTIONS} connections of {} others, `{durability}`",
            ROUNDS * REVOKED,
            PEOPLE - REVOKED
        );
        all.print(["to the first refusal of who calls on", "to the end of their open stream"]);
    }
    Ok(())
}

/// The same with three replicas: revoked at the first, while the person calls at the second and has a stream at the
/// third, and the others call at all of them.
pub async fn replicas(world: &World) -> Result<()> {
    let mut all = All::default();
    for _ in 0..ROUNDS {
        let Some(database) = Database::fresh().await else { return Ok(()) };
        let store = Some((database.url(), PASSWORD));
        let gateways = world.replicas(&Setup { durability: "os", store, ..Setup::default() }, 3).await?;
        let [first, second, third] = &gateways[..] else { return Err("there are not three replicas".into()) };
        let loads = |time: Duration| -> Vec<Load> {
            let others = |gateway: &Gateway| Load {
                tokens: std::sync::Arc::new(gateway.tokens[REVOKED..].to_vec()),
                ..through(gateway, CONNECTIONS / 3, time, Ask::Call(format!("s0__{ECHO}")))
            };
            gateways.iter().map(others).collect()
        };
        try_join_all(loads(WARM_UP).into_iter().map(drive)).await?;
        let load = tokio::spawn(try_join_all(loads(Duration::from_secs(600)).into_iter().map(drive)));
        all.of([first, second, third], load).await?;
    }
    println!(
        "\n{} revocations of a subject at one of three replicas, {} connections of {} others at each, `os`",
        ROUNDS * REVOKED,
        CONNECTIONS / 3,
        PEOPLE - REVOKED
    );
    all.print(["to the first refusal at the second replica", "to the end of their stream at the third"]);
    Ok(())
}

/// What every revocation took.
#[derive(Default)]
struct All {
    told: Vec<Duration>,
    refused: Vec<Duration>,
    cut: Vec<Duration>,
}

impl All {
    /// Revokes a hundred people while the load goes on, and ends it.
    async fn of<T>(&mut self, gateways: [&Gateway; 3], load: JoinHandle<T>) -> Result<()> {
        for person in 0..REVOKED {
            let times = one(gateways, person).await?;
            self.told.push(times.told);
            self.refused.push(times.refused);
            self.cut.push(times.cut);
        }
        if load.is_finished() {
            return Err("the load ended before the revocations did".into());
        }
        load.abort();
        Ok(())
    }

    fn print(&mut self, [refused, cut]: [&str; 2]) {
        println!("{:>44}  {:>8}  {:>8}  {:>8}", "", "p50 ms", "p99 ms", "most ms");
        print("from the request to its acknowledgement", &mut self.told);
        print(refused, &mut self.refused);
        print(cut, &mut self.cut);
    }
}

struct Times {
    told: Duration,
    refused: Duration,
    cut: Duration,
}

/// Revoked at the first, while they call at the second and have a stream at the third.
async fn one([at, calls_at, streams_at]: [&Gateway; 3], person: usize) -> Result<Times> {
    let (ready, mut calling) = watch::channel(false);
    let (address, token) = (calls_at.address, calls_at.tokens[person].clone());
    // One that calls and calls, until it is refused.
    let caller = tokio::spawn(async move {
        let ask = Ask::Call(format!("s0__{ECHO}"));
        let mut connection = Connection::open(address).await?;
        for serial in 700_000_000.. {
            let (headers, body) = request(&ask, Some(&token), serial);
            let answer = connection.post("/mcp", &headers, &body).await?;
            if answer.status == 401 {
                return Result::Ok(Instant::now());
            }
            check(&ask, &answer, serial)?;
            ready.send_replace(true);
        }
        Err("never refused".into())
    });
    let stream = stream(streams_at, person).await?;
    calling.wait_for(|ready| *ready).await?;
    let order = RevocationOrder {
        target: "subject".to_owned(),
        issuer: "bench".to_owned(),
        value: format!("person-{person}"),
        sign_out: false,
        note: String::new(),
    };
    let began = Instant::now();
    let answer = client::request(&at.state(), Method::POST, "/revoke", Some(&order)).await?;
    let told = began.elapsed();
    if !answer.status.is_success() {
        return Err(format!("a revocation was answered {}", answer.status).into());
    }
    let cut = ended(stream).await?.saturating_duration_since(began);
    let refused = caller.await??.saturating_duration_since(began);
    Ok(Times { told, refused, cut })
}

/// A legacy session's stream.
async fn stream(gateway: &Gateway, person: usize) -> Result<TcpStream> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let token = &gateway.tokens[person];
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#;
    let authorization = format!("authorization: Bearer {token}\r\n");
    let answer = Connection::open(gateway.address).await?.post("/mcp", &authorization, initialize).await?;
    let session = answer.header("mcp-session-id").ok_or("no session")?;
    let mut stream = TcpStream::connect(gateway.address).await?;
    let head = format!(
        "GET /mcp HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n{authorization}mcp-session-id: {session}\r\n\
         mcp-protocol-version: 2025-11-25\r\n\r\n",
        gateway.address
    );
    stream.write_all(head.as_bytes()).await?;
    let mut read = [0; 12];
    stream.read_exact(&mut read).await?;
    if &read != b"HTTP/1.1 200" {
        return Err(format!("no stream: {}", String::from_utf8_lossy(&read)).into());
    }
    Ok(stream)
}

/// Reads until the last chunk of the stream, or its end.
async fn ended(mut stream: TcpStream) -> Result<Instant> {
    use tokio::io::AsyncReadExt as _;
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n0\r\n\r\n") {
        if tokio::time::timeout(Duration::from_secs(10), stream.read_buf(&mut all)).await?? == 0 {
            break;
        }
    }
    Ok(Instant::now())
}

fn print(label: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let ms = |index: usize| times.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1_000.0);
    println!(
        "{label:>44}  {:>8.2}  {:>8.2}  {:>8.2}",
        ms(times.len() / 2),
        ms(times.len() * 99 / 100),
        ms(times.len() - 1)
    );
}
