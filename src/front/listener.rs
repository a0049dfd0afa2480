//! Accepts connections and hands their requests to the front.
//!
//! Decides how many connections there may be and how long each may take to say something. Refuses to know
//! what a request is. Invariant: nothing that a peer does or leaves undone holds a connection for ever
//! before it has sent a request, nor an answer that it does not take.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use http::header::EXPECT;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::leash::Leash;
use super::leftover::{Desk, RequestBody};
use super::pipeline::Pipeline;
use super::proof::OfConnection;
use super::stall::{Brisk, Streams, followed};
use super::{Certificates, Front};
use crate::identity::ClientCertificate;
use crate::lanes::Lanes;
use crate::limit;

/// What answers the requests of a listener.
pub trait Answers: Send + Sync + 'static {
    /// Answers one request that came from `peer`; what it leaves of the body is taken in afterwards, or ends the
    /// connection.
    fn answer(
        self: Arc<Self>,
        request: Request<RequestBody>,
        peer: IpAddr,
    ) -> impl Future<Output = http::Response<Body>> + Send;

    /// How many connections there may be at once.
    fn connections_max(&self) -> usize;

    /// How many requests one HTTP/2 connection may have open.
    fn http2_streams_max(&self) -> u32 {
        limit::HTTP2_STREAMS_MAX
    }

    /// How long open connections may take to finish when it stops.
    fn shutdown_grace(&self) -> Duration;
}

impl<P: Pipeline> Answers for Front<P> {
    async fn answer(self: Arc<Self>, request: Request<RequestBody>, peer: IpAddr) -> http::Response<Body> {
        Self::answer(&self, request, peer).await
    }

    fn connections_max(&self) -> usize {
        limit::CONNECTIONS_MAX
    }

    fn shutdown_grace(&self) -> Duration {
        self.pipeline.config().gateway.shutdown_grace
    }
}

/// Serves on the lanes until `shutdown` fires; then no connection is accepted, and those that are open finish what they
/// answer, for at most `shutdown_grace`. Streams end by themselves when the gateway says that it stops.
pub async fn serve<A: Answers>(
    front: Arc<A>,
    listener: TcpListener,
    certificates: Option<Arc<Certificates>>,
    lanes: Arc<Lanes>,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(front.connections_max()));
    let graceful = GracefulShutdown::new();
    if let Some(certificates) = certificates.clone() {
        let stop = shutdown.clone();
        tokio::spawn(async move { certificates.watch(stop).await });
    }
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, peer, place)) = accepted else {
            tokio::time::sleep(limit::ACCEPT_RETRY_PAUSE).await;
            continue;
        };
        let (front, certificates, watcher) = (Arc::clone(&front), certificates.clone(), graceful.watcher());
        // Handed over as it is: a socket belongs to the runtime that it is registered with.
        let Ok(stream) = stream.into_std() else { continue };
        lanes.spawn(async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => connection(front, stream, peer, certificates, watcher).await,
                Err(error) => tracing::warn!(%error, "a connection could not be served"),
            }
            drop(place);
        });
    }
    drop(listener);
    let grace = front.shutdown_grace();
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still open when the shutdown grace was over");
    }
}

/// A connection, once there is a place for it: those above the limit wait in the kernel's queue.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            None
        }
    }
}

async fn connection<A: Answers>(
    front: Arc<A>,
    stream: TcpStream,
    peer: SocketAddr,
    certificates: Option<Arc<Certificates>>,
    watcher: Watcher,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let Some(certificates) = certificates else {
        return requests(front, stream, (peer.ip(), None), false, watcher).await;
    };
    let handshake = TlsAcceptor::from(certificates.current()).accept(stream);
    match tokio::time::timeout(limit::TLS_HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => {
            let session = stream.get_ref().1;
            let two = session.alpn_protocol() == Some(b"h2");
            let chain = session.peer_certificates().map(|chain| chain.iter().map(|one| one.clone().into_owned()));
            let shown = chain.and_then(|chain| ClientCertificate::of_chain(chain.collect()));
            let shown = shown.map(|certificate| OfConnection(Arc::new(certificate)));
            requests(front, stream, (peer.ip(), shown), two, watcher).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, peer = %peer.ip(), "a TLS handshake failed"),
        Err(_) => tracing::debug!(peer = %peer.ip(), "a TLS handshake took too long"),
    }
}

/// HTTP/2 is spoken where TLS has agreed on it: guessing from the first bytes would wait for them for ever.
async fn requests<A, S>(
    front: Arc<A>,
    stream: S,
    (peer, certificate): (IpAddr, Option<OfConnection>),
    http2: bool,
    watcher: Watcher,
) where
    A: Answers,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (given_up, streams_max) = (CancellationToken::new(), front.http2_streams_max());
    let own = given_up.clone();
    let desk = Desk::default();
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        let (front, own, desk) = (Arc::clone(&front), own.clone(), desk.clone());
        async move {
            if http2 {
                return Ok::<_, Infallible>(followed(front.answer(request.map(RequestBody::of_stream), peer).await));
            }
            let is_expecting = request.headers().contains_key(EXPECT);
            let response = front.answer(request.map(|body| desk.lend(body)), peer).await;
            let response = desk.cleared(response, is_expecting).await;
            if let Some(leash) = response.extensions().get::<Leash>() {
                leash.tie(&own);
            }
            Ok(followed(response))
        }
    });
    let builder = Builder::new(Streams);
    let mut builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limit::HEADER_READ_TIMEOUT)
        .max_headers(limit::HEADERS_MAX)
        .max_buf_size(limit::HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limit::HEADER_BYTES_MAX).unwrap_or(u32::MAX))
        .max_concurrent_streams(streams_max)
        .keep_alive_interval(limit::HEADER_READ_TIMEOUT / 2)
        .keep_alive_timeout(limit::HEADER_READ_TIMEOUT / 2);
    let connection = builder.serve_connection(TokioIo::new(Brisk::new(stream)), service).into_owned();
    tokio::select! {
        ended = watcher.watch(connection) => {
            if let Err(error) = ended {
                tracing::trace!(%error, "a connection ended early");
            }
        }
        () = given_up.cancelled() => {}
    }
}

#[cfg(test)]
mod tests;
