//! `bailiwick stdio`: passes messages between standard input and output and a gateway, elsewhere or in this process.
//!
//! Decides nothing about what is allowed; refuses to send a token in the clear. Invariant: one line in is
//! one POST out, one message back is one line out, every request gets exactly one answer, and nothing else
//! is ever written to standard output.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use super::Ending;
use super::login::{Asking, Login};
use super::output::trouble;
use super::use_it::StdioArguments;
use crate::config::SecretReference;
use crate::limit;
use crate::wire::mcp::{Era, code};
use crate::wire::{Json, Kind, Message, Source, Value};

pub mod client;
mod exchange;
mod headers;
mod lines;
mod mirror;
mod standalone;
pub(in crate::cli) mod way;

use exchange::Remote;
pub(super) use standalone::user as local_user;
use way::Way;

/// The environment variable that is read when none is named.
const TOKEN_VARIABLE: &str = "BAILIWICK_TOKEN";

/// Runs the bridge on this process's own standard streams until the input ends.
///
/// The token comes from `token_file` (mode 0600) if there is one, from the environment variable `token_env`
/// otherwise; without either the bridge calls without a token, and logs in where the gateway wants one.
pub async fn run(arguments: &StdioArguments) -> Ending {
    let Some(url) = &arguments.url else {
        return standalone::run(&arguments.files.config, arguments.agent.clone(), &arguments.log).await;
    };
    let bridge = match Bridge::of(url, arguments).await {
        Ok(bridge) => bridge,
        Err(problem) => {
            trouble(problem);
            return Ending::Trouble;
        }
    };
    match bridge.run(tokio::io::stdin(), tokio::io::stdout()).await {
        Ok(()) => Ending::Done,
        Err(error) => {
            trouble(format_args!("standard input or output broke off: {error}"));
            Ending::Trouble
        }
    }
}

/// The access token, from where it was said to be.
pub(super) async fn token(variable: Option<&str>, file: Option<&Path>) -> Result<Option<SecretString>, String> {
    let reference = match (file, variable) {
        (Some(file), _) => {
            private(file)?;
            SecretReference::File(PathBuf::from(file))
        }
        (None, Some(variable)) => SecretReference::Environment(variable.to_owned()),
        (None, None) if std::env::var_os(TOKEN_VARIABLE).is_none() => return Ok(None),
        (None, None) => SecretReference::Environment(TOKEN_VARIABLE.to_owned()),
    };
    reference.read().await.map(Some).map_err(|error| error.to_string())
}

/// A token that others can read is not a secret.
fn private(file: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = std::fs::metadata(file).map_err(|error| format!("the token file {}: {error}", file.display()))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(format!("others can read the token file {}: run chmod 600 on it", file.display()));
    }
    Ok(())
}

/// A bridge to one gateway.
pub(super) struct Bridge {
    remote: Arc<Remote>,
}

/// The requests that are open, by id.
#[derive(Default)]
struct Open(Mutex<HashMap<String, (Era, CancellationToken)>>);

impl Bridge {
    async fn of(url: &Url, arguments: &StdioArguments) -> Result<Self, String> {
        let token = token(arguments.token_env.as_deref(), arguments.token_file.as_deref()).await?;
        let way = match token {
            Some(token) => Way::with_token(url, Some(&token))?,
            None => Way::with_login(url, Login::new(url, arguments.login.clone(), Asking::Allowed)?)?,
        };
        Self::new(url, way)
    }

    /// A bridge to the endpoint at `url`.
    ///
    /// # Errors
    /// When the URL cannot be called.
    pub(super) fn new(url: &Url, way: Way) -> Result<Self, String> {
        Ok(Self { remote: Arc::new(Remote::new(url, way)?) })
    }

    /// Passes messages on until the input ends and what is open was answered.
    ///
    /// # Errors
    /// When the input cannot be read or the output cannot be written.
    pub(super) async fn run(
        self,
        input: impl AsyncRead + Unpin,
        output: impl AsyncWrite + Unpin + Send + 'static,
    ) -> std::io::Result<()> {
        let (lines, written) = mpsc::channel::<Message>(limit::BRIDGE_LINES_MAX);
        let writer = tokio::spawn(write(written, output));
        let stop = CancellationToken::new();
        let read = self.read(BufReader::new(input), lines, &stop);
        // A client that does not read any more will not write anything worth reading either.
        tokio::pin!(writer);
        let result = tokio::select! {
            read = read => read,
            written = &mut writer => {
                stop.cancel();
                return written.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            }
        };
        stop.cancel();
        self.remote.goodbye().await;
        // Every sender is gone once the streams have stopped; then the writer has written everything.
        let written = writer.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        result.and(written)
    }

    async fn read(
        &self,
        mut input: impl tokio::io::AsyncBufRead + Unpin,
        lines: mpsc::Sender<Message>,
        stop: &CancellationToken,
    ) -> std::io::Result<()> {
        let open = Arc::new(Open::default());
        let places = Arc::new(Semaphore::new(limit::BRIDGE_REQUESTS_MAX));
        let (requests, streams) = (TaskTracker::new(), TaskTracker::new());
        while let Some(line) = lines::next(&mut input, limit::REQUEST_BYTES_MAX).await? {
            let message = match line {
                Ok(line) if line.iter().all(u8::is_ascii_whitespace) => continue,
                Ok(line) => Message::parse(line, Source::Client).map_err(|error| error.to_string()),
                Err(lines::TooLong) => Err(format!("it is longer than {} bytes", limit::REQUEST_BYTES_MAX)),
            };
            let message = match message {
                Ok(message) => message,
                Err(problem) => {
                    let _closed =
                        lines.send(error(None, code::PARSE_ERROR, &format!("the line was not sent: {problem}"))).await;
                    continue;
                }
            };
            if open.cancels(&message) {
                continue;
            }
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
            let cancelled = stop.child_token();
            let registered = open.register(&message, &cancelled);
            let (remote, lines, open) = (Arc::clone(&self.remote), lines.clone(), Arc::clone(&open));
            let (streams_of_session, stop) = (streams.clone(), stop.clone());
            // Nobody waits for the end of a listen: it has none of its own.
            let tracker = if message.method() == "subscriptions/listen" { &streams } else { &requests };
            let in_order = message.kind() == Kind::Notification || message.method() == "initialize";
            let exchange = async move {
                tokio::select! {
                    () = cancelled.cancelled() => {}
                    () = remote.exchange(&message, &lines) => {}
                }
                if let Some(key) = registered {
                    open.remove(&key);
                }
                if message.method() == "initialize" && remote.has_session() {
                    streams_of_session.spawn(async move {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = remote.listen(&lines) => {}
                        }
                    });
                }
                drop(place);
            };
            // What later messages rely on is finished before they are sent.
            if in_order { exchange.await } else { drop(tracker.spawn(exchange)) }
        }
        drop(lines);
        requests.close();
        let _unfinished = tokio::time::timeout(limit::BRIDGE_DRAIN_TIMEOUT, requests.wait()).await;
        Ok(())
    }
}

impl Open {
    fn register(&self, message: &Message, cancelled: &CancellationToken) -> Option<String> {
        let key = message.id_value().filter(|_| message.kind() == Kind::Request).map(key)?;
        let era = if headers::is_modern(message) { Era::Modern } else { Era::Legacy };
        self.lock().insert(key.clone(), (era, cancelled.clone()));
        Some(key)
    }

    fn remove(&self, key: &str) {
        self.lock().remove(key);
    }

    /// Over HTTP a modern request is cancelled by closing it; everything else is passed on.
    fn cancels(&self, message: &Message) -> bool {
        if message.method() != "notifications/cancelled" {
            return false;
        }
        let Some(id) = message.params().and_then(|params| params.get("requestId")).map(key) else { return false };
        match self.lock().get(&id) {
            Some((Era::Modern, cancelled)) => {
                cancelled.cancel();
                true
            }
            // A modern cancellation that comes too late has nobody to go to.
            None => headers::is_modern(message),
            Some((Era::Legacy, _)) => false,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Era, CancellationToken)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A string and a number never collide, however the string is escaped.
fn key(id: Value<'_>) -> String {
    match id.as_str() {
        Some(text) => format!("\"{text}"),
        None => id.raw().to_owned(),
    }
}

/// An error of the bridge's own.
fn error(id: Option<&Json>, code: i32, message: &str) -> Message {
    Message::error(id, &Json::of(&serde_json::json!({ "code": code, "message": message })))
}

async fn write(mut lines: mpsc::Receiver<Message>, mut output: impl AsyncWrite + Unpin) -> std::io::Result<()> {
    while let Some(message) = lines.recv().await {
        output.write_all(message.as_bytes()).await?;
        output.write_all(b"\n").await?;
        if lines.is_empty() {
            output.flush().await?;
        }
    }
    output.flush().await
}

#[cfg(test)]
mod tests;
