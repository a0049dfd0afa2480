//! The ways out: a file, a log, a collector over HTTP.
//!
//! Decides what counts as an acknowledgement: that a file is on the disk, that a log's socket took it, that a collector
//! answered with a success. Invariant: a batch is acknowledged as a whole or not at all.

use std::fs::File;
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;

use http::{HeaderName, HeaderValue, Request, header};
use secrecy::ExposeSecret as _;

use crate::config::{ExportPlace, SinkConfig};
use crate::egress::{EgressPolicy, OauthClient, oauth_client};
use crate::limit;

/// Facility 13 (log audit) and severity 6 (informational), as RFC 5424 counts.
const PRIORITY: u8 = 13 * 8 + 6;

/// One way out.
pub(super) struct Place {
    to: ExportPlace,
    client: Option<OauthClient>,
}

impl Place {
    pub fn new(to: &ExportPlace) -> Self {
        Self { to: to.clone(), client: None }
    }

    /// Sends a batch, one event a line.
    ///
    /// # Errors
    /// A lower-case fragment; nothing of the batch counts as sent then.
    pub async fn send(&mut self, events: &[&str]) -> Result<(), String> {
        match &self.to {
            ExportPlace::Sink(sink) => {
                let (sink, events) = (sink.clone(), events.iter().map(|event| (*event).to_owned()).collect::<Vec<_>>());
                let written = tokio::task::spawn_blocking(move || write(&sink, &events));
                written.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
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

/// Writes a batch to a file or a log. Blocking.
fn write(sink: &SinkConfig, events: &[String]) -> std::io::Result<()> {
    match sink {
        SinkConfig::File(path) => {
            // A pipe that nobody reads must not hold us up.
            let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
            let mut file = File::options().append(true).create(true).mode(0o640).custom_flags(flags).open(path)?;
            let text: String = events.iter().map(|event| format!("{event}\n")).collect();
            file.write_all(text.as_bytes())?;
            // A pipe or a device cannot be synced, and keeps nothing that could be.
            match file.sync_data() {
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
                synced => synced,
            }
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
