//! What a message of a feed takes back, as revocations.
//!
//! Invariants: there is no order that gives anything back; every order names the feed's own issuer; and a sign-out
//! reaches up to the moment that its sender named, so that the same message takes nothing more back when it comes again.

use std::sync::Arc;

use super::taken::Taking;
use super::{Brake, Feeds};
use crate::config::FeedConfig;
use crate::config::feed::Ends;
use crate::identity::revoked::{Revocation, RevocationMode, RevocationTarget};
use crate::ids::{IssuerAlias, Subject};
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::record::redact;

/// What is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// What this person got until then.
    SignOut(String),
    /// What belongs to this session.
    EndSession(String),
    /// What this person got until then, whatever they answer for, and accounts that they linked: they have left.
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
    /// Carries orders out, and remembers that their message was taken; durable and in force when it returns. It comes to
    /// its end whether its sender waits for that or has hung up. `moment` is when its sender knew, in seconds since 1970.
    pub(super) async fn carry_out(
        &self,
        feed: &FeedConfig,
        orders: Vec<(Order, String)>,
        moment: i64,
        taking: Option<Taking>,
    ) -> Result<(), Failure> {
        let (brake, actor, issuer) = (Arc::clone(&self.brake), actor(feed), feed.issuer.clone());
        let carrying = tokio::spawn(async move {
            for (order, why) in &orders {
                let carried = one(&*brake, &actor, &issuer, order, moment, why).await;
                // Whoever sent it may not be there any more to hear of it.
                carried.inspect_err(|failure| tracing::error!(%failure, actor, "what a feed ordered is not done"))?;
            }
            if let Some(taking) = taking {
                taking.keep();
            }
            Ok(())
        });
        carrying.await.unwrap_or_else(|error| Err(Failure::before(Reason::Internal, error.to_string())))
    }
}

async fn one(
    brake: &dyn Brake,
    actor: &str,
    issuer: &IssuerAlias,
    order: &Order,
    moment: i64,
    why: &str,
) -> Result<(), Failure> {
    let now = brake.now_s().await?;
    let skew = i64::try_from(limit::SIGN_OUT_SKEW.as_secs()).unwrap_or_default();
    let until = RevocationMode::SignOut { issued_before: moment.min(now).saturating_add(skew) };
    let issuer = issuer.clone();
    let revoke = |target: RevocationTarget, mode: RevocationMode| {
        let note = redact::text(why).into_owned();
        brake.revoke(Revocation { target, mode, actor: actor.to_owned(), note, at: now })
    };
    match order {
        Order::SignOut(subject) => revoke(RevocationTarget::Subject(issuer, subject.clone()), until).await.map(drop),
        Order::EndSession(session) => {
            revoke(RevocationTarget::SessionOf(issuer, session.clone()), until).await.map(drop)
        }
        Order::Left(subject) => {
            let owner = RevocationTarget::Owner(Subject::user(&issuer, subject).to_string());
            let target = RevocationTarget::Subject(issuer, subject.clone());
            revoke(target.clone(), until).await?;
            revoke(owner, RevocationMode::Block).await?;
            brake.left(&target, actor).await
        }
    }
}
