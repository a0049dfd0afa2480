//! What the tests drive the real binary with: a real issuer, real upstreams, real sockets.

pub mod client;
pub mod gateway;
pub mod issuer;
pub mod old;
pub mod oldest;
pub mod peer;
pub mod scripted;
pub mod talkative;

use std::net::SocketAddr;

/// A loopback address that is free now.
pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Waits until something holds; fails with `what` after ten seconds.
pub async fn eventually<F: std::future::Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !check().await {
        assert!(std::time::Instant::now() < deadline, "{what} did not come true within ten seconds");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
