//! Asks the running gateway over its control socket; the command line's side of it.
//!
//! Refuses to know what the answers mean. Invariant: *not running* is told apart from every other
//! trouble, because a command then works on the store itself.

use std::io;
use std::path::Path;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::operations::Problem;
use crate::limit;

/// What the gateway answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No gateway serves this state directory.
    #[error("no gateway is running on {0}")]
    NotRunning(String),
    /// It runs, but cannot be asked.
    #[error("cannot ask the gateway on {place}: {problem}")]
    Unreachable {
        /// The socket.
        place: String,
        /// What went wrong.
        problem: String,
    },
    /// It says no.
    #[error("the gateway refuses: {detail} ({reason})")]
    Refused {
        /// The stable code.
        reason: String,
        /// What it says.
        detail: String,
    },
}

impl Answer {
    /// Reads a report, which a conflict (409) is as well: nothing was done, and it says why.
    ///
    /// # Errors
    /// As [`Answer::read`].
    pub fn report<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        match self.status {
            StatusCode::CONFLICT => Self { status: StatusCode::OK, body: self.body.clone() }.read(),
            _ => self.read(),
        }
    }

    /// Reads the body of a good answer.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with what the gateway says, where the status is not a success.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        self.good()?;
        serde_json::from_slice(&self.body).map_err(|error| self.unreadable(&error.to_string()))
    }

    /// The text of a good answer that is no JSON.
    ///
    /// # Errors
    /// As [`Answer::read`].
    pub fn text(&self) -> Result<String, ClientError> {
        self.good()?;
        Ok(String::from_utf8_lossy(&self.body).into_owned())
    }

    fn good(&self) -> Result<(), ClientError> {
        if self.status.is_success() {
            return Ok(());
        }
        let Ok(Problem { reason, detail, .. }) = serde_json::from_slice(&self.body) else {
            return Err(self.unreadable("something that is no problem description"));
        };
        Err(ClientError::Refused { reason, detail })
    }

    fn unreadable(&self, problem: &str) -> ClientError {
        ClientError::Refused {
            reason: "unreadable".to_owned(),
            detail: format!("it answered {} with {problem}; is it another version?", self.status),
        }
    }
}

/// Sends one request to the gateway that serves this state directory.
///
/// # Errors
/// [`ClientError::NotRunning`] or [`ClientError::Unreachable`]; an answer of any status is an answer.
pub async fn request<B: Serialize>(
    state: &Path,
    method: Method,
    path: &str,
    body: Option<&B>,
) -> Result<Answer, ClientError> {
    let place = super::socket(state);
    let unreachable = |problem: String| ClientError::Unreachable { place: place.display().to_string(), problem };
    let stream = UnixStream::connect(&place).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ClientError::NotRunning(state.display().to_string())
        }
        _ => unreachable(error.to_string()),
    })?;
    let body = match body {
        Some(body) => serde_json::to_vec(body).map_err(|error| unreachable(error.to_string()))?,
        None => Vec::new(),
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| unreachable(error.to_string()))?;
    let asked = tokio::time::timeout(limit::CONTROL_TIMEOUT, ask(stream, request)).await;
    asked.map_err(|_| unreachable("it did not answer in time".to_owned()))?.map_err(unreachable)
}

async fn ask(stream: UnixStream, request: Request<Full<Bytes>>) -> Result<Answer, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), limit::CONTROL_ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status, body })
    };
    tokio::pin!(exchange);
    // The connection does the work; where it has ended well, all of the answer has come.
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// What a gateway is told to have answered that sends so many bytes.
    async fn answered(bytes: usize) -> Result<Answer, ClientError> {
        let state = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(super::super::socket(state.path())).unwrap();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4_096]).unwrap();
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n").as_bytes());
            // Who has enough does not read on.
            let _ = std::io::copy(&mut std::io::repeat(b' ').take(bytes as u64), &mut stream);
        });
        let answer = request(state.path(), Method::GET, "/metrics", None::<&()>).await;
        serving.join().unwrap();
        answer
    }

    #[tokio::test]
    async fn an_answer_has_so_many_bytes_at_most() {
        let body = answered(limit::CONTROL_ANSWER_BYTES_MAX).await.unwrap().body;
        assert_eq!(body.len(), limit::CONTROL_ANSWER_BYTES_MAX);
        let problem = answered(limit::CONTROL_ANSWER_BYTES_MAX + 1).await.unwrap_err().to_string();
        assert!(problem.starts_with("cannot ask the gateway on ") && problem.contains("limit"), "{problem}");
    }
}
