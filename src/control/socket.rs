//! The Unix socket: the door for whoever runs the gateway, and for root.
//!
//! Decides who is at the other end by asking the kernel. Invariant: the actor is `host:UID`, which the caller of the
//! socket cannot choose.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::serve::IncomingStream;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::actor::Actor;
use super::operations::Operations;
use super::{descent, problem, routes};
use crate::outcome::{Reason, Refusal};

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
        let path = super::socket(state);
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
        let service = router(&operations).into_make_service_with_connect_info::<Peer>();
        let served = axum::serve(self.listener, service).with_graceful_shutdown(stop.cancelled_owned()).await;
        let _ = std::fs::remove_file(&self.path);
        served
    }
}

/// Who is at the other end, as the kernel says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// The user id; `None` when the kernel does not say.
    pub(super) user: Option<u32>,
    /// The process that connected.
    pub(super) process: Option<i32>,
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
    pub(super) fn actor(self, ours: u32) -> Option<Actor> {
        let user = self.user.filter(|user| *user == ours || *user == 0)?;
        // A child has our user and none of our rights.
        let is_child = self.process.is_some_and(descent::is_descendant);
        Some(if is_child { Actor::child(user) } else { Actor::host(user) })
    }
}

/// The paths of the socket, which are those of the API, with and without what stands before them there.
fn router(operations: &Arc<dyn Operations>) -> Router {
    let paths = routes::router(operations);
    paths.clone().nest(routes::API, paths).layer(middleware::from_fn(only_us))
}

async fn only_us(ConnectInfo(peer): ConnectInfo<Peer>, mut request: Request, next: Next) -> Response {
    match peer.actor(rustix::process::geteuid().as_raw()) {
        Some(actor) => {
            request.extensions_mut().insert(actor);
            next.run(request).await
        }
        None => problem::refused(
            &Refusal::new(Reason::NotAllowed).hint("only the gateway's own user and root operate it here"),
        ),
    }
}
