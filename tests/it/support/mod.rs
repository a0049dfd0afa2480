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

/// The interpreter that processes are scripts of, itself: wrappers of version managers need the environment that a child
/// does not get.
pub fn python() -> String {
    interpreter().expect("the test began with needs_python!()")
}

fn interpreter() -> Option<String> {
    let asked =
        std::process::Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().ok()?;
    asked.status.success().then(|| String::from_utf8(asked.stdout).unwrap().trim().to_owned())
}

/// Whether there is one; where there is none the test says that it was skipped, and in CI it fails.
pub fn has_python() -> bool {
    let is_there = interpreter().is_some();
    if !is_there {
        untested("python3 is not there");
    }
    is_there
}

/// Says what is not tested on this machine. In CI it has to be: a run that tests less must not look like one that
/// tests everything.
pub fn untested(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "not tested: {what}");
    eprintln!("not tested: {what}");
}

/// A line of the figures in `docs/performance.md`: how many calls were refused while something was wrong, how many were
/// forwarded without an intent on the record, and how long after that was over the first call was answered.
pub fn figure(what: &str, refused: usize, without_intent: usize, recovered: Duration) {
    let ms = recovered.as_secs_f64() * 1_000.0;
    eprintln!("figure: {what:>44}  refused {refused:>6}  without intent {without_intent}  recovered after {ms:.1} ms");
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
