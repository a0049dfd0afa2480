//! Decides who may operate the gateway from this machine: whoever runs it, and root. Over a Unix socket
//! in the state directory; the kernel says who is at the other end.
//!
//! Refuses to know how an operation is carried out ([`Operations`]). Braking is easy, loosening is not:
//! everything here revokes, reloads or looks. Invariant: an operation has an actor, `host:UID`, which the
//! caller of the socket cannot choose.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

pub mod client;
mod descent;
pub mod operations;

pub use operations::{HeldRevocations, Lifting, Operations, Readiness, ReadinessCheck, RevocationOrder, Revoked};

use crate::gateway::ReloadOrder;
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::record::metrics;

/// Where the socket is.
#[must_use]
pub fn socket(state: &Path) -> PathBuf {
    state.join("control.sock")
}

/// The socket, bound and not yet served.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

/// Why the socket cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on the control socket {place}: {problem}; a socket's path has at most 107 bytes, choose a shorter `state`"
)]
pub struct ControlError {
    place: String,
    problem: io::Error,
}

impl Control {
    /// Binds the socket. Whoever calls this holds the state directory's lock, so that a socket found there
    /// is left over from a process that is gone.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn bind(state: &Path) -> Result<Self, ControlError> {
        let path = socket(state);
        let error = |problem| ControlError { place: path.display().to_string(), problem };
        match std::fs::remove_file(&path) {
            Err(problem) if problem.kind() != io::ErrorKind::NotFound => return Err(error(problem)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(error)?;
        // Until here the directory's own mode (0700) keeps others out.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(error)?;
        Ok(Self { listener, path })
    }

    /// Serves until `stop`, then lets requests under way finish and removes the socket.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, operations: Arc<dyn Operations>, stop: CancellationToken) -> io::Result<()> {
        let service = router(operations).into_make_service_with_connect_info::<Peer>();
        let served = axum::serve(self.listener, service).with_graceful_shutdown(stop.cancelled_owned()).await;
        let _ = std::fs::remove_file(&self.path);
        served
    }
}

/// Who is at the other end, as the kernel says.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The user id; `None` when the kernel does not say.
    user: Option<u32>,
    /// The process that connected.
    process: Option<i32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credential = stream.io().peer_cred().ok();
        Self {
            user: credential.map(|credential| credential.uid()),
            process: credential.and_then(|credential| credential.pid()),
        }
    }
}

impl Peer {
    /// The actor of the record, where this user may operate us.
    fn actor(self, ours: u32) -> Option<Actor> {
        self.user.filter(|user| *user == ours || *user == 0).map(|user| Actor(format!("host:{user}")))
    }
}

/// Who operates: made by [`only_us`] alone.
#[derive(Debug, Clone)]
struct Actor(String);

fn router(operations: Arc<dyn Operations>) -> Router {
    Router::new()
        .route("/revoke", post(revoke))
        .route("/revocations", get(revocations))
        .route("/reload", post(reload))
        .route("/status", get(status))
        .route("/shadow", get(shadow))
        .route("/metrics", get(scrape))
        .route("/readyz", get(ready))
        .with_state(operations)
        .layer(DefaultBodyLimit::max(limit::CONTROL_BODY_BYTES_MAX))
        .layer(middleware::from_fn(only_us))
}

type Shared = State<Arc<dyn Operations>>;

async fn only_us(ConnectInfo(peer): ConnectInfo<Peer>, mut request: Request, next: Next) -> Response {
    match peer.actor(rustix::process::geteuid().as_raw()) {
        // A child has our user and none of our rights.
        Some(_) if peer.process.is_some_and(descent::is_descendant) => {
            problem(StatusCode::FORBIDDEN, "forbidden", "a process that the gateway started does not operate it")
        }
        Some(actor) => {
            request.extensions_mut().insert(actor);
            next.run(request).await
        }
        None => problem(StatusCode::FORBIDDEN, "forbidden", "only the gateway's own user and root operate it here"),
    }
}

async fn revoke(
    State(operations): Shared,
    axum::Extension(Actor(actor)): axum::Extension<Actor>,
    Json(order): Json<RevocationOrder>,
) -> Response {
    match order.at(&actor, crate::identity::now_s()) {
        Ok(revocation) => match to_the_end(async move { operations.revoke(revocation).await }).await {
            Ok(epoch) => Json(Revoked { epoch }).into_response(),
            Err(failure) => failed(&failure),
        },
        Err(mistake) => problem(StatusCode::BAD_REQUEST, "parameters_invalid", &mistake),
    }
}

async fn revocations(State(operations): Shared) -> Response {
    match operations.revocations().await {
        Ok((epoch, held)) => Json(HeldRevocations::new(epoch, &held)).into_response(),
        Err(failure) => failed(&failure),
    }
}

async fn reload(
    State(operations): Shared,
    axum::Extension(Actor(actor)): axum::Extension<Actor>,
    Json(order): Json<ReloadOrder>,
) -> Response {
    match to_the_end(async move { operations.reload(actor, order).await }).await {
        Ok(report) if report.problems.is_empty() => Json(report).into_response(),
        Ok(report) => (StatusCode::CONFLICT, Json(report)).into_response(),
        Err(failure) => failed(&failure),
    }
}

async fn status(State(operations): Shared) -> Response {
    Json(operations.status().await).into_response()
}

async fn shadow(State(operations): Shared) -> Response {
    Json(operations.shadow()).into_response()
}

async fn scrape(State(operations): Shared) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], operations.metrics()).into_response()
}

async fn ready(State(operations): Shared) -> Response {
    let readiness = operations.ready().await;
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

/// Finishes what was begun even if whoever ordered it hangs up: half a reload serves two configurations, and a
/// revocation that is stored and not in force is none.
async fn to_the_end<T: Send + 'static>(
    order: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let ended = tokio::spawn(order).await;
    ended.unwrap_or_else(|error| Err(Failure::after(Reason::Internal, error.to_string())))
}

fn failed(failure: &Failure) -> Response {
    let status = match failure.reason {
        Reason::StoreUnavailable | Reason::RecordUnavailable | Reason::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    problem(status, failure.reason.code(), &failure.detail)
}

fn problem(status: StatusCode, reason: &str, detail: &str) -> Response {
    (status, Json(operations::Problem { reason: reason.to_owned(), detail: detail.to_owned() })).into_response()
}

#[cfg(test)]
mod tests;
