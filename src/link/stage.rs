//! How far a browser has come: kept by the browser itself, sealed, and good for one step.
//!
//! Decides what a step needs to know of the one before. Invariants: what one browser keeps is of no use in another
//! without its cookie, and rests on what the link rests on; an answer of an issuer is taken once, whichever replica it
//! comes to.

use std::sync::Arc;

use http::StatusCode;
use http::header::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use super::Visit;
use super::pages::Page;
use super::ticket::{Ticket, nobody};
use crate::delegate::vault::Owner;
use crate::gateway::Gateway;
use crate::identity::now_s;
use crate::ids::Digest;
use crate::limit;
use crate::oauth::browser;
use crate::shelf::{Action, Change, Changed, Expect, Section, Shelf as _, Tell};
use crate::wire::voids::Holder;

const COOKIE: &str = "bailiwick_link";
const PURPOSE: &str = "link stage";
/// Answers that were taken.
const TAKEN: Section = Section { name: "link state", rows_max: limit::LINK_STATES_MAX };

/// How many answers were taken from each person.
const ANSWERS: Section = Section { name: "link answers", rows_max: limit::LINK_STATES_MAX };

/// How far a browser has come.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub ticket: Ticket,
    pub way: Way,
    /// What the link rests on: once that is taken back, nobody goes on with it.
    pub rests_on: Holder,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    #[serde(rename = "t")]
    ticket: Ticket,
    #[serde(rename = "w")]
    way: Way,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Way {
    /// It is at the person's own issuer.
    #[serde(rename = "i")]
    SigningIn { state: String, nonce: String, verifier: String },
    /// It is the person's own; the page that names upstream, scopes and account carries `check`.
    #[serde(rename = "c")]
    Known { check: String },
    /// It is at the upstream's authorization server.
    #[serde(rename = "a")]
    Away { state: String, verifier: String, issuer: String, client: String },
}

impl Stage {
    /// The cookie that keeps it.
    pub(super) fn cookie(self, gateway: &Gateway) -> Option<HeaderValue> {
        let content = serde_json::to_vec(&Kept { ticket: self.ticket, way: self.way }).ok()?;
        let sealed = gateway.sealer().seal_for(PURPOSE, &self.rests_on, &content).ok()?;
        browser::set(COOKIE, &sealed, is_secure(gateway), Some(limit::LINK_AGE_MAX))
    }

    /// What this browser kept, if it is ours and the link is good.
    pub(super) fn of(gateway: &Gateway, headers: &HeaderMap) -> Option<Self> {
        let sealed = browser::read(headers, COOKIE, is_secure(gateway))?;
        let opened = gateway.sealer().open_resting(PURPOSE, nobody(), sealed, limit::HANDLE_BYTES_MAX);
        let (rests_on, content) = opened?;
        let Kept { ticket, way } = serde_json::from_slice(&content).ok()?;
        ticket.is_current(now_s()).then_some(Self { ticket, way, rests_on })
    }

    /// Whether its owner may still link that account.
    ///
    /// # Errors
    /// The page that says why not.
    pub(super) fn may_go_on(gateway: &Gateway, ticket: &Ticket, rests_on: &Holder) -> Result<(), Page> {
        let wrong = |status, hint: &str| Page::problem(status, hint).keeping(forget(gateway));
        if !gateway.sealer().holds(rests_on) {
            return Err(wrong(StatusCode::FORBIDDEN, "What this link rests on was taken back: ask for another one."));
        }
        let may = gateway.may_link(&ticket.owner, &ticket.server, ticket.made_at);
        may.map_err(|refusal| wrong(StatusCode::FORBIDDEN, &format!("{}.", refusal.hint)))
    }
}

/// Makes the browser forget how far it has come.
pub(super) fn forget(gateway: &Gateway) -> Option<HeaderValue> {
    browser::clear(COOKIE, is_secure(gateway))
}

/// Takes an answer with that state, which is taken once.
///
/// # Errors
/// The page that says why it is not taken.
pub(super) async fn take(gateway: &Arc<Gateway>, ticket: &Ticket, visit: &Visit<'_>, state: &str) -> Result<(), Page> {
    let wrong = |status, problem: &str| Page::problem(status, problem).keeping(forget(gateway));
    // What is no answer at all leaves nothing behind.
    if browser::query(visit.query, "code").is_none() && browser::query(visit.query, "error").is_none() {
        return Err(wrong(StatusCode::BAD_REQUEST, "That is no answer: it has neither a code nor an error."));
    }
    let store = gateway.store();
    let taken = async {
        let changes = taken(&ticket.owner, state, store.clock_us().await?);
        store.change(changes, Tell::Nobody).await
    };
    match taken.await {
        Ok(Changed::Done { .. }) => Ok(()),
        Ok(Changed::Conflict(0)) => Err(wrong(StatusCode::BAD_REQUEST, "This answer was taken already.")),
        Ok(Changed::Conflict(_) | Changed::Full(_)) => {
            Err(wrong(StatusCode::TOO_MANY_REQUESTS, "Too many accounts were being linked: try again in some minutes."))
        }
        Err(failure) => Err(Page::problem(StatusCode::SERVICE_UNAVAILABLE, &failure.to_string())),
    }
}

/// One more answer of that person, if it is new and they have not had too many.
fn taken(owner: &Owner, state: &str, now_us: i64) -> Vec<Change> {
    let age_max = i64::try_from(limit::LINK_AGE_MAX.as_micros()).unwrap_or(i64::MAX);
    let expires_at_us = Some(now_us.saturating_add(age_max));
    let action = Action::Put { owner: String::new(), body: String::new(), expires_at_us };
    let one_more = Action::Count { by: 1, at_most: limit::LINK_ANSWERS_MAX, expires_at_us };
    let whose = Digest::sha256(owner.spelled().as_bytes()).to_string();
    vec![
        Change::new(TAKEN, Digest::sha256(state.as_bytes()).to_string(), Expect::Absent, action),
        Change::new(ANSWERS, whose, Expect::Anything, one_more),
    ]
}

fn is_secure(gateway: &Gateway) -> bool {
    gateway.config().gateway.public_url.scheme() == "https"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_remembered_by_its_digest_for_as_long_as_it_could_come_back() {
        let owner = Owner { issuer: crate::ids::IssuerAlias::new("corp").unwrap(), subject: "ann".to_owned() };
        let changes = taken(&owner, "secret-state", 5);
        assert!(!format!("{changes:?}").contains("secret-state"));
        let [change, count] = changes.as_slice() else { panic!("{changes:?}") };
        assert!(matches!(count.action, Action::Count { by: 1, at_most: limit::LINK_ANSWERS_MAX, .. }));
        let other = taken(&Owner { subject: "bob".to_owned(), ..owner }, "another", 5);
        assert_ne!(other[1].key, count.key, "one of them keeps no other from linking");
        assert_eq!((change.section.rows_max, change.expect), (limit::LINK_STATES_MAX, Expect::Absent));
        let age_max = i64::try_from(limit::LINK_AGE_MAX.as_micros()).unwrap();
        assert!(matches!(change.action, Action::Put { expires_at_us: Some(at), .. } if at == 5 + age_max));
    }
}
