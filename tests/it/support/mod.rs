//! What the tests drive the real binary with: a real issuer, real upstreams, real sockets.

pub mod authority;
pub mod browser;
pub mod client;
pub mod door;
pub mod gateway;
pub mod holder;
pub mod issuer;
pub mod linked;
pub mod old;
pub mod oldest;
pub mod peer;
#[path = "../../support/postgres.rs"]
pub mod postgres;
pub mod refused;
pub mod replicas;
pub mod schema;
pub mod scripted;
pub mod sts;
pub mod talkative;
pub mod verbatim;

use std::net::SocketAddr;
use std::time::Duration;

/// A loopback address that is free now and that nobody is given meanwhile: below the ports that systems give to
/// connections, each with room behind it for what the demo opens beside it.
pub fn free_address() -> SocketAddr {
    const FIRST: u32 = 12_000;
    const PLACES: u32 = 1_250;
    static TAKEN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    loop {
        let place =
            TAKEN.fetch_add(1, std::sync::atomic::Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(251));
        let port = u16::try_from(FIRST + place % PLACES * 16).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Waits until something holds; fails with `what` after ten seconds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, check: impl FnMut() -> F) {
    eventually_within(Duration::from_secs(10), what, check).await;
}

/// Waits until something holds that may take longer than other things; fails with `what` after that.
pub async fn eventually_within<F: Future<Output = bool>>(limit: Duration, what: &str, mut check: impl FnMut() -> F) {
    let deadline = std::time::Instant::now() + limit;
    while !check().await {
        assert!(std::time::Instant::now() < deadline, "{what} did not come true within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
