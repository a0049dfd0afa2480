//! The stream of HTTP+SSE of 2024-11-05: its first event says where messages go, the others are messages.
//!
//! Decides which place may be named. Knows nothing of requests. Invariant: an event stays within its bound, and
//! no place at another origin than the configured one is ever answered.

use std::collections::VecDeque;

use http::Uri;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::duplex::Duplex;
use super::http::causes;
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::wire::sse;

/// What comes down.
pub(super) struct Source {
    body: Incoming,
    reader: sse::Reader,
    ready: VecDeque<sse::Event>,
}

impl Source {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, reader: sse::Reader::new(limit::RESPONSE_BYTES_MAX), ready: VecDeque::new() }
    }

    /// The next event, or why there is none.
    async fn next(&mut self) -> Result<sse::Event, Failure> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let data = match self.body.frame().await {
                Some(Ok(frame)) => frame.into_data(),
                Some(Err(error)) => return Err(Failure::after(Reason::UpstreamClosed, causes(&error))),
                None => {
                    return Err(Failure::after(Reason::UpstreamClosed, "the stream that was its session has ended"));
                }
            };
            let Ok(data) = data else { continue };
            let ready = &mut self.ready;
            self.reader
                .push(&data, &mut |event| ready.push_back(event))
                .map_err(|error| Failure::after(Reason::UpstreamGarbage, error.to_string()))?;
        }
    }

    /// What the first event says where messages go.
    pub(super) async fn endpoint(&mut self) -> Result<String, Failure> {
        let event = self.next().await?;
        let named = String::from_utf8(event.data).ok().filter(|named| event.name == "endpoint" && !named.is_empty());
        let detail = "its stream does not begin with the event `endpoint`";
        named.ok_or_else(|| Failure::after(Reason::UpstreamGarbage, detail))
    }

    /// Hears all messages; why there are no more.
    pub(super) async fn hear_all(&mut self, duplex: &Duplex) -> Failure {
        loop {
            match self.next().await {
                Ok(event) if matches!(event.name.as_str(), "" | "message") => duplex.hear_line(event.data),
                // Events of other names are no messages.
                Ok(_) => {}
                Err(failure) => return failure,
            }
        }
    }
}

/// The URL that a stream names, if it may be used.
pub(super) fn endpoint_at(configured: &url::Url, named: &str) -> Result<Uri, String> {
    if named.len() > limit::URI_BYTES_MAX {
        return Err(format!("its stream names an endpoint of more than {} bytes", limit::URI_BYTES_MAX));
    }
    let mut url = configured.join(named.trim()).map_err(|error| format!("its stream names no endpoint: {error}"))?;
    if url.origin() != configured.origin() {
        let origin = url.origin().ascii_serialization();
        return Err(format!("its stream names an endpoint at another origin ({origin}); only its own is accepted"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("its stream names an endpoint with a user name or password".to_owned());
    }
    url.set_fragment(None);
    url.as_str().parse().map_err(|error| format!("its stream names no endpoint: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_taken_only_at_the_configured_origin() {
        let configured = "https://tools.example:8443/old/sse".parse().unwrap();
        let at = |named: &str| endpoint_at(&configured, named).map(|uri| uri.to_string());
        assert_eq!(at("/messages?session=1").unwrap(), "https://tools.example:8443/messages?session=1");
        assert_eq!(at("messages").unwrap(), "https://tools.example:8443/old/messages");
        assert_eq!(at("?s=1").unwrap(), "https://tools.example:8443/old/sse?s=1");
        assert_eq!(at("https://tools.example:8443/m#f").unwrap(), "https://tools.example:8443/m");
        for foreign in [
            "http://tools.example:8443/m",
            "https://tools.example/m",
            "//evil.example/m",
            "\\\\evil.example\\m",
            "https://tools.example:8443@evil.example/m",
            "file:///etc/passwd",
            "data:,x",
        ] {
            assert!(at(foreign).unwrap_err().contains("another origin"), "{foreign}");
        }
        assert!(at("https://user@tools.example:8443/m").unwrap_err().contains("user name"));
        assert!(at(&format!("/{}", "x".repeat(limit::URI_BYTES_MAX))).unwrap_err().contains("bytes"));
    }
}
