//! What a message of a feed takes back, as revocations.
//!
//! Invariants: there is no order that gives anything back; every order names the feed's own issuer; and a sign-out
//! reaches up to the moment that its sender named, so that the same message takes nothing more back when it comes again.

use super::Feeds;
use crate::config::FeedConfig;
use crate::config::feed::Ends;
use crate::identity::revoked::{Revocation, RevocationMode, RevocationTarget};
use crate::ids::Subject;
use crate::limit;
use crate::outcome::Failure;
use crate::record::redact;

/// What is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// What this person got until then.
    SignOut(String),
    /// What belongs to this session.
    EndSession(String),
    /// What this person got until then, and whatever they answer for: they have left.
    Left(String),
}

impl Order {
    /// What ends where these are named; nothing where neither is.
    pub(super) fn end(feed: &FeedConfig, subject: Option<&str>, session: Option<&str>) -> Option<Self> {
        match (subject, session, feed.ends) {
            (Some(subject), None, _) | (Some(subject), Some(_), Ends::Subject) => {
                Some(Self::SignOut(subject.to_owned()))
            }
            (_, Some(session), _) => Some(Self::EndSession(session.to_owned())),
            (None, None, _) => None,
        }
    }
}

/// Who ordered it, as the record spells it.
pub(super) fn actor(feed: &FeedConfig) -> String {
    format!("feed:{}", feed.name)
}

impl Feeds {
    /// Carries an order out; durable and in force when it returns. `moment` is when its sender knew, in seconds since
    /// 1970.
    pub(super) async fn carry_out(
        &self,
        feed: &FeedConfig,
        order: &Order,
        moment: i64,
        why: &str,
    ) -> Result<(), Failure> {
        let now = self.brake.now_s().await?;
        let skew = i64::try_from(limit::SIGN_OUT_SKEW.as_secs()).unwrap_or_default();
        let until = RevocationMode::SignOut { issued_before: moment.min(now).saturating_add(skew) };
        let issuer = feed.issuer.clone();
        let revocations = match order {
            Order::SignOut(subject) => vec![(RevocationTarget::Subject(issuer, subject.clone()), until)],
            Order::EndSession(session) => vec![(RevocationTarget::SessionOf(issuer, session.clone()), until)],
            Order::Left(subject) => {
                let owner = Subject::user(&issuer, subject).to_string();
                vec![
                    (RevocationTarget::Subject(issuer, subject.clone()), until),
                    (RevocationTarget::Owner(owner), RevocationMode::Block),
                ]
            }
        };
        for (target, mode) in revocations {
            let note = redact::text(why).into_owned();
            self.brake.revoke(Revocation { target, mode, actor: actor(feed), note, at: now }).await?;
        }
        Ok(())
    }
}
