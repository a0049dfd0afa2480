//! How soon a revocation counts, under load: from its request to its acknowledgement, and to the first refusal of a
//! caller who calls without a pause; and how soon their open stream ends.

use std::time::{Duration, Instant};

use bailiwick::control::RevocationOrder;
use bailiwick::control::client;
use http::Method;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::Result;
use crate::client::Connection;
use crate::load::{Ask, Load, check, drive, request};
use crate::parts::{WARM_UP, through};
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
        let (mut told, mut refused, mut cut) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let gateway = world.gateway(&Setup { durability, ..Setup::default() }).await?;
            let call = || Ask::Call(format!("s0__{ECHO}"));
            let others = || Load {
                tokens: std::sync::Arc::new(gateway.tokens[REVOKED..].to_vec()),
                ..through(&gateway, CONNECTIONS, Duration::from_secs(600), call())
            };
            drive(Load { duration: WARM_UP, ..others() }).await?;
            let load = tokio::spawn(drive(others()));
            for person in 0..REVOKED {
                let times = one(&gateway, person).await?;
                told.push(times.told);
                refused.push(times.refused);
                cut.push(times.cut);
            }
            if load.is_finished() {
                return Err("the load ended before the revocations did".into());
            }
            load.abort();
        }
        println!(
            "\n{} revocations of a subject, {CONNECTIONS} connections of {} others, `{durability}`",
            ROUNDS * REVOKED,
            PEOPLE - REVOKED
        );
        println!("{:>44}  {:>8}  {:>8}  {:>8}", "", "p50 ms", "p99 ms", "most ms");
        print("from the request to its acknowledgement", &mut told);
        print("to the first refusal of who calls on", &mut refused);
        print("to the end of their open stream", &mut cut);
    }
    Ok(())
}

struct Times {
    told: Duration,
    refused: Duration,
    cut: Duration,
}

async fn one(gateway: &Gateway, person: usize) -> Result<Times> {
    let (ready, mut calling) = watch::channel(false);
    let (address, token) = (gateway.address, gateway.tokens[person].clone());
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
    let stream = stream(gateway, person).await?;
    calling.wait_for(|ready| *ready).await?;
    let order = RevocationOrder {
        target: "subject".to_owned(),
        issuer: "bench".to_owned(),
        value: format!("person-{person}"),
        sign_out: false,
        note: String::new(),
    };
    let began = Instant::now();
    let answer = client::request(&gateway.state(), Method::POST, "/revoke", Some(&order)).await?;
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
