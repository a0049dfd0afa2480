//! Who is signed in: sessions in memory, found by what the browser's cookie holds.
//!
//! Decides when a session is over: idle for too long, too old, ended, or its token neither good nor renewed. Refuses to
//! know what anybody may do. Invariants: of a cookie only the digest is kept; tokens never leave this process except
//! to the issuer; nothing is renewed for somebody from whom access was taken; a session ends with whatever follows it
//! ([`Session::over`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;

use super::Console;
use crate::identity::{Caller, now_s};
use crate::ids::Digest;
use crate::limit;
pub(super) use crate::oauth::browser::random;
use crate::oauth::person::{Granted, RenewError};
use crate::outcome::{Failure, Reason, Refusal, Stop};

/// Somebody who signed in.
pub(super) struct Session {
    /// What every form carries.
    pub(super) csrf: String,
    /// Who, as rules spell them.
    pub(super) person: String,
    began: Instant,
    used: Mutex<Instant>,
    tokens: Arc<tokio::sync::Mutex<Tokens>>,
    over: CancellationToken,
}

struct Tokens {
    access: SecretString,
    refresh: Option<SecretString>,
    /// Who they were when that was looked at last.
    caller: Caller,
}

/// What finds a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Somebody opens a page or sends a form.
    Click,
    /// A page of theirs goes on by itself, which keeps no session alive.
    Follow,
}

/// All sessions.
#[derive(Default)]
pub(super) struct Sessions {
    held: Mutex<HashMap<Digest, Arc<Session>>>,
}

impl Sessions {
    /// Begins a session; answers what the cookie holds.
    pub(super) fn begin(&self, person: String, granted: Granted, caller: Caller) -> String {
        let now = Instant::now();
        let session = Session {
            csrf: random(),
            person,
            began: now,
            used: Mutex::new(now),
            tokens: Arc::new(tokio::sync::Mutex::new(Tokens {
                access: granted.access,
                refresh: granted.refresh,
                caller,
            })),
            over: CancellationToken::new(),
        };
        let id = random();
        let mut held = self.held();
        held.retain(|_, session| session.lives(now));
        // Whoever signs in again and again ends their own sessions, and nobody else's.
        let is_own = |known: &Session| known.person == session.person;
        while held.values().filter(|known| is_own(known)).count() >= limit::CONSOLE_SESSIONS_OF_ONE_MAX
            && end_idlest(&mut held, is_own)
        {}
        while held.len() >= limit::CONSOLE_SESSIONS_MAX && end_idlest(&mut held, |_| true) {}
        held.insert(Digest::sha256(id.as_bytes()), Arc::new(session));
        id
    }

    /// The session of a cookie, which is used by a click.
    pub(super) fn find(&self, id: &str, how: Use) -> Option<Arc<Session>> {
        let digest = Digest::sha256(id.as_bytes());
        let now = Instant::now();
        let mut held = self.held();
        let session = Arc::clone(held.get(&digest)?);
        if !session.lives(now) {
            held.remove(&digest);
            session.over.cancel();
            return None;
        }
        if how == Use::Click {
            *session.used.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
        Some(session)
    }

    /// Ends the session of a cookie.
    pub(super) fn end(&self, id: &str) {
        if let Some(session) = self.held().remove(&Digest::sha256(id.as_bytes())) {
            session.over.cancel();
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Session>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the one of these that was idle longest; whether there was one.
fn end_idlest(held: &mut HashMap<Digest, Arc<Session>>, of: impl Fn(&Session) -> bool) -> bool {
    let those = held.iter().filter(|(_, session)| of(session));
    let idlest = those.min_by_key(|(_, session)| session.last_used()).map(|(digest, _)| *digest);
    let gone = idlest.and_then(|digest| held.remove(&digest));
    gone.iter().for_each(|gone| gone.over.cancel());
    gone.is_some()
}

impl Session {
    fn last_used(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lives(&self, now: Instant) -> bool {
        !self.over.is_cancelled()
            && now.saturating_duration_since(self.began) < limit::CONSOLE_SESSION_AGE_MAX
            && now.saturating_duration_since(self.last_used()) < limit::CONSOLE_SESSION_IDLE_MAX
    }

    /// Waits for the end: what follows a session, such as a live log, ends with it. Following is no use of it.
    pub(super) async fn over(self: Arc<Self>) {
        while self.lives(Instant::now()) {
            tokio::select! {
                () = self.over.cancelled() => return,
                () = tokio::time::sleep(limit::STREAM_FAREWELL) => {}
            }
        }
    }

    /// Whether that is the token of this session's own pages; takes as long whatever is wrong with it.
    pub(super) fn is_own(&self, csrf: &str) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.csrf.as_bytes(), csrf.as_bytes()).is_ok()
    }

    /// Who it is, looked at again with every page: revocations hold at once, and a token that ends is renewed.
    ///
    /// # Errors
    /// Why they are nobody any more, or that nobody knows now.
    pub(super) async fn caller(self: &Arc<Self>, console: &Arc<Console>) -> Result<Caller, Stop> {
        let mut tokens = Arc::clone(&self.tokens).lock_owned().await;
        // What a new token says is no answer to an order about the old one.
        if let Err(refusal) = console.operations.still_trusted(&tokens.caller) {
            self.over.cancel();
            return Err(refusal.into());
        }
        let early = i64::try_from(limit::CONSOLE_RENEW_BEFORE.as_secs()).unwrap_or_default();
        let ends = now_s() >= tokens.caller.token().expires_at.saturating_sub(early);
        let Some(refresh) = tokens.refresh.clone().filter(|_| ends) else {
            return self.look(console, &mut tokens).await;
        };
        let (session, console) = (Arc::clone(self), Arc::clone(console));
        // The issuer gives each of them once: whoever asked for the page may be gone before it answers.
        let renewed = tokio::spawn(async move {
            let renewed = match console.settings() {
                Some(settings) => console.provider.renew(&settings.sign_in(), &refresh).await,
                None => Err(RenewError::Over),
            };
            match renewed {
                // Kept before it is looked at, which may fail for reasons that pass.
                Ok(granted) => {
                    tokens.access = granted.access;
                    tokens.refresh = granted.refresh.or(Some(refresh));
                }
                Err(RenewError::Over) => tokens.refresh = None,
                // The old one may be good for some seconds more.
                Err(RenewError::Unknown(problem)) => tracing::warn!(problem, "a console session was not renewed"),
            }
            session.look(&console, &mut tokens).await
        });
        renewed.await.unwrap_or_else(|error| Err(Failure::before(Reason::Internal, error.to_string()).into()))
    }

    /// Whose token it is now: what was renewed is somebody's only after it was verified, as everything else.
    async fn look(&self, console: &Console, tokens: &mut Tokens) -> Result<Caller, Stop> {
        let caller = console.authenticate(&tokens.access).await?;
        if caller.persona().user.as_ref().is_none_or(|user| user.as_str() != self.person) {
            self.over.cancel();
            let hint = "the issuer renewed the token for somebody else";
            return Err(Refusal::new(Reason::TokenMalformed).hint(hint).into());
        }
        tokens.caller = caller.clone();
        Ok(caller)
    }
}

impl Console {
    /// Whose access token this is, exactly as at the API.
    pub(super) async fn authenticate(&self, token: &SecretString) -> Result<Caller, Stop> {
        self.operations.authenticate(Some(token.expose_secret())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(sessions: &Sessions, person: &str) -> String {
        let granted = Granted { access: "a".to_owned().into(), refresh: None };
        sessions.begin(person.to_owned(), granted, crate::identity::fixture::somebody())
    }

    #[test]
    fn a_session_is_found_by_its_cookie_until_it_ends() {
        let sessions = Sessions::default();
        let id = begin(&sessions, "user:corp/ann");
        let found = sessions.find(&id, Use::Click).unwrap();
        assert!(found.is_own(&found.csrf.clone()) && !found.is_own("") && !found.is_own(&id));
        assert!(sessions.find("x", Use::Click).is_none());
        assert!(!sessions.held().keys().any(|digest| digest.to_string() == id), "the cookie is not kept");
        sessions.end(&id);
        assert!(sessions.find(&id, Use::Click).is_none() && found.over.is_cancelled());
    }

    #[test]
    fn a_session_ends_idle_and_ends_old() {
        let sessions = Sessions::default();
        let id = begin(&sessions, "user:corp/ann");
        let session = sessions.find(&id, Use::Click).unwrap();
        let soon = |of: std::time::Duration| of - std::time::Duration::from_secs(5);
        let began = session.began;
        assert!(session.lives(began + soon(limit::CONSOLE_SESSION_IDLE_MAX)));
        assert!(!session.lives(began + limit::CONSOLE_SESSION_IDLE_MAX + std::time::Duration::from_secs(5)));
        *session.used.lock().unwrap() = began + limit::CONSOLE_SESSION_AGE_MAX;
        assert!(session.lives(began + soon(limit::CONSOLE_SESSION_AGE_MAX)));
        assert!(!session.lives(began + limit::CONSOLE_SESSION_AGE_MAX), "however busy");
    }

    #[test]
    fn following_is_no_use_of_a_session() {
        let sessions = Sessions::default();
        let id = begin(&sessions, "user:corp/ann");
        let session = sessions.find(&id, Use::Click).unwrap();
        let ahead = session.began + std::time::Duration::from_secs(60);
        *session.used.lock().unwrap() = ahead;
        assert_eq!(sessions.find(&id, Use::Follow).unwrap().last_used(), ahead);
        assert_ne!(sessions.find(&id, Use::Click).unwrap().last_used(), ahead);
    }

    #[test]
    fn whoever_was_idle_longest_makes_room() {
        let sessions = Sessions::default();
        let ids: Vec<String> = (0..=limit::CONSOLE_SESSIONS_MAX)
            .map(|number| begin(&sessions, &format!("user:corp/ann-{number}")))
            .collect();
        assert_eq!(sessions.held().len(), limit::CONSOLE_SESSIONS_MAX);
        assert!(sessions.find(&ids[0], Use::Click).is_none());
        assert!(sessions.find(&ids[limit::CONSOLE_SESSIONS_MAX], Use::Click).is_some());
    }

    #[test]
    fn whoever_signs_in_again_and_again_ends_their_own_sessions_and_nobody_elses() {
        let sessions = Sessions::default();
        let bob = begin(&sessions, "user:corp/bob");
        let most = limit::CONSOLE_SESSIONS_OF_ONE_MAX;
        let ids: Vec<String> = (0..=most).map(|_| begin(&sessions, "user:corp/ann")).collect();
        assert_eq!(sessions.held().len(), most + 1);
        assert!(sessions.find(&ids[0], Use::Click).is_none() && sessions.find(&ids[1], Use::Click).is_some());
        assert!(sessions.find(&bob, Use::Click).is_some(), "idle for longer than all of hers");
    }
}
