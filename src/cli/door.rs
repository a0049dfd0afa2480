//! Which running gateway a command operates, and through which door: the socket in its state directory, or its
//! administrators' listener from anywhere.
//!
//! Decides nothing about what is allowed. Invariant: a token for administrators goes to the listener that it was got
//! for, over TLS or not beyond this machine, and is never printed.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use secrecy::SecretString;
use serde::Serialize;
use url::Url;

use super::login::{Asking, Login, LoginOptions};
use super::state::State;
use super::stdio::way::{Body, Way};
use crate::config::StoreConfig;
use crate::control::client::{self, Answer, ClientError};
use crate::control::routes::API;
use crate::limit;

/// The environment variable with a token for administrators, where nobody logs in.
pub const TOKEN_VARIABLE: &str = "BAILIWICK_ADMIN_TOKEN";

/// The administrators' listener of a gateway elsewhere.
#[derive(Debug, Clone, Args)]
pub struct Elsewhere {
    /// Ask the gateway at this administrators' listener, https://HOST/admin, instead of one on this machine
    #[arg(long, global = true, value_name = "URL", env = "BAILIWICK_ADMIN")]
    pub admin: Option<Url>,
}

/// Which running gateway is meant.
#[derive(Debug, Args)]
pub struct Door {
    #[command(flatten)]
    state: State,
    #[command(flatten)]
    elsewhere: Elsewhere,
}

impl Door {
    /// The state directory, where the gateway is the one of this machine.
    ///
    /// # Errors
    /// As [`State::directory`].
    pub fn directory(&self) -> Result<Option<PathBuf>, String> {
        if self.elsewhere.admin.is_some() { Ok(None) } else { self.state.directory().map(Some) }
    }

    /// Where the rows of that gateway are.
    ///
    /// # Errors
    /// As [`State::store`].
    pub fn store(&self) -> Result<StoreConfig, String> {
        self.state.store()
    }

    /// Asks; an answer of any status is an answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ask<B: Serialize>(&self, method: Method, path: &str, body: Option<&B>) -> Result<Answer, ClientError> {
        if let Some(url) = &self.elsewhere.admin {
            return Remote::at(url)?.ask(method, path, body).await;
        }
        let state = self.state.directory();
        let state = state.map_err(|problem| ClientError::Unreachable { place: "this machine".to_owned(), problem })?;
        client::request(&state, method, &format!("{API}{path}"), body).await
    }
}

impl Elsewhere {
    /// The gateway there, if one is named.
    ///
    /// # Errors
    /// When the URL cannot be called.
    pub(crate) fn remote(&self) -> Result<Option<Remote>, ClientError> {
        self.admin.as_ref().map(Remote::at).transpose()
    }
}

/// A gateway that is asked at its administrators' listener.
pub(crate) struct Remote {
    url: Url,
    way: Way,
}

impl Remote {
    fn at(url: &Url) -> Result<Self, ClientError> {
        let unreachable = |problem| ClientError::Unreachable { place: url.to_string(), problem };
        let way = match std::env::var(TOKEN_VARIABLE) {
            Ok(token) => Way::with_token(url, Some(&SecretString::from(token))),
            // Whoever types a command can log in; a program cannot.
            Err(_) => {
                let asking = if std::io::stderr().is_terminal() { Asking::Allowed } else { Asking::Never };
                Login::new(url, LoginOptions::default(), asking).and_then(|login| Way::with_login(url, login))
            }
        };
        Ok(Self { url: url.clone(), way: way.map_err(unreachable)? })
    }

    /// Asks for everything at once.
    pub(crate) async fn ask<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Answer, ClientError> {
        let asked = async {
            let response = self.open(method, path, body).await?;
            let status = response.status();
            let read = Limited::new(response.into_body(), limit::CONTROL_ANSWER_BYTES_MAX).collect().await;
            let body = read.map_err(|error| self.unreachable(error.to_string()))?.to_bytes();
            Ok(Answer { status, body })
        };
        // A person may have to log in on the way.
        let patience = limit::CONTROL_TIMEOUT.saturating_add(limit::LOGIN_TIMEOUT);
        match tokio::time::timeout(patience, asked).await {
            Ok(answered) => answered,
            Err(_) => Err(self.unreachable("it did not answer in time".to_owned())),
        }
    }

    /// Asks, and hands out the body as it comes.
    pub(crate) async fn open<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<http::Response<Body>, ClientError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| self.unreachable(error.to_string()))?,
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{API}{path}", self.url.as_str().trim_end_matches('/')))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.unreachable(error.to_string()))?;
        self.way.send(request).await.map_err(|problem| self.unreachable(problem))
    }

    fn unreachable(&self, problem: String) -> ClientError {
        ClientError::Unreachable { place: self.url.to_string(), problem }
    }
}
