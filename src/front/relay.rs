//! Hands a request to the replica that what it names is bound to, and its answer back.
//!
//! Decides which replica that is, and nothing about rights: whoever calls was authenticated here, because only then a
//! handle can be read, and is authenticated again there, from the token that goes along. Invariant: a request is handed on
//! once to where its session is, and once from there to what it names: what comes from another replica goes on from the
//! one replica that has its session, and from no other, so none comes back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Response, Uri};
use http_body_util::Full;

use super::answer::About;
use super::away::{self, Asked, Away};
use super::leftover::RequestBody;
use super::listener::Answers;
use super::pipeline::Pipeline;
use super::session::{SessionKey, call_key};
use super::track::EventId;
use super::{Front, client_certificate, headers, questions};
use crate::call::Endpoint;
use crate::egress::peer::{PeerClient, PeerError};
use crate::gateway::whole;
use crate::identity::ClientCertificate;
use crate::ids::ReplicaId;
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal};
use crate::wire::Message;
use crate::wire::mcp::{Era, LogLevel, header as mcp};

/// Who handed a request on.
const RELAYED_BY: HeaderName = HeaderName::from_static("bailiwick-relayed-by");
/// Where it came from there.
const RELAYED_FOR: HeaderName = HeaderName::from_static("bailiwick-relayed-for");

/// The certificate of the client there, if it has one: its chain as the `Client-Cert` header spells it, or its SHA-256.
const RELAYED_CERTIFICATE: HeaderName = HeaderName::from_static("bailiwick-relayed-certificate");

/// From which level on the client's session wants log messages, where the session is there and not here.
const RELAYED_LEVEL: HeaderName = HeaderName::from_static("bailiwick-relayed-level");

/// What belongs to one connection, and what the next one says for itself.
const OF_A_CONNECTION: [HeaderName; 16] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::HOST,
    header::CONTENT_LENGTH,
    header::PROXY_AUTHORIZATION,
    header::FORWARDED,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static(client_certificate::HEADERS[0]),
    HeaderName::from_static(client_certificate::HEADERS[1]),
    HeaderName::from_static(client_certificate::HEADERS[2]),
    RELAYED_CERTIFICATE,
    RELAYED_LEVEL,
];

/// How other replicas are reached.
#[derive(Debug)]
pub struct Relay {
    client: Arc<PeerClient>,
    away: Arc<Away>,
}

/// A replica that something is bound to.
pub(super) struct There {
    replica: ReplicaId,
    /// Its `host:port`.
    address: String,
    /// What a session of ours asks there, if one does.
    asked: Option<Asked>,
    /// From which level on that session wants log messages.
    level: Option<String>,
}

impl Relay {
    /// A relay over this client.
    #[must_use]
    pub fn new(client: Arc<PeerClient>) -> Self {
        Self { client, away: Away::new() }
    }
}

/// What answers other replicas: the same front, by the door behind which nothing is handed on any further.
pub struct FromReplicas<P: Pipeline>(pub Arc<Front<P>>);

impl<P: Pipeline> Answers for FromReplicas<P> {
    async fn answer(self: Arc<Self>, request: Request<RequestBody>, peer: IpAddr) -> Response<Body> {
        if request.uri().path() == whole::PATH {
            return Box::pin(self.0.asked_by_replica(request, peer)).await;
        }
        self.0.answer_replica(request).await
    }

    fn connections_max(&self) -> usize {
        limit::CONNECTIONS_MAX
    }

    /// One connection of a replica carries what many clients want.
    fn http2_streams_max(&self) -> u32 {
        u32::try_from(limit::RELAYS_MAX).unwrap_or(u32::MAX)
    }

    fn shutdown_grace(&self) -> Duration {
        self.0.shutdown_grace()
    }
}

/// A request that another replica handed on: which one, and where it came from there.
///
/// # Errors
/// When that is not said as replicas say it.
pub(super) fn handed_on(headers: &HeaderMap) -> Result<(ReplicaId, IpAddr), Refusal> {
    let said = |name: &HeaderName| headers::single(headers, name.as_str()).ok().flatten();
    let by = said(&RELAYED_BY).and_then(|text| text.parse().ok());
    let from = said(&RELAYED_FOR).and_then(|text| text.parse().ok());
    by.zip(from).ok_or_else(|| Refusal::new(Reason::RequestInvalid).hint("only replicas connect here"))
}

/// The certificate of the client at the replica that handed the request on.
///
/// # Errors
/// When it is not said as replicas say it.
pub(super) fn handed_certificate(headers: &HeaderMap) -> Result<Option<Arc<ClientCertificate>>, Refusal> {
    let said = headers::single(headers, RELAYED_CERTIFICATE.as_str());
    let refused = || Refusal::new(Reason::RequestInvalid).hint("only replicas connect here");
    let Some(text) = said.map_err(|_| refused())? else { return Ok(None) };
    client_certificate::from_spelled(text).map(|certificate| Some(Arc::new(certificate))).ok_or_else(refused)
}

/// The log level of a session of the replica that handed the request on, which nobody here knows.
pub(super) fn handed_level(headers: &HeaderMap) -> Option<LogLevel> {
    LogLevel::parse(headers::single(headers, RELAYED_LEVEL.as_str()).ok().flatten()?)
}

impl<P: Pipeline> Front<P> {
    /// The living replica that the session of these headers is bound to, where that is another one.
    pub(super) fn session_elsewhere(
        &self,
        caller: &P::Caller,
        endpoint: &Endpoint,
        request_headers: &HeaderMap,
    ) -> Option<There> {
        self.relay.as_ref()?;
        let id = headers::single(request_headers, mcp::SESSION_ID).ok().flatten()?;
        self.there(self.sessions.home(P::principal(caller), endpoint, id)?)
    }

    /// The living replica that what the message names is bound to, where that is another one: a task or a waiting call, a
    /// request that is cancelled, a question that is answered. That one knows nothing of a session of ours but that we have
    /// handed it on: only of one that is alive is it. What was handed on to us goes there for such a session alone.
    pub(super) async fn content_elsewhere(
        &self,
        caller: &P::Caller,
        endpoint: &Endpoint,
        (request_headers, era, via): (&HeaderMap, Era, Option<ReplicaId>),
        message: &Message,
    ) -> Option<There> {
        let relay = self.relay.as_ref()?;
        let id = headers::single(request_headers, mcp::SESSION_ID).ok().flatten().filter(|_| era == Era::Legacy);
        if via.is_some() && id.is_none() {
            return None;
        }
        if let Some(home) = self.pipeline.home(caller, message) {
            let mut there = self.there(home)?;
            if let Some(id) = id {
                let session = self.own_session(caller, endpoint, id).await?;
                there.asked = message.id_value().map(|id| (session, call_key(id)));
                there.level.clone_from(&self.sessions.since(session).level);
            }
            return Some(there);
        }
        if let Some(asked_at) = questions::asked_at(message) {
            let there = self.there(asked_at)?;
            return self.own_session(caller, endpoint, id?).await.map(|_| there);
        }
        if message.method() != "notifications/cancelled" {
            return None;
        }
        let asked = call_key(message.params()?.get("requestId")?);
        let session = self.own_session(caller, endpoint, id?).await?;
        self.there(relay.away.take(&(session, asked))?)
    }

    /// The living replica that has the stream which a client of a session of ours wants to read on, where that is of a
    /// request that was handed on there.
    pub(super) async fn stream_elsewhere(
        &self,
        caller: &P::Caller,
        endpoint: &Endpoint,
        request_headers: &HeaderMap,
    ) -> Option<There> {
        self.relay.as_ref()?;
        let said = |name: &str| headers::single(request_headers, name).ok().flatten();
        let there = self.there(said(mcp::LAST_EVENT_ID).and_then(EventId::parse)?.at?)?;
        self.own_session(caller, endpoint, said(mcp::SESSION_ID)?).await.map(|_| there)
    }

    /// A session that was begun here and is alive.
    async fn own_session(&self, caller: &P::Caller, endpoint: &Endpoint, id: &str) -> Option<SessionKey> {
        Some(Box::pin(self.alive(P::principal(caller), endpoint, id, None)).await.ok()??.key)
    }

    fn there(&self, replica: ReplicaId) -> Option<There> {
        if replica == self.replica {
            return None;
        }
        // Of one that is gone nothing is left: this replica says so.
        self.pipeline.peer(replica).map(|address| There { replica, address, asked: None, level: None })
    }

    /// Hands a request on.
    pub(super) async fn hand_on(
        &self,
        there: &There,
        caller: &P::Caller,
        (parts, body): (&Parts, Bytes),
        origin: (IpAddr, Option<&ClientCertificate>),
        about: About<'_>,
    ) -> Response<Body> {
        let answered = self.answered(there, parts, body, origin).await;
        let told = match &answered {
            Ok(response) => Ok(response.status()),
            Err(failure) => Err(failure),
        };
        self.pipeline.handed_on(caller, there.replica, parts.method.as_str(), told);
        answered.unwrap_or_else(|failure| about.told(failure))
    }

    async fn answered(
        &self,
        there: &There,
        parts: &Parts,
        body: Bytes,
        (peer, certificate): (IpAddr, Option<&ClientCertificate>),
    ) -> Result<Response<Body>, Failure> {
        let unreachable = |detail: String| Failure::before(Reason::ReplicaUnreachable, detail);
        let relay = self.relay.as_ref().ok_or_else(|| unreachable("there is no [cluster]".to_owned()))?;
        let place = relay.away.enter(there.asked.clone(), there.replica);
        let mut place = place.ok_or_else(|| unreachable("too many requests are handed on already".to_owned()))?;
        let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let uri = format!("https://{}{path}", there.address).parse::<Uri>();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = uri.map_err(|error| unreachable(error.to_string()))?;
        *request.headers_mut() = passed_on(&parts.headers);
        let own = |text: String| HeaderValue::from_str(&text).map_err(|error| unreachable(error.to_string()));
        request.headers_mut().insert(RELAYED_BY, own(self.replica.to_string())?);
        request.headers_mut().insert(RELAYED_FOR, own(peer.to_string())?);
        if let Some(certificate) = certificate {
            request.headers_mut().insert(RELAYED_CERTIFICATE, own(client_certificate::spelled(certificate))?);
        }
        if let Some(level) = &there.level {
            request.headers_mut().insert(RELAYED_LEVEL, own(level.clone())?);
        }
        match relay.client.request(request).await {
            Ok(response) => {
                let (mut head, body) = response.into_parts();
                head.headers = passed_on(&head.headers);
                Ok(Response::from_parts(head, Body::new(away::Answer { body, place })))
            }
            Err(error @ PeerError::Unreachable(_)) => {
                place.over();
                Err(unreachable(error.to_string()))
            }
            Err(error @ PeerError::Lost(_)) => Err(Failure::after(Reason::ReplicaLost, error.to_string())),
        }
    }
}

/// The headers that go on to the next connection.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut passed = headers.clone();
    // Whoever sends it may name headers of its own connection there.
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in OF_A_CONNECTION.iter().chain(&named) {
        passed.remove(name);
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn so_many_requests_are_handed_on_at_once() {
        use super::super::fixture::Scripted;
        use crate::wire::handle::Sealer;
        let relay = Relay::new(Arc::new(crate::egress::peer::tests::client()));
        let places = Arc::clone(&relay.away.places);
        let sealer = Arc::new(Sealer::new([&[1_u8; 32][..]]).unwrap());
        let front = Front::with_relay(Arc::new(Scripted::new([])), sealer, ReplicaId::new(), Some(relay));
        let there = There { replica: ReplicaId::new(), address: "localhost:1".to_owned(), asked: None, level: None };
        let (parts, ()) = Request::post("/mcp").body(()).unwrap().into_parts();
        let tried = async || {
            let failure =
                front.answered(&there, &parts, Bytes::new(), (IpAddr::from([10, 0, 0, 1]), None)).await.unwrap_err();
            assert_eq!(failure.reason, Reason::ReplicaUnreachable);
            failure.detail
        };
        let held = places.try_acquire_many(u32::try_from(limit::RELAYS_MAX - 1).unwrap()).unwrap();
        assert!(tried().await.contains("cannot connect"));
        let last = places.try_acquire().unwrap();
        assert!(tried().await.contains("too many"));
        drop((held, last));
    }

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn what_belongs_to_one_connection_stays_there() {
        let headers = map(&[
            ("authorization", "Bearer t"),
            ("mcp-session-id", "s"),
            ("connection", "x-hop, close"),
            ("x-hop", "1"),
            ("host", "a"),
            ("x-forwarded-for", "10.0.0.1"),
            ("content-length", "3"),
            ("bailiwick-relayed-level", "debug"),
        ]);
        assert_eq!(passed_on(&headers), map(&[("authorization", "Bearer t"), ("mcp-session-id", "s")]));
    }

    #[test]
    fn who_handed_a_request_on_is_said_once_or_it_is_refused() {
        let replica = ReplicaId::new();
        let mut headers = map(&[("bailiwick-relayed-for", "10.0.0.1")]);
        assert!(handed_on(&headers).is_err());
        headers.insert(RELAYED_BY, replica.to_string().parse().unwrap());
        assert_eq!(handed_on(&headers).unwrap(), (replica, IpAddr::from([10, 0, 0, 1])));
        headers.append(RELAYED_BY, replica.to_string().parse().unwrap());
        assert!(handed_on(&headers).is_err());
    }
}
