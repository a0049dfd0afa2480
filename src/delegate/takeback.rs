//! Taking issued credentials back: at their authorization servers where those can, and told as it is.
//!
//! Decides what is tried and what is said of it. Invariants: what is dropped here is used no more, whatever its
//! authorization server says; nothing is called revoked that its authorization server did not take back; what waits for
//! an authorization server is tried until it expires by itself, also by whoever comes after this process ([`super::owed`]);
//! one that does not answer keeps no other from taking back.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::AnsweredError;
use super::apart::AtOnce;
use super::endpoint::{AuthorizationServer, Endpoints, Form};
use super::held::Held;
use super::issued::Issued;
use super::ledger::Ledger;
use crate::config::TokenRequest;
use crate::identity::now_s;
use crate::inversion::{self, Control};
use crate::limit;

/// What became of a credential that was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Taken {
    /// Its authorization server has taken it back (RFC 7009).
    Revoked,
    /// Its authorization server has not answered yet; it is tried again.
    Pending,
    /// The gateway does not hold it any more: it ends by itself.
    ExpiresAt,
    /// Its authorization server takes nothing back, or it is a secret that nobody issued.
    Unsupported,
}

/// What became of the credentials for one upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenBack {
    /// The server.
    pub server: String,
    /// What became of them.
    pub state: Taken,
    /// How many there were.
    pub credentials: usize,
    /// When the last of them ends by itself, seconds since 1970; nobody knows where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// Why it is not `revoked`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Taken {
    /// The spelling in reports and in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Pending => "pending",
            Self::ExpiresAt => "expires_at",
            Self::Unsupported => "unsupported",
        }
    }
}

/// What takes credentials back.
#[derive(Debug)]
pub(super) struct TakingBack {
    endpoints: Arc<Endpoints>,
    held: Arc<Held>,
    at_once: AtOnce,
    under_way: Arc<Mutex<HashSet<String>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// One credential that is being taken back.
#[derive(Debug)]
pub(super) struct Taking {
    pub issued: Arc<Issued>,
    first: oneshot::Receiver<(Taken, String)>,
}

impl TakingBack {
    pub fn new(endpoints: Arc<Endpoints>, held: Arc<Held>, tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self { endpoints, held, at_once: AtOnce::default(), under_way: Arc::default(), tasks, stop }
    }

    /// Begins to take one back, and goes on until it is, or has ended.
    pub fn begin(&self, issued: Arc<Issued>, ledger: Option<Arc<Ledger>>) -> Taking {
        let note = Arc::new(Note::new(Owing::No));
        if let Some(ledger) = &ledger {
            self.note(Arc::clone(ledger), vec![(Arc::clone(&issued), Arc::clone(&note))]);
        }
        self.go(issued, ledger, note)
    }

    /// The same of several.
    pub fn begin_all(&self, issued: Vec<Arc<Issued>>, ledger: Option<&Arc<Ledger>>) -> Vec<Taking> {
        let all: Vec<_> = issued.into_iter().map(|issued| (issued, Arc::new(Note::new(Owing::No)))).collect();
        if let Some(ledger) = ledger {
            self.note(Arc::clone(ledger), all.clone());
        }
        all.into_iter().map(|(issued, note)| self.go(issued, ledger.cloned(), note)).collect()
    }

    /// Notes those that somebody could still use, beside the first attempts: should this process be killed now, whoever comes
    /// next gives them back.
    fn note(&self, ledger: Arc<Ledger>, mut all: Vec<(Arc<Issued>, Arc<Note>)>) {
        all.retain(|(issued, _)| now_s() < issued.used_until());
        self.tasks.spawn(async move { ledger.owe_all(&all).await });
    }

    fn go(&self, issued: Arc<Issued>, ledger: Option<Arc<Ledger>>, note: Arc<Note>) -> Taking {
        let (told, first) = oneshot::channel();
        let (owing, kept) = (ledger.clone(), Arc::clone(&issued));
        let places = self.at_once.at(&issued.from.name());
        let noting = ledger.map(|ledger| (ledger, Arc::clone(&note)));
        let work = until_done(Arc::clone(&self.endpoints), places, Arc::clone(&issued), noting, told);
        let (stop, under_way, id) = (self.stop.clone(), Arc::clone(&self.under_way), issued.id.clone());
        let held = Arc::clone(&self.held);
        under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        self.tasks.spawn(async move {
            match (stop.run_until_cancelled(work).await, owing) {
                (Some(Taken::Revoked), _) => held.gone(&id),
                // The gateway stops meanwhile: whoever comes next goes on.
                (None, Some(ledger)) => ledger.owe_once(&kept, &note).await,
                _ => {}
            }
            under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        });
        Taking { issued, first }
    }

    /// Whether one is still being taken back.
    pub fn is_under_way(&self, id: &str) -> bool {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}

/// What became of all of them by now, for each upstream; waits a little for authorization servers that answer.
pub(super) async fn report(taking: Vec<Taking>) -> Vec<TakenBack> {
    if inversion::is_off(Control::Report) {
        return Vec::new();
    }
    let deadline = tokio::time::Instant::now() + limit::REVOKE_REPORT_WAIT;
    let mut told = Vec::with_capacity(taking.len());
    for Taking { issued, first } in taking {
        let pending = || (Taken::Pending, "its authorization server has not answered yet".to_owned());
        let outcome = match tokio::time::timeout_at(deadline, first).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => pending(),
        };
        told.push((issued.server.to_string(), outcome.0, issued.ends().expires_at, outcome.1));
    }
    grouped(told)
}

/// One line for each upstream and outcome.
pub(super) fn grouped(told: Vec<(String, Taken, Option<i64>, String)>) -> Vec<TakenBack> {
    let mut lines: Vec<TakenBack> = Vec::new();
    for (server, state, expires_at, detail) in told {
        match lines.iter_mut().find(|line| line.server == server && line.state == state) {
            None => lines.push(TakenBack { server, state, credentials: 1, expires_at, detail }),
            Some(line) => {
                line.credentials = line.credentials.saturating_add(1);
                // Where nobody knows when one of them ends, nobody knows when the last does.
                line.expires_at = line.expires_at.zip(expires_at).map(|(one, other)| one.max(other));
            }
        }
    }
    lines.sort_by(|one, other| (&one.server, one.state).cmp(&(&other.server, other.state)));
    lines
}

async fn until_done(
    endpoints: Arc<Endpoints>,
    at_once: Arc<Semaphore>,
    issued: Arc<Issued>,
    noting: Option<(Arc<Ledger>, Arc<Note>)>,
    told: oneshot::Sender<(Taken, String)>,
) -> Taken {
    let mut told = Some(told);
    let mut pause = limit::CREDENTIAL_REVOKE_RETRY_MIN;
    let unknown = issued.issued_at.saturating_add(super::seconds(limit::CREDENTIAL_UNKNOWN_LIFE_KEPT));
    let ends = issued.ends().expires_at.unwrap_or(unknown);
    loop {
        let trying = async {
            let _permit = at_once.acquire().await;
            attempt(&endpoints, &issued.asks, &issued.from, issued.secret()).await
        };
        tokio::pin!(trying);
        let soon = tokio::time::timeout(limit::CREDENTIAL_OWED_AFTER, &mut trying).await;
        let first = told.is_some();
        // Whoever waits hears soon that it is pending, and that has to be so after a restart as well.
        if let (Some((ledger, note)), Err(_) | Ok((Taken::Pending, _))) = (&noting, &soon) {
            ledger.owe_once(&issued, note).await;
        }
        let (taken, detail) = match soon {
            Ok(tried) => tried,
            Err(_) => trying.await,
        };
        if let Some((ledger, note)) = noting.as_ref().filter(|_| first || taken != Taken::Pending) {
            let mut note = note.lock().await;
            let owing = *note;
            if taken != Taken::Pending {
                // Nobody writes it down any more.
                *note = Owing::Over;
            }
            drop(note);
            noted(ledger, &issued.id, taken, owing).await;
        }
        if taken == Taken::Pending && first {
            tracing::warn!(credential = issued.id, server = %issued.server, detail, "a credential could not be taken back yet; it is tried again");
        }
        if let Some(told) = told.take() {
            // Whoever asked may have stopped waiting.
            let _unheard = told.send((taken, detail));
        }
        if taken != Taken::Pending {
            return taken;
        }
        tokio::time::sleep(pause).await;
        pause = doubled(pause);
        if now_s() >= ends {
            return Taken::ExpiresAt;
        }
    }
}

fn doubled(pause: Duration) -> Duration {
    pause.saturating_mul(2).min(limit::CREDENTIAL_REVOKE_RETRY_MAX)
}

/// Whether it is noted that a token is still to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owing {
    Yes,
    No,
    /// Nobody has to give it back any more.
    Over,
}

/// The same, for whoever writes it down and whoever takes it back; held while it is being written.
pub(super) type Note = tokio::sync::Mutex<Owing>;

/// Writes down what became of one.
pub(super) async fn noted(ledger: &Ledger, id: &str, taken: Taken, owed: Owing) {
    let settled = if owed != Owing::Yes || taken == Taken::Pending { Ok(()) } else { ledger.settled(id).await };
    if let Err(failure) = ledger.taken(id, taken).await.and(settled) {
        tracing::warn!(credential = id, %failure, "what became of a credential is not in the ledger");
    }
}

/// One request of RFC 7009.
pub(super) async fn attempt(
    endpoints: &Endpoints,
    asks: &TokenRequest,
    from: &AuthorizationServer,
    token: &SecretString,
) -> (Taken, String) {
    let at = match endpoints.revocation_endpoint(asks, from).await {
        Ok(Some(at)) => at,
        Ok(None) => {
            return (Taken::Unsupported, "its authorization server names no revocation endpoint".to_owned());
        }
        Err(problem) => return (Taken::Pending, problem),
    };
    let form = Form::default()
        .with("token_type_hint", "access_token")
        .with_secret("token", SecretString::from(token.expose_secret()));
    let (form, answer) = match endpoints.ask(&at, asks, form).await {
        Ok(answered) => answered,
        Err(problem) => return (Taken::Pending, problem),
    };
    let status = answer.status();
    if status.is_success() {
        return (Taken::Revoked, String::new());
    }
    let code = AnsweredError::read(answer.body(), &form.secrets()).map(|error| error.code).unwrap_or_default();
    if code == "unsupported_token_type" || matches!(status.as_u16(), 404 | 405 | 501) {
        return (Taken::Unsupported, format!("its authorization server does not take it back ({status} {code})"));
    }
    (Taken::Pending, format!("its authorization server answered {status} {code}").trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_one_line_for_each_upstream_and_outcome() {
        let told = vec![
            ("git".to_owned(), Taken::Revoked, Some(10), String::new()),
            ("crm".to_owned(), Taken::Pending, Some(10), "away".to_owned()),
            ("git".to_owned(), Taken::Revoked, Some(20), String::new()),
            ("git".to_owned(), Taken::Unsupported, Some(5), "no".to_owned()),
            ("crm".to_owned(), Taken::Pending, None, "away".to_owned()),
        ];
        let lines: Vec<String> = grouped(told)
            .into_iter()
            .map(|line| format!("{} {} {} {:?}", line.server, line.state.as_str(), line.credentials, line.expires_at))
            .collect();
        assert_eq!(lines, ["crm pending 2 None", "git revoked 2 Some(20)", "git unsupported 1 Some(5)"]);
    }

    #[test]
    fn what_is_told_to_be_pending_was_noted_before() {
        assert!(limit::CREDENTIAL_OWED_AFTER < limit::REVOKE_REPORT_WAIT);
    }

    #[test]
    fn it_is_tried_again_ever_more_seldom_and_never_gives_up_at_once() {
        let mut pause = limit::CREDENTIAL_REVOKE_RETRY_MIN;
        for _ in 0..20 {
            let next = doubled(pause);
            assert!(next >= pause && next <= limit::CREDENTIAL_REVOKE_RETRY_MAX);
            pause = next;
        }
        assert_eq!(pause, limit::CREDENTIAL_REVOKE_RETRY_MAX);
    }
}
