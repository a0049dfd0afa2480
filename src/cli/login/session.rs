//! The token that requests carry: kept, renewed in time, and asked for anew when nothing else helps.
//!
//! Decides when somebody has to log in. Invariants: many requests at once renew or log in once, and so do many
//! processes; a login that failed is not tried again at once, so that no client can open a browser in a loop.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::Request;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::LoginOptions;
use super::discover::Challenge;
use super::flow::{RenewError, log_in, renew};
use super::kept::{Kept, Place};
use crate::cli::output::complain;
use crate::limit;
use crate::oauth::dpop::{PROOF, Prover};

/// Whether somebody can be asked to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    /// A person reads standard error.
    Allowed,
    /// Only what was kept is used.
    Never,
}

/// The login at one gateway.
#[derive(Debug)]
pub(crate) struct Login {
    url: Url,
    options: LoginOptions,
    asking: Asking,
    place: Place,
    held: Mutex<Option<Arc<Held>>>,
    /// One request at a time renews or logs in; the last failure, and when it was.
    turn: tokio::sync::Mutex<Option<(Instant, String)>>,
}

#[derive(Debug)]
struct Held {
    kept: Kept,
    carried: Carried,
}

/// What requests carry: a token, and with each a fresh proof where it is bound to a key.
#[derive(Debug, Clone)]
pub(crate) struct Carried {
    header: HeaderValue,
    bound: Option<(Arc<Prover>, SecretString)>,
}

impl PartialEq for Carried {
    fn eq(&self, other: &Self) -> bool {
        self.header == other.header
    }
}

impl Carried {
    /// A token that is bound to nothing.
    pub(crate) fn bearer(token: &SecretString) -> Result<Self, String> {
        Self::new("Bearer", token, None)
    }

    fn of(kept: &Kept) -> Result<Self, String> {
        let prover = kept.key.clone().map(Prover::new);
        let scheme = if prover.is_some() { "DPoP" } else { "Bearer" };
        Self::new(scheme, &kept.access_token, prover).map_err(|problem| format!("{problem}; log in again"))
    }

    fn new(scheme: &str, token: &SecretString, prover: Option<Arc<Prover>>) -> Result<Self, String> {
        let mut header = HeaderValue::from_str(&format!("{scheme} {}", token.expose_secret()))
            .map_err(|_| "the token has characters that no token has".to_owned())?;
        header.set_sensitive(true);
        Ok(Self { header, bound: prover.map(|prover| (prover, token.clone())) })
    }

    /// Puts it into a request; each time that one is sent.
    pub(crate) fn put<B>(&self, request: &mut Request<B>) -> Result<(), String> {
        if let Some((prover, token)) = &self.bound {
            let (method, place) = (request.method().as_str(), request.uri().to_string());
            let proof = prover.prove(method, &place, Some(token.expose_secret()))?;
            request.headers_mut().insert(PROOF, proof);
        }
        request.headers_mut().insert(AUTHORIZATION, self.header.clone());
        Ok(())
    }

    /// Whether an answer wants another nonce in the proofs than the last one had.
    pub(crate) fn wants_anew(&self, answer: &HeaderMap) -> bool {
        self.bound.as_ref().is_some_and(|(prover, _)| prover.hear(answer))
    }
}

impl Login {
    /// The login at the gateway; nothing is read or asked before the first request.
    pub(crate) fn new(url: &Url, options: LoginOptions, asking: Asking) -> Result<Self, String> {
        let place = Place::of(url)?;
        Ok(Self {
            url: url.clone(),
            options,
            asking,
            place,
            held: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// What a request carries now; nothing before somebody has logged in.
    pub(crate) async fn carried(self: &Arc<Self>) -> Result<Option<Carried>, String> {
        if let Some(held) = self.held().filter(|held| held.kept.is_fresh()) {
            return Ok(Some(held.carried.clone()));
        }
        let this = Arc::clone(self);
        finished(async move { this.in_time().await }).await
    }

    /// Another token after the gateway refused the one of `refused`.
    pub(crate) async fn after_refusal(
        self: &Arc<Self>,
        refused: Option<&Carried>,
        challenge: Challenge,
    ) -> Result<Carried, String> {
        let (this, refused) = (Arc::clone(self), refused.cloned());
        finished(async move { this.another(refused.as_ref(), &challenge).await }).await
    }

    async fn in_time(&self) -> Result<Option<Carried>, String> {
        let _turn = self.turn.lock().await;
        let Some(kept) = self.place.read()? else { return Ok(None) };
        if kept.is_fresh() {
            return self.hold(kept).map(Some);
        }
        match self.renewed(&kept).await {
            Ok(fresh) => self.hold(fresh).map(Some),
            // It may be good for a moment yet; the gateway says so or not.
            Err(_) if !kept.is_over() => self.hold(kept).map(Some),
            Err(RenewError::Over(_)) => Ok(None),
            Err(RenewError::Unknown(problem)) => Err(problem),
        }
    }

    async fn another(&self, refused: Option<&Carried>, challenge: &Challenge) -> Result<Carried, String> {
        let mut turn = self.turn.lock().await;
        // Somebody else has got one while we waited for our turn: here, or in another process.
        if let Some(held) = self.held().filter(|held| Some(&held.carried) != refused && !challenge.is_step_up()) {
            return Ok(held.carried.clone());
        }
        // A token that is renewed tells of the same login.
        if let Some(kept) = self.place.read()?.filter(|_| !challenge.is_step_up()) {
            if Some(&Carried::of(&kept)?) != refused && !kept.is_over() {
                return self.hold(kept);
            }
            match self.renewed(&kept).await {
                Ok(fresh) => return self.hold(fresh),
                Err(RenewError::Over(why)) => complain(format_args!("bailiwick: the login has ended: {why}\n")),
                Err(RenewError::Unknown(problem)) => return Err(problem),
            }
        }
        if self.asking == Asking::Never {
            let what = if challenge.is_step_up() { "this needs a fresh login" } else { "nobody is logged in" };
            return Err(format!("{what}: run `{}`", self.command()));
        }
        if let Some((at, problem)) = &*turn
            && at.elapsed() < limit::LOGIN_PAUSE
        {
            return Err(problem.clone());
        }
        match self.log_in(challenge, refused).await {
            Ok(kept) => {
                // A token that is refused at once is no reason to open the browser again at once.
                let problem = format!(
                    "the gateway refuses the login of a moment ago: ask its administrator why, or run `{}`",
                    self.command()
                );
                *turn = Some((Instant::now(), problem));
                self.hold(kept)
            }
            Err(problem) => {
                let problem = format!("not logged in: {problem}; or run `{}`", self.command());
                *turn = Some((Instant::now(), problem.clone()));
                Err(problem)
            }
        }
    }

    /// What a person types to log in here.
    fn command(&self) -> String {
        let option = if self.url.path().trim_end_matches('/').ends_with("/admin") { "--admin" } else { "--url" };
        format!("bailiwick login {option} {}", self.url)
    }

    /// Logs in whatever is kept, and keeps the result.
    pub(super) async fn anew(&self, challenge: &Challenge) -> Result<Kept, String> {
        let turn = self.place.turn().await?;
        let kept = log_in(&self.url, &self.options, challenge).await?;
        self.place.write(&kept, &turn)?;
        Ok(kept)
    }

    async fn log_in(&self, challenge: &Challenge, refused: Option<&Carried>) -> Result<Kept, String> {
        let turn = self.place.turn().await?;
        // Another process may have logged in while this one waited.
        if let Some(kept) = self.place.read()?
            && kept.is_fresh()
            && !challenge.is_step_up()
            && Some(&Carried::of(&kept)?) != refused
        {
            return Ok(kept);
        }
        let kept = log_in(&self.url, &self.options, challenge).await?;
        self.place.write(&kept, &turn)?;
        Ok(kept)
    }

    /// Renews what is kept, unless another process just did.
    async fn renewed(&self, before: &Kept) -> Result<Kept, RenewError> {
        let turn = self.place.turn().await.map_err(RenewError::Unknown)?;
        let now = self.place.read().map_err(RenewError::Unknown)?;
        let Some(now) = now else { return Err(RenewError::Over("the login was ended".to_owned())) };
        if now.access_token.expose_secret() != before.access_token.expose_secret() && now.is_fresh() {
            return Ok(now);
        }
        let fresh = renew(&now).await?;
        // A refresh token works once: without its successor on the disk the next start would have none.
        self.place.write(&fresh, &turn).map_err(RenewError::Unknown)?;
        Ok(fresh)
    }

    fn held(&self) -> Option<Arc<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hold(&self, kept: Kept) -> Result<Carried, String> {
        let carried = Carried::of(&kept)?;
        let held = Arc::new(Held { kept, carried: carried.clone() });
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        Ok(carried)
    }
}

/// Runs to its end although the request that asked for it was cancelled: a refresh token works once, and a person in
/// front of the login page does not know about requests.
async fn finished<T: Send + 'static>(
    work: impl Future<Output = Result<T, String>> + Send + 'static,
) -> Result<T, String> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(format!("the login broke off: {error}")))
}
