//! Where checkpoints go besides: places that whoever cuts the record's end cannot reach.
//!
//! Decides how a checkpoint looks there; one that goes over HTTP is handed on ([`CheckpointNote`]). Refuses to hold up the record: a place that cannot be reached is told of and
//! tried again with the next checkpoint, which covers everything that this one did. Invariant: nothing but
//! checkpoints leaves through here.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::checkpoint::SignedCheckpoint;
use super::metrics::Metrics;
use super::segment::no_follow;
use crate::config::SinkConfig;
use crate::limit;

/// Facility 13 (log audit) and severity 5 (notice), as RFC 5424 counts.
const PRIORITY: u8 = 13 * 8 + 5;

/// A signed checkpoint for whoever sends it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointNote {
    /// Records that it covers.
    pub size: u64,
    /// As it is kept: a signed note.
    pub text: Arc<str>,
}

/// All places.
#[derive(Debug)]
pub(super) struct Sinks {
    places: Vec<Place>,
    /// The latest, for those that wait for it.
    latest: watch::Sender<Option<CheckpointNote>>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Place {
    config: SinkConfig,
    /// It could not be reached the last time; that is logged once.
    failed: bool,
}

impl Sinks {
    pub(super) fn new(configs: &[SinkConfig], metrics: &Arc<Metrics>) -> Self {
        let places = configs.iter().map(|config| Place { config: config.clone(), failed: false }).collect();
        Self { places, latest: watch::Sender::new(None), metrics: Arc::clone(metrics) }
    }

    /// The latest checkpoint from now on; ends with the last one.
    pub(super) fn latest(&self) -> watch::Receiver<Option<CheckpointNote>> {
        self.latest.subscribe()
    }

    /// Tells every place; whether all could be told.
    pub(super) fn tell(&mut self, signed: &SignedCheckpoint) -> bool {
        let note = CheckpointNote { size: signed.checkpoint.size, text: signed.note().into() };
        self.latest.send_replace(Some(note));
        let mut well = true;
        for place in &mut self.places {
            let told = place.config.tell(signed);
            match &told {
                Err(error) if !place.failed => {
                    tracing::warn!(sink = %place.config, %error, "a checkpoint could not be sent; the next one is tried");
                }
                Ok(()) if place.failed => tracing::info!(sink = %place.config, "checkpoints can be sent again"),
                _ => {}
            }
            if told.is_err() {
                self.metrics.checkpoint_sink_failures.inc();
            }
            place.failed = told.is_err();
            well &= told.is_ok();
        }
        well
    }
}

impl SinkConfig {
    fn tell(&self, signed: &SignedCheckpoint) -> io::Result<()> {
        match self {
            Self::File(path) => append(path, signed.note()),
            Self::Syslog(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(limit::SINK_TIMEOUT))?;
                socket.send_to(message(signed).as_bytes(), path).map(drop)
            }
            Self::SyslogUdp(address) => {
                let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
                let socket = UdpSocket::bind(any)?;
                socket.set_write_timeout(Some(limit::SINK_TIMEOUT))?;
                socket.send_to(message(signed).as_bytes(), address).map(drop)
            }
        }
    }
}

/// Adds a note to a file; it is on the disk afterwards.
fn append(path: &Path, note: &str) -> io::Result<()> {
    // A pipe that nobody reads must not hold us up.
    let flags = no_follow() | rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut file = File::options().append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    file.write_all(note.as_bytes())?;
    // A pipe or a device cannot be synced, and keeps nothing that could be.
    match file.sync_data() {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

/// The message of RFC 5424: one line, as a collector keeps it.
fn message(signed: &SignedCheckpoint) -> String {
    let now = jiff::Timestamp::now();
    let host = rustix::system::uname();
    let host =
        host.nodename().to_str().ok().filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()));
    let process = std::process::id();
    format!("<{PRIORITY}>1 {now:.6} {} bailiwick {process} checkpoint - {}", host.unwrap_or("-"), signed.line())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Digest, ReplicaId};
    use crate::record::checkpoint::{Checkpoint, CheckpointKeys, Standing};

    fn signed(keys: &CheckpointKeys, size: u64) -> SignedCheckpoint {
        let origin = keys.verifiers()[0].id().split('+').next().unwrap().to_owned();
        keys.sign(&Checkpoint { origin, size, root: Digest::sha256(b"r") }).unwrap()
    }

    #[test]
    fn every_kind_of_place_is_told_in_a_form_that_verifies() {
        let place = tempfile::tempdir().unwrap();
        let keys = CheckpointKeys::open(place.path(), &ReplicaId::new()).unwrap();
        let file = place.path().join("kept");
        let local = UnixDatagram::bind(place.path().join("log")).unwrap();
        let remote = UdpSocket::bind("127.0.0.1:0").unwrap();
        let configs = [
            SinkConfig::File(file.clone()),
            SinkConfig::Syslog(place.path().join("log")),
            SinkConfig::SyslogUdp(remote.local_addr().unwrap()),
        ];
        let mut sinks = Sinks::new(&configs, &Metrics::new());
        assert!(sinks.tell(&signed(&keys, 1)) && sinks.tell(&signed(&keys, 2)));
        let kept = SignedCheckpoint::find_all(&std::fs::read_to_string(&file).unwrap());
        assert_eq!(kept.iter().map(|signed| signed.checkpoint.size).collect::<Vec<_>>(), [1, 2]);
        let mut bytes = [0; 2048];
        for length in [local.recv(&mut bytes).unwrap(), remote.recv(&mut bytes).unwrap()] {
            let text = std::str::from_utf8(&bytes[..length]).unwrap();
            assert!(text.starts_with("<109>1 20") && text.contains(" bailiwick ") && !text.contains('\n'), "{text}");
            let found = SignedCheckpoint::find_all(text);
            assert_eq!(found[0].standing(keys.verifiers()), Standing::Signed, "{text}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_reached_is_counted_and_tried_again() {
        let place = tempfile::tempdir().unwrap();
        let keys = CheckpointKeys::open(place.path(), &ReplicaId::new()).unwrap();
        let metrics = Metrics::new();
        let directory = place.path().join("later");
        let mut sinks = Sinks::new(&[SinkConfig::File(directory.join("kept"))], &metrics);
        assert!(!sinks.tell(&signed(&keys, 1)));
        assert_eq!(metrics.checkpoint_sink_failures.get(), 1);
        std::fs::create_dir(&directory).unwrap();
        assert!(sinks.tell(&signed(&keys, 2)));
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up() {
        let place = tempfile::tempdir().unwrap();
        let keys = CheckpointKeys::open(place.path(), &ReplicaId::new()).unwrap();
        let pipe = place.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        let began = std::time::Instant::now();
        assert!(SinkConfig::File(pipe.clone()).tell(&signed(&keys, 1)).is_err());
        assert!(began.elapsed() < limit::SINK_TIMEOUT);
        let _reader = File::options().read(true).write(true).open(&pipe).unwrap();
        assert!(SinkConfig::File(pipe).tell(&signed(&keys, 2)).is_ok(), "a pipe cannot be synced");
    }

    #[test]
    fn a_local_log_that_nobody_reads_holds_up_for_a_bounded_time() {
        let place = tempfile::tempdir().unwrap();
        let keys = CheckpointKeys::open(place.path(), &ReplicaId::new()).unwrap();
        let _unread = UnixDatagram::bind(place.path().join("log")).unwrap();
        let config = SinkConfig::Syslog(place.path().join("log"));
        let began = std::time::Instant::now();
        let mut sent = 0;
        while config.tell(&signed(&keys, 1)).is_ok() {
            sent += 1;
            assert!(sent < 100_000, "a queue without an end");
        }
        assert!(began.elapsed() < limit::SINK_TIMEOUT * 3, "{:?} after {sent}", began.elapsed());
    }
}
