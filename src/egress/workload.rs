//! Asks the SPIFFE Workload API on a Unix socket for the keys that verify JWT-SVIDs (`FetchJWTBundles`), and for the roots
//! that verify X.509-SVIDs (`FetchX509Bundles`).
//!
//! Decides how that is asked: gRPC over HTTP/2, whose messages here are maps of names to bundles, read by hand because
//! they have two kinds of fields. Refuses to know what a bundle says. Invariants: whoever else could put a socket in its
//! place is believed nothing; what comes from there is bounded before it is read.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::config::set::replaceable;
use crate::limit;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The keys that verify JWT-SVIDs.
    Keys,
    /// The roots that verify X.509-SVIDs.
    Roots,
}

impl Asked {
    /// The call.
    const fn call(self) -> &'static str {
        match self {
            Self::Keys => "http://localhost/SpiffeWorkloadAPI/FetchJWTBundles",
            Self::Roots => "http://localhost/SpiffeWorkloadAPI/FetchX509Bundles",
        }
    }
}

/// What it said of one trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// A JWKS, or certificates one after the other (DER).
    pub bundle: Bytes,
    /// With roots, lists of certificates that were withdrawn (DER), of whichever domain.
    pub withdrawn: Vec<Bytes>,
}

/// Flag, and length of four bytes.
const PREFIX_BYTES: usize = 5;

/// A stream of bundles that is open; the workload API says something whenever they change.
#[derive(Debug)]
pub struct Bundles {
    asked: Asked,
    body: Incoming,
    read: BytesMut,
    /// Whether it has said something, on this stream or before, so that it knew us.
    heard: bool,
    /// Whether the stream was over before it began, because we are not known any more.
    over: bool,
    connection: JoinHandle<()>,
}

impl Drop for Bundles {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Bundles {
    /// Opens a stream. `heard` says whether it has said something before that still counts: then that it does not know us is
    /// no trouble, and the first thing that it says.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub async fn open(socket: &Path, asked: Asked, heard: bool) -> Result<Self, String> {
        let shown = socket.display();
        let own = PathBuf::from(socket);
        let checked = tokio::task::spawn_blocking(move || check(&own)).await.map_err(|error| error.to_string())?;
        checked.map_err(|problem| format!("{shown}: {problem}"))?;
        let opened = tokio::time::timeout(limit::WORKLOAD_API_TIMEOUT, Self::ask(socket, asked, heard)).await;
        opened
            .unwrap_or_else(|_| Err("it does not answer in time".to_owned()))
            .map_err(|error| format!("{shown}: {error}"))
    }

    async fn ask(socket: &Path, asked: Asked, heard: bool) -> Result<Self, String> {
        let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|error| error.to_string())?;
        let connection = tokio::spawn(async move { drop(connection.await) });
        let request = Request::builder()
            .method(Method::POST)
            .uri(asked.call())
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            // Without it whoever can have a request sent somewhere could ask in our name.
            .header("workload.spiffe.io", "true")
            .body(Full::new(Bytes::from_static(&[0; PREFIX_BYTES])))
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await;
        let answer = answer.inspect_err(|_| connection.abort()).map_err(|error| error.to_string())?;
        let (head, body) = answer.into_parts();
        // An answer without a body has its end among its headers.
        let over = heard && head.status.is_success() && is_denied(&head.headers);
        let bundles = Self { asked, body, read: BytesMut::new(), heard, over, connection };
        if !head.status.is_success() {
            return Err(format!("it answered {}", head.status));
        }
        if !over {
            status(&head.headers)?;
        }
        Ok(bundles)
    }

    /// The bundle of that trust domain, each time that the workload API says something; nothing where what it says has
    /// none, or it knows us no more: what is left out is withdrawn (SPIFFE Workload API, 4.4).
    ///
    /// # Errors
    /// Why the stream is over, or what is wrong with what it said, in words.
    pub async fn next(&mut self, trust_domain: &str) -> Result<Option<Told>, String> {
        if std::mem::take(&mut self.over) {
            return Ok(None);
        }
        loop {
            if let Some(message) = taken(&mut self.read)? {
                self.heard = true;
                return bundle(&message, self.asked, trust_domain);
            }
            let frame = self.body.frame().await.ok_or("the stream ended")?.map_err(|error| error.to_string())?;
            match frame.into_data() {
                Ok(data) => self.read.extend_from_slice(&data),
                Err(frame) => {
                    let none = HeaderMap::new();
                    let trailers = frame.trailers_ref().unwrap_or(&none);
                    if std::mem::take(&mut self.heard) && is_denied(trailers) {
                        return Ok(None);
                    }
                    status(trailers)?;
                    return Err("the stream ended".to_owned());
                }
            }
        }
    }
}

/// Whether nobody else could have put that socket there.
fn check(socket: &Path) -> Result<(), String> {
    let kind = std::fs::metadata(socket).map_err(|error| error.to_string())?.file_type();
    if !kind.is_socket() {
        return Err("it is no socket".to_owned());
    }
    replaceable(socket).map_or(Ok(()), |message| Err(format!("others can replace it: {message}")))
}

/// Whether the workload API gives nothing to us.
fn is_denied(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|status| status == "7")
}

/// What gRPC says of how it went.
fn status(headers: &HeaderMap) -> Result<(), String> {
    if is_denied(headers) {
        return Err("it does not know this process (PermissionDenied): register the gateway as a workload".to_owned());
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        "" | "0" => Ok(()),
        code => {
            let message: String = text("grpc-message").chars().take(limit::ERROR_SHOWN_CHARACTERS_MAX).collect();
            Err(format!("it answered with the gRPC status {code} {message}").trim_end().to_owned())
        }
    }
}

/// The first whole message of what was read.
fn taken(read: &mut BytesMut) -> Result<Option<Bytes>, String> {
    let Some(prefix) = read.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err("it compresses what nobody asked it to".to_owned());
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > limit::WORKLOAD_API_BYTES_MAX {
        return Err(format!("it says more than {} bytes at once", limit::WORKLOAD_API_BYTES_MAX));
    }
    if read.len() < PREFIX_BYTES.saturating_add(length) {
        return Ok(None);
    }
    read.advance(PREFIX_BYTES);
    Ok(Some(read.split_to(length).freeze()))
}

/// `JWTBundlesResponse { map<string, bytes> bundles = 1; }`, or `X509BundlesResponse { repeated bytes crl = 1;
/// map<string, bytes> bundles = 2; }`: the value under the domain's SPIFFE ID.
fn bundle(message: &Bytes, asked: Asked, trust_domain: &str) -> Result<Option<Told>, String> {
    let own = format!("spiffe://{trust_domain}");
    let (mut found, mut withdrawn) = (None, Vec::new());
    for (number, entry) in fields(message)? {
        match (asked, number) {
            (Asked::Keys, 1) | (Asked::Roots, 2) => {}
            (Asked::Roots, 1) => {
                withdrawn.push(entry);
                continue;
            }
            _ => continue,
        }
        let (mut key, mut value) = (Bytes::new(), Bytes::new());
        for (number, content) in fields(&entry)? {
            match number {
                1 => key = content,
                2 => value = content,
                _ => {}
            }
        }
        // Of an entry that comes twice, the last one counts.
        if key == own.as_bytes() || key == trust_domain.as_bytes() {
            found = Some(value);
        }
    }
    Ok(found.map(|bundle| Told { bundle, withdrawn }))
}

/// The fields of a message that have a length; others are stepped over.
fn fields(message: &Bytes) -> Result<Vec<(u64, Bytes)>, String> {
    let torn = || "what it says is no message of protocol buffers".to_owned();
    let (mut rest, mut all) = (message.clone(), Vec::new());
    while !rest.is_empty() {
        let tag = varint(&mut rest).ok_or_else(torn)?;
        let skipped = match tag & 7 {
            0 => varint(&mut rest).map(|_| 0).ok_or_else(torn)?,
            1 => 8,
            5 => 4,
            2 => {
                let length = varint(&mut rest).and_then(|length| usize::try_from(length).ok());
                let length = length.filter(|length| *length <= rest.len()).ok_or_else(torn)?;
                all.push((tag >> 3, rest.split_to(length)));
                0
            }
            _ => return Err(torn()),
        };
        if skipped > rest.len() {
            return Err(torn());
        }
        rest.advance(skipped);
    }
    Ok(all)
}

fn varint(rest: &mut Bytes) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        if rest.is_empty() {
            return None;
        }
        let byte = rest.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut all = vec![number << 3 | 2];
        let mut length = content.len();
        while length >= 0x80 {
            all.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        all.push(u8::try_from(length).unwrap());
        all.extend_from_slice(content);
        all
    }

    fn said(bundles: &[(&str, &[u8])]) -> Bytes {
        let entry = |(name, value): &(&str, &[u8])| field(1, &[field(1, name.as_bytes()), field(2, value)].concat());
        bundles.iter().flat_map(entry).collect::<Vec<u8>>().into()
    }

    #[test]
    fn the_bundle_of_the_domain_is_found_among_others_and_no_other_is_taken_for_it() {
        let long = vec![b'x'; 300];
        let message = said(&[("spiffe://other.test", b"no"), ("spiffe://mesh.test", &long)]);
        let keys = |message: &Bytes, domain: &str| {
            bundle(message, Asked::Keys, domain).map(|told| told.map(|told| told.bundle))
        };
        assert_eq!(keys(&message, "mesh.test").unwrap().unwrap(), long);
        // It has none of them, and says so.
        for (message, other) in [(&message, "mesh"), (&message, "test"), (&Bytes::new(), "mesh.test")] {
            assert_eq!(keys(message, other), Ok(None), "{other}");
        }
        // What a later version adds is stepped over.
        let more = [&[0x10, 0x96, 0x01][..], &[0x19, 1, 2, 3, 4, 5, 6, 7, 8], &[0x25, 1, 2, 3, 4], &message].concat();
        assert_eq!(keys(&more.into(), "mesh.test").unwrap().unwrap(), long);
    }

    #[test]
    fn roots_stand_beside_lists_of_what_was_withdrawn_and_are_no_keys() {
        let entry = |name: &str, value: &[u8]| field(2, &[field(1, name.as_bytes()), field(2, value)].concat());
        let ours = entry("spiffe://mesh.test", b"roots");
        let message: Bytes =
            [field(1, b"list"), entry("spiffe://other.test", b"no"), ours, field(1, b"more")].concat().into();
        let told = bundle(&message, Asked::Roots, "mesh.test").unwrap().unwrap();
        assert_eq!((&told.bundle[..], told.withdrawn), (&b"roots"[..], vec![Bytes::from("list"), Bytes::from("more")]));
        assert_eq!(bundle(&message, Asked::Roots, "mesh"), Ok(None));
        let keys = said(&[("spiffe://mesh.test", b"keys")]);
        assert_eq!(bundle(&keys, Asked::Roots, "mesh.test"), Ok(None));
    }

    #[test]
    fn what_is_torn_or_too_long_is_an_error_and_what_is_not_whole_is_waited_for() {
        let message = said(&[("spiffe://mesh.test", b"keys")]);
        for cut in 1..message.len() {
            let came = bundle(&message.slice(..cut), Asked::Keys, "mesh.test");
            assert!(came.is_err(), "{cut}: {came:?}");
        }
        for torn in
            [&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], &[0x0b], &[0x09, 1], &[0xff; 12]]
        {
            assert!(fields(&Bytes::copy_from_slice(torn)).is_err(), "{torn:?}");
        }
        let mut read = BytesMut::from(&[0, 0, 0, 0, 2, b'o'][..]);
        assert_eq!(taken(&mut read), Ok(None));
        read.extend_from_slice(b"k!");
        assert_eq!((taken(&mut read), &read[..]), (Ok(Some(Bytes::from_static(b"ok"))), &b"!"[..]));
        let over = u32::try_from(limit::WORKLOAD_API_BYTES_MAX + 1).unwrap().to_be_bytes();
        assert!(taken(&mut BytesMut::from(&[&[0][..], &over].concat()[..])).unwrap_err().contains("more than"));
        assert!(taken(&mut BytesMut::from(&[1, 0, 0, 0, 0][..])).is_err());
    }
}
