//! Decides what an HTTP request toward `/mcp` is: which endpoint, which era, and whether it is one at all.
//! Refuses to know what anybody may do.
//!
//! The order is fixed: `Host` and `Origin`, the caller, the body, the era, the headers against the body.
//! Invariant: nothing reaches the pipeline before all of that has held, and nothing is told to somebody
//! who was not authenticated beyond where to get a token.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HeaderMap, HeaderValue, ORIGIN};
use http::request::Parts;
use http::{Method as Verb, Request as HttpRequest, Response, StatusCode};

use crate::call::Endpoint;
use crate::facade::{self, Facade};
use crate::feeds::Feeds;
use crate::gateway::Gateway;
use crate::identity::ClientCertificate;
use crate::ids::ReplicaId;
use crate::link;
use crate::outcome::{Reason, Refusal};
use crate::wire::handle::Sealer;
use crate::wire::mcp::{Era, header};
use crate::wire::{Json, Kind, Message, Source};

mod answer;
mod asked;
mod away;
mod batch;
mod body;
#[cfg(test)]
mod body_tests;
mod client_certificate;
mod clients;
mod count;
mod era;
#[cfg(test)]
pub(crate) mod fixture;
mod haste;
mod headers;
mod leash;
mod leftover;
mod legacy;
mod listener;
mod mailbox;
mod memory;
mod metadata;
mod modern;
mod ongoing;
mod origin;
mod outside;
mod owned;
mod pipeline;
mod proof;
mod proxy;
mod questions;
mod relay;
mod resume;
mod session;
mod share;
mod stall;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod track;

pub use clients::TrustDomains;
pub use headers::bearer;
pub use leash::leash;
pub use leftover::RequestBody;
pub use listener::{Answers, serve};
pub use metadata::{Advertised, Protected, advertised, authorization_servers, quotable};
pub use origin::Guard;
pub use pipeline::Pipeline;
pub use proxy::client_address;
pub use relay::{FromReplicas, Relay};
pub use tls::{Certificates, TlsError};

use answer::{About, Untold};
use batch::Posted;
use haste::Haste;
use mailbox::Mailboxes;
use memory::{Held, Memory};
use outside::Outside;
use questions::Questions;
use session::Sessions;
use share::{preflight, share};
use track::Tracks;

/// The listener's side of the gateway.
pub struct Front<P: Pipeline = Gateway> {
    pipeline: Arc<P>,
    sessions: Arc<Sessions>,
    mailboxes: Arc<Mailboxes<P>>,
    tracks: Tracks,
    haste: Haste,
    memory: Arc<Memory>,
    questions: Arc<Questions<P>>,
    replica: ReplicaId,
    relay: Option<Relay>,
    outside: ArcSwap<Outside>,
    feeds: OnceLock<Arc<Feeds>>,
    facade: OnceLock<Arc<Facade>>,
}

/// One request of somebody who was authenticated.
struct Arrived<P: Pipeline> {
    caller: P::Caller,
    endpoint: Endpoint,
    peer: IpAddr,
    via: Option<ReplicaId>,
    certificate: Option<Arc<ClientCertificate>>,
    held: Arc<Held>,
}

/// One authenticated POST whose body was read.
struct Inbound<P: Pipeline> {
    caller: P::Caller,
    endpoint: Endpoint,
    peer: IpAddr,
    via: Option<ReplicaId>,
    headers: HeaderMap,
    message: Message,
    id: Option<Json>,
    /// What it keeps in memory.
    held: Arc<Held>,
}

impl<P: Pipeline> Front<P> {
    /// A front for a pipeline. Sessions are sealed with `sealer` and name `replica`.
    #[must_use]
    pub fn new(pipeline: Arc<P>, sealer: Arc<Sealer>, replica: ReplicaId) -> Arc<Self> {
        Self::with_relay(pipeline, sealer, replica, None)
    }

    /// The same for one of several replicas, which hands on what is bound to another.
    #[must_use]
    pub fn with_relay(pipeline: Arc<P>, sealer: Arc<Sealer>, replica: ReplicaId, relay: Option<Relay>) -> Arc<Self> {
        let outside = ArcSwap::from_pointee(Outside::new(pipeline.config()));
        let sessions = Arc::new(Sessions::new(sealer, replica));
        Arc::new(Self {
            pipeline,
            sessions,
            mailboxes: Arc::default(),
            tracks: Tracks::new(),
            haste: Haste::default(),
            memory: Arc::default(),
            questions: Arc::new(Questions::new(replica)),
            replica,
            relay,
            outside,
            feeds: OnceLock::new(),
            facade: OnceLock::new(),
        })
    }

    /// Lets identity providers tell what is to be taken back, at `/feeds/`; the first to say so is heard.
    pub fn hears(&self, feeds: Arc<Feeds>) {
        let _before = self.feeds.set(feeds);
    }

    /// Lets assistants register where their provider does not, at `/oauth/`; the first to say so is asked.
    pub fn registers(&self, facade: Arc<Facade>) {
        let _before = self.facade.set(facade);
    }

    /// Answers one HTTP request that came from `peer`.
    pub async fn answer<B>(self: &Arc<Self>, request: HttpRequest<B>, peer: IpAddr) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
    {
        // Probes name addresses, not hosts, and learn nothing.
        match request.uri().path() {
            "/healthz" => return answer::text(StatusCode::OK, "ok\n"),
            "/readyz" if self.pipeline.is_ready() => return answer::text(StatusCode::OK, "ready\n"),
            "/readyz" => return answer::text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            _ => {}
        }
        let outside = self.outside();
        let certificate = proof::certificate(&request, peer, &outside.config.gateway);
        let peer = proxy::client_address(peer, request.headers(), &outside.config.gateway.trusted_proxies);
        let path = outside.names.relative(request.uri().path());
        let registering = path.strip_prefix("/oauth/").map(str::to_owned);
        // A page on another port of this machine may call tools, and may not answer for the person who is asked.
        let is_page = registering.as_deref().is_some_and(Facade::is_page);
        let guard = if is_page { &outside.own_pages } else { &outside.guard };
        if let Err(reason) = guard.check(request.uri(), request.headers()) {
            self.pipeline.refused_unauthenticated(reason, peer);
            let about =
                About { names: &outside.names, endpoint: &Endpoint::Merged, id: None, method: None, era: Era::Modern };
            return about.stopped(Refusal::new(reason));
        }
        let path = outside.names.relative(request.uri().path());
        if let Some(endpoint) = metadata::endpoint(path) {
            // Allowed, or it would not have come this far.
            let origin = request.headers().get(ORIGIN).cloned();
            let mut response = if request.method() == Verb::OPTIONS {
                preflight(request.headers())
            } else {
                let response = self.endpoint(&outside, endpoint, request, (peer, None), certificate).await;
                self.haste.slowed(response).await
            };
            if let Some(origin) = origin {
                share(response.headers_mut(), origin);
            }
            return response;
        }
        if let (Some(facade), Some(path)) = (self.facade.get(), registering) {
            let origin = request.headers().get(ORIGIN).cloned().filter(|_| !is_page);
            let mut response = match *request.method() {
                Verb::OPTIONS if !is_page => preflight(request.headers()),
                _ => Box::pin(facade.answer(&path, request, peer)).await.map(Body::from),
            };
            if let Some(origin) = origin {
                share(response.headers_mut(), origin);
            }
            return response;
        }
        if let (Some(feeds), Some(path)) = (self.feeds.get(), path.strip_prefix("/feeds/")) {
            let path = path.to_owned();
            return Box::pin(feeds.answer(&path, request, peer)).await.map(Body::from);
        }
        if let Some(mut response) = self.authorization_server(&outside, request.uri().path(), request.method()) {
            response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            return response;
        }
        if self.pipeline.has_page(path) {
            let (parts, _) = request.into_parts();
            let path = outside.names.relative(parts.uri.path());
            let visit = link::Visit { path, query: parts.uri.query(), headers: &parts.headers };
            return Box::pin(self.pipeline.page(&parts.method, visit)).await.map(Body::from);
        }
        match outside.names.resource(request.uri().path()) {
            Some(endpoint) => well_known(&outside, &endpoint, request.method(), request.headers()),
            None => answer::text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    /// RFC 8414, where we stand for a provider that registers nobody.
    fn authorization_server(&self, outside: &Outside, path: &str, verb: &Verb) -> Option<Response<Body>> {
        let path = outside.names.relative(path.strip_prefix(facade::WELL_KNOWN)?);
        let document = self.facade.get()?.metadata(path.strip_prefix("/oauth/")?)?;
        Some(match *verb {
            Verb::GET | Verb::HEAD => document.map(Body::from),
            _ => answer::method_not_allowed("GET, HEAD"),
        })
    }

    /// Answers one HTTP request that another replica handed on, which looked at `Host` and `Origin`.
    pub async fn answer_replica<B>(self: &Arc<Self>, request: HttpRequest<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
    {
        let outside = self.outside();
        let Some(endpoint) = metadata::endpoint(outside.names.relative(request.uri().path())) else {
            return answer::text(StatusCode::NOT_FOUND, "not found\n");
        };
        match relay::handed_on(request.headers()) {
            Ok((replica, peer)) => {
                let certificate = relay::handed_certificate(request.headers());
                self.endpoint(&outside, endpoint, request, (peer, Some(replica)), certificate).await
            }
            Err(refusal) => {
                let names = &outside.names;
                About { names, endpoint: &endpoint, id: None, method: None, era: Era::Modern }.stopped(refusal)
            }
        }
    }

    async fn endpoint<B>(
        self: &Arc<Self>,
        outside: &Arc<Outside>,
        endpoint: Endpoint,
        request: HttpRequest<B>,
        (peer, via): (IpAddr, Option<ReplicaId>),
        certificate: Result<Option<Arc<ClientCertificate>>, Refusal>,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
    {
        let (parts, body) = request.into_parts();
        let version = headers::single(&parts.headers, header::PROTOCOL_VERSION).ok().flatten();
        let era = if version.is_some_and(era::is_modern) { Era::Modern } else { Era::Legacy };
        let about = About { names: &outside.names, endpoint: &endpoint, id: None, method: None, era };
        let certificate = match certificate {
            Ok(certificate) => certificate,
            Err(refusal) => {
                self.pipeline.refused_unauthenticated(refusal.reason, peer);
                return about.stopped(refusal);
            }
        };
        let shown = proof::shown(&parts, certificate.as_deref());
        let caller = match self.pipeline.authenticate(shown, &endpoint, peer).await {
            Ok(caller) => caller,
            Err(stop) => {
                let reason = stop.reason();
                let mut response = about.stopped(stop);
                proof::challenge(&mut response, reason, self.pipeline.proof_nonce());
                return response;
            }
        };
        let held = match self.memory.enter(P::principal(&caller)) {
            Ok(held) => held,
            Err(refusal) => return self.told(&caller, about.stopped(refusal)),
        };
        let leashed = caller.clone();
        let arrived = Arrived { caller, endpoint: endpoint.clone(), peer, via, certificate, held: Arc::clone(&held) };
        let response = self.authenticated(outside, arrived, (parts, era), body).await;
        let response = self.told(&leashed, response);
        memory::leaving(leash::leash(response, || self.pipeline.clone().fallen(leashed)), held)
    }

    /// An answer to a caller, once its refusal is on the record.
    fn told(&self, caller: &P::Caller, mut response: Response<Body>) -> Response<Body> {
        if let Some(Untold(reason)) = response.extensions_mut().remove() {
            self.pipeline.refused(caller, reason);
        }
        response
    }

    /// A request of somebody who was authenticated.
    async fn authenticated<B>(
        self: &Arc<Self>,
        outside: &Arc<Outside>,
        arrived: Arrived<P>,
        (parts, era): (Parts, Era),
        body: B,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
    {
        let Arrived { caller, endpoint, peer, via, certificate, held } = arrived;
        let about = About { names: &outside.names, endpoint: &endpoint, id: None, method: None, era };
        // What another replica handed on for its session's sake is that of a session of ours, or of none.
        let elsewhere = match era {
            Era::Legacy if via.is_none() => self.session_elsewhere(&caller, &endpoint, &parts.headers),
            _ => None,
        };
        if let Some(there) = elsewhere {
            let bytes = match body::read(body, &held).await {
                Ok(bytes) => bytes.into(),
                Err(refusal) => return about.stopped(refusal),
            };
            let handed = self.hand_on(&there, &caller, (&parts, bytes), (peer, certificate.as_deref()), about);
            return Box::pin(handed).await;
        }
        match (&parts.method, era) {
            (&Verb::POST, _) => {}
            (&Verb::GET, Era::Legacy) => {
                if let Some(there) = Box::pin(self.stream_elsewhere(&caller, &endpoint, &parts.headers)).await {
                    let origin = (peer, certificate.as_deref());
                    return Box::pin(self.hand_on(&there, &caller, (&parts, Bytes::new()), origin, about)).await;
                }
                return Box::pin(legacy::open_stream(self, outside, &caller, &endpoint, (&parts.headers, via))).await;
            }
            (&Verb::DELETE, Era::Legacy) => {
                return Box::pin(legacy::end_session(self, outside, &caller, &endpoint, &parts.headers)).await;
            }
            (_, Era::Modern) => return answer::untold(answer::method_not_allowed("POST"), Reason::RequestInvalid),
            (_, Era::Legacy) => {
                return answer::untold(answer::method_not_allowed("GET, POST, DELETE"), Reason::RequestInvalid);
            }
        }
        let bytes = match body::read(body, &held).await {
            Ok(bytes) => bytes,
            Err(refusal) => return about.stopped(refusal),
        };
        // A body that is no message is told apart from a batch by its first byte, which parsing consumes.
        let first = bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace());
        if first == Some(b'[') && era == Era::Legacy {
            if headers::single(&parts.headers, header::PROTOCOL_VERSION).is_err() {
                return about.stopped(headers::mismatch("the MCP-Protocol-Version header is not one text"));
            }
            let (endpoint, headers) = (&endpoint, &parts.headers);
            let version = headers::single(headers, header::PROTOCOL_VERSION).ok().flatten();
            let posted = Posted { caller: &caller, endpoint, headers, version, peer, via, held: &held };
            if let Some(response) = batch::post(self, outside, &posted, &bytes).await {
                return response;
            }
        }
        let message = match Message::parse(bytes, Source::Client) {
            Ok(message) => message,
            Err(error) => return about.stopped(answer::unreadable(first, &error)),
        };
        let stated = (&parts.headers, era, via);
        let elsewhere = match self.relay.is_some() {
            true => Box::pin(self.content_elsewhere(&caller, &endpoint, stated, &message)).await,
            false => None,
        };
        if let Some(there) = elsewhere {
            let body = message.as_bytes().clone();
            let handed = self.hand_on(&there, &caller, (&parts, body), (peer, certificate.as_deref()), about);
            return Box::pin(handed).await;
        }
        let streamed = answer::prefers_events(&parts.headers);
        let (id, headers) = (message.id(), parts.headers);
        let inbound = Box::new(Inbound { caller, endpoint, peer, via, id, headers, message, held });
        let response = self.post(outside, inbound).await;
        if streamed { answer::as_events(response).await } else { response }
    }

    /// One message, in its own era.
    async fn post(self: &Arc<Self>, outside: &Outside, inbound: Box<Inbound<P>>) -> Response<Body> {
        let message = inbound.message.clone();
        let meta = era::Meta::read(message.params());
        let Ok(version) = headers::single(&inbound.headers, header::PROTOCOL_VERSION) else {
            let about = About {
                names: &outside.names,
                endpoint: &inbound.endpoint,
                id: inbound.id.as_ref(),
                method: None,
                era: Era::Modern,
            };
            return about.stopped(headers::mismatch("the MCP-Protocol-Version header is not one text"));
        };
        let version = version.map(str::to_owned);
        match era::era(&meta, version.as_deref(), &message.method()) {
            Era::Modern => modern::post(self, outside, inbound, &meta, version.as_deref()).await,
            Era::Legacy => legacy::post(self, outside, inbound, version.as_deref()).await,
        }
    }

    /// What the configuration in force says; found out again only when that changed.
    fn outside(&self) -> Arc<Outside> {
        let config = self.pipeline.config();
        let known = self.outside.load();
        if Arc::ptr_eq(&known.config, &config) {
            return Arc::clone(&known);
        }
        let fresh = Arc::new(Outside::new(config));
        self.outside.store(Arc::clone(&fresh));
        fresh
    }
}

/// RFC 9728, readable by any web page: it is public and the same for everybody.
fn well_known(outside: &Outside, endpoint: &Endpoint, verb: &Verb, headers: &HeaderMap) -> Response<Body> {
    let mut response = match *verb {
        Verb::GET | Verb::HEAD => answer::document(StatusCode::OK, outside.names.document(endpoint)),
        Verb::OPTIONS => preflight(headers),
        _ => answer::method_not_allowed("GET, HEAD, OPTIONS"),
    };
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// Whether a message is a request, for which there must be an answer.
fn is_request(message: &Message) -> bool {
    message.kind() == Kind::Request
}
