//! The ways out: a file, a log, a collector over HTTP.
//!
//! Decides what counts as an acknowledgement: that a file is on the disk, that a log's socket took it, that a collector
//! answered with a success. Invariant: a batch is acknowledged as a whole or not at all.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Request, header};
use secrecy::ExposeSecret as _;

use crate::config::{ExportPlace, SinkConfig};
use crate::egress::{EgressPolicy, OauthClient, oauth_client};
use crate::limit;

/// Facility 13 (log audit) and severity 6 (informational), as RFC 5424 counts.
const PRIORITY: u8 = 13 * 8 + 6;
/// A pipe that is full is looked at so often.
const PIPE_PAUSE: Duration = Duration::from_millis(5);
/// A reader that goes on is waited for so many times as long as one that does not.
const PIPE_PATIENCE: u32 = 10;

/// One way out.
pub(super) struct Place {
    to: ExportPlace,
    client: Option<OauthClient>,
    /// The last batch did not get through as a whole.
    torn: bool,
}

impl Place {
    pub fn new(to: &ExportPlace) -> Self {
        Self { to: to.clone(), client: None, torn: false }
    }

    /// Sends a batch, one event a line.
    ///
    /// # Errors
    /// A lower-case fragment; nothing of the batch counts as sent then.
    pub async fn send(&mut self, events: &[&str]) -> Result<(), String> {
        match &self.to {
            ExportPlace::Sink(sink) => {
                let (sink, events) = (sink.clone(), events.iter().map(|event| (*event).to_owned()).collect::<Vec<_>>());
                let torn = std::mem::replace(&mut self.torn, true);
                let written = tokio::task::spawn_blocking(move || write(&sink, &events, torn));
                written.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
                self.torn = false;
                Ok(())
            }
            ExportPlace::Http { .. } => self.post(events).await,
        }
    }

    async fn post(&mut self, events: &[&str]) -> Result<(), String> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => {
                // The administrator wrote this address, and collectors are near.
                let built = tokio::task::spawn_blocking(|| oauth_client(EgressPolicy::server(true))).await;
                let client = built.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
                self.client.insert(client).clone()
            }
        };
        let ExportPlace::Http { url, header } = &self.to else { return Ok(()) };
        let mut body = Vec::with_capacity(events.iter().map(|event| event.len() + 1).sum());
        for event in events {
            body.extend_from_slice(event.as_bytes());
            body.push(b'\n');
        }
        let mut request = Request::post(url.as_str())
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .body(body)
            .map_err(|error| error.to_string())?;
        if let Some((name, prefix, secret)) = header {
            // Read each time: a secret that was exchanged is taken over.
            let secret = secret.read().await.map_err(|error| error.to_string())?;
            let name = HeaderName::try_from(name.as_str()).map_err(|error| error.to_string())?;
            let mut value = HeaderValue::try_from(format!("{prefix}{}", secret.expose_secret()))
                .map_err(|_| "its secret cannot be a header".to_owned())?;
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
        let answer = client.send(request).await.map_err(|error| error.to_string())?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
    }
}

/// Writes a batch to a file or a log; `torn` says that the last one may have ended within a line. Blocking.
fn write(sink: &SinkConfig, events: &[String], torn: bool) -> io::Result<()> {
    match sink {
        SinkConfig::File(path) => {
            // A pipe that nobody reads must not hold us up.
            let opened = File::options().append(true).create(true).mode(0o600).custom_flags(flags()).open(path);
            let file = opened.map_err(|error| match rustix::io::Errno::from_io_error(&error) {
                Some(rustix::io::Errno::NXIO) => io::Error::other("nobody reads this pipe"),
                _ => error,
            })?;
            if file.metadata()?.is_file() { append(&file, path, events) } else { pass_on(&file, events, torn) }
        }
        SinkConfig::Syslog(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(limit::SINK_TIMEOUT))?;
            events.iter().try_for_each(|event| socket.send_to(message(event).as_bytes(), path).map(drop))
        }
        SinkConfig::SyslogUdp(address) => {
            let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
            let socket = UdpSocket::bind(any)?;
            socket.set_write_timeout(Some(limit::SINK_TIMEOUT))?;
            events.iter().try_for_each(|event| socket.send_to(message(event).as_bytes(), address).map(drop))
        }
    }
}

fn flags() -> i32 {
    (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed()
}

/// Adds to a file, whole lines or nothing; they are on the disk afterwards.
fn append(mut file: &File, path: &Path, events: &[String]) -> io::Result<()> {
    let length = file.metadata()?.len();
    // A crash, or whoever else writes there, may have left half a line.
    let mut text = if ends_within_a_line(path) { "\n".to_owned() } else { String::new() };
    events.iter().for_each(|event| text.extend([event.as_str(), "\n"]));
    if let Err(error) = file.write_all(text.as_bytes()) {
        // What cannot be taken back is ended with a line break the next time.
        let _taken_back = file.set_len(length);
        return Err(error);
    }
    file.sync_data()
}

fn ends_within_a_line(path: &Path) -> bool {
    let last = || {
        let mut file = File::options().read(true).custom_flags(flags()).open(path)?;
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        io::Result::Ok(last != *b"\n")
    };
    // One that is empty, or that may be written and not read, is taken as it is.
    last().unwrap_or(false)
}

/// Writes to a pipe or a device, which keep nothing that could be synced, for as long as somebody reads.
fn pass_on(file: &File, events: &[String], torn: bool) -> io::Result<()> {
    let until = Instant::now() + PIPE_PATIENCE * limit::SINK_TIMEOUT;
    if torn {
        put(file, b"\n", until)?;
    }
    // Line by line: a pipe takes what is not longer than a page as a whole or not at all.
    events.iter().try_for_each(|event| put(file, format!("{event}\n").as_bytes(), until))
}

fn put(mut file: &File, mut bytes: &[u8], until: Instant) -> io::Result<()> {
    let mut since = Instant::now();
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or_default();
                since = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if since.elapsed() >= limit::SINK_TIMEOUT || Instant::now() >= until {
                    return Err(io::Error::new(ErrorKind::TimedOut, "whoever reads this pipe does not read on"));
                }
                std::thread::sleep(PIPE_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The message of RFC 5424: one line, as a collector keeps it.
fn message(event: &str) -> String {
    let now = jiff::Timestamp::now();
    let host = rustix::system::uname();
    let host =
        host.nodename().to_str().ok().filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()));
    format!("<{PRIORITY}>1 {now:.6} {} bailiwick {} ocsf - {event}", host.unwrap_or("-"), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &Path) -> Place {
        Place::new(&ExportPlace::Sink(SinkConfig::File(path.to_owned())))
    }

    #[tokio::test]
    async fn half_a_line_that_something_left_in_a_file_is_ended() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("events");
        std::fs::write(&path, "{\"a\":1}\n{\"a\"").unwrap();
        let mut way = file(&path);
        way.send(&["{\"a\":2}"]).await.unwrap();
        way.send(&["{\"a\":3}"]).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"a\"\n{\"a\":2}\n{\"a\":3}\n");
    }

    #[tokio::test]
    async fn a_batch_that_is_larger_than_a_pipe_gets_through_to_whoever_reads() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        let mut way = file(&path);
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000));
        let events = vec![long.as_str(); limit::EXPORT_BATCH_EVENTS_MAX];
        assert!(way.send(&events).await.unwrap_err().contains("nobody reads"));
        // Somebody who has opened it and does not read.
        let mut reader = File::options().read(true).write(true).open(&path).unwrap();
        let began = Instant::now();
        assert!(way.send(&events).await.unwrap_err().contains("does not read on"));
        assert!(began.elapsed() >= limit::SINK_TIMEOUT);
        let whole = std::thread::spawn(move || {
            let (mut text, mut bytes) = (Vec::new(), [0; 8192]);
            while !text.ends_with(b"{\"end\":1}\n") {
                let count = reader.read(&mut bytes).unwrap();
                text.extend_from_slice(&bytes[..count]);
            }
            String::from_utf8(text).unwrap()
        });
        way.send(&events).await.unwrap();
        way.send(&["{\"end\":1}"]).await.unwrap();
        let text = whole.join().unwrap();
        assert!(text.lines().all(|line| line.is_empty() || serde_json::from_str::<serde_json::Value>(line).is_ok()));
        assert!(text.lines().filter(|line| *line == long).count() > events.len(), "and what came before");
    }

    #[tokio::test]
    async fn a_log_gets_one_message_for_each_event() {
        let place = tempfile::tempdir().unwrap();
        let local = UnixDatagram::bind(place.path().join("log")).unwrap();
        let remote = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sinks = [SinkConfig::Syslog(place.path().join("log")), SinkConfig::SyslogUdp(remote.local_addr().unwrap())];
        for sink in sinks {
            Place::new(&ExportPlace::Sink(sink)).send(&["{\"a\":1}", "{\"a\":2}"]).await.unwrap();
        }
        let mut bytes = [0; 512];
        for number in 1..=2 {
            for length in [local.recv(&mut bytes).unwrap(), remote.recv(&mut bytes).unwrap()] {
                let text = std::str::from_utf8(&bytes[..length]).unwrap();
                assert!(text.starts_with("<110>1 20") && text.ends_with(&format!("- {{\"a\":{number}}}")), "{text}");
            }
        }
    }
}
